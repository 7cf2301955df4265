"""Workers that execute several requests at a time."""

from __future__ import annotations

import math
import os
import pickle
import random
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing
from apps import Counter as Numbers
from apps_lanes import Lanes
from apps_payloads import Slow
from calling import Calling
from scripts.harness import PATIENCE, gone, until

from trio_dirty import Pool, RequestCancelled, RequestTimeoutError, WorkerCrashedError, open_pool
from trio_dirty._common import wire
from trio_dirty._common.segments import SegmentReader
from trio_dirty._common.wire import CANCELLED
from trio_dirty._engines.contract import Chunks
from trio_dirty._pool.worker import SlotWorker
from trio_dirty._worker import shared_socket
from trio_dirty._worker.shared_socket import SharedSocket
from trio_dirty._worker.thread_lane import ThreadLane
from trio_dirty.testing import Call, Plan, SimEngine, Turn

THREADS = 3


@pytest.fixture
async def mortal() -> AsyncIterator[Pool]:
    """A pool of one worker, which may die and must be replaced."""
    with trio.fail_after(2 * PATIENCE):
        async with open_pool([Lanes], workers=1, threads=THREADS, cancel_grace=0.3) as pool:
            yield pool
            await check_serves(pool)


@pytest.fixture
async def pool(mortal: Pool) -> AsyncIterator[Pool]:
    """One whose worker must outlive whatever the test does."""
    yield mortal
    await check_serves(mortal)
    assert mortal.statistics().restarts == 0


async def check_serves(pool: Pool) -> None:
    """Check that every lane serves, and that nothing else is left."""
    async with trio.open_nursery() as nursery:
        for _ in range(THREADS):
            nursery.start_soon(pool.run_sync, Lanes.meet, THREADS)
    statistics = pool.statistics()
    assert (statistics.queued, statistics.running, statistics.abandoned) == (0, 0, 0)


async def accepted(nursery: trio.Nursery, call: Callable[..., Any], *args: Any) -> Calling:
    """Make a call, and return when it is in the pool."""
    calling = Calling.begin(nursery, call, *args)
    await trio.testing.wait_all_tasks_blocked()
    return calling


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """The file for which requests wait that hold their lanes."""
    return tmp_path / "go"


def open_gate(go: Path) -> None:
    go.touch()


async def hold_lanes(nursery: trio.Nursery, pool: Pool, go: Path, count: int = THREADS) -> None:
    """Have so many lanes taken until the file exists."""
    for number in range(count):
        held = go.with_name(f"held {number}")
        await accepted(nursery, pool.run_sync, Lanes.lasts, "sleep", str(held), str(go))
        await until(held.exists)


# Several at a time


async def test_as_many_as_there_are_threads_are_executed_at_a_time(pool: Pool) -> None:
    async with trio.open_nursery() as nursery:
        callings = [
            Calling.begin(nursery, pool.run_sync, Lanes.meet, THREADS) for _ in range(5 * THREADS)
        ]
    assert Counter(calling.value for calling in callings) == dict.fromkeys(range(THREADS), 5)


async def test_and_no_more_and_what_is_withdrawn_never_begins(pool: Pool, go: Path) -> None:
    async with trio.open_nursery() as nursery:
        await hold_lanes(nursery, pool, go)
        further = [await accepted(nursery, pool.run_sync, Lanes.note_begun, n) for n in range(6)]
        statistics = pool.statistics()
        assert (statistics.running, statistics.queued) == (THREADS, 6)
        # The first has been sent ahead, and is withdrawn in the worker.
        for calling in further[::2]:
            await calling.cancel()
        open_gate(go)
    assert sorted(await pool.run_sync(Lanes.all_begun)) == [1, 3, 5]


async def test_they_begin_in_order(pool: Pool, go: Path) -> None:
    """With one lane free, which executes them all."""
    async with trio.open_nursery() as nursery:
        await hold_lanes(nursery, pool, go, THREADS - 1)
        async with trio.open_nursery() as others:
            for number in range(100):
                await accepted(others, pool.run_sync, Lanes.note_begun, number)
        open_gate(go)
    assert await pool.run_sync(Lanes.all_begun) == [*range(100)]


async def test_lanes_are_threads_of_one_worker(pool: Pool) -> None:
    async with trio.open_nursery() as nursery:
        callings = [Calling.begin(nursery, pool.run_sync, Lanes.where) for _ in range(3)]
    idents, in_main, infos, settings = zip(*(calling.value for calling in callings), strict=True)
    assert len(set(idents)) == 3
    assert set(in_main) == {False}
    assert set(infos) == {(0, 0, pool.statistics().workers[0].pid)}
    assert set(settings) == {"set in init"}


async def test_with_one_lane_there_is_no_further_thread_and_no_ctypes() -> None:
    async with open_pool([Lanes], workers=1) as pool:
        assert await pool.run_sync(Lanes.thread_names) == ["MainThread"]
        for module in ("shared_socket", "thread_lane"):
            assert not await pool.run_sync(Lanes.has_loaded, f"trio_dirty._worker.{module}")


async def test_an_exception_is_its_own_callers(pool: Pool) -> None:
    async with trio.open_nursery() as nursery:
        callings = [Calling.begin(nursery, pool.run_sync, Lanes.fail, text) for text in "ab"]
    assert [str(calling.error) for calling in callings] == ["a", "b"]
    assert {type(calling.error) for calling in callings} == {LookupError}


async def test_10_000_small_requests(pool: Pool) -> None:
    async def call(start: int) -> None:
        for number in range(start, start + 100):
            assert await pool.run_sync(Lanes.echo, number) == number

    async with trio.open_nursery() as nursery:
        for start in range(0, 10_000, 100):
            nursery.start_soon(call, start)


async def test_large_and_small_values_mix(pool: Pool) -> None:
    async def call(seed: int) -> None:
        generator = random.Random(seed)
        for _ in range(6):
            size = generator.choice([10, 10, 70_000, 400_000, 20_000_000])
            value = np.full(size // 8 + 1, generator.random())
            assert np.array_equal(await pool.run_sync(Lanes.echo, value), value)

    async with trio.open_nursery() as nursery:
        for seed in range(8):
            nursery.start_soon(call, seed)


async def test_a_large_request_goes_to_a_free_lane(pool: Pool, go: Path) -> None:
    async with trio.open_nursery() as nursery:
        await hold_lanes(nursery, pool, go, THREADS - 1)
        for size in (100_000, 3_000_000):
            assert len(await pool.run_sync(Lanes.echo, bytes(size))) == size
            assert await pool.run_sync(Lanes.echo, "small") == "small"
        open_gate(go)


async def test_small_ones_are_executed_beside_a_large_one(pool: Pool, go: Path) -> None:
    begun = go.with_name("begun")
    async with trio.open_nursery() as nursery:
        data = bytes(3_000_000)
        nursery.start_soon(pool.run_sync, Lanes.takes, data, str(begun), str(go))
        await until(begun.exists)
        async with trio.open_nursery() as others:
            for _ in range(2 * (THREADS - 1)):
                others.start_soon(pool.run_sync, Lanes.meet, THREADS - 1)
        open_gate(go)


# Streams


async def test_streams_of_several_lanes_run_at_a_time(pool: Pool) -> None:
    async def read() -> None:
        async with pool.stream(Lanes.together, 200, THREADS) as chunks:
            assert [number async for number in chunks] == [*range(200)]

    async with trio.open_nursery() as nursery:
        for _ in range(THREADS):
            nursery.start_soon(read)


async def test_slow_readers_hold_up_nobody_else(pool: Pool) -> None:
    """Each stream waits for credit, many times over, until its reader goes on."""

    async def read(size: int, others: trio.Event) -> None:
        async with pool.stream(Lanes.sized, 100, size) as chunks:
            assert await chunks.receive() == bytes(size)
            await others.wait()
            rest = [chunk[0] async for chunk in chunks]
            assert rest == [*range(1, 100)]

    others = trio.Event()
    async with trio.open_nursery() as nursery:
        for size in (30_000, 200_000):
            nursery.start_soon(read, size, others)
        for number in range(100):
            assert await pool.run_sync(Lanes.echo, number) == number
        others.set()


async def test_credits_of_many_streams_add_up(pool: Pool) -> None:
    async def read(start: int) -> None:
        async with pool.stream(Lanes.numbers, 20_000, start) as chunks:
            assert [number async for number in chunks] == [*range(start, start + 20_000)]

    async with trio.open_nursery() as nursery:
        for start in range(6):
            nursery.start_soon(read, start)


async def test_a_stream_that_is_left_is_closed(pool: Pool) -> None:
    for _ in range(20):
        async with pool.stream(Lanes.kept, "closed") as chunks:
            assert await chunks.receive() == 0
        assert await pool.run_sync(Lanes.wait, "closed", 1) == 1


# Told to stop


async def test_who_asks_is_told_and_its_neighbours_are_not(pool: Pool, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        callings = []
        for number in range(THREADS):
            begun, ended = tmp_path / f"begun {number}", tmp_path / f"ended {number}"
            callings.append(
                Calling.begin(nursery, pool.run_sync, Lanes.asks, str(begun), str(ended))
            )
            await until(begun.exists)
        for number in (1, 0, 2):
            await callings[number].cancel()
            await until((tmp_path / f"ended {number}").exists)
            assert len(os.listdir(tmp_path)) == THREADS + [1, 0, 2].index(number) + 1


async def test_another_thread_has_nothing_to_ask(pool: Pool) -> None:
    said = await pool.run_sync(Lanes.asks_in_thread)
    assert said == "check_cancelled() must be called in a worker of a pool"


async def test_a_soft_timeout_interrupts_what_loops_and_no_neighbour(pool: Pool, go: Path) -> None:
    begun = str(go.with_name("begun"))
    async with trio.open_nursery() as nursery:
        await hold_lanes(nursery, pool, go, 1)
        hasty = pool.with_options(soft_timeout=0.05)
        assert await hasty.run_sync(Lanes.loops, begun) == "in time: soft_timeout has passed"
        with pytest.raises(RequestTimeoutError) as caught:
            await hasty.run_sync(Lanes.loops_on, begun)
        assert caught.value.soft
        open_gate(go)


async def test_an_interrupt_reaches_what_loops_when_its_caller_leaves(pool: Pool, go: Path) -> None:
    begun = go.with_name("begun")
    patient = pool.with_options(on_cancel="interrupt")
    async with trio.open_nursery() as nursery:
        await hold_lanes(nursery, pool, go, 1)
        calling = Calling.begin(nursery, patient.run_sync, Lanes.loops_on, str(begun))
        await until(begun.exists)
        await calling.cancel()
        await until(lambda: pool.statistics().running == 1)
        open_gate(go)


async def test_300_soft_timeouts_around_the_end_hit_nobody_else(pool: Pool) -> None:
    generator = random.Random(17)
    seen: Counter[str] = Counter()
    limiter = trio.CapacityLimiter(12)

    async def call(seconds: float, soft_timeout: float) -> None:
        async with limiter:
            try:
                view = pool.with_options(soft_timeout=soft_timeout)
                assert await view.run_sync(Lanes.spin, seconds) == seconds
                seen["in time"] += 1
            except RequestTimeoutError as error:
                assert error.soft
                assert error.seconds == soft_timeout
                seen["interrupted"] += 1

    async def call_another(value: int) -> None:
        async with limiter:
            assert await pool.run_sync(Lanes.echo, value) == value
            async with pool.stream(Lanes.numbers, 3) as chunks:
                assert [chunk async for chunk in chunks] == [0, 1, 2]

    async with trio.open_nursery() as nursery:
        for number in range(300):
            seconds = generator.uniform(0.0005, 0.003)
            # Most end before the main thread is given the interpreter lock; some never do.
            if number % 15 == 0:
                seconds = 600.0
            nursery.start_soon(call, seconds, min(0.01, seconds * generator.uniform(0.5, 6)))
            nursery.start_soon(call_another, number)
    assert seen.total() == 300
    assert seen["interrupted"] >= 20
    assert pool.statistics().failed == 0


# Deaths


async def test_what_sleeps_is_killed_after_its_timeout_and_says_so_to_its_neighbours(
    mortal: Pool, go: Path
) -> None:
    """An interrupt does not reach it."""
    begun = go.with_name("begun")
    async with trio.open_nursery() as nursery:
        hasty = mortal.with_options(timeout=1.5, soft_timeout=0.2)
        neighbour = await accepted(
            nursery, mortal.run_sync, Lanes.lasts, "sleep", str(begun), str(go)
        )
        await until(begun.exists)
        with pytest.raises(RequestTimeoutError) as caught:
            await hasty.run_sync(Lanes.begin_and_hang, str(go.with_name("hangs")))
        assert not caught.value.soft
        error = (await neighbour.ended()).error
    assert isinstance(error, WorkerCrashedError)
    assert (
        "worker 0 of slot 0 died while executing apps_lanes:Lanes.lasts and "
        "apps_lanes:Lanes.begin_and_hang: "
    ) in str(error)
    assert str(error).endswith(
        "; the pool killed it after timeout=1.5 seconds of apps_lanes:Lanes.begin_and_hang"
    )


async def test_a_kill_for_a_caller_who_has_left_says_so_to_its_neighbours(
    mortal: Pool, go: Path
) -> None:
    begun, hangs = go.with_name("begun"), go.with_name("hangs")
    async with trio.open_nursery() as nursery:
        call = Lanes.lasts, "sleep", str(begun), str(go)
        neighbour = await accepted(nursery, mortal.run_sync, *call)
        await until(begun.exists)
        stern = mortal.with_options(on_cancel="kill")
        calling = Calling.begin(nursery, stern.run_sync, Lanes.begin_and_hang, str(hangs))
        await until(hangs.exists)
        await calling.cancel()
        error = (await neighbour.ended()).error
    assert str(error).endswith(
        "; the pool killed it because the caller of apps_lanes:Lanes.begin_and_hang was cancelled"
    )


@pytest.mark.parametrize("executing", [1, THREADS])
async def test_a_crash_fails_what_had_begun_and_nothing_else(
    mortal: Pool, tmp_path: Path, executing: int
) -> None:
    path, go = tmp_path / "tally", tmp_path / "go"
    pid = mortal.statistics().workers[0].pid
    async with trio.open_nursery() as nursery:
        callings = [
            await accepted(nursery, mortal.run_sync, Lanes.tally_and_last, str(path), str(go))
            for _ in range(executing)
        ]
        await until(lambda: path.exists() and path.stat().st_size == executing)
        if executing == THREADS:
            others = [await accepted(nursery, mortal.run_sync, Lanes.echo, n) for n in range(50)]
        else:
            others = []
        assert pid is not None
        os.kill(pid, 9)
        for calling in callings:
            assert isinstance((await calling.ended()).error, WorkerCrashedError)
    assert [calling.value for calling in others] == [*range(len(others))]
    assert await mortal.run_sync(Lanes.echo, "served") == "served"
    assert path.stat().st_size == executing
    statistics = mortal.statistics()
    assert (statistics.failed, statistics.restarts) == (executing, 1)


async def test_of_many_requests_a_worker_that_exits_fails_as_many_as_it_has_lanes(
    mortal: Pool, tmp_path: Path
) -> None:
    seen: Counter[str] = Counter()
    path = str(tmp_path / "tally")

    async def call(number: int) -> None:
        try:
            await mortal.run_sync(Lanes.tally_and_maybe_exit, path, number == 100)
            seen["served"] += 1
        except WorkerCrashedError as error:
            assert error.exitcode == 7
            seen["crashed"] += 1

    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(call, number)
    assert seen.total() == 300
    assert 1 <= seen["crashed"] <= THREADS
    # Each has begun once, but for those that may have and have not.
    assert seen["served"] + 1 <= os.stat(path).st_size <= 300
    assert mortal.statistics().restarts == 1


async def test_a_forked_child_neither_answers_nor_exits_as_its_parent(pool: Pool) -> None:
    pid, status = await pool.run_sync(Lanes.fork)
    assert status == 0
    assert gone(pid)


@pytest.mark.parametrize("lanes", [1, THREADS])
async def test_without_its_socket_the_worker_ends(lanes: int) -> None:
    with trio.fail_after(PATIENCE):
        async with open_pool([Lanes], workers=1, threads=lanes) as pool:
            with pytest.raises(WorkerCrashedError) as caught:
                await pool.run_sync(Lanes.shut_socket_down)
            assert caught.value.exitcode == 74
            assert await pool.run_sync(Lanes.echo, 1) == 1


async def test_where_its_own_code_breaks_down_the_worker_ends(
    mortal: Pool, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WorkerCrashedError) as caught:
        await mortal.run_sync(Lanes.break_answer)
    assert caught.value.exitcode == 70
    assert "ZeroDivisionError" in capfd.readouterr().err


@pytest.mark.parametrize("end", ["normal", "cancelled"])
async def test_leaving_the_block_leaves_nothing(end: str, go: Path) -> None:
    with trio.fail_after(PATIENCE):
        with trio.CancelScope() as scope:
            async with open_pool([Lanes], workers=2, threads=THREADS) as pool:
                pids = [worker.pid for worker in pool.statistics().workers]
                async with trio.open_nursery() as nursery:
                    if end == "cancelled":
                        await hold_lanes(nursery, pool, go)
                        scope.cancel()
                    else:
                        nursery.start_soon(pool.run_sync, Lanes.meet, 1)
        assert all(pid is not None and gone(pid) for pid in pids)


# The worker's end of the socket


@contextmanager
def read_link() -> Iterator[tuple[SharedSocket, Callable[..., None]]]:
    """Have a link read, and be told that frames have been heeded."""
    ours, workers = socket.socketpair()
    lifeline, pool_end = os.pipe()
    link = SharedSocket(workers, lifeline)
    reading = threading.Thread(target=link.read, args=([lane := ThreadLane()],))

    def tell(*frames: bytes) -> None:
        ours.sendall(b"".join(frames) + wire.frame(wire.PING, 1))
        assert ours.recv(100) == wire.frame(wire.PONG, 1)

    try:
        reading.start()
        yield link, tell
        ours.sendall(wire.frame(wire.CLOSE))
        assert link.take_up(lane) is None
    finally:
        ours.close()
        reading.join()
        link.close()
        os.close(lifeline)
        os.close(pool_end)


def test_what_waits_for_a_lane_can_be_withdrawn_and_interrupted() -> None:
    with read_link() as (link, tell):
        tell(*(wire.frame(wire.REQUEST, n, b"arguments", target=b"target") for n in (5, 6, 7)))
        tell(wire.frame(wire.WITHDRAW, 5), wire.pair_frame(wire.INTERRUPT, 6, CANCELLED, 0))
        # Of one that is not there, or has been answered.
        tell(wire.frame(wire.WITHDRAW, 4), wire.pair_frame(wire.CREDIT, 4, 1, 1))
        lane = ThreadLane()
        taken = []
        while len(taken) < 3:
            request = link.take_up(lane)
            assert request is not None
            taken.append((request[1], lane.abandoned, lane.take_interrupt()))
    assert [(number, gone, type(error)) for number, gone, error in taken] == [
        (5, True, type(None)),
        (6, False, RequestCancelled),
        (7, False, type(None)),
    ]


def test_what_is_behind_a_large_request_is_read_before_that_is_unpickled() -> None:
    data = os.urandom(3_000_000)
    frames = wire.large_frame(wire.REQUEST, 5, [pickle.dumps(data, 5)], target=b"target")
    with read_link() as (link, tell):
        tell(*frames, wire.frame(wire.WITHDRAW, 9))
        frames = wire.large_frame(wire.REQUEST, 7, [pickle.dumps(data, 5)], target=b"target")
        tell(*frames, wire.frame(wire.REQUEST, 6, b"arguments", target=b"target"))
        for _ in range(2):
            request = link.take_up(ThreadLane())
            assert request is not None
            assert isinstance(request[-1], SegmentReader)
            assert request[-1].load() == data
        expected = wire.REQUEST, 6, 0.0, b"target", b"arguments"
        assert link.take_up(ThreadLane()) == expected


def test_one_that_there_is_no_room_for_is_an_error_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_room(size: int) -> bytearray:
        raise MemoryError(size)

    monkeypatch.setitem(vars(shared_socket), "bytearray", no_room)
    frames = wire.large_frame(wire.REQUEST, 5, [bytes(3_000_000)], target=b"target")
    with read_link() as (link, tell):
        tell(*frames)
        request = link.take_up(ThreadLane())
        assert request is not None
        assert isinstance(request[-1], SegmentReader)
        with pytest.raises(MemoryError):
            request[-1].load()


@pytest.mark.parametrize("how", ["timed", "interrupted", "pinged"])
async def test_neighbours_are_served_while_a_lane_unpickles(
    mortal: Pool, tmp_path: Path, how: str
) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    async with trio.open_nursery() as nursery:
        calling = Calling.begin(nursery, mortal.run_sync, len, [Slow(str(begun), str(go))])
        await until(begun.exists)
        if how == "timed":
            assert await mortal.with_options(timeout=PATIENCE).run_sync(Lanes.echo, 1) == 1
            async with mortal.stream(Lanes.sized, 50, 100_000) as chunks:
                assert len([chunk async for chunk in chunks]) == 50
        elif how == "interrupted":
            view = mortal.with_options(soft_timeout=0.2)
            looping = tmp_path / "looping"
            assert str(await view.run_sync(Lanes.loops, str(looping))).startswith("in time")
        else:
            assert await mortal.run_sync(Lanes.echo, bytes(3_000_000)) == bytes(3_000_000)
        assert not calling.has_ended
        open_gate(go)
        assert (await calling.ended()).value == 1
    assert mortal.statistics().restarts == 0


# Simulated


class Seconds(Plan):
    def turn(self, call: Any) -> Turn:
        return Turn(call.args[0])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_simulated_workers_have_lanes(threads: int) -> None:
    async def main() -> float:
        began = trio.current_time()
        async with open_pool(
            [Lanes], workers=1, threads=threads, engine=SimEngine(Seconds())
        ) as pool:
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(pool.run_sync, Lanes.echo, 1)
                await trio.sleep(0.5)
                assert pool.statistics().running == threads
            return trio.current_time() - began

    seconds = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert seconds == pytest.approx(10 / threads)


def test_a_simulated_interrupt_or_crash_counts_lanes() -> None:
    async def main() -> None:
        engine = SimEngine(Seconds())
        async with open_pool([Lanes], workers=1, threads=3, engine=engine) as pool:
            async with trio.open_nursery() as nursery:
                hasty = pool.with_options(soft_timeout=1)
                callings = [
                    Calling.begin(nursery, view.run_sync, Lanes.echo, 5)
                    for view in (pool, hasty, pool)
                ]
                assert isinstance((await callings[1].ended()).error, RequestTimeoutError)
                callings += [
                    await accepted(nursery, pool.run_sync, Lanes.echo, 2) for _ in range(2)
                ]
                assert engine.crash(0)
            crashed = [isinstance(calling.error, WorkerCrashedError) for calling in callings]
            assert crashed == [True, False, True, True, False]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_no_thread_of_this_process_is_left() -> None:
    assert [thread for thread in threading.enumerate() if "lane" in thread.name] == []


async def test_a_result_that_comes_with_many_chunks_of_another_lane_lets_the_queue_go_on() -> None:
    """The reader of the stream has enough to take, and what is queued is not to wait for it."""
    engine = SimEngine(Endless())
    async with open_pool([Numbers], workers=1, threads=2, engine=engine, grace_period=0) as pool:
        (slot,) = pool._slots.all
        async with pool.stream(Numbers.numbers, 100), trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(pool.run_sync, Numbers.add)
            await trio.testing.wait_all_tasks_blocked()
            worker = slot.current
            assert isinstance(worker, SlotWorker)
            assert [*worker.ledger.entries] == [0, 1]
            chunks = Chunks(0, [(number, 16) for number in range(40)])
            worker._settle([(1, 1.0, None, 1), chunks])
            await trio.testing.wait_all_tasks_blocked()
            assert 2 in worker.ledger.entries
            nursery.cancel_scope.cancel()


class Endless(Plan):
    """No action ends."""

    def turn(self, call: Call) -> Turn:
        return Turn(math.inf)
