"""Streams of real workers: what arrives, how far a generator runs ahead, and how each is left."""

from __future__ import annotations

import gc
import os
import re
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from apps_control import Control, DoesNotPickle, DoesNotUnpickle, plain_numbers
from calling import Calling
from messages import whole
from scripts.harness import PATIENCE, gone, until

import trio_dirty
from trio_dirty import (
    Pool,
    PoolBusyError,
    RemoteError,
    RequestTimeoutError,
    WorkerCrashedError,
    open_pool,
)
from trio_dirty._common import wire
from trio_dirty._common.segments import SegmentReader
from trio_dirty._worker.socket import WorkerSocket

CHUNKS_AHEAD = 1_000
BYTES_AHEAD = 1 << 20


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """A pool of one worker, which must outlive whatever the test does."""
    async with open_pool([Control], workers=1) as pool:
        pid = await pool.run_sync(Control.pid)
        yield pool
        await check_serves(pool)
        assert await pool.run_sync(Control.pid) == pid
        assert pool.statistics().restarts == 0


@pytest.fixture
async def mortal() -> AsyncIterator[Pool]:
    """A pool of one worker, which may die and must be replaced."""
    async with open_pool([Control], workers=1) as pool:
        yield pool
        await check_serves(pool)


async def check_serves(pool: Pool) -> None:
    """Check that a call and a stream are served, and that nothing else is left."""
    with trio.fail_after(PATIENCE):
        assert await pool.run_sync(Control.echo, "still here") == "still here"
        assert await read(pool, Control.numbers, 3) == [0, 1, 2]
    statistics = pool.statistics()
    assert (statistics.queued, statistics.running, statistics.abandoned) == (0, 0, 0)


async def read(pool: Pool, *call: Any, **kwargs: Any) -> list[Any]:
    """Return all chunks of a stream."""
    async with pool.stream(*call, **kwargs) as chunks:
        return [chunk async for chunk in chunks]


def arrived(chunks: object) -> int:
    """Return how many chunks have arrived that the reader has not taken."""
    found = re.search(r"(\d+) chunks arrived", repr(chunks))
    assert found is not None
    return int(found[1])


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# What arrives


async def test_chunks_arrive_in_order_and_whole(pool: Pool) -> None:
    assert await read(pool, Control.numbers, 10_000) == [*range(10_000)]


async def test_chunks_of_every_size_arrive_whole(pool: Pool) -> None:
    sizes = [0, 1, 65_535, 65_536, 65_537, 3, 300_000, 0, 5_000_000, 1, 262_144, 524_288, 2]
    chunks = await read(pool, Control.sizes, *sizes)
    assert [*map(len, chunks)] == sizes
    assert all(chunk == b"\1" * len(chunk) for chunk in chunks)


async def test_chunks_of_10_megabytes_arrive_whole(pool: Pool) -> None:
    chunks = await read(pool, Control.sizes, *[10_000_000] * 5)
    assert chunks == [b"\1" * 10_000_000] * 5


async def test_a_chunk_of_100_megabytes_arrives_whole(pool: Pool) -> None:
    assert await read(pool, Control.sizes, 1, 100_000_000, 1) == [
        b"\1",
        b"\1" * 100_000_000,
        b"\1",
    ]


async def test_a_stream_may_be_empty(pool: Pool) -> None:
    assert await read(pool, Control.nothing) == []


@pytest.mark.parametrize("app", [Control, "apps_control:Control"])
async def test_an_action_is_streamed_by_name(pool: Pool, app: Any) -> None:
    assert await read(pool, app, "numbers", 5, start=2) == [2, 3, 4]


async def test_a_generator_function_that_is_no_action_is_streamed(pool: Pool) -> None:
    assert await read(pool, plain_numbers, 4) == [0, 1, 2, 3]


async def test_an_iterator_that_is_no_generator_is_streamed(pool: Pool) -> None:
    assert await read(pool, Control.mapped) == ["0", "1", "2", "3", "4"]
    assert await read(pool, Control.countdown, 3) == [2, 1, 0]


@pytest.mark.parametrize("action", ["mapped", "countdown"])
async def test_an_iterator_that_cannot_be_closed_may_be_left(pool: Pool, action: str) -> None:
    async with pool.stream(Control, action, *[5_000][: action == "countdown"]) as chunks:
        await chunks.receive()


async def test_a_stream_has_large_arguments(pool: Pool) -> None:
    large = [os.urandom(300_000), os.urandom(5_000_000)]
    assert await read(pool, Control.echoes, *large, 1) == [*large, 1]


async def test_many_streams_follow_each_other(pool: Pool) -> None:
    for count in range(200):
        assert await read(pool, Control.numbers, count) == [*range(count)]


async def test_streams_of_several_workers_are_read_side_by_side() -> None:
    async with open_pool([Control], workers=2) as pool:
        async with (
            pool.stream(Control.numbers, 3_000) as one,
            pool.stream(Control.numbers, 3_000, start=1) as other,
        ):
            for number in range(2_999):
                assert await one.receive() == number
                assert await other.receive() == number + 1
        assert sorted(worker.completed for worker in pool.statistics().workers) == [1, 1]


async def test_the_end_is_told_again_and_again(pool: Pool) -> None:
    async with pool.stream(Control.numbers, 1) as chunks:
        assert await chunks.receive() == 0
        for _ in range(3):
            with pytest.raises(trio.EndOfChannel):
                await chunks.receive()


async def test_a_stream_shows_its_state(pool: Pool) -> None:
    async with pool.stream(Control.numbers, 3) as chunks:
        await until(lambda: arrived(chunks) == 3)
        assert repr(chunks) == "<ChunkChannel of apps_control:Control.numbers, 3 chunks arrived>"
    assert repr(chunks) == "<ChunkChannel of apps_control:Control.numbers, closed>"


# How it ends


@pytest.mark.parametrize("count", [0, 1, 5_000])
async def test_an_exception_arrives_behind_the_chunks_before_it(pool: Pool, count: int) -> None:
    found = []
    async with pool.stream(Control.fails, count, LookupError, "no more") as chunks:
        with pytest.raises(LookupError, match=whole("no more")) as caught:
            async for chunk in chunks:
                found.append(chunk)
        with pytest.raises(trio.EndOfChannel):
            await chunks.receive()
    assert found == [*range(count)]
    assert "in fails" in str(caught.value.__cause__)


async def test_an_exception_leaves_the_block_as_it_is(pool: Pool) -> None:
    with pytest.raises(LookupError, match=whole("no more")):
        async with pool.stream(Control.fails, 3, LookupError, "no more") as chunks:
            async for _ in chunks:
                pass


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_an_exception_that_would_end_the_program_is_a_remote_error(
    pool: Pool, kind: type[BaseException]
) -> None:
    async with pool.stream(Control.fails, 1, kind, "enough") as chunks:
        assert await chunks.receive() == 0
        with pytest.raises(RemoteError, match=whole(f"{kind.__name__}: enough")) as caught:
            await chunks.receive()
    assert caught.value.type_name == kind.__name__


@pytest.mark.parametrize("kind", [StopAsyncIteration, trio.EndOfChannel])
async def test_an_exception_that_means_an_end_to_the_reader_is_no_end(
    pool: Pool, kind: type[Exception]
) -> None:
    found = []
    name = kind.__name__ if kind.__module__ == "builtins" else f"trio.{kind.__name__}"
    message = f"the generator raised {name}, which would have ended the stream for its reader"
    with pytest.raises(RemoteError, match=whole(message)) as caught:
        async with pool.stream(Control.fails, 2, kind, "early") as chunks:
            async for chunk in chunks:
                found.append(chunk)
    assert found == [0, 1]
    assert caught.value.type_name == name
    assert "in fails" in caught.value.remote_traceback


async def test_an_action_that_raises_stop_iteration_is_no_empty_stream(pool: Pool) -> None:
    async with pool.stream(Control.raises_at_call, StopIteration) as chunks:
        with pytest.raises(RemoteError, match="StopIteration: at the call") as caught:
            await chunks.receive()
    assert caught.value.type_name == "StopIteration"


async def test_an_exception_at_the_call_arrives(pool: Pool) -> None:
    async with pool.stream(Control.raises_at_call, ZeroDivisionError) as chunks:
        with pytest.raises(ZeroDivisionError, match=whole("at the call")) as caught:
            await chunks.receive()
    assert "in raises_at_call" in str(caught.value.__cause__)


@pytest.mark.parametrize(("how", "exitcode"), [("exit", 3), ("kill", -signal.SIGKILL)])
@pytest.mark.parametrize("count", [0, 3, 500])
async def test_a_death_arrives_behind_the_chunks_before_it(
    mortal: Pool, how: str, exitcode: int, count: int
) -> None:
    pid = await mortal.run_sync(Control.pid)
    found = []
    async with mortal.stream(Control.dies, count, how) as chunks:
        with pytest.raises(WorkerCrashedError) as caught:
            async for chunk in chunks:
                found.append(chunk)
        with pytest.raises(trio.EndOfChannel):
            await chunks.receive()
    assert found == [*range(count)]
    error = caught.value
    assert (error.app, error.action, error.slot) == ("apps_control:Control", "dies", 0)
    assert (error.pid, error.exitcode) == (pid, exitcode)
    assert await mortal.run_sync(Control.pid) != pid


async def test_what_had_arrived_before_a_kill_is_there(mortal: Pool) -> None:
    pid = await mortal.run_sync(Control.pid)
    async with mortal.stream(Control.numbers, 1_000_000) as chunks:
        await until(lambda: arrived(chunks) == CHUNKS_AHEAD)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: gone(pid))
        found = []
        with pytest.raises(WorkerCrashedError):
            async for chunk in chunks:
                found.append(chunk)
    assert found[:CHUNKS_AHEAD] == [*range(CHUNKS_AHEAD)]


async def test_a_kill_in_the_middle_of_large_chunks_is_a_crash(mortal: Pool) -> None:
    pid = await mortal.run_sync(Control.pid)
    with pytest.raises(WorkerCrashedError):
        async with mortal.stream(Control.sizes, *[50_000_000] * 1_000) as chunks:
            async for chunk in chunks:
                assert chunk == b"\1" * 50_000_000
                os.kill(pid, signal.SIGKILL)


# How far it runs ahead


async def test_a_slow_reader_holds_the_generator_at_1000_chunks(pool: Pool, tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    async with pool.stream(Control.tallied, 5_000, 1, str(steps)) as chunks:
        await until(lambda: arrived(chunks) == CHUNKS_AHEAD)
        taken = 0
        async for _ in chunks:
            taken += 1
            assert size(steps) <= taken + CHUNKS_AHEAD
    assert taken == size(steps) == 5_000


@pytest.mark.parametrize("length", [70_000, 100_000, 400_000, 3_000_000])
async def test_a_slow_reader_holds_the_generator_at_a_mebibyte(
    pool: Pool, tmp_path: Path, length: int
) -> None:
    steps = tmp_path / "steps"
    most = max(1, BYTES_AHEAD // length)
    async with pool.stream(Control.tallied, 40, length, str(steps)) as chunks:
        await until(lambda: arrived(chunks) >= most)
        taken = 0
        async for chunk in chunks:
            assert len(chunk) == length
            taken += 1
            assert size(steps) <= taken + most
    assert taken == size(steps) == 40


async def test_a_generator_that_is_held_stays_so(pool: Pool, tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    async with pool.stream(Control.tallied, 5_000, 1, str(steps)) as chunks:
        await until(lambda: arrived(chunks) == CHUNKS_AHEAD)
        # Half of them must be taken before it is told.
        for _ in range(CHUNKS_AHEAD // 2 - 1):
            await chunks.receive()
        assert size(steps) == CHUNKS_AHEAD
        await chunks.receive()
        await until(lambda: size(steps) == CHUNKS_AHEAD * 3 // 2)


async def test_a_stream_waits_its_turn(pool: Pool, tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    async with trio.open_nursery() as nursery:
        first = Calling.begin(nursery, pool.run_sync, Control.last, "sleep", str(begun), str(go))
        await until(begun.exists)
        async with pool.stream(Control.numbers, 3) as chunks:
            reader = Calling.begin(nursery, chunks.receive)
            await trio.testing.wait_all_tasks_blocked()
            assert not reader.has_ended
            assert not first.has_ended
            go.touch()
            assert (await reader.ended()).value == 0
            assert (await first.ended()).value == "lasted"
            assert [chunk async for chunk in chunks] == [1, 2]


async def test_nothing_is_sent_ahead_behind_a_stream(pool: Pool) -> None:
    (slot,) = pool._slots.all
    async with trio.open_nursery() as nursery:
        async with pool.stream(Control.numbers, 5_000) as chunks:
            assert await chunks.receive() == 0
            behind = [Calling.begin(nursery, pool.run_sync, Control.echo, n) for n in range(5)]
            await trio.testing.wait_all_tasks_blocked()
            assert len(slot.queue) == 5
            assert len(slot.current.ledger.entries) == 1
            statistics = pool.statistics()
            assert (statistics.queued, statistics.running) == (5, 1)
            assert len([chunk async for chunk in chunks]) == 4_999
        for number, calling in enumerate(behind):
            assert (await calling.ended()).value == number


async def test_what_is_queued_behind_a_stream_goes_elsewhere_with_its_death(
    mortal: Pool,
) -> None:
    async with trio.open_nursery() as nursery, mortal.stream(Control.numbers, 5_000) as chunks:
        await until(lambda: arrived(chunks) == CHUNKS_AHEAD)
        behind = [Calling.begin(nursery, mortal.run_sync, Control.echo, n) for n in range(5)]
        other = Calling.begin(nursery, read, mortal, Control.numbers, 2_000)
        await trio.testing.wait_all_tasks_blocked()
        pid = mortal.statistics().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert [(await calling.ended()).value for calling in behind] == [*range(5)]
        assert (await other.ended()).value == [*range(2_000)]


# Leaving


class EnoughError(Exception):
    pass


async def leave(how: str, chunks: Any, scope: trio.CancelScope) -> None:
    if how == "raise":
        raise EnoughError
    if how == "cancel":
        scope.cancel()
        await trio.sleep_forever()
    if how == "close":
        chunks.close()
    if how == "aclose":
        await chunks.aclose()


def expected(how: str) -> AbstractContextManager[object]:
    return pytest.raises(EnoughError) if how == "raise" else nullcontext()


WAYS = ["end", "raise", "cancel", "close", "aclose"]


@pytest.mark.parametrize("how", WAYS)
async def test_leaving_closes_a_generator_that_is_held(
    pool: Pool, tmp_path: Path, how: str
) -> None:
    pid, ended = await pool.run_sync(Control.pid), tmp_path / "ended"
    with trio.CancelScope() as scope, expected(how):
        async with pool.stream(Control.kept, 1_000_000, str(ended)) as chunks:
            await until(lambda: arrived(chunks) == CHUNKS_AHEAD)
            assert not ended.exists()
            await leave(how, chunks, scope)
    await until(ended.exists)
    assert ended.read_text() == "GeneratorExit()"
    assert await pool.run_sync(Control.add) == 2
    assert await pool.run_sync(Control.pid) == pid


@pytest.mark.parametrize("how", WAYS)
async def test_leaving_does_not_wait_for_a_generator_that_computes(
    pool: Pool, tmp_path: Path, how: str
) -> None:
    pid = await pool.run_sync(Control.pid)
    begun, go, ended = tmp_path / "begun", tmp_path / "go", tmp_path / "ended"
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope, expected(how):
        async with pool.stream(Control.lasting, "loop", str(begun), str(go), str(ended)) as chunks:
            await until(begun.exists)
            await leave(how, chunks, scope)
    assert not ended.exists()
    assert pool.statistics().abandoned == 1
    await trio.testing.wait_all_tasks_blocked()  # until the worker has been told
    go.touch()
    await until(ended.exists)
    assert ended.read_text() == "GeneratorExit()"
    assert await pool.run_sync(Control.add) == 2
    assert await pool.run_sync(Control.pid) == pid


async def test_leaving_by_break_closes_the_generator(pool: Pool, tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    async with pool.stream(Control.kept, 1_000_000, str(ended)) as chunks:
        async for chunk in chunks:
            if chunk == 2_000:
                break
    await until(ended.exists)
    assert ended.read_text() == "GeneratorExit()"


async def test_a_stream_that_has_ended_is_not_closed_again(pool: Pool, tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    assert await read(pool, Control.kept, 3, str(ended)) == [0, 1, 2]
    assert ended.read_text() == "None"


async def test_a_stream_that_has_not_begun_leaves_the_queue_at_once(
    pool: Pool, tmp_path: Path
) -> None:
    begun, go, ended = tmp_path / "begun", tmp_path / "go", tmp_path / "ended"
    async with trio.open_nursery() as nursery:
        first = Calling.begin(nursery, pool.run_sync, Control.last, "sleep", str(begun), str(go))
        await until(begun.exists)
        # The first of them is sent ahead, the others are queued.
        for _ in range(5):
            async with pool.stream(Control.kept, 3, str(ended)):
                await trio.testing.wait_all_tasks_blocked()
        assert pool.statistics().queued == 0
        assert not first.has_ended
        go.touch()
        await first.ended()
    assert await pool.run_sync(Control.add) == 2
    assert not ended.exists(), "one of them has begun"


async def test_streams_that_were_left_while_held_hold_no_other(pool: Pool) -> None:
    for _ in range(3):
        async with pool.stream(Control.numbers, 5_000) as chunks:
            await until(lambda: arrived(chunks) == CHUNKS_AHEAD)
        with trio.fail_after(PATIENCE):
            assert await read(pool, Control.numbers, 5) == [0, 1, 2, 3, 4]


async def test_streams_that_were_left_disturb_no_request(pool: Pool) -> None:
    async def leave_early(number: int) -> None:
        async with pool.stream(Control.numbers, 5_000) as chunks:
            for expected in range(number % 7):
                assert await chunks.receive() == expected

    async def call(number: int) -> None:
        assert await pool.run_sync(Control.echo, bytes(number * 700)) == bytes(number * 700)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon((leave_early, call)[number % 2], number)


# What becomes of one that computes on, as on_cancel says


@pytest.mark.parametrize("how", ["sleep", "match"])
async def test_interrupt_ends_a_step(pool: Pool, tmp_path: Path, how: str) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    view = pool.with_options(on_cancel="interrupt")
    with trio.fail_after(PATIENCE):
        # A file that never comes.
        how = "loop" if how == "match" else how
        async with view.stream(
            Control.lasting, how, str(begun), str(tmp_path / "go"), str(ended)
        ) as chunks:
            assert await chunks.receive() == 0
            await until(begun.exists)
    await until(ended.exists)
    assert ended.read_text() == "RequestCancelled('the caller has left')"
    assert await pool.run_sync(Control.add) == 2


async def test_interrupt_kills_a_step_that_ignores_it(mortal: Pool, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    async with open_pool([Control], workers=1, on_cancel="interrupt", cancel_grace=0.1) as pool:
        async with pool.stream(Control.ignores_interrupts, "sleep", str(begun)) as chunks:
            assert await chunks.receive() == 0
            await until(begun.exists)
        with trio.fail_after(PATIENCE):
            assert await pool.run_sync(Control.pid) != int(begun.read_text())
        assert pool.statistics().restarts == 1


@pytest.mark.parametrize("how", ["sleep", "loop", "c"])
async def test_kill_ends_a_step(mortal: Pool, tmp_path: Path, how: str) -> None:
    begun, go, ended = tmp_path / "begun", tmp_path / "go", tmp_path / "ended"
    view = mortal.with_options(on_cancel="kill")
    async with trio.open_nursery() as nursery:
        async with view.stream(Control.lasting, how, str(begun), str(go), str(ended)) as chunks:
            assert await chunks.receive() == 0
            await until(begun.exists)
            behind = [Calling.begin(nursery, mortal.run_sync, Control.echo, n) for n in range(5)]
            await trio.testing.wait_all_tasks_blocked()
        assert [(await calling.ended()).value for calling in behind] == [*range(5)]
    assert await mortal.run_sync(Control.pid) != int(begun.read_text())
    assert mortal.statistics().restarts == 1
    assert not ended.exists()


@pytest.mark.parametrize("how", WAYS[:3])
async def test_wait_waits_for_the_end_of_a_step(pool: Pool, tmp_path: Path, how: str) -> None:
    begun, go, ended = tmp_path / "begun", tmp_path / "go", tmp_path / "ended"
    left = trio.Event()

    async def stream() -> None:
        view = pool.with_options(on_cancel="wait")
        with trio.CancelScope() as scope, expected(how):
            async with view.stream(
                Control.lasting, "sleep", str(begun), str(go), str(ended)
            ) as chunks:
                await until(begun.exists)
                leaving.set()
                await leave(how, chunks, scope)
        assert ended.exists()
        left.set()

    leaving = trio.Event()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream)
            await leaving.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert not left.is_set()
            go.touch()


async def test_an_action_can_ask_whether_its_stream_was_left(pool: Pool, tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    async with pool.stream(Control.asks_between, str(begun), str(ended)) as chunks:
        assert await chunks.receive() == 0
        await until(begun.exists)
        assert not ended.exists()
    await until(ended.exists)
    assert ended.read_text() == "RequestCancelled('the caller has left')"


# Limits


async def test_timeout_bounds_each_step_and_not_the_whole(pool: Pool) -> None:
    steps = [0.5] * 6
    assert await read(pool.with_options(timeout=2.5), Control.steps, *steps) == steps


@pytest.mark.parametrize("how", ["sleep", "match", "c"])
async def test_timeout_ends_a_step(mortal: Pool, how: str) -> None:
    pid = await mortal.run_sync(Control.pid)
    async with mortal.with_options(timeout=0.5).stream(Control.hangs_at_second, how) as chunks:
        assert await chunks.receive() == 0
        with pytest.raises(
            RequestTimeoutError,
            match=whole(
                "apps_control:Control.hangs_at_second: a step of its generator took longer than "
                "timeout=0.5 seconds, and its worker 0 of slot 0 was killed"
            ),
        ) as caught:
            await chunks.receive()
        with pytest.raises(trio.EndOfChannel):
            await chunks.receive()
    error = caught.value
    assert (error.soft, error.seconds, error.slot, error.pid) == (False, 0.5, 0, pid)
    assert (error.app, error.action) == ("apps_control:Control", "hangs_at_second")


async def test_a_generator_that_never_yields_is_bounded(mortal: Pool, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    view = mortal.with_options(timeout=0.5)
    with pytest.raises(RequestTimeoutError) as caught:
        await read(view, Control.never_yields, str(begun))
    assert caught.value.pid == int(begun.read_text())


async def test_the_time_of_the_reader_does_not_count(pool: Pool) -> None:
    """It waits for longer than the limits: for a generator that is held, and with one."""
    timeout = 2.0
    views = [pool.with_options(timeout=timeout), pool.with_options(soft_timeout=timeout)]
    for view in views:
        async with view.stream(Control.numbers, 3_000) as chunks:
            await until(lambda: arrived(chunks) == CHUNKS_AHEAD)
            await trio.sleep(1.5 * timeout)
            assert [chunk async for chunk in chunks] == [*range(3_000)]


async def test_the_time_of_the_reader_of_chunks_of_all_sizes_does_not_count(pool: Pool) -> None:
    """It has taken many and waits, while the next would be too many bytes ahead."""
    sizes = [1] * 600 + [600_000] * 2
    async with pool.with_options(timeout=1.5).stream(Control.sizes, *sizes) as chunks:
        await until(lambda: arrived(chunks) == 601)
        for _ in range(550):
            await chunks.receive()
        assert arrived(chunks) == 51, "the generator is not held"
        await trio.sleep(2.5)
        assert [len(chunk) async for chunk in chunks] == sizes[550:]


async def test_a_stream_that_waits_in_the_queue_does_not_time_out(
    pool: Pool, tmp_path: Path
) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    async with trio.open_nursery() as nursery:
        Calling.begin(nursery, pool.run_sync, Control.last, "sleep", str(begun), str(go))
        await until(begun.exists)
        reader = Calling.begin(nursery, read, pool.with_options(timeout=1.5), Control.numbers, 3)
        await trio.sleep(2.5)
        go.touch()
        assert (await reader.ended()).value == [0, 1, 2]


@pytest.mark.parametrize("how", ["sleep", "match"])
async def test_soft_timeout_is_raised_in_a_step_and_once_for_each(pool: Pool, how: str) -> None:
    pid = await pool.run_sync(Control.pid)
    async with pool.with_options(soft_timeout=0.3).stream(Control.goes_on, how) as chunks:
        assert await chunks.receive() == "quick"
        assert await chunks.receive() == "interrupted"
        with pytest.raises(
            RequestTimeoutError,
            match=whole(
                "apps_control:Control.goes_on: a step of its generator took longer than "
                "soft_timeout=0.3 seconds, and was interrupted"
            ),
        ) as caught:
            await chunks.receive()
    error = caught.value
    assert (error.soft, error.seconds, error.slot, error.pid) == (True, 0.3, 0, pid)
    assert "in goes_on" in str(error.__cause__)


async def test_many_steps_that_end_around_their_soft_timeout_hit_nobody(pool: Pool) -> None:
    view = pool.with_options(soft_timeout=0.01)
    for _ in range(30):
        found = []
        try:
            async with view.stream(Control.steps, *[0.009, 0.0001, 0.0098] * 3) as chunks:
                async for chunk in chunks:
                    found.append(chunk)
        except RequestTimeoutError as error:
            assert error.soft
            assert len(found) < 9
        else:
            assert found == [0.009, 0.0001, 0.0098] * 3
        assert await pool.run_sync(Control.echo, 1) == 1


async def test_timeout_bounds_a_generator_that_hangs_while_it_is_closed(
    mortal: Pool, tmp_path: Path
) -> None:
    """Held or not when it was left: else it would hold its worker for ever."""
    view = mortal.with_options(timeout=0.5)
    for name, enough in [("held", CHUNKS_AHEAD), ("computing", 1)]:
        closing = tmp_path / name
        async with view.stream(Control.hangs_at_closing, str(closing)) as chunks:
            await until(lambda: arrived(chunks) >= enough)  # noqa: B023
        await until(closing.exists)
        with trio.fail_after(PATIENCE):
            assert await mortal.run_sync(Control.pid) != int(closing.read_text())


# Closing the pool


async def test_a_stream_is_served_while_the_pool_closes(tmp_path: Path) -> None:
    begun, go, ended = tmp_path / "begun", tmp_path / "go", tmp_path / "ended"
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as outside:
            async with open_pool([Control], workers=1) as pool:
                arguments = "sleep", str(begun), str(go), str(ended)
                reader = Calling.begin(outside, read, pool, Control.lasting, *arguments)
                late = pool.stream(Control.numbers, 1)
                await until(begun.exists)

                async def let_go() -> None:
                    await until(lambda: "closed" in repr(pool))
                    assert not reader.has_ended
                    go.touch()

                outside.start_soon(let_go)
            assert (await reader.ended()).value == [0, 1]
    assert ended.read_text() == "None"
    with pytest.raises(trio.ClosedResourceError, match=whole("this pool is closed")):
        async with late:
            pass


async def test_a_stream_is_served_for_the_grace_period_only() -> None:
    entered, found = trio.Event(), []

    async def hold(pool: Pool) -> None:
        async with pool.stream(Control.numbers, 5_000) as chunks:
            await until(lambda: arrived(chunks) == CHUNKS_AHEAD)
            entered.set()
            await until(lambda: chunks._request.ended)
            with pytest.raises(trio.ClosedResourceError, match=whole("this pool was closed")):
                async for chunk in chunks:
                    found.append(chunk)

    with trio.fail_after(PATIENCE):
        async with (
            trio.open_nursery() as outside,
            open_pool([Control], workers=1, grace_period=0) as pool,
        ):
            outside.start_soon(hold, pool)
            await entered.wait()
    assert found == [*range(CHUNKS_AHEAD)]


@pytest.mark.parametrize("on_cancel", ["abandon", "interrupt", "kill", "wait"])
async def test_a_reader_outside_of_a_cancelled_pool_is_told(on_cancel: Any) -> None:
    entered, pids = trio.Event(), []

    async def hold(pool: Pool) -> None:
        async with pool.stream(Control.hangs_at_second, "sleep") as chunks:
            assert await chunks.receive() == 0
            entered.set()
            with pytest.raises(trio.ClosedResourceError, match=whole("this pool was closed")):
                await chunks.receive()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as outside:
            with trio.CancelScope() as scope:
                async with open_pool([Control], workers=1, on_cancel=on_cancel) as pool:
                    pids.append(pool.statistics().workers[0].pid)
                    outside.start_soon(hold, pool)
                    await entered.wait()
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
    assert gone(pids[0])


@pytest.mark.parametrize("on_cancel", ["abandon", "interrupt", "kill"])
async def test_a_stream_is_cancelled_together_with_its_pool(on_cancel: Any) -> None:
    with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
        async with open_pool([Control], workers=1, on_cancel=on_cancel) as pool:
            pid = pool.statistics().workers[0].pid
            async with pool.stream(Control.hangs_at_second, "sleep") as chunks:
                assert await chunks.receive() == 0
                scope.cancel()
                await chunks.receive()
    assert scope.cancelled_caught
    assert pid is not None
    assert gone(pid)


async def test_a_block_that_is_left_behind_its_pool_ends_nothing() -> None:
    async with open_pool([Control], workers=1, grace_period=0) as pool:
        manager = pool.stream(Control.numbers, 5_000)
        chunks = await manager.__aenter__()
        assert await chunks.receive() == 0
    await manager.__aexit__(None, None, None)
    with pytest.raises(trio.ClosedResourceError):
        await chunks.receive()


# Generators that misbehave


async def test_a_generator_that_ignores_its_closing_is_left_all_the_same(
    pool: Pool, tmp_path: Path
) -> None:
    ignored = tmp_path / "ignored"
    async with pool.stream(Control.ignores_closing, str(ignored)) as chunks:
        assert await chunks.receive() == 0
    await until(ignored.exists)
    assert await pool.run_sync(Control.add) == 1


async def test_a_generator_that_raises_while_it_is_closed_is_left_all_the_same(
    pool: Pool, tmp_path: Path
) -> None:
    raised = tmp_path / "raised"
    async with pool.stream(Control.raises_at_closing, str(raised)) as chunks:
        assert await chunks.receive() == 1
    await until(raised.exists)
    assert await pool.run_sync(Control.add) == 1


async def test_a_chunk_that_does_not_pickle_ends_the_stream(pool: Pool) -> None:
    found = []
    kinds = [int, str, DoesNotPickle, int]
    async with pool.stream(Control.values, *kinds) as chunks:
        with pytest.raises(
            RemoteError,
            match=whole(
                "a chunk of type apps_control.DoesNotPickle cannot be pickled: "
                "ValueError('exploded while it was pickled')"
            ),
        ) as caught:
            async for chunk in chunks:
                found.append(chunk)
        with pytest.raises(trio.EndOfChannel):
            await chunks.receive()
    assert found == [0, ""]
    assert caught.value.type_name == "apps_control.DoesNotPickle"
    assert "in __reduce__" in caught.value.remote_traceback


async def test_a_chunk_that_does_not_unpickle_ends_the_stream(pool: Pool) -> None:
    found = []
    kinds = [int, str, DoesNotUnpickle, int]
    async with pool.stream(Control.values, *kinds) as chunks:
        with pytest.raises(
            RemoteError,
            match=whole("a chunk cannot be unpickled: ValueError: exploded while it was unpickled"),
        ) as caught:
            async for chunk in chunks:
                found.append(chunk)
        with trio.fail_after(PATIENCE), pytest.raises(trio.EndOfChannel):
            await chunks.receive()
    assert found == [0, ""]
    assert "in explode" in caught.value.remote_traceback


async def test_a_lock_is_no_chunk(pool: Pool) -> None:
    async with pool.stream(Control.values, threading.Lock) as chunks:
        with pytest.raises(RemoteError, match=r"^a chunk of type _thread.lock cannot be pickled: "):
            await chunks.receive()


# What is no stream


async def test_a_list_is_no_stream(pool: Pool) -> None:
    message = (
        "stream needs an action that yields, or returns an iterator, and this one returned a "
        "list: use run_sync or execute for it, or write the action with yield"
    )
    for call in [(Control.a_list,), (Control, "a_list"), (sorted, [1])]:
        async with pool.stream(*call) as chunks:  # type: ignore[call-overload]
            with pytest.raises(TypeError, match=whole(message)):
                await chunks.receive()


@pytest.mark.parametrize("action", ["asynchronous", "async_generator"])
async def test_an_async_action_is_no_stream(pool: Pool, action: str) -> None:
    message = (
        f"Control.{action} is an async function; workers run synchronous code: "
        "write it with def, or await it in this process"
    )
    with pytest.raises(TypeError, match=whole(message)):
        pool.stream(getattr(Control, action))
    async with pool.stream(Control, action) as chunks:
        with pytest.raises(
            TypeError,
            match=whole(
                f"Control.{action} is async; workers run synchronous code: write it with def"
            ),
        ):
            await chunks.receive()


@pytest.mark.parametrize("app", [Control, "apps_control:Control"])
async def test_an_app_alone_is_no_stream(pool: Pool, app: Any) -> None:
    name = "Control" if app is Control else app
    with pytest.raises(
        TypeError,
        match=whole(
            f"stream({name!r}) lacks the name of an action: "
            f'call stream({name!r}, "action", ...), or stream(App.action, ...)'
        ),
    ):
        pool.stream(app)


async def test_an_argument_that_does_not_pickle_is_refused_on_entering(pool: Pool) -> None:
    stream = pool.stream(Control.numbers, DoesNotPickle())  # type: ignore[arg-type]
    with pytest.raises(
        TypeError,
        match=whole(
            "argument 1, DoesNotPickle, of apps_control:Control.numbers cannot be pickled: "
            "exploded while it was pickled"
        ),
    ):
        await stream.__aenter__()


async def test_a_stream_beyond_max_queue_is_refused_on_entering() -> None:
    async with open_pool([Control], workers=1, max_queue=0) as pool:
        async with pool.stream(Control.numbers, 5_000) as chunks:
            assert await chunks.receive() == 0
            with pytest.raises(
                PoolBusyError,
                match=whole(
                    "the pool is busy: every slot that could take apps_control:Control.numbers has "
                    "max_queue=0 requests that have not begun"
                ),
            ):
                await read(pool, Control.numbers, 1)
        await until(lambda: not pool.statistics().running)
        await check_serves(pool)


# What a reader may do


async def test_a_stream_may_be_left_unread(pool: Pool, tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    async with pool.stream(Control.kept, 5_000, str(ended)):
        await until(lambda: pool.statistics().running)
    assert await pool.run_sync(Control.echo, 1) == 1


async def test_a_stream_may_never_be_entered(pool: Pool) -> None:
    pool.stream(Control.numbers, 5)
    gc.collect()
    assert await pool.run_sync(Control.add) == 1


async def test_a_stream_is_entered_once(pool: Pool) -> None:
    stream = pool.stream(Control.numbers, 2)
    message = "this stream has been entered already: call pool.stream(...) once for each block"
    async with stream as chunks:
        with pytest.raises(RuntimeError, match=whole(message)):
            await stream.__aenter__()
        assert [chunk async for chunk in chunks] == [0, 1]
    with pytest.raises(RuntimeError, match=whole(message)):
        await stream.__aenter__()


async def test_a_cancelled_caller_enters_no_stream(pool: Pool, tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    with trio.CancelScope() as scope:
        scope.cancel()
        async with pool.stream(Control.kept, 1, str(ended)):
            raise AssertionError("entered")
    assert scope.cancelled_caught
    assert await pool.run_sync(Control.add) == 1


async def test_a_stream_has_one_reader_at_a_time(pool: Pool, tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with trio.open_nursery() as nursery, pool.stream(Control.when, str(go)) as chunks:
        first = Calling.begin(nursery, chunks.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(
            trio.BusyResourceError, match=whole("another task is receiving from this stream")
        ):
            await chunks.receive()
        go.touch()
        assert (await first.ended()).value == 0
        with pytest.raises(trio.EndOfChannel):
            await chunks.receive()


async def test_a_stream_may_change_its_reader(pool: Pool) -> None:
    async with trio.open_nursery() as nursery, pool.stream(Control.numbers, 50) as chunks:
        for number in range(50):
            reader = Calling.begin(nursery, chunks.receive)
            assert (await reader.ended()).value == number


async def test_a_stream_cannot_be_read_behind_its_block(pool: Pool) -> None:
    async with pool.stream(Control.numbers, 5) as chunks:
        assert await chunks.receive() == 0
    for _ in range(2):
        with pytest.raises(
            trio.ClosedResourceError, match=whole("the block of this stream has been left")
        ):
            await chunks.receive()


async def test_a_cancelled_receive_has_taken_no_chunk(pool: Pool, tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(5)]
    async with (
        pool.stream(Control.when, *map(str, paths)) as chunks,
        trio.open_nursery() as nursery,
    ):
        for number, path in enumerate(paths):
            waiting = Calling.begin(nursery, chunks.receive)
            await trio.testing.wait_all_tasks_blocked()
            await waiting.cancel()
            path.touch()
            await until(lambda: arrived(chunks) == 1)
            with trio.CancelScope() as scope:
                scope.cancel()
                await chunks.receive()
            assert scope.cancelled_caught
            assert arrived(chunks) == 1
            assert await chunks.receive() == number


async def test_a_receive_that_is_cancelled_as_its_chunk_arrives_loses_none(pool: Pool) -> None:
    found: list[int] = []
    async with pool.stream(Control.numbers, 3_000) as chunks:
        while True:
            with trio.move_on_after(0.0001):
                try:
                    found.append(await chunks.receive())
                except trio.EndOfChannel:
                    break
    assert found == [*range(3_000)]


@pytest.mark.parametrize("how", ["close", "aclose"])
async def test_closing_a_stream_wakes_its_reader_up(pool: Pool, tmp_path: Path, how: str) -> None:
    go = tmp_path / "go"
    async with trio.open_nursery() as nursery, pool.stream(Control.when, str(go)) as chunks:
        reader = Calling.begin(nursery, chunks.receive)
        await trio.testing.wait_all_tasks_blocked()
        if how == "close":
            chunks.close()
        else:
            await chunks.aclose()
        error = (await reader.ended()).error
        assert type(error) is trio.ClosedResourceError
        assert str(error) == "the block of this stream was left"
        go.touch()


async def test_a_reader_that_is_closed_as_its_chunk_arrives_gets_none(pool: Pool) -> None:
    async with trio.open_nursery() as nursery, pool.stream(Control.numbers, 3) as chunks:
        await until(lambda: arrived(chunks) == 3)
        reader = Calling.begin(nursery, chunks.receive)
        nursery.start_soon(chunks.aclose)
        await reader.ended()
        assert reader.value == 0 or type(reader.error) is trio.ClosedResourceError


# The worker's end of the socket


def test_a_large_request_that_has_arrived_is_not_parsed_further() -> None:
    """It comes in while the worker looks behind the end of a stream, and is taken up later."""
    ours, workers = socket.socketpair()
    lifeline, pool_end = os.pipe()
    link = WorkerSocket(workers, lifeline)
    try:
        segments = [bytes(100_000), bytes(100_000)]
        first, *rest = wire.large_frame(wire.REQUEST, 5, segments, target=b"target")
        ours.sendall(first)
        link.receive_nowait()
        ours.sendall(b"".join(rest)[:100_000])
        ours.shutdown(socket.SHUT_WR)
        # What was received a moment ago is not asked for again.
        time.sleep(0.001)
        request = link.take_up(link.lane)
        assert request is not None
        kind, number, _, target, pickled = request
        assert (kind, number, target) == (wire.REQUEST, 5, b"target")
        assert isinstance(pickled, SegmentReader)
        assert pickled.read(100_000) == bytes(100_000)
    finally:
        ours.close()
        link.close()
        os.close(lifeline)
        os.close(pool_end)


async def test_large_requests_behind_streams_arrive_whole(pool: Pool) -> None:
    data = os.urandom(1_000_000)
    for _ in range(100):
        assert await read(pool, Control.numbers, 2) == [0, 1]
        assert await pool.run_sync(Control.echo, data) == data


def test_the_channel_is_a_public_name() -> None:
    assert trio_dirty.ChunkChannel.__module__ == "trio_dirty"
    assert issubclass(trio_dirty.ChunkChannel, trio.abc.ReceiveChannel)
