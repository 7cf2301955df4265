"""What statistics tell of the time for which lanes have been executing, and requests waiting."""

import pytest
import trio
from apps import Counter
from hypothesis import given, strategies as st

from trio_dirty import RequestTimeoutError, WorkerCrashedError, open_pool
from trio_dirty._pool.streams import StreamRequest
from trio_dirty._rules.limits import Limits
from trio_dirty._rules.targets import Target
from trio_dirty.testing import Plan, SimEngine, Turn


class AsLong(Plan):
    """Naps last as long as they say, and the steps of numbers half a second."""

    def turn(self, call):
        if call.action == "numbers":
            return Turn(0.5, chunks=1_000_000)
        seconds = call.args[0] if call.args else 0
        return Turn(abs(seconds), exitcode=1 if seconds < 0 else None)


def utilisation(pool):
    return pool.statistics().workers[0].utilisation


@pytest.fixture
async def pool(autojump_clock):
    async with open_pool([Counter], workers=1, engine=SimEngine(AsLong())) as pool:
        yield pool


async def test_a_stream_that_computes_without_a_pause(pool, autojump_clock):
    async with pool.stream(Counter.numbers, 1_000) as numbers:
        for _ in range(20):
            await numbers.receive()
            assert utilisation(pool) == pytest.approx(1)
        await trio.sleep(0.25)
        assert utilisation(pool) == pytest.approx(1), "in the middle of a step"
    await trio.sleep(10)
    assert utilisation(pool) == pytest.approx(10.5 / 20.25, rel=0.05)


async def test_a_stream_that_waits_for_its_reader_is_neither_executing_nor_waiting(
    pool, autojump_clock
):
    async with pool.stream(Counter.numbers, 2_000) as numbers:
        await numbers.receive()
        await trio.sleep(2_000)
        assert utilisation(pool) == pytest.approx(0.25, rel=0.01), "1,000 steps, and then none"
        for _ in range(999):
            await numbers.receive()
        await trio.sleep(250)
        assert utilisation(pool) == pytest.approx(750 / 2250, rel=0.01), "it goes on"
        async for _ in numbers:
            pass
    statistics = pool.statistics()
    assert statistics.execution.max == pytest.approx(1_000.5)
    assert statistics.waiting.max == 0
    assert utilisation(pool) == pytest.approx(1_000 / trio.current_time(), rel=0.01)


@pytest.mark.parametrize("lanes", [1, 2, 3])
async def test_lanes_that_are_all_busy_and_requests_that_wait(lanes, autojump_clock):
    engine = SimEngine(AsLong())
    async with (
        open_pool([Counter], workers=1, threads=lanes, engine=engine) as pool,
        trio.open_nursery() as nursery,
    ):
        for seconds in (3, 5, 4, 6, 5, 5):
            nursery.start_soon(pool.run_sync, Counter.nap, seconds)
        for _ in range(3):
            await trio.sleep(1.5)
            assert utilisation(pool) == pytest.approx(1)


async def test_one_of_two_lanes(autojump_clock):
    async with open_pool([Counter], workers=1, threads=2, engine=SimEngine(AsLong())) as pool:
        for _ in range(3):
            await pool.run_sync(Counter.nap, 2)
            assert utilisation(pool) == pytest.approx(0.5)


async def test_requests_that_time_out_or_crash_have_been_executed_too(pool, autojump_clock):
    with pytest.raises(RequestTimeoutError):
        await pool.with_options(timeout=4).run_sync(Counter.nap, 100)
    assert utilisation(pool) == pytest.approx(1)
    await trio.sleep(4)
    with pytest.raises(WorkerCrashedError):
        await pool.run_sync(Counter.nap, -2)
    assert utilisation(pool) == pytest.approx(6 / 10)


async def test_what_is_sent_ahead_is_not_executed(pool, autojump_clock):
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(pool.run_sync, Counter.nap, 1)
        await trio.sleep(0.5)
        assert utilisation(pool) == pytest.approx(1)
    waiting = pool.statistics().waiting
    assert (waiting.count, waiting.max) == (4, 3)


@given(st.lists(st.floats(0, 10), min_size=2, max_size=20))
def test_a_stream_that_was_always_held_was_executed_for_no_time_at_all(steps):
    """The sum of the times for which it was held may be a rounding more than the whole."""
    target = Target(None, None, "numbers", b"")
    stream = StreamRequest(target, 0, b"", 0.0, Limits(), None)
    now = 0.0
    for step in steps:
        stream.hold(now)
        now += step
        stream.resume(now)
    assert 0 <= stream.executed(now) < 1e-9
