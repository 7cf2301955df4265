"""A call that is refused lets others run, can be cancelled, and leaves nothing behind."""

import math
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from apps import Counter, OtherRecorder
from scripts.harness import PATIENCE, until
from trio.testing import MockClock

import trio_dirty
from trio_dirty.testing import Boot, Call, EventLog, Plan, SimEngine, Turn


class Stuck(Plan):
    """Naps last for ever, and the workers that come after the first do not boot."""

    def boot(self, slot: int, worker: int) -> Boot:
        return Boot() if worker == 0 else Boot(exitcode=7)

    def turn(self, call: Call) -> Turn:
        return Turn(math.inf if call.action == "nap" else 0)


async def coroutine_function():
    """What no worker can run."""


def calls(*args):
    """Return every way to call a pool, by verb, where a function or an app and action is meant."""

    async def enter(pool):
        async with pool.stream(*args):
            raise AssertionError("it was not refused")

    found = {"stream": enter, "broadcast": lambda pool: pool.broadcast(*args)}
    if isinstance(args[0], str | type):
        found["execute"] = lambda pool: pool.execute(*args)
    else:
        found["run_sync"] = lambda pool: pool.run_sync(*args)
    return found


BY_FUNCTION = calls(Counter.add, 1)
BY_NAME = calls("apps:Counter", "add", 1)
ALL = {**BY_NAME, **BY_FUNCTION}
SIZES = {
    "resize": lambda pool: pool.resize(2),
    "reload": lambda pool: pool.reload(),
    "reload without overlap": lambda pool: pool.reload(overlap=False),
}

BAD = [
    ("does not pickle", TypeError, calls(Counter.add, lambda: 0)),
    ("does not pickle by name", TypeError, calls(Counter, "add", lambda: 0)),
    ("too large to pickle here", TypeError, calls(Counter.add, bytes(100_000), lambda: 0)),
    ("not importable", TypeError, calls(lambda: 0)),
    ("coroutine function", TypeError, calls(coroutine_function)),
    ("no function", TypeError, calls(42)),
    ("an instance for self", TypeError, calls(Counter.add, Counter())),
    ("private", ValueError, calls(Counter, "_add")),
    ("no path", ValueError, calls("apps", "add")),
    ("no name of an action", TypeError, calls(Counter, 5)),
    ("no such app", trio_dirty.AppNotFoundError, calls("apps:Missing", "add")),
    ("another pool's app", trio_dirty.AppNotFoundError, calls(OtherRecorder.work)),
    ("a generator", TypeError, {k: v for k, v in calls(Counter.numbers).items() if k != "stream"}),
    ("zero slots", ValueError, {"resize": lambda pool: pool.resize(0)}),
    ("no number of slots", TypeError, {"resize": lambda pool: pool.resize("2")}),
    ("no bool", TypeError, {"reload": lambda pool: pool.reload(overlap=1)}),
]
REFUSED_AT_THE_CALL = {
    "not importable",
    "coroutine function",
    "no function",
    "an instance for self",
    "private",
    "no path",
    "no name of an action",
    "no such app",
    "another pool's app",
}
"""`Pool.stream` itself is synchronous, and says at once what is wrong."""


def table():
    for why, error, verbs in BAD:
        for verb, call in verbs.items():
            if verb != "stream" or why not in REFUSED_AT_THE_CALL:
                yield pytest.param(idle, error, call, id=f"{why}: {verb}")
    for state, error, verbs in [
        (busy, trio_dirty.PoolBusyError, ALL),
        (failed, trio_dirty.NoWorkersAvailableError, ALL),
        (closed, trio.ClosedResourceError, {**ALL, **SIZES}),
    ]:
        for verb, call in verbs.items():
            yield pytest.param(state, error, call, id=f"{state.__name__}: {verb}")


@asynccontextmanager
async def idle(engine, log):
    async with trio_dirty.open_pool([Counter], workers=1, engine=engine, instruments=[log]) as pool:
        yield pool


@asynccontextmanager
async def busy(engine, log):
    async with (
        trio_dirty.open_pool(
            [Counter], workers=1, max_queue=0, engine=engine, instruments=[log], grace_period=0
        ) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pool.run_sync, Counter.nap, 1)
        await trio.testing.wait_all_tasks_blocked()
        yield pool
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def failed(engine, log):
    async with idle(engine, log) as pool:
        engine.crash(0)
        await until(lambda: pool.statistics().workers[0].state == "failed")
        yield pool


@asynccontextmanager
async def closed(engine, log):
    async with idle(engine, log) as pool:
        pass
    yield pool


@pytest.mark.parametrize(("state", "error", "call"), [*table()])
def test_a_refused_call_is_a_checkpoint_and_leaves_nothing(state, error, call):
    async def main():
        log = EventLog()
        async with state(SimEngine(Stuck()), log) as pool:
            before = pool.statistics()
            for _ in range(3):
                with trio.testing.assert_checkpoints(), pytest.raises(error):
                    await call(pool)
            with trio.CancelScope() as scope:
                scope.cancel()
                await call(pool)
            assert scope.cancelled_caught
            await trio.testing.wait_all_tasks_blocked()
            assert repr(pool.statistics()) == repr(before)  # nan differs from nan
            accepted = len(log.of("request_accepted")) - len(log.of("request_ended"))
            assert accepted == before.running

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("size", [0, 1_000_000])
async def test_a_loop_that_tries_again_starves_nobody(size):
    async with (
        trio_dirty.open_pool([Counter], workers=1, max_queue=0) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pool.run_sync, Counter.nap, 0.2)
        await trio.testing.wait_all_tasks_blocked()
        refused = 0
        with trio.fail_after(PATIENCE):  # which expires only if the loop goes on
            while True:
                try:
                    assert await pool.run_sync(Counter.echo, bytes(size)) == bytes(size)
                    break
                except trio_dirty.PoolBusyError:
                    refused += 1
        assert refused


async def test_a_call_that_is_accepted_has_one_checkpoint_and_not_two():
    class Counting(trio.abc.Instrument):
        """Counts how often one task is run."""

        steps = 0

        def before_task_step(self, task):
            self.steps += task is caller

    caller, counting = trio.lowlevel.current_task(), Counting()
    async with trio_dirty.open_pool([Counter], workers=1) as pool:
        await pool.run_sync(Counter.add)
        trio.lowlevel.add_instrument(counting)
        await pool.run_sync(Counter.add)
        await pool.execute(Counter, "add")
        await pool.broadcast(Counter.add)
        trio.lowlevel.remove_instrument(counting)
    assert counting.steps == 3


async def test_streams_refuse_at_checkpoints():
    async with trio_dirty.open_pool([Counter], workers=1) as pool:
        manager = pool.stream(Counter.numbers, 3)
        async with manager as chunks:
            assert [chunk async for chunk in chunks] == [0, 1, 2]
            with trio.testing.assert_checkpoints(), pytest.raises(RuntimeError, match="entered"):
                await manager.__aenter__()
        with trio.testing.assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await chunks.receive()


def test_a_second_reader_is_refused_at_a_checkpoint():
    class Slow(Plan):
        def turn(self, call: Call) -> Turn:
            return Turn(10)

    async def main():
        async with (
            trio_dirty.open_pool([Counter], workers=1, engine=SimEngine(Slow())) as pool,
            pool.stream(Counter.numbers, 1) as chunks,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(chunks.receive)
            await trio.testing.wait_all_tasks_blocked()
            with trio.testing.assert_checkpoints(), pytest.raises(trio.BusyResourceError):
                await chunks.receive()

    trio.run(main, clock=MockClock(autojump_threshold=0))


class OneLasts(Plan):
    def turn(self, call):
        return Turn(100.0 if call.worker == 0 else 1.0)


async def test_the_lanes_of_a_new_worker_are_free_while_the_old_one_ends_its_last(autojump_clock):
    engine = SimEngine(OneLasts())
    async with (
        trio_dirty.open_pool(
            [Counter], workers=1, threads=4, max_queue=0, engine=engine, grace_period=0
        ) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pool.run_sync, Counter.nap, 0)
        await trio.testing.wait_all_tasks_blocked()
        await pool.reload()
        async with trio.open_nursery() as several:
            for _ in range(4):
                several.start_soon(pool.run_sync, Counter.nap, 0)
        assert pool.statistics().running == 1
