"""Which slot the requests of a key are given to."""

from collections import Counter

import pytest
from hypothesis import given, strategies as st
from odd_keys import Changing, Incomparable, NotShown, Undecided

from trio_dirty._rules import routing
from trio_dirty._rules.routing import Key, Keys, _mixed, highest_random_weight, key_of

any_keys = st.one_of(st.integers(), st.text(), st.tuples(st.integers(), st.text()))
slots = st.lists(st.integers(0, 200), min_size=1, max_size=12, unique=True)


@given(any_keys, slots)
def test_a_slot_more_takes_keys_for_itself_only(key, several):
    *others, new = several
    if others:
        before = highest_random_weight(hash(key), others)
        assert highest_random_weight(hash(key), several) in (before, new)


@given(any_keys, slots)
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


def test_hashes_are_mixed_as_by_splitmix64():
    """The generator's first numbers for the seed 1234567, as they have been published."""
    assert [_mixed(1234567 + step * 0x9E3779B97F4A7C15) for step in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert _mixed(0) == 0xE220A8397B1DCDAF


def test_the_weight_of_a_slot_mixes_it_with_the_key():
    for key in range(100):
        weights = {slot: _mixed(_mixed(key) ^ _mixed(~slot)) for slot in range(9)}
        assert highest_random_weight(key, weights) == max(weights, key=weights.get)


def test_equal_keys_go_together():
    assert Keys().choose(None, 1, range(9)) == Keys().choose(None, 1.0, range(9))
    assert Keys().choose(0, "a", range(9)) == Keys().choose(1, "a", range(9))


def test_a_key_stays_where_requests_of_it_have_not_ended():
    several = Keys()
    slot = several.choose(0, 7, [3])
    several.begin(0, 7, slot)
    several.begin(0, 7, slot)
    everywhere = range(100)
    assert several.choose(0, 7, everywhere) == 3
    several.end(0, 7)
    assert several.choose(0, 7, everywhere) == 3
    several.end(0, 7)
    several.forget_choices()
    assert several.choose(0, 7, everywhere) != 3
    assert len(several) == 0


def test_other_keys_and_other_apps_do_not_count():
    several = Keys()
    several.begin(0, 7, 3)
    everywhere = range(100)
    assert several.choose(1, 7, everywhere) == Keys().choose(1, 7, everywhere) != 3
    assert several.choose(0, 8, everywhere) == Keys().choose(0, 8, everywhere)
    assert len(several) == 1


class Slots(list):
    """Slots that count how often they are looked at."""

    looks = 0

    def __iter__(self):
        self.looks += 1
        return super().__iter__()


@given(st.lists(any_keys, unique_by=hash, max_size=20), slots)
def test_what_was_chosen_is_remembered_until_slots_come_or_go(chosen, several):
    found, several = Keys(), Slots(several)
    first = [found.choose(0, key, several) for key in chosen]
    assert first == [highest_random_weight(hash(key), several) for key in chosen]
    looks = several.looks
    assert [found.choose(0, key, several) for key in chosen] == first
    assert several.looks == looks, "nothing is chosen twice"
    found.forget_choices()
    other = [500]
    assert [found.choose(0, key, other) for key in chosen] == [500] * len(chosen)
    assert len(found) == 0, "and what is remembered is no request"


def test_of_each_app_its_own_choice_is_remembered():
    found = Keys()
    assert [found.choose(app, "key", [slot]) for app, slot in ((0, 3), (1, 5))] == [3, 5]
    assert [found.choose(app, "key", range(9)) for app in (0, 1)] == [3, 5]


def test_only_so_many_choices_are_remembered(monkeypatch):
    monkeypatch.setattr(routing, "CHOICES_LIMIT", 3)
    found, several = Keys(), Slots(range(9))
    for key in range(3):
        found.choose(None, key, several)
    for key in range(3):
        found.choose(None, key, several)
    assert several.looks == 3
    for key in range(3, 100):
        assert found.choose(None, key, several) == highest_random_weight(hash(key), range(9))
        assert 1 <= len(found._choices) <= 3
    assert several.looks == 100


def test_the_place_of_a_key_is_heard_before_what_was_chosen():
    found = Keys()
    assert found.choose(0, "key", [3]) == 3
    found.begin(0, "key", 5)
    assert found.has(0, "key")
    assert not found.has(1, "key")
    assert not found.has(0, "other")
    assert found.choose(0, "key", [3]) == 5
    found.end(0, "key")
    assert not found.has(0, "key")
    assert found.choose(0, "key", [3]) == 3


def test_what_stands_for_a_key():
    assert key_of(None) is None
    assert key_of("a") == "a"
    same = Incomparable(ValueError())
    key = key_of(same)
    assert key == key
    assert key == Key(same)
    assert key != Key(Incomparable(ValueError()))
    assert key_of((1, 2)) == (1, 2)
    assert key_of((1, 2)) == (1, 2)
    assert hash(key) == 7
    assert repr(key_of((1, 2))) == "<Key (1, 2)>"
    changing = Changing(1)
    before = key_of(changing)
    changing.value = 2
    assert hash(before) == 1
    assert hash(key_of(changing)) == 2


def test_keys_that_cannot_be_compared_differ_from_all_others():
    odd = Undecided()
    assert key_of(odd) != key_of(Undecided())
    assert key_of(odd) == odd
    assert key_of(Incomparable(KeyboardInterrupt())) != 7


@pytest.mark.parametrize("key", [NotShown(), []])
def test_what_does_not_hash_is_no_key(key):
    with pytest.raises(TypeError, match=r"^key must hash, was (a NotShown|\[\]): "):
        key_of(key)
