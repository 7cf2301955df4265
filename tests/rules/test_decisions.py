"""Pure policy: routing, shares, the ledger, the window and back-off, without any I/O."""

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trio_dirty._rules.ledger import AHEAD_LIMIT, Ledger, Window
from trio_dirty._rules.recycling import FAILURES_LIMIT, Backoff
from trio_dirty._rules.routing import Rotation, fair_share

SLOTS = 5


def request(number, app=0, size=1, streams=False, is_special=False):
    return SimpleNamespace(
        number=number, app=app, size=size, key=None, streams=streams, is_special=is_special
    )


class RotationMachine(RuleBasedStateMachine):
    """A rotation against its rule: the first ready slot behind the last one given."""

    rotation_type = Rotation

    def __init__(self):
        super().__init__()
        self.rotation = self.rotation_type()
        self.ready = set()
        self.last = None
        self.given = Counter()

    @rule(slot=st.integers(0, SLOTS - 1))
    def toggle(self, slot):
        if slot in self.ready:
            self.ready.remove(slot)
            self.rotation.remove(slot)
        else:
            self.ready.add(slot)
            self.rotation.add(slot)
        self.given.clear()

    @rule()
    def take(self):
        slot = self.rotation.take()
        if not self.ready:
            assert slot is None
            return
        behind = [s for s in sorted(self.ready) if self.last is None or s > self.last]
        assert slot == (behind or sorted(self.ready))[0]
        self.last = slot
        self.given[slot] += 1

    @invariant()
    def numbers_given_differ_by_at_most_one(self):
        counts = [self.given[slot] for slot in self.ready]
        assert not counts or max(counts) - min(counts) <= 1

    @invariant()
    def each_that_is_ready_is_a_bit(self):
        assert self.rotation.bits == sum(1 << slot for slot in self.ready)


test_fairness_of_the_rotation = RotationMachine.TestCase


def test_a_rotation_shows_who_is_ready_and_who_was_last():
    rotation = Rotation()
    assert repr(rotation) == "<Rotation over [], last -1>"
    for slot in (3, 1, 2):
        rotation.add(slot)
    assert [rotation.take(), rotation.take()] == [1, 2]
    assert repr(rotation) == "<Rotation over [1, 2, 3], last 2>"
    assert len(rotation) == 3


class LedgerMachine(RuleBasedStateMachine):
    """A ledger against a worker that takes up in order and answers before it takes up."""

    ledger_type = Ledger

    def __init__(self):
        super().__init__()
        self.lanes = 2
        self.ledger = self.ledger_type(self.lanes)
        self.number = 0
        self.unbegun = []
        self.begun = []

    @rule(size=st.integers(1, 9))
    def send(self, size):
        self.ledger.sent(request(self.number, size=size))
        self.unbegun.append(self.number)
        self.number += 1

    @precondition(lambda self: self.unbegun and len(self.begun) < self.lanes)
    @rule()
    def begin(self):
        self.begun.append(self.unbegun.pop(0))

    @precondition(lambda self: self.begun)
    @rule(data=st.data())
    def answer(self, data):
        number = data.draw(st.sampled_from(self.begun))
        self.begun.remove(number)
        assert self.ledger.answered(number).number == number

    @rule()
    def die(self):
        begun, unbegun = self.ledger.settle()
        assert set(self.begun) <= {r.number for r in begun}
        assert len(begun) <= self.lanes
        assert [r.number for r in [*begun, *unbegun]] == sorted([*self.begun, *self.unbegun])
        self.begun, self.unbegun = [], []

    @invariant()
    def what_has_begun_may_have_begun(self):
        may = [r.number for r in self.ledger.may_have_begun()]
        assert set(self.begun) <= set(may)
        assert len(may) == min(self.lanes, len(self.begun) + len(self.unbegun))
        latest = self.ledger.latest_begun()
        assert (latest and [latest.number]) == (may[self.lanes - 1 :] or None)
        assert self.ledger.size == sum(r.size for r in self.ledger.entries.values())


test_at_most_once_by_the_ledger = LedgerMachine.TestCase


def test_an_answer_to_nothing_is_noticed():
    ledger = Ledger(1)
    ledger.sent(request(1))
    ledger.answered(1)
    with pytest.raises(KeyError):
        ledger.answered(1)


def test_a_ledger_counts_its_streams():
    ledger = Ledger(2)
    for number in range(3):
        ledger.sent(request(number, streams=True, is_special=True))
    ledger.sent(request(3))
    ledger.sent(request(4, is_special=True))  # which has limits
    counts = [ledger.streams]
    for number in range(4):
        ledger.answered(number, 0.0)
        counts.append(ledger.streams)
    assert counts == [3, 2, 1, 0, 0]


def test_a_ledger_that_is_settled_counts_anew():
    ledger = Ledger(1)
    for number in range(2):
        ledger.sent(request(number, streams=True, is_special=True))
        ledger.settle()
        assert (ledger.size, ledger.streams) == (0, 0)


@given(
    st.lists(st.lists(st.integers(0, 2), max_size=30), max_size=4),
    st.dictionaries(st.integers(0, 2), st.integers(0, 4)),
)
def test_a_new_slot_takes_its_share_of_each_app_evenly(apps, carriers):
    numbers = iter(range(1000))
    queues = [[request(next(numbers), app) for app in queue] for queue in apps]
    for queue in queues:
        share = fair_share(queue, carriers)
        assert all(r.app in carriers for r in share)
        for app, others in carriers.items():
            present = [r for r in queue if r.app == app]
            moved = [r for r in share if r in present]
            assert moved == present[others :: others + 1]


@given(st.lists(st.floats(0, 10), min_size=1))
def test_the_window_is_at_least_one_and_bounded(durations):
    window = Window()
    assert window.ahead == 1
    for seconds in durations:
        window.observe(seconds)
        assert 1 <= window.ahead <= AHEAD_LIMIT
        if seconds >= 0.002:
            assert window.ahead == 1, "one ahead of a long one, at once"


def test_the_window_believes_short_requests_little_by_little():
    window = Window()
    for number in range(1, 100):
        window.observe(0.0)
        assert window.ahead == min(int((8 / 7) ** number), AHEAD_LIMIT)


@pytest.mark.parametrize(
    ("seconds", "ahead"),
    [(1e-6, AHEAD_LIMIT), (0.002 / 65, AHEAD_LIMIT), (0.002 / 5.5, 5), (0.0011, 1), (9.0, 1)],
)
def test_two_milliseconds_of_requests_are_sent_ahead(seconds, ahead):
    window = Window()
    for _ in range(200):
        window.observe(seconds)
    assert window.ahead == ahead


def test_back_off_counts_only_workers_that_completed_nothing():
    backoff = Backoff()
    delays = [backoff.died(completed=0) for _ in range(FAILURES_LIMIT)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, None]
    backoff = Backoff()
    for _ in range(1000):
        assert backoff.died(completed=1) == 0.0
    assert backoff.died(completed=0) == 0.0
    assert backoff.died(completed=0) > 0.0
