"""Buffers of the program, and of apps, that are resized while they are sent.

What has been announced is what follows: it is that caller alone who is refused.
"""

from __future__ import annotations

import array
import gc
import math
import os
import pickle
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing
from apps_payloads import Payloads, Resizes, resized_while_it_is_pickled
from calling import Calling
from scripts.harness import PATIENCE, until

from trio_dirty import Pool, PoolBusyError, RemoteError, WorkerCrashedError, open_pool
from trio_dirty._common import pickling
from trio_dirty._common.pickling import SegmentPickler
from trio_dirty._common.pieces import dump_slowly
from trio_dirty._engines.processes import ProcessEngine

SIZE = 1_000_000

LARGE = 50_000_000
"""Much more than a socket has room for."""


class PatientEngine(ProcessEngine):
    """Minds no worker that is stopped."""

    look_seconds = math.inf


@pytest.fixture(params=[1, 2])
async def pool(request: Any) -> AsyncIterator[Pool]:
    """A pool of one worker, which must outlive whatever the test does."""
    with trio.fail_after(PATIENCE):
        async with open_pool(
            [Payloads], workers=1, threads=request.param, engine=PatientEngine()
        ) as pool:
            yield pool
            assert await pool.run_sync(Payloads.echo, bytes(SIZE)) == bytes(SIZE)
        assert pool.statistics().restarts == 0


@pytest.fixture
def go(tmp_path: Path) -> Path:
    return tmp_path / "go"


async def fill(pool: Pool, nursery: trio.Nursery, go: Path) -> list[Calling]:
    """Have each lane execute something until ``go`` exists."""
    count = pool._slots.all[0].lanes
    begun = [go.with_name(f"begun {number}") for number in range(count)]
    callings = [
        Calling.begin(nursery, pool.run_sync, Payloads.last, str(path), str(go)) for path in begun
    ]
    await until(lambda: all(path.exists() for path in begun))
    return callings


def release(go: Path) -> None:
    go.touch()


async def until_queued(pool: Pool, count: int) -> None:
    await until(lambda: pool.statistics().queued == count)


def clear(buffer: bytearray) -> None:
    buffer.clear()


def extend(buffer: bytearray) -> None:
    buffer.extend(bytes(100))


def cut(buffer: bytearray) -> None:
    del buffer[10:]


RESIZES = [clear, extend, cut]


def assert_refused(buffer: bytearray) -> None:
    size = len(buffer)
    for resize in RESIZES:
        with pytest.raises(BufferError):
            resize(buffer)
    assert len(buffer) == size


# What waits


@pytest.mark.parametrize("resize", RESIZES)
async def test_a_buffer_cannot_be_resized_while_its_request_waits(
    pool: Pool, go: Path, resize: Callable[[bytearray], None]
) -> None:
    buffer = bytearray(b"x" * SIZE)
    async with trio.open_nursery() as nursery:
        await fill(pool, nursery, go)
        calling = Calling.begin(nursery, pool.run_sync, Payloads.size, buffer)
        await until_queued(pool, 1)
        behind = [
            Calling.begin(nursery, pool.run_sync, Payloads.echo, value)
            for value in (1, bytes(SIZE), "small")
        ]
        await until_queued(pool, 4)
        assert_refused(buffer)
        buffer[0] = 1  # its content may change
        release(go)
        assert (await calling.ended()).value == SIZE
        resize(buffer)
        assert [(await each.ended()).value for each in behind] == [1, bytes(SIZE), "small"]


@pytest.mark.parametrize("resize", RESIZES)
async def test_it_can_be_as_soon_as_the_caller_has_left(
    pool: Pool, go: Path, resize: Callable[[bytearray], None]
) -> None:
    buffer = bytearray(SIZE)
    async with trio.open_nursery() as nursery:
        await fill(pool, nursery, go)
        calling = Calling.begin(nursery, pool.run_sync, Payloads.size, buffer)
        await until_queued(pool, 1)
        behind = Calling.begin(nursery, pool.run_sync, Payloads.echo, bytes(SIZE))
        await until_queued(pool, 2)
        await calling.cancel()
        resize(buffer)
        release(go)
        assert (await behind.ended()).value == bytes(SIZE)


async def test_it_can_be_while_the_request_is_executed(pool: Pool, go: Path) -> None:
    buffer = bytearray(SIZE)
    begun = go.with_name("begun")
    async with trio.open_nursery() as nursery:
        calling = Calling.begin(nursery, pool.run_sync, Payloads.takes, buffer, str(begun), str(go))
        await until(begun.exists)
        await trio.testing.wait_all_tasks_blocked()
        assert not calling.has_ended
        buffer.clear()
        release(go)
        assert (await calling.ended()).value == SIZE


# What is being sent


@pytest.mark.parametrize("leaves", [False, True])
async def test_it_cannot_be_while_it_is_being_sent(pool: Pool, leaves: bool) -> None:
    buffer = bytearray(LARGE)
    pid = pool.statistics().workers[0].pid
    assert pid is not None
    async with trio.open_nursery() as nursery:
        os.kill(pid, signal.SIGSTOP)
        try:
            calling = Calling.begin(nursery, pool.run_sync, Payloads.size, buffer)
            await until(lambda: pool.statistics().running == 1)
            behind = [
                Calling.begin(nursery, pool.run_sync, Payloads.echo, value)
                for value in (1, bytes(SIZE))
            ]
            await trio.testing.wait_all_tasks_blocked()
            assert_refused(buffer)
            if leaves:
                await calling.cancel()
                assert_refused(buffer)
        finally:
            os.kill(pid, signal.SIGCONT)
        await calling.ended()
        assert calling.value == (None if leaves else LARGE)
        assert [(await each.ended()).value for each in behind] == [1, bytes(SIZE)]
    buffer.clear()


async def test_it_can_be_when_the_worker_has_died_in_the_middle() -> None:
    buffer = bytearray(LARGE)
    async with (
        open_pool([Payloads], workers=1, engine=PatientEngine()) as pool,
        trio.open_nursery() as nursery,
    ):
        pid = pool.statistics().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        calling = Calling.begin(nursery, pool.run_sync, Payloads.size, buffer)
        await until(lambda: pool.statistics().running == 1)
        behind = Calling.begin(nursery, pool.run_sync, Payloads.echo, 1)
        os.kill(pid, signal.SIGKILL)
        assert isinstance((await calling.ended()).error, WorkerCrashedError)
        assert (await behind.ended()).value == 1
        await trio.testing.wait_all_tasks_blocked()
        buffer.clear()


# What is not accepted, or not served


async def call(pool: Pool, verb: str, *args: Any) -> None:
    if verb == "stream":
        async with pool.stream(Payloads.yields, *args):
            pass
    else:
        action = Payloads.size
        await {"run_sync": pool.run_sync, "broadcast": pool.broadcast}[verb](action, *args)  # type: ignore[operator]


VERBS = ["run_sync", "stream", "broadcast"]


@pytest.mark.parametrize("verb", VERBS)
async def test_it_can_be_where_a_refusal_is_handled(go: Path, verb: str) -> None:
    buffer = bytearray(SIZE)
    async with (
        open_pool([Payloads], workers=1, max_queue=0) as pool,
        trio.open_nursery() as nursery,
    ):
        await fill(pool, nursery, go)
        try:
            await call(pool, verb, buffer)
        except PoolBusyError:
            buffer.clear()
        release(go)
    assert buffer == b""


@pytest.mark.parametrize("verb", VERBS)
async def test_it_can_be_where_another_argument_does_not_pickle(pool: Pool, verb: str) -> None:
    buffer = bytearray(SIZE)
    try:
        await call(pool, verb, buffer, lambda: 1)
    except TypeError as error:
        assert "argument 2" in str(error)
        buffer.clear()
    assert buffer == b""


@pytest.mark.parametrize("verb", ["run_sync", "broadcast"])
async def test_it_can_be_where_the_end_of_the_pool_is_handled(go: Path, verb: str) -> None:
    buffer = bytearray(SIZE)

    async def calls() -> None:
        try:
            await call(pool, verb, buffer)
        except* trio.ClosedResourceError:
            buffer.clear()

    async with trio.open_nursery() as outside:
        with trio.CancelScope() as scope:
            async with (
                open_pool([Payloads], workers=1) as pool,
                trio.open_nursery() as nursery,
            ):
                await fill(pool, nursery, go)
                outside.start_soon(calls)
                await until_queued(pool, 1)
                scope.cancel()
    assert buffer == b""


async def test_a_broadcast_lets_go_when_its_last_worker_has_it(go: Path) -> None:
    buffer = bytearray(SIZE)
    begun = go.with_name("begun")
    async with open_pool([Payloads], workers=2) as pool, trio.open_nursery() as nursery:
        calling = Calling.begin(
            nursery, pool.broadcast, Payloads.takes, buffer, str(begun), str(go)
        )
        await until(lambda: pool.statistics().running == 2 and begun.exists())
        await trio.testing.wait_all_tasks_blocked()
        await until(lambda: can_be_resized(buffer))
        assert not calling.has_ended
        release(go)
        assert (await calling.ended()).value == [SIZE, SIZE]


def can_be_resized(buffer: bytearray) -> bool:
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True


# Other buffers


async def test_other_buffers_refuse_too(pool: Pool, go: Path) -> None:
    numbers = np.zeros(SIZE, np.uint8)
    words = array.array("h", bytes(2 * SIZE))
    viewed = bytearray(SIZE)
    view = memoryview(viewed)
    async with trio.open_nursery() as nursery:
        await fill(pool, nursery, go)
        callings = []
        for value in (numbers, words, pickle.PickleBuffer(view)):
            callings.append(Calling.begin(nursery, pool.run_sync, Payloads.size, value))
            await until_queued(pool, len(callings))
        with pytest.raises(ValueError, match="cannot resize"):
            numbers.resize(10)
        with pytest.raises(BufferError):
            words.pop()
        with pytest.raises(BufferError):
            view.release()
        assert_refused(viewed)
        release(go)
        assert [(await calling.ended()).value for calling in callings] == [SIZE] * 3
    del callings, value
    gc.collect()
    view.release()
    viewed.clear()
    words.pop()


# Results


@pytest.mark.parametrize("streams", [False, True])
async def test_a_result_that_another_lane_resizes_arrives_as_it_was(streams: bool) -> None:
    async with open_pool([Payloads], workers=1, threads=2) as pool:
        with trio.fail_after(PATIENCE):
            for _ in range(5):
                async with trio.open_nursery() as nursery:
                    size = SIZE + 1
                    calling = Calling.begin(nursery, pool.run_sync, Payloads.resize_buffer, size)
                    if streams:
                        async with pool.stream(Payloads.yields_buffer, LARGE, size) as chunks:
                            first, second = await chunks.receive()
                            assert await chunks.receive() in (0, size)
                    else:
                        first, second = await pool.run_sync(Payloads.returns_buffer, LARGE, size)
                    assert (len(first), len(second)) == (LARGE, size)
                    assert isinstance((await calling.ended()).value, int)
        assert pool.statistics().restarts == 0


# While they are pickled


async def test_a_result_that_is_resized_while_it_is_pickled_is_its_callers_error(
    pool: Pool,
) -> None:
    with pytest.raises(RemoteError, match="was resized while it was being pickled"):
        await pool.run_sync(Payloads.returns_what_is_resized)


async def test_arguments_that_are_resized_while_they_are_pickled_are_refused(pool: Pool) -> None:
    with pytest.raises(TypeError, match="cannot be pickled: Existing exports of data"):
        await pool.run_sync(Payloads.echo, resized_while_it_is_pickled(SIZE))


def test_what_is_resized_between_its_announcement_and_its_export_is_refused() -> None:
    """By another thread, when the first part of the pickle has been handed over."""
    buffer = bytearray(SIZE)
    with pytest.raises(BufferError, match="was resized while it was being pickled"):
        dump_slowly((buffer,), {}, lambda: buffer.append(1))
    assert can_be_resized(buffer)


def test_a_pickler_keeps_nothing_of_what_it_has_pickled() -> None:
    pickler = SegmentPickler()
    buffer = bytearray(SIZE)
    segments = pickler.dump([buffer])
    assert not can_be_resized(buffer)
    del segments
    assert can_be_resized(buffer)
    with pytest.raises(BufferError):
        pickler.dump([buffer, Resizes(buffer)])
    gc.collect()
    assert can_be_resized(buffer)
    assert pickle.loads(b"".join(pickler.dump(1))) == 1
    assert pickling.PROTOCOL == 5
