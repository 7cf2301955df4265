"""Beginnings and ends: what leaving the block, a signal, or a death leaves behind is nothing."""

from __future__ import annotations

import gc
import logging
import os
import posix
import re
import signal
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
import trio.testing
from apps_bad import (
    Bad,
    CloseDies,
    CloseExits,
    CloseHangs,
    CloseRaises,
    InitHangs,
    Logged,
    LoggedToo,
)
from scripts.harness import ORPHAN_SECONDS, PATIENCE, children, descriptors, gone, running, until
from trio_parallel._proc import SpawnProcWorker

from trio_dirty import Pool, WorkerCrashedError, open_pool
from trio_dirty._engines import handshake
from trio_dirty._engines.socket import FrameSocket

PROMPT = 15.0
"""Seconds that count as prompt, where what must not be waited for takes minutes."""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which the workers' apps append what happens to them."""
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("BAD_LOG", str(path))
    return path


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The file that a hanging action makes when it begins."""
    return tmp_path / "begun"


def text(path: Path) -> str:
    return path.read_text()


def listing(directory: Path) -> list[Path]:
    return [*directory.iterdir()]


# Leaving


async def test_leaving_closes_every_app_of_every_worker(log: Path) -> None:
    async with open_pool([Logged, LoggedToo], workers=2) as pool:
        pids = [worker.pid for worker in pool.statistics().workers]
    lines = text(log).splitlines()
    for pid in pids:
        assert [line for line in lines if line.endswith(f" {pid}")] == [
            f"init Logged {pid}",
            f"init LoggedToo {pid}",
            f"close LoggedToo {pid}",
            f"close Logged {pid}",
        ]
    assert len(lines) == 8


async def test_leaving_serves_what_was_accepted(log: Path) -> None:
    results: list[int] = []

    async def call(pool: Pool, number: int) -> None:
        results.append(await pool.run_sync(Logged.echo, number))

    async with trio.open_nursery() as outside, open_pool([Logged], workers=2) as pool:
        for number in range(100):
            outside.start_soon(call, pool, number)
        await trio.testing.wait_all_tasks_blocked()
    assert sorted(results) == [*range(100)]
    assert text(log).count("close") == 2


async def test_leaving_by_an_exception_closes_every_app_too(log: Path) -> None:
    async def block() -> None:
        async with open_pool([Logged], workers=2):
            raise KeyError("of the block")

    with pytest.raises(KeyError, match=r"^'of the block'$"):  # itself, in no group
        await block()
    assert text(log).count("close") == 2


@pytest.mark.parametrize("delay", range(8))
async def test_leaving_does_not_wait_for_a_request_that_was_withdrawn(
    log: Path, delay: int
) -> None:
    # Whether the consumer takes it from the channel before or after the block is left is a
    # matter of trio's random schedule, so there are several attempts.
    async with open_pool([Logged], workers=1, grace_period=2 * PROMPT) as pool:
        with trio.CancelScope() as scope:
            scope.cancel()
            await pool.run_sync(Logged.echo, 1)
        for _ in range(delay // 4):
            await trio.lowlevel.checkpoint()
        left = trio.current_time()
    assert trio.current_time() - left < PROMPT
    assert text(log).count("close") == 1


async def use_and_crash() -> None:
    async with open_pool([Bad], workers=3) as pool:
        assert await pool.run_sync(Bad.echo, bytes(1_000_000)) == bytes(1_000_000)
        with pytest.raises(WorkerCrashedError):
            await pool.run_sync(Bad.die, 3)
        assert await pool.run_sync(Bad.echo, 1) == 1


async def use_and_cancel() -> None:
    with trio.move_on_after(0.05):
        async with open_pool([Bad], workers=3) as pool:
            while True:
                await pool.run_sync(Bad.echo, bytes(100_000))


async def settled_descriptors() -> list[str]:
    """Return what is open when nothing of a boot is on its way any more.

    A whole pool starts what Python keeps: the resource tracker, threads. To begin with a
    boot that is cancelled would count among these what its thread is still about to close.
    """
    async with open_pool([Bad], workers=3) as pool:
        assert await pool.run_sync(Bad.echo, 1) == 1
    gc.collect()  # what the tests before have left
    return descriptors()


async def until_closed(opened: list[str]) -> None:
    """Wait until no more is open than there was.

    Cancelled just before it starts a process, trio-parallel leaves its pipes to the
    collector; just after, to the frame of the thread that has started it.
    """

    def closed() -> bool:
        gc.collect()
        return not Counter(descriptors()) - Counter(opened)

    await until(closed, 10)


async def test_leaving_leaves_no_process_and_no_descriptor() -> None:
    opened = await settled_descriptors()
    processes = children()
    for _ in range(3):
        await use_and_crash()
        assert children() == processes
        assert descriptors() == opened


async def test_leaving_by_cancellation_leaves_no_process_and_no_descriptor() -> None:
    opened = await settled_descriptors()
    processes = children()
    for _ in range(3):
        await use_and_cancel()
        assert children() == processes
        await until_closed(opened)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The temporary directories that the program makes."""
    made: list[Path] = []
    mkdtemp = tempfile.mkdtemp

    def make(*args: Any, **kwargs: Any) -> str:
        path = mkdtemp(*args, **kwargs)
        made.append(Path(path))
        assert made[-1].stat().st_mode & 0o777 == 0o700
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", make)
    monkeypatch.setattr(tempfile, "tempdir", None)
    return made


@pytest.mark.parametrize("shows_descriptors", [True, False])
@pytest.mark.parametrize("name", ["tmp", "long" * 30])
async def test_no_socket_file_outlives_its_connection(
    name: str,
    shows_descriptors: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: list[Path],
) -> None:
    if not shows_descriptors:
        monkeypatch.setattr(handshake, "_shows_descriptors", lambda: False)
    directory = tmp_path / name
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    async with open_pool([Bad], workers=2) as pool:
        assert len(made) >= 2
        assert [path for path in made if path.exists()] == []
        with pytest.raises(WorkerCrashedError):
            await pool.run_sync(Bad.die, 3)
        assert await pool.run_sync(Bad.echo, 1) == 1
    assert [path for path in made if path.exists()] == []
    assert listing(directory) == []


async def test_no_socket_file_outlives_a_cancelled_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[Path]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = children()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                await until(lambda: made)
                scope.cancel()

            nursery.start_soon(cancel)
            async with open_pool([Bad], workers=2):
                pass
    assert listing(tmp_path) == []
    assert children() == before


async def test_a_boot_cancelled_at_any_moment_leaves_nothing() -> None:
    opened = await settled_descriptors()
    processes = children()
    for hundredths in range(0, 30, 2):
        with trio.move_on_after(hundredths / 100):
            async with open_pool([Bad], workers=4):
                pass
        assert children() == processes
        await until_closed(opened)


async def test_a_dead_worker_is_freed_without_the_collector() -> None:
    async with open_pool([Bad], workers=1) as pool:

        async def crash() -> None:
            with pytest.raises(WorkerCrashedError):
                await pool.run_sync(Bad.die, 3)
            assert await pool.run_sync(Bad.echo, 1) == 1

        await crash()
        gc.collect()
        gc.disable()
        try:
            before = buffers()
            for _ in range(3):
                await crash()
            assert buffers() == before
        finally:
            gc.enable()


def buffers() -> int:
    """Return how many workers' buffers, of half a megabyte, are alive."""
    return sum(isinstance(thing, FrameSocket) for thing in gc.get_objects())


async def test_a_worker_that_dies_the_moment_it_is_killed_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # multiprocessing then collects its exit code without forgetting it, pipes and all.
    kill = SpawnProcWorker.kill

    def kill_and_wait(worker: SpawnProcWorker) -> None:
        kill(worker)
        if worker.proc.pid is not None:
            os.waitid(os.P_PID, worker.proc.pid, os.WEXITED | os.WNOWAIT)

    opened = await settled_descriptors()
    monkeypatch.setattr(SpawnProcWorker, "kill", kill_and_wait)
    processes = children()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def cancel() -> None:
                await until(lambda: children() - processes)
                scope.cancel()

            nursery.start_soon(cancel)
            async with open_pool([InitHangs], workers=2):
                pass
    assert children() == processes
    await until_closed(opened)


async def test_leaving_by_cancellation_kills_at_once_without_close(log: Path, begun: Path) -> None:
    before = children()
    with trio.CancelScope() as scope:
        async with open_pool([Logged], workers=2) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(pool.run_sync, Logged.hang, str(begun))
            await until(begun.exists)
            left = trio.current_time()
            scope.cancel()
    assert trio.current_time() - left < PROMPT
    assert scope.cancelled_caught
    assert children() == before
    assert "close" not in text(log)


async def test_grace_period_bounds_an_action_that_hangs(log: Path, begun: Path) -> None:
    before = children()
    ended: list[str] = []

    async def call(pool: Pool, action: str, *args: Any) -> None:
        with pytest.raises(trio.ClosedResourceError, match=r"^this pool was closed$"):
            await pool.execute(Logged, action, *args)
        ended.append(action)

    async with trio.open_nursery() as outside:
        async with open_pool([Logged], workers=1, grace_period=0.2) as pool:
            outside.start_soon(call, pool, "hang", str(begun))
            await until(begun.exists)
            outside.start_soon(call, pool, "echo", 1)
            await trio.testing.wait_all_tasks_blocked()
            left = trio.current_time()
        assert 0.2 <= trio.current_time() - left < PROMPT
        assert children() == before
    assert sorted(ended) == ["echo", "hang"]
    assert "close" not in text(log)


async def test_a_grace_period_of_zero_kills_at_once(begun: Path) -> None:
    async def call(pool: Pool) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await pool.run_sync(Bad.hang, str(begun))

    with trio.fail_after(PROMPT):
        async with (
            trio.open_nursery() as outside,
            open_pool([Bad], workers=1, grace_period=0) as pool,
        ):
            outside.start_soon(call, pool)
            await until(begun.exists)


# close() that misbehaves


@pytest.mark.parametrize(
    ("app", "error"),
    [
        (CloseRaises, "ZeroDivisionError: close is broken"),
        (CloseExits, "SystemExit: close has had enough"),
    ],
)
async def test_a_close_that_raises_is_logged_and_the_other_apps_close(
    app: Any, error: str, log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = children()
    async with open_pool([Logged, app, LoggedToo], workers=1) as pool:
        pid = await pool.execute(Logged, "pid")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trio_dirty", logging.ERROR)
    message = record.getMessage()
    assert message.startswith(f"slot 0: close() raised in worker 0, process {pid}:\nTraceback")
    assert message.splitlines()[-1] == error
    closed = [line for line in text(log).splitlines() if line.startswith("close")]
    assert closed == [f"close LoggedToo {pid}", f"close Logged {pid}"]
    assert children() == before


async def test_a_close_that_ends_the_process_is_harmless(log: Path) -> None:
    before = children()
    with trio.fail_after(PROMPT):
        async with open_pool([CloseDies], workers=2) as pool:
            assert await pool.run_sync(CloseDies.echo, 1) == 1
    assert children() == before


async def test_a_close_that_hangs_is_bounded_by_grace_period(log: Path) -> None:
    before = children()
    async with open_pool([CloseHangs], workers=2, grace_period=0.5) as pool:
        assert await pool.run_sync(CloseHangs.echo, 1) == 1
        left = trio.current_time()
    assert 0.5 <= trio.current_time() - left < PROMPT
    assert text(log).count("hanging") == 2
    assert children() == before


# Deaths of workers


async def test_a_worker_killed_while_idle_is_replaced() -> None:
    async with open_pool([Bad], workers=1) as pool:
        pid = await pool.run_sync(Bad.pid)
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(PATIENCE):
            await until(lambda: pool.statistics().workers[0].pid not in (pid, None))
            assert await pool.run_sync(Bad.pid) != pid
        statistics = pool.statistics()
        assert (statistics.restarts, statistics.failed) == (1, 0)


@pytest.mark.parametrize("action", ["hang", "hold_lock"])
async def test_a_worker_killed_while_busy_fails_its_request_only(action: str, begun: Path) -> None:
    results: list[int] = []

    async def call(pool: Pool, number: int) -> None:
        results.append(await pool.run_sync(Bad.echo, number))

    async with open_pool([Bad], workers=1) as pool:
        pid = await pool.run_sync(Bad.pid)

        async def kill() -> None:
            await until(begun.exists)
            for number in range(50):
                callers.start_soon(call, pool, number)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(pid, signal.SIGKILL)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as callers:
                callers.start_soon(kill)
                with pytest.raises(
                    WorkerCrashedError,
                    match=rf"^worker 0 of slot 0 died while executing apps_bad:Bad.{action}: "
                    rf"process {pid} was killed by SIGKILL$",
                ) as caught:
                    await pool.execute(Bad, action, str(begun))
        error = caught.value
        assert (error.app, error.action, error.slot, error.pid, error.exitcode) == (
            "apps_bad:Bad",
            action,
            0,
            pid,
            -9,
        )
        assert sorted(results) == [*range(50)]
        statistics = pool.statistics()
        assert (statistics.restarts, statistics.failed, statistics.queued) == (1, 1, 0)


async def test_a_death_by_os_exit_tells_the_code_of_a_plain_function() -> None:
    async with open_pool([], workers=1) as pool:
        pid = await pool.run_sync(os.getpid)
        with pytest.raises(WorkerCrashedError) as caught:
            await pool.run_sync(posix._exit, 3)
        error = caught.value
        assert (error.app, error.action, error.slot, error.pid, error.exitcode) == (
            None,
            "_exit",
            0,
            pid,
            3,
        )
        assert await pool.run_sync(os.getpid) != pid


async def test_workers_that_serve_and_die_are_always_replaced() -> None:
    async with open_pool([Bad], workers=1) as pool:
        for number in range(10):
            with trio.fail_after(PATIENCE):
                assert await pool.run_sync(Bad.echo, number) == number
                with pytest.raises(WorkerCrashedError):
                    await pool.run_sync(Bad.die, number)
        assert await pool.run_sync(Bad.echo, "still here") == "still here"


async def test_leaving_while_a_replacement_boots_is_prompt() -> None:
    before = children()
    async with open_pool([Bad], workers=1) as pool:
        with pytest.raises(WorkerCrashedError):
            await pool.run_sync(Bad.die, 3)
        left = trio.current_time()
    assert trio.current_time() - left < PROMPT
    assert children() == before


# Signals to the program, and its death


async def test_ctrl_c_ends_a_busy_program_at_once_and_quietly(tmp_path: Path) -> None:
    async with running("interrupted.py", str(tmp_path / "0"), errors=tmp_path / "err") as program:
        (worker,) = await program.numbers()
        os.killpg(program.pid, signal.SIGINT)
        with trio.fail_after(PROMPT):
            assert await program.process.wait() == -signal.SIGINT
        assert gone(worker)
        assert program.errors.count("Traceback (most recent call last)") == 1
        assert program.errors.strip().splitlines()[-1] == "KeyboardInterrupt"


async def test_ctrl_c_with_several_tasks_is_as_quiet(tmp_path: Path) -> None:
    async with running("busy.py", "hang", str(tmp_path), errors=tmp_path / "err") as program:
        workers = await program.numbers()
        os.killpg(program.pid, signal.SIGINT)
        with trio.fail_after(PROMPT):
            assert await program.process.wait() == -signal.SIGINT
        assert all(map(gone, workers))
        assert program.errors.count("Traceback (most recent call last)") == 1
        assert program.errors.strip().splitlines()[-1] == "KeyboardInterrupt"


async def test_ctrl_c_while_the_workers_boot_is_as_quiet(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with running("booting.py", str(log), errors=tmp_path / "err") as program:
        await until(lambda: log.exists() and text(log).endswith("\n"))
        (worker,) = map(int, re.findall(r"init (\d+)", text(log)))
        os.killpg(program.pid, signal.SIGINT)
        with trio.fail_after(PROMPT):
            assert await program.process.wait() == -signal.SIGINT, program.errors
        assert gone(worker)
        assert program.errors.strip().splitlines()[-1] == "KeyboardInterrupt"
        assert "Exception Group" not in program.errors


@pytest.mark.parametrize("action", ["hang", "hold_lock"])
async def test_workers_die_with_their_parent_whatever_they_do(action: str, tmp_path: Path) -> None:
    async with running("busy.py", action, str(tmp_path), errors=tmp_path / "err") as program:
        workers = await program.numbers()
        assert not any(map(gone, workers))
        os.kill(program.pid, signal.SIGKILL)
        await until(lambda: all(map(gone, workers)), ORPHAN_SECONDS)
        assert program.errors == ""


async def test_a_worker_that_boots_dies_with_its_parent(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with running("booting.py", str(log), errors=tmp_path / "err") as program:
        await until(lambda: log.exists() and text(log).endswith("\n"))
        (worker,) = map(int, re.findall(r"init (\d+)", text(log)))
        os.kill(program.pid, signal.SIGKILL)
        await until(lambda: gone(worker), ORPHAN_SECONDS)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory of the program and its workers."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    return directory


@pytest.mark.skipif(sys.platform != "linux", reason="a file leads to the socket until it connects")
@pytest.mark.parametrize("when", ["its process is there", "its interpreter is there"])
async def test_nothing_is_left_of_a_program_that_is_killed_with_a_worker_that_starts(
    when: str, temporary: Path, tmp_path: Path
) -> None:
    async with running("plain.py", errors=tmp_path / "err") as program:
        await until(lambda: starting(program.pid, interpreted=when == "its interpreter is there"))
        os.killpg(program.pid, signal.SIGKILL)
        await until(lambda: not session(program.pid), PROMPT)
    assert listing(temporary) == []


def starting(parent: int, *, interpreted: bool) -> bool:
    """Whether a program has a worker; whether one that is its own interpreter already."""
    lines = []
    for process in psutil.Process(parent).children():
        with suppress(psutil.Error):
            lines.append(" ".join(process.cmdline()))
    return any("spawn_main" in line or not interpreted for line in lines)


def session(leader: int) -> set[int]:
    """Return the processes of a session that have not ended."""
    found = set()
    for process in psutil.process_iter():
        with suppress(ProcessLookupError):
            if os.getsid(process.pid) == leader and not gone(process.pid):
                found.add(process.pid)
    return found


@pytest.mark.parametrize("what", ["idle", "busy", "locked", "reloading", "booting", "forked"])
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGINT", "SIGQUIT"])
async def test_nothing_is_left_of_a_program_that_a_signal_ends(
    what: str, how: str, temporary: Path, tmp_path: Path
) -> None:
    async with running("ended.py", what, str(tmp_path), errors=tmp_path / "err") as program:
        workers = await program.numbers()
        assert len(workers) == 2
        assert not any(map(gone, workers))
        if how == "SIGKILL":
            os.kill(program.pid, signal.SIGKILL)
        else:
            os.killpg(program.pid, signal.Signals[how])
        # Ctrl-C has the program end by itself; the others are its death.
        await until(lambda: gone(program.pid), PROMPT if how == "SIGINT" else ORPHAN_SECONDS)
        await until(lambda: all(map(gone, workers)), ORPHAN_SECONDS)
        if what == "forked" and how == "SIGKILL":
            (child,) = session(program.pid) - trackers(program.pid)
            os.kill(child, signal.SIGKILL)
        await until(lambda: not session(program.pid), PROMPT)
        assert listing(temporary) == []


def trackers(leader: int) -> set[int]:
    """Return those of a session that are resource trackers of multiprocessing, and end soon."""
    found = set()
    for pid in session(leader):
        with suppress(psutil.Error):
            if "resource_tracker" in " ".join(psutil.Process(pid).cmdline()):
                found.add(pid)
    return found
