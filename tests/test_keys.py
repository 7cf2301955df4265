"""Which slot the requests of a key are given to."""

from collections import Counter

from hypothesis import given, strategies as st

from trio_dirty._keys import Keys, OnlySlot
from trio_dirty._routing import highest_random_weight

keys = st.one_of(st.integers(), st.text(), st.tuples(st.integers(), st.text()))
slots = st.lists(st.integers(0, 200), min_size=1, max_size=12, unique=True)


@given(keys, slots)
def test_a_slot_more_takes_keys_for_itself_only(key, several):
    *others, new = several
    if others:
        before = highest_random_weight(hash(key), others)
        assert highest_random_weight(hash(key), several) in (before, new)


@given(keys, slots)
def test_a_slot_less_moves_its_own_keys_only(key, several):
    chosen = highest_random_weight(hash(key), several)
    for gone in several:
        if gone != chosen:
            rest = [slot for slot in several if slot != gone]
            assert highest_random_weight(hash(key), rest) == chosen


def test_keys_are_spread_evenly_and_one_of_n_moves():
    number, n = 20_000, 8
    for make in (int, str, lambda i: ("user", i)):
        several = list(range(n))
        before = [highest_random_weight(hash(make(i)), several) for i in range(number)]
        share = number / n
        assert all(abs(count - share) < share / 10 for count in Counter(before).values())
        after = [highest_random_weight(hash(make(i)), [*several, n]) for i in range(number)]
        moved = sum(a != b for a, b in zip(after, before, strict=True))
        assert abs(moved - number / (n + 1)) < number / (n + 1) / 10


def test_equal_keys_go_together():
    assert Keys().choose(None, 1, range(9)) == Keys().choose(None, 1.0, range(9))
    assert Keys().choose(0, "a", range(9)) == Keys().choose(1, "a", range(9))


def test_a_key_stays_where_requests_of_it_have_not_ended():
    several = Keys()
    slot = several.choose(0, "key", [3])
    several.begin(0, "key", slot)
    several.begin(0, "key", slot)
    everywhere = range(100)
    assert several.choose(0, "key", everywhere) == 3
    several.end(0, "key")
    assert several.choose(0, "key", everywhere) == 3
    several.end(0, "key")
    assert several.choose(0, "key", everywhere) != 3
    assert len(several) == 0


def test_other_keys_and_other_apps_do_not_count():
    several = Keys()
    several.begin(0, "key", 3)
    everywhere = range(100)
    assert several.choose(1, "key", everywhere) == Keys().choose(1, "key", everywhere) != 3
    assert several.choose(0, "other", everywhere) == Keys().choose(0, "other", everywhere)
    assert len(several) == 1


def test_a_slot_as_a_key_is_equal_to_itself_only():
    assert OnlySlot(1) == OnlySlot(1) != OnlySlot(2)
