"""Keys that misbehave: one caller's object must never end the pool of all."""

import pytest
import trio
from apps import Counter
from odd_keys import Changing, Incomparable, NotShown, Undecided

from trio_dirty import open_pool
from trio_dirty.testing import Plan, SimEngine, Turn


class Seconds(Plan):
    def turn(self, call):
        return Turn(1.0)


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
        assert len(pool._slots.dispatcher._keys) == 0


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


async def test_a_key_that_does_not_hash_is_refused_at_once():
    async with open_pool([], workers=1, engine=SimEngine()) as pool:
        with pytest.raises(TypeError, match=r"^key must hash, was \[\]: unhashable type: 'list'$"):
            pool.with_options(key=[])
        with pytest.raises(TypeError, match=r"^key must hash, was a NotShown: no hash$"):
            pool.with_options(key=NotShown())
