"""Large payloads on their way, and time in which nothing runs: neither is execution."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from apps import Counter
from apps_control import Control
from apps_lives import Gate, Lasting, SlowToLoad, count
from calling import Calling
from lives import numbers
from scripts.harness import running, until

from trio_dirty import RequestTimeoutError, open_pool
from trio_dirty._engines.socket import FrameSocket
from trio_dirty.testing import Plan, SimEngine, Turn

if TYPE_CHECKING:
    from trio_dirty._common.wire import Segment

PIECE, PIECES, PAUSE = 1 << 16, 40, 0.02
"""What is sent, and received, goes in pieces with pauses: longer in all than it may execute."""

TIMEOUT = 0.5


def payload() -> bytes:
    return bytes(PIECE * PIECES)


async def test_the_time_for_which_an_answer_is_received_is_no_execution(monkeypatch) -> None:
    receive = FrameSocket._receive_in_thread

    def receive_a_piece(frames: FrameSocket, buffer: memoryview) -> int:
        time.sleep(PAUSE)
        return receive(frames, buffer[:PIECE])

    monkeypatch.setattr(FrameSocket, "_receive_in_thread", receive_a_piece)
    async with open_pool([Control], workers=1) as pool:
        pid = await pool.run_sync(Control.pid)
        view = pool.with_options(timeout=TIMEOUT)
        began = trio.current_time()
        assert await view.run_sync(bytes, PIECE * PIECES) == payload()
        assert trio.current_time() - began > TIMEOUT, "it was received too fast to show anything"
        assert await pool.run_sync(Control.pid) == pid


async def test_the_time_for_which_arguments_are_sent_is_no_execution(monkeypatch) -> None:
    send = FrameSocket.send_rest

    async def send_in_pieces(frames: FrameSocket, rest: Sequence[Segment]) -> None:
        data = b"".join(rest)
        frames.unsent = len(data)
        for start in range(0, len(data), PIECE):
            await trio.sleep(PAUSE)
            frames.unsent = len(data) - start
            await send(frames, [data[start : start + PIECE]])
            frames.unsent = len(data) - start - PIECE

    monkeypatch.setattr(FrameSocket, "send_rest", send_in_pieces)
    async with open_pool([Control], workers=1) as pool:
        pid = await pool.run_sync(Control.pid)
        view = pool.with_options(timeout=TIMEOUT)
        began = trio.current_time()
        assert await view.run_sync(len, payload()) == len(payload())
        assert trio.current_time() - began > TIMEOUT, "it was sent too fast to show anything"
        assert await pool.run_sync(Control.pid) == pid


async def test_a_worker_that_is_stopped_in_the_middle_of_its_answer_is_killed(monkeypatch) -> None:
    """Its answer does not move any more, and then its time-out holds."""
    receive = FrameSocket._receive_in_thread
    pids: list[int] = []

    def receive_and_stop(frames: FrameSocket, buffer: memoryview) -> int:
        if pids:
            os.kill(pids.pop(), signal.SIGSTOP)
        return receive(frames, buffer)

    monkeypatch.setattr(FrameSocket, "_receive_in_thread", receive_and_stop)
    async with open_pool([Control], workers=1) as pool:
        pids.append(await pool.run_sync(Control.pid))
        with pytest.raises(RequestTimeoutError):
            await pool.with_options(timeout=TIMEOUT).run_sync(bytes, 50_000_000)
        assert pids == []
        assert await pool.run_sync(Control.add) == 1


class Eight(Plan):
    """Each action takes eight seconds."""

    def turn(self, call):
        return Turn(8.0)


def test_time_in_which_nothing_could_run_is_no_execution() -> None:
    """The loop finds out late that much more time has passed than it wanted to wait."""

    async def main() -> None:
        engine = SimEngine(Eight(), look_seconds=1)
        async with open_pool([Counter], workers=1, engine=engine) as pool:
            view = pool.with_options(timeout=4)
            async with trio.open_nursery() as nursery:
                paused = Calling.begin(nursery, view.run_sync, Counter.add)
                await trio.sleep(1.5)
                clock.jump(6)
                await paused.ended()
            assert (paused.value, paused.error) == (1, None)
            began = trio.current_time()
            with pytest.raises(RequestTimeoutError):
                await view.run_sync(Counter.add)
            assert trio.current_time() - began == pytest.approx(4)

    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(main, clock=clock)


async def test_a_program_that_is_stopped_with_its_workers_loses_nothing(tmp_path: Path) -> None:
    """As by Ctrl-Z, for longer than its requests may execute."""
    async with running("stopped.py", errors=tmp_path / "errors") as program:
        assert await program.numbers() == [1]
        os.killpg(program.pid, signal.SIGSTOP)
        await trio.sleep(3.0)  # of real time: twice what it allows
        os.killpg(program.pid, signal.SIGCONT)
        assert await program.numbers() == [2], program.errors


async def test_a_worker_that_is_slow_to_load_does_not_keep_its_successor_waiting(
    gate: Gate,
) -> None:
    """The new worker of a slot is sent requests while the socket of the old one is full."""
    async with open_pool([Lasting], workers=1) as pool, trio.open_nursery() as nursery:
        slow = Calling.begin(nursery, pool.run_sync, count, SlowToLoad(gate), bytes(10_000_000))
        await until(lambda: gate.has_come("loading"))
        first = numbers(pool)
        await pool.reload()
        assert numbers(pool) > first
        with trio.fail_after(60):
            assert await pool.run_sync(len, "four") == 4
        assert not slow.has_ended
        gate.open()
        await slow.ended()
        assert (slow.value, slow.error) == (10_000_000, None)
