"""Telling instruments, and refusing what is none: without a pool."""

import logging

import pytest

from trio_dirty import Instrument, open_pool
from trio_dirty._rules.instruments import HOOKS, Instruments
from trio_dirty.testing import EventLog


class Remembers:
    """Has every hook, and remembers what it was told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        if name not in HOOKS:
            raise AttributeError(name)
        return lambda *event: self.told.append((name, *event))


def test_every_hook_is_told_with_what_it_is_called_with():
    one, other = Remembers(), Remembers()
    instruments = Instruments.checked([one, other])
    for number, hook in enumerate(HOOKS):
        getattr(instruments, hook)(number, "something")
    assert one.told == other.told == [(hook, n, "something") for n, hook in enumerate(HOOKS)]


def test_every_hook_of_the_base_class_does_nothing():
    instrument = Instrument()
    for hook, arguments in zip(HOOKS, (3, 2, 3, 1, 2, 2, 2, 2, 1, 2, 3, 3, 4), strict=True):
        assert getattr(instrument, hook)(*range(arguments)) is None


def test_they_are_told_in_their_order():
    order = []

    class Named(Instrument):
        def __init__(self, name):
            self.name = name

        def request_begun(self, *event):
            order.append(self.name)

    Instruments.checked([Named("first"), Named("second")]).request_begun(1, 2, 3)
    assert order == ["first", "second"]


def test_one_that_raises_is_dropped_and_logged(caplog):
    class Bad(Remembers):
        def __repr__(self):
            return "<Bad>"

        def slot_opened(self, *event):
            self.told.append("raised")
            raise KeyboardInterrupt

    bad, good = Bad(), Remembers()
    instruments = Instruments.checked([bad, good])
    with caplog.at_level(logging.ERROR, "trio_dirty"):
        for _ in range(2):
            instruments.slot_opened(1, ())
            instruments.slot_closed(1, None)
    assert bad.told == ["raised"]
    assert len(good.told) == 4
    (record,) = caplog.records
    assert record.getMessage() == "the instrument <Bad> raised in slot_opened, and has been dropped"
    assert record.exc_info[0] is KeyboardInterrupt


def test_hooks_that_are_only_inherited_are_not_called():
    class OnlyOne(Instrument):
        def worker_ready(self, slot, worker, pid):
            pass

    instruments = Instruments.checked([OnlyOne()])
    assert {name for name, hooks in instruments._hooks.items() if hooks} == {"worker_ready"}
    assert instruments.are_there


def test_where_there_are_none_the_hooks_do_nothing():
    instruments = Instruments.checked([])
    assert not instruments.are_there
    assert instruments.worker_ready(1, 2, 3) is None
    assert instruments.worker_ready.__func__ is Instrument.worker_ready


class Async:
    async def request_ended(self, request, outcome):
        pass


class Hookless:
    def __repr__(self):
        return "<Hookless>"


@pytest.mark.parametrize(
    ("instruments", "message"),
    [
        (
            [EventLog(), Async()],
            "instruments[1].request_ended must be a plain function, was async: hooks are called "
            "synchronously",
        ),
        (None, "instruments must be a list of instruments, was None"),
        (EventLog, f"instruments must be a list of instruments, was {EventLog!r}"),
        (
            [EventLog],
            "instruments[0] must be an object, was the class EventLog; write EventLog()",
        ),
        (
            [EventLog(), Hookless()],
            "instruments[1] must have some of the hooks of trio_dirty.Instrument, was <Hookless>",
        ),
    ],
)
def test_what_is_no_instrument_is_refused(instruments, message):
    with pytest.raises(TypeError) as caught:
        open_pool([], workers=1, instruments=instruments)
    assert str(caught.value) == message
