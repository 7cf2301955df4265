"""What becomes of the requests of a worker that has died, and what their callers are told."""

from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st

from trio_dirty import RequestTimeoutError, WorkerCrashedError
from trio_dirty._common.wire import CANCELLED
from trio_dirty._rules.deadlines import TIMEOUT, Due
from trio_dirty._rules.limits import Limits
from trio_dirty._rules.settlement import Death, settle, timed_out
from trio_dirty._rules.targets import AppPath, Target

ACT = Target(0, AppPath("apps", "App"), "act", b"")
FUNCTION = Target(None, None, "function", b"")


class Request(SimpleNamespace):
    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


def request(number, *, key=None, pinned=None, cancelled=False, target=ACT, streams=False, **limits):
    return Request(
        number=number,
        key=key,
        pinned=pinned,
        cancelled=cancelled,
        target=target,
        streams=streams,
        limits=Limits(**limits),
    )


unbegun = st.lists(
    st.builds(
        request,
        st.integers(0, 10_000),
        key=st.sampled_from([None, None, "a"]),
        cancelled=st.sampled_from([False, False, True]),
    )
    | st.builds(
        request, st.integers(0, 10_000), pinned=st.just(1), cancelled=st.sampled_from([False, True])
    ),
    unique_by=lambda one: one.number,
)


@given(unbegun, st.booleans(), st.booleans())
def test_each_request_gets_the_one_fate_that_is_its_own(requests, keeps_keys, keeps_pinned):
    settlement = settle(iter(requests), keeps_keys=keeps_keys, keeps_pinned=keeps_pinned)
    fates = {}
    for fate in ("kept", "moved", "withdrawn", "stranded"):
        several = getattr(settlement, fate)
        assert several == sorted(several, key=lambda one: one.number)
        for one in several:
            assert one not in fates
            fates[one] = fate
    assert fates.keys() == set(requests)
    for one, fate in fates.items():
        if one.cancelled:
            assert fate == "withdrawn"
        elif one.pinned is not None:
            assert fate == ("kept" if keeps_pinned else "stranded")
        elif one.key is not None:
            assert fate == ("kept" if keeps_keys else "moved")
        else:
            assert fate == "moved"


def death(**more):
    return Death(slot=2, worker=5, pid=77, exitcode=-9, how="process 77 was killed by X", **more)


def test_who_died_of_what_is_said():
    nothing = "worker 5 of slot 2 died while executing nothing: process 77 was killed by X"
    assert death().described([]) == nothing
    both = death().described([request(0), request(1, target=FUNCTION)])
    assert both == (
        "worker 5 of slot 2 died while executing apps:App.act and function: "
        "process 77 was killed by X"
    )
    assert death(is_unresponsive=True).described([]) == (
        f"{nothing}; the pool killed it because it stood still, as if stopped"
    )


@pytest.mark.parametrize(
    ("reason", "why"),
    [(TIMEOUT, "after timeout=2.0 seconds{}"), (CANCELLED, "because the caller{} was cancelled")],
)
def test_whose_limits_it_was_is_said_to_those_who_shared_the_worker(reason, why):
    culprit, other = request(0, timeout=2.0), request(1, target=FUNCTION)
    killed = death(killed_for=Due(culprit, "kill", reason))
    alone = killed.described([culprit])
    assert alone == f"{death().described([culprit])}; the pool killed it {why.format('')}"
    shared = killed.described([other, culprit])
    assert shared.endswith(f"; the pool killed it {why.format(' of apps:App.act')}")
    gone = killed.described([other, request(2)])
    assert gone.endswith(f"; the pool killed it {why.format('')}")


def test_what_may_have_begun_fails_with_the_death():
    one, function = request(0), request(1, target=FUNCTION)
    outcome, error = death().outcome(one, "text")
    assert outcome == "crashed"
    assert isinstance(error, WorkerCrashedError)
    assert (str(error), error.app, error.action) == ("text", "apps:App", "act")
    assert (error.slot, error.pid, error.exitcode) == (2, 77, -9)
    _, error = death().outcome(function, "text")
    assert (error.app, error.action) == (None, "function")
    error = death().error("text")
    assert (error.app, error.action, error.pid) == (None, None, 77)


def test_of_a_kill_for_a_time_out_only_the_one_that_was_late_has_timed_out():
    culprit, other = request(0, timeout=2.0), request(1)
    killed = death(killed_for=Due(culprit, "kill", TIMEOUT))
    assert killed.outcome(other, "text")[0] == "crashed"
    outcome, error = killed.outcome(culprit, "text")
    assert outcome == "timed_out"
    assert isinstance(error, RequestTimeoutError)
    assert str(error) == (
        "apps:App.act: it took longer than timeout=2.0 seconds, and its worker 5 of slot 2 was "
        "killed"
    )
    assert (error.soft, error.seconds, error.app, error.action) == (False, 2.0, "apps:App", "act")
    assert (error.slot, error.pid) == (2, 77)


def test_who_was_cancelled_is_told_nothing():
    culprit = request(0, cancelled=True)
    killed = death(killed_for=Due(culprit, "kill", CANCELLED))
    assert killed.outcome(culprit, "text") == ("killed", None)


def test_of_a_stream_a_step_was_late():
    error = timed_out(request(0, streams=True), "was late", 1.0, slot=3, pid=4, soft=True)
    assert str(error) == "apps:App.act: a step of its generator was late"
    assert (error.soft, error.seconds, error.slot, error.pid) == (True, 1.0, 3, 4)
