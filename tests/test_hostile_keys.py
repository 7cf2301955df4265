"""Keys that misbehave: one caller's object must never end the pool of all."""

import pytest
import trio
from apps import Counter

from trio_dirty import open_pool
from trio_dirty._keys import Key, key_of
from trio_dirty.testing import Plan, SimEngine, Turn


class Seconds(Plan):
    def turn(self, call):
        return Turn(1.0)


class Changing:
    """Its hash changes with its value."""

    def __init__(self, value):
        self.value = value

    def __hash__(self):
        return self.value

    def __eq__(self, other):
        return isinstance(other, Changing) and self.value == other.value


class Incomparable:
    def __init__(self, error):
        self.error = error

    def __hash__(self):
        return 7

    def __eq__(self, other):
        raise self.error


class Undecided:
    """Compares to what is neither true nor false, as arrays do."""

    def __hash__(self):
        return 7

    def __eq__(self, other):
        return self

    def __bool__(self):
        raise ValueError("the truth value is ambiguous")


class NotShown:
    def __hash__(self):
        raise ValueError("no hash")

    def __repr__(self):
        raise ValueError("no text")


async def play(keys, change):
    """Have requests of keys wait and end while their slots crash, come and go."""
    engine = SimEngine(Seconds())
    async with open_pool([Counter], workers=2, engine=engine) as pool:
        async with trio.open_nursery() as nursery:
            for key in keys * 5:
                view = pool.with_options(key=key)
                nursery.start_soon(view.run_sync, Counter.nap, 0)
            await trio.testing.wait_all_tasks_blocked()
            change()
            await pool.resize(3)
            await pool.resize(1)
        assert pool.statistics().completed == 5 * len(keys)
        assert pool.statistics().queued == 0
        assert len(pool._supervisor.dispatcher._keys) == 0


async def test_a_key_whose_hash_changes_while_its_requests_are_there(autojump_clock):
    keys = [Changing(value) for value in range(5)]

    def change():
        for key in keys:
            key.value += 100

    await play(keys, change)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(1)])
async def test_keys_whose_comparison_raises(error, autojump_clock):
    await play([Incomparable(error), Incomparable(error), Undecided(), Undecided()], lambda: None)


async def test_requests_of_equal_keys_stay_in_order_whatever_their_types(autojump_clock):
    class Name(str):
        __slots__ = ()

    order = []

    async def call(number, key):
        slot, *_ = await pool.with_options(key=key).run_sync(Counter.info)
        order.append((number, slot))

    async with (
        open_pool([Counter], workers=4, engine=SimEngine(Seconds())) as pool,
        trio.open_nursery() as nursery,
    ):
        for number, key in enumerate(["user", Name("user"), ("a", 1), ("a", 1)]):
            nursery.start_soon(call, number, key)
            await trio.testing.wait_all_tasks_blocked()
    slots = dict(order)
    assert slots[0] == slots[1]
    assert slots[2] == slots[3]
    assert [number for number, _ in order if number < 2] == [0, 1]
    assert [number for number, _ in order if number >= 2] == [2, 3]


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


async def test_a_key_that_does_not_hash_is_refused_at_once():
    async with open_pool([], workers=1, engine=SimEngine()) as pool:
        with pytest.raises(TypeError, match=r"^key must hash, was \[\]: unhashable type: 'list'$"):
            pool.with_options(key=[])
        with pytest.raises(TypeError, match=r"^key must hash, was a NotShown: no hash$"):
            pool.with_options(key=NotShown())
