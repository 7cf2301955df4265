"""Whose turn it is, and what a slot that becomes ready takes over."""

from collections import Counter
from types import SimpleNamespace

from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from trio_dirty._rules.routing import Rotation, fair_share

SLOTS = 5


def request(number, app, key=None, pinned=None):
    return SimpleNamespace(number=number, app=app, key=key, pinned=pinned)


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


def test_what_is_bound_to_its_slot_is_in_no_share():
    queue = [request(0, 0), request(1, 0, key="user"), request(2, 0, pinned=3), request(3, 0)]
    assert fair_share(queue, {0: 1}) == [queue[3]]
