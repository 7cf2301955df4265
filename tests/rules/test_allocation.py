"""Which slot carries which app, and which slots leave."""

import math
from collections import Counter

from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_dirty._rules.allocation import allocate, choose_leaving, gains

limits_of_apps = st.lists(st.one_of(st.integers(1, 6), st.just(math.inf)), max_size=6)


def unlimited(limits):
    return {app for app, limit in enumerate(limits) if limit == math.inf}


def carriers(allocation):
    return Counter(app for carried in allocation.values() for app in carried)


def limited(limits, carried):
    return len(carried - unlimited(limits))


@st.composite
def present(draw, least=0):
    """Limits, and slots that carry what they may."""
    limits = draw(limits_of_apps)
    slots = draw(st.lists(st.integers(0, 9), min_size=least, max_size=6, unique=True))
    carried = {slot: unlimited(limits) for slot in slots}
    for app, limit in enumerate(limits):
        if slots and limit < math.inf:
            for slot in draw(st.lists(st.sampled_from(slots), max_size=limit, unique=True)):
                carried[slot].add(app)
    return limits, {slot: frozenset(apps) for slot, apps in carried.items()}


@given(limits_of_apps, st.lists(st.integers(0, 20), min_size=1, max_size=8, unique=True))
def test_a_fresh_allocation_is_even_and_as_wide_as_the_limits_allow(limits, slots):
    allocation = allocate(limits, {}, slots)
    assert allocation.keys() == set(slots)
    numbers = [limited(limits, carried) for carried in allocation.values()]
    assert max(numbers) - min(numbers) <= 1
    found = carriers(allocation)
    assert [found[app] for app in range(len(limits))] == [
        min(limit, len(slots)) for limit in limits
    ]


@given(present(), st.sets(st.integers(10, 19), min_size=1, max_size=5))
def test_new_slots_take_up_what_is_missing_and_the_others_keep_what_they_carry(staying, new):
    limits, before = staying
    allocation = allocate(limits, before, sorted(new))
    assert allocation.keys() == before.keys() | new
    assert {slot: allocation[slot] for slot in before} == before
    numbers = [limited(limits, allocation[slot]) for slot in new]
    assert max(numbers) - min(numbers) <= 1
    found, had = carriers(allocation), carriers(before)
    for app, limit in enumerate(limits):
        assert found[app] == min(limit, had[app] + len(new))
    assert all(allocation[slot] >= unlimited(limits) for slot in new)


@given(present(least=1))
def test_without_a_new_slot_an_orphan_is_gained_by_the_one_that_has_the_fewest(staying):
    limits, before = staying
    allocation = allocate(limits, before, ())
    assert allocation.keys() == before.keys()
    expected = {slot: set(carried) for slot, carried in before.items()}
    for app in range(len(limits)):
        if not carriers(before)[app]:
            gains = min(expected, key=lambda slot: (limited(limits, expected[slot]), slot))
            expected[gains].add(app)
    assert allocation == expected


def test_equal_slots_take_up_apps_in_order():
    assert allocate([1, 2, math.inf, 1], {}, [3, 5, 7]) == {3: {0, 2, 3}, 5: {1, 2}, 7: {1, 2}}


def test_unlimited_apps_are_no_load():
    staying = {0: frozenset({0, 1, 2}), 1: frozenset({3})}
    assert allocate([math.inf, math.inf, math.inf, 1, 1], staying, ()) == {
        0: {0, 1, 2, 4},
        1: {3},
    }


def test_one_that_stays_gains_nothing_that_has_a_carrier():
    staying = {0: frozenset({0}), 1: frozenset()}
    assert allocate([2], staying, ()) == staying
    assert allocate([2], staying, [2]) == {**staying, 2: {0}}


def test_no_slots_carry_nothing():
    assert allocate([1, math.inf], {}, ()) == {}


# Who leaves


def orphaned(slot, slots, failed):
    others = [slots[other] for other in slots if other != slot and other not in failed]
    return slots[slot] - frozenset().union(*others)


@given(present(least=1), st.data())
def test_each_that_leaves_is_the_first_by_the_rules(staying, data):
    _, slots = staying
    failed = data.draw(st.sets(st.sampled_from(sorted(slots))))
    count = data.draw(st.integers(0, len(slots)))
    leaving = choose_leaving(count, slots, failed)
    assert len({*leaving}) == len(leaving) == count
    rest = dict(slots)
    for chosen in leaving:
        candidates = sorted(failed & rest.keys()) or sorted(rest)
        harmless = [slot for slot in candidates if not orphaned(slot, rest, failed)]
        assert chosen == max(harmless or candidates)
        del rest[chosen]


def test_the_failed_leave_first_then_those_that_are_not_needed_then_the_highest():
    slots = {0: frozenset({0}), 1: frozenset({0}), 2: frozenset({0, 1}), 3: frozenset({2})}
    assert choose_leaving(4, slots, [1]) == [1, 0, 3, 2]
    assert choose_leaving(4, slots, []) == [1, 0, 3, 2]
    assert choose_leaving(4, slots, [3]) == [3, 1, 0, 2]
    assert choose_leaving(0, slots, [1]) == []


def test_a_failed_slot_carries_nothing():
    slots = {0: frozenset({0}), 1: frozenset({0}), 2: frozenset({1}), 3: frozenset({1})}
    assert choose_leaving(3, slots, [1, 3]) == [3, 1, 2]
    slots = {0: frozenset({0}), 1: frozenset({1}), 2: frozenset({0})}
    assert choose_leaving(2, slots, [0, 1]) == [0, 1], "the other has nobody who could help it"


class Sizes(RuleBasedStateMachine):
    """Slots come, leave and fail: every app has a carrier, and never too many."""

    @initialize(limits=limits_of_apps, count=st.integers(1, 5))
    def open(self, limits, count):
        self.limits = limits
        self.slots = allocate(limits, {}, range(count))
        self.failed = set()

    @precondition(lambda self: len(self.slots) < 12)
    @rule(count=st.integers(1, 4))
    def grow(self, count):
        before = dict(self.slots)
        unused = (index for index in range(20) if index not in before)
        new = [next(unused) for _ in range(count)]
        self.slots = allocate(self.limits, before, new)
        assert {slot: self.slots[slot] for slot in before} == before
        assert all(self.slots[slot] >= unlimited(self.limits) for slot in new)

    @precondition(lambda self: len(self.slots) > 1)
    @rule(data=st.data())
    def shrink(self, data):
        count = data.draw(st.integers(1, len(self.slots) - 1))
        leaving = choose_leaving(count, self.slots, self.failed)
        assert len(self.failed - {*leaving}) == max(0, len(self.failed) - count)
        staying = {slot: apps for slot, apps in self.slots.items() if slot not in leaving}
        self.failed -= {*leaving}
        self.slots = allocate(self.limits, staying, ())
        had = carriers(staying)
        for slot, apps in self.slots.items():
            assert apps >= staying[slot]
            assert not any(had[app] for app in apps - staying[slot])

    @rule(data=st.data())
    def fail(self, data):
        self.failed.add(data.draw(st.sampled_from(sorted(self.slots))))

    @invariant()
    def every_app_has_a_carrier_and_never_too_many(self):
        found = carriers(self.slots)
        for app, limit in enumerate(self.limits):
            assert 1 <= found[app] <= limit
            if limit == math.inf:
                assert found[app] == len(self.slots)


test_sizes_keep_every_app_carried = Sizes.TestCase


@given(present(), st.frozensets(st.integers(0, 5)))
def test_what_nobody_carries_is_gained_by_one_unless_its_carrier_may_return(staying, kept):
    limits, able = staying
    gained = gains(limits, able, kept)
    found, had = carriers(gained), carriers(able)
    for app in range(len(limits)):
        is_lost = bool(able) and not had[app] and app not in kept
        assert found[app] == is_lost
    for slot, apps in gained.items():
        assert apps
        assert not apps & able[slot]
