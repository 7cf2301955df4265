"""What programs do with their process, and other parts of them with theirs, beside a pool."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing import process as multiprocessing_process, util as multiprocessing_util
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from apps import Counter
from apps_lives import Lasting
from lives import pids
from scripts.harness import PATIENCE, children, descriptors, run_script, until

from trio_dirty import AppLoadError, WorkerCrashedError, open_pool
from trio_dirty._engines import handshake
from trio_dirty.testing import SimEngine

LONG = 120.0
"""Seconds for a script with many processes, on a machine that others use too."""


async def said(habit: str, *arguments: str) -> list[str]:
    """Run one of the programs of ``habits.py``; return its output."""
    done = await run_script("habits.py", habit, *arguments, seconds=LONG)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


# Threads


@asynccontextmanager
async def all_threads_taken() -> AsyncIterator[None]:
    """Hold every token of trio's default thread limiter."""
    limiter = trio.to_thread.current_default_thread_limiter()
    holders = [object() for _ in range(int(limiter.total_tokens))]
    for holder in holders:
        limiter.acquire_on_behalf_of_nowait(holder)
    try:
        yield
        assert limiter.available_tokens == 0
        assert limiter.statistics().tasks_waiting == 0
    finally:
        for holder in holders:
            limiter.release_on_behalf_of(holder)


@pytest.mark.parametrize("way", ["normally", "by cancellation"])
async def test_a_pool_needs_no_thread_of_the_programs(way: str) -> None:
    before = children()
    with trio.fail_after(PATIENCE):
        async with all_threads_taken():
            with trio.CancelScope() as scope:
                async with open_pool([Lasting], workers=2, grace_period=None) as pool:
                    (first, _) = pids(pool)
                    os.kill(first or 0, signal.SIGKILL)
                    await until(lambda: first not in pids(pool) and None not in pids(pool))
                    large = bytes(3_000_000)
                    assert await pool.run_sync(Lasting.echo, large) == large
                    await pool.reload()
                    await pool.resize(3)
                    if way == "by cancellation":
                        scope.cancel()
                        await trio.sleep_forever()
            assert children() == before


async def test_a_boot_that_fails_or_is_cancelled_needs_no_thread_of_the_programs() -> None:
    before = children()
    with trio.fail_after(PATIENCE):
        async with all_threads_taken():
            with pytest.raises(AppLoadError):
                async with open_pool(["apps:FailsToBoot"], workers=2):
                    pass
            assert children() == before
            for _ in range(3):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:

                        async def cancel(scope: trio.CancelScope) -> None:
                            await until(lambda: children() - before)
                            scope.cancel()

                        nursery.start_soon(cancel, scope)
                        async with open_pool([Lasting], workers=2):
                            await trio.sleep_forever()
                assert children() == before


# Ends of children


@pytest.mark.parametrize(
    "habit",
    ["ignores_sigchld", "inherits_ignored_sigchld", "reaps_in_a_handler", "reaps_in_a_thread"],
)
async def test_a_program_may_ignore_or_collect_the_ends_of_all_children(habit: str) -> None:
    assert await said(habit) == [
        line
        for way in ("normally", "by cancellation")
        for line in ("True", "timed out", f"left {way}")
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes")
async def test_nothing_but_the_resource_tracker_is_left_after_the_block() -> None:
    assert await said("looks_for_what_is_left") == ["True"]


async def test_multiprocessing_may_be_used_beside_a_pool() -> None:
    assert await said("uses_multiprocessing") == [
        "[2, 4, 6]",
        "served",
        "7",
        "7",
        "[True, True]",
        *"0088",
        "[]",
    ]


# Descriptors


@pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that leaves descriptors out")
@pytest.mark.parametrize("where", ["accept", "token"])
async def test_descriptors_that_run_out_while_a_worker_connects(where: str) -> None:
    assert await said("runs_out_of_descriptors", where, "for a while") == ["opened", "few steps"]
    text, steps = await said("runs_out_of_descriptors", where, "for ever")
    assert text == "the worker of slot 0 could not start: [Errno 24] Too many open files"
    assert steps == "few steps"


@pytest.mark.parametrize("when", ["before", "in the middle"])
async def test_standard_streams_may_be_closed(when: str, tmp_path: Path) -> None:
    await said("closes_its_standard_streams", when, str(tmp_path))
    results = [*[1000, len("to standard error")] * 4, "a program\n", 3, "served", 0]
    assert (tmp_path / "said").read_text() == repr(results)


# Rights


needs_root = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0,
    reason="only root of Linux can give up being it and stay able to start Python",
)


@pytest.fixture
def shared() -> Any:
    """A directory that everybody may write into, and reach."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        os.chmod(directory, 0o777)
        yield directory


@needs_root
async def test_a_program_may_give_up_root(shared: str) -> None:
    assert await said("gives_up_root", shared) == [
        "True",  # it may not signal its workers
        "timed out, killed",
        "timed out, killed",
        "timed out, softly",
        "kill True",
        "interrupt True",
        "3 new, True",
        "left normally set()",
    ]


@needs_root
async def test_a_program_that_has_given_up_root_leaves_in_every_way(shared: str) -> None:
    assert await said("gives_up_root_and_leaves", shared) == [
        "left, cancelled set()",
        "ended, cancelled set()",
        "left, grace set()",
        "ended, grace set()",
        "ended, stubborn set()",
    ]


@needs_root
async def test_a_program_may_give_up_root_while_a_worker_starts(shared: str) -> None:
    assert await said("gives_up_root_while_a_worker_starts", shared) == ["True", "left set()"]


# Directories


async def test_a_program_may_move_and_lose_its_directory(tmp_path: Path) -> None:
    gone = "the worker of slot 0 could not start: the program's current directory has been removed"
    assert await said("moves", str(tmp_path)) == ["home", "elsewhere", "elsewhere", gone, "8", gone]


async def test_a_program_may_lose_its_temporary_directory() -> None:
    assert await said("loses_its_temporary_directory") == [
        "replaced",
        "kept",
        "the worker of slot 0 could not start: [Errno 2] No such file or directory: "
        "'/nowhere/trio_dirty",
    ]


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_a_full_temporary_directory(
    elsewhere: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, full = tempfile.mkdtemp, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path))
    given: list[str | None] = []

    def mkdtemp(prefix: str, dir: str | None = None) -> str:  # noqa: A002
        given.append(dir)
        if dir is None or not elsewhere:
            raise full
        return make(prefix=prefix, dir=str(tmp_path))

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    if elsewhere:
        async with open_pool([Lasting], workers=1) as pool:
            assert await pool.run_sync(Lasting.echo, 1) == 1
    else:
        with pytest.raises(AppLoadError, match=r"could not start: \[Errno 28\] No space left on"):
            async with open_pool([Lasting], workers=1):
                pass
    assert given == [None, handshake.ANYWHERE]
    assert os.listdir(tmp_path) == []


# Several pools


async def test_two_pools_at_once_know_nothing_of_each_other() -> None:
    async with open_pool([Lasting], workers=1) as first:
        async with open_pool([Lasting], workers=1) as second:
            assert not {*pids(first)} & {*pids(second)}
            (pid,) = pids(first)
            with pytest.raises(WorkerCrashedError):
                await second.run_sync(Lasting.die, 3)
            async with trio.open_nursery() as nursery:
                for pool in (first, second) * 10:
                    nursery.start_soon(pool.run_sync, Lasting.echo, 1)
        assert await first.run_sync(Lasting.pid) == pid
        with pytest.raises(trio.ClosedResourceError):
            await second.run_sync(Lasting.pid)
    assert first.statistics().restarts == 0


def level() -> dict[str, Any]:
    """Return what grows where a pool leaves something behind."""
    gc.collect()
    return {
        "descriptors": descriptors(),
        "threads": threading.active_count(),
        "processes": children(),
        "known to multiprocessing": len(
            multiprocessing_process._children  # type: ignore[attr-defined]
        ),
        "to be finalized": len(multiprocessing_util._finalizer_registry),
        "closed after a fork": len(handshake._open_ends),
    }


def assert_level(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Check that nothing grows; but threads that trio keeps end when they have had no work."""
    assert after.pop("threads") <= before.pop("threads")
    assert after == before


async def test_processes_in_a_loop_of_pools_leave_nothing() -> None:
    async def once() -> None:
        async with open_pool([Lasting], workers=2) as pool:
            assert await pool.broadcast(Lasting.echo, 1) == [1, 1]

    async with trio.open_nursery() as nursery:
        for _ in range(2):  # so that there are as many threads as there will be
            nursery.start_soon(once)
    await once()
    before = level()
    for _ in range(15):
        await once()
    assert_level(before, level())


async def test_a_thousand_simulated_pools_in_a_loop_leave_nothing() -> None:
    async def once() -> None:
        async with open_pool([Counter], workers=2, engine=SimEngine()) as pool:
            assert await pool.run_sync(Counter.add) == 1

    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    for _ in range(20):
        await once()
    before, count = level(), objects()
    for _ in range(1000):
        await once()
    assert_level(before, level())
    assert objects() - count < 500, "half an object for each pool"
