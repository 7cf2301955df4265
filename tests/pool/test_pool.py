"""The pool as its users see it, where no other module of the suite looks."""

import math
import operator
import weakref

import numpy as np
import pytest
import trio
from apps import Counter
from trio.testing import MockClock

import trio_dirty
from trio_dirty.testing import Call, Plan, SimEngine, Turn


async def test_state_is_kept_and_workers_take_turns():
    async with trio_dirty.open_pool([Counter], workers=2) as pool:
        assert [await pool.run_sync(Counter.add, 5) for _ in range(4)] == [5, 5, 10, 10]
        assert await pool.run_sync(Counter.add, amount=1) == 11
        assert await pool.execute(Counter, "add", 1) == 11
        assert await pool.execute("apps:Counter", "add", amount=1) == 12
        assert await pool.run_sync(math.factorial, 5) == 120


async def test_nothing_keeps_a_result():
    async with trio_dirty.open_pool([], workers=1) as pool:
        for size in (10, 1_000_000):
            result = await pool.run_sync(np.zeros, size)
            kept = weakref.ref(result)
            del result
            for _ in range(1_000):  # trio's loop and thread keep it a little longer
                await trio.sleep(0 if kept() is None else 0.001)
            assert kept() is None


@pytest.mark.parametrize("count", [10, 20_000, 20_001, 60_000])
async def test_long_lists_of_atoms_arrive_as_they_were(count):
    mixed = [None, True, 1, 1.5, "a", b"b"] * (count // 6)
    shared = ["x" * 10] * count
    async with trio_dirty.open_pool([Counter], workers=1) as pool:
        assert await pool.run_sync(Counter.echo, mixed) == mixed
        assert await pool.run_sync(operator.is_, shared, shared) is True
        nested = [*mixed, [1]]
        assert await pool.run_sync(Counter.echo, value=nested) == nested


class SlowPlan(Plan):
    def turn(self, call: Call) -> Turn:
        return Turn(call.args[0] if call.action == "echo" else 0)


def test_statistics_tell_what_each_slot_does():
    async def main():
        engine = SimEngine(SlowPlan())
        async with trio_dirty.open_pool([Counter], workers=2, engine=engine) as pool:
            async with trio.open_nursery() as nursery:
                scopes = [trio.CancelScope() for _ in range(5)]

                async def client(scope):
                    with scope:
                        await pool.run_sync(Counter.echo, 10)

                for scope in scopes:
                    nursery.start_soon(client, scope)
                await trio.sleep(1)
                now = pool.statistics()
                assert (now.running, now.queued, now.abandoned, now.completed) == (2, 3, 0, 0)
                assert {w.state for w in now.workers} == {"ready"}
                assert sorted(w.queued for w in now.workers) == [1, 2]
                assert [w.apps for w in now.workers] == [("apps:Counter",)] * 2
                for scope in scopes:
                    scope.cancel()
                await trio.sleep(1)
                now = pool.statistics()
                assert (now.running, now.queued, now.abandoned) == (2, 0, 2)
                await trio.sleep(10)
                engine.crash(0)
                await trio.sleep(1)
            now = pool.statistics()
            assert (now.completed, now.restarts, now.failed, now.abandoned) == (2, 1, 0, 0)
            assert (now.execution.count, now.execution.p50, now.execution.max) == (2, 10, 10)
            with pytest.raises(AttributeError):
                now.completed = 3
        assert {w.pid for w in pool.statistics().workers} == {None}

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_an_exception_of_the_block_leaves_as_itself():
    with pytest.raises(LookupError, match="mine"):
        async with trio_dirty.open_pool([], workers=1):
            raise LookupError("mine")
    with pytest.RaisesGroup(LookupError, TypeError):
        async with trio_dirty.open_pool([], workers=1):
            raise ExceptionGroup("", [LookupError(), TypeError()])


def test_waiting_is_ordered_and_bounded_by_the_callers_scope():
    async def main():
        async with trio_dirty.open_pool([Counter], workers=1, engine=SimEngine(SlowPlan())) as pool:
            with trio.move_on_after(5) as scope:
                await pool.run_sync(Counter.echo, 10)
            assert scope.cancelled_caught
            assert trio.current_time() == pytest.approx(started + 5)
            assert await pool.run_sync(Counter.add, 1) == 1  # state is kept
            assert trio.current_time() == pytest.approx(started + 10)

    async def timed():
        nonlocal started
        started = trio.current_time()
        await main()

    started = 0.0
    trio.run(timed, clock=MockClock(autojump_threshold=0))


def test_what_a_worker_is_asked_is_refused_elsewhere():
    with pytest.raises(RuntimeError, match="must be called in a worker"):
        trio_dirty.worker_info()
