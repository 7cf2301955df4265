"""What a worker does between its close() and its exit, and how long it may take."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from apps_lives import Flushes, Gate
from lives import PROMPT, numbers
from scripts.harness import PATIENCE, children, gone, until

from trio_dirty import open_pool
from trio_dirty._engines import processes


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which the workers write that they have flushed."""
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("BAD_LOG", str(path))
    return path


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give no time to those who end their socket without a report."""
    monkeypatch.setattr(processes, "EXIT_SECONDS", 0.0)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="trio_dirty"):
        yield caplog


def text(path: Path) -> str:
    return path.read_text()


def lines(logged: pytest.LogCaptureFixture, worker: int) -> list[str]:
    """Return what has been logged of a worker's end, with its level."""
    told = [f"{record.levelname} {record.getMessage()}" for record in logged.records]
    return [
        line
        for line in told
        if f"worker {worker}" in line and "starts" not in line and "is ready" not in line
    ]


HOW = pytest.mark.parametrize("action", ["flush_at_exit", "flush_in_thread"])


@HOW
async def test_leaving_waits_for_what_a_worker_does_after_close(
    action: str, gate: Gate, log: Path, logged: pytest.LogCaptureFixture
) -> None:
    async def open_gate() -> None:
        await until(lambda: gate.has_come(pid))
        gate.open()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            async with open_pool([Flushes], workers=1, grace_period=None) as pool:
                pid = await pool.execute(Flushes, action, gate)
                nursery.start_soon(open_gate)
            assert text(log) == f"flushed {pid}\n"
    assert lines(logged, 0) == [
        f"INFO slot 0: worker 0, retired (closing): process {pid} exited with code 0"
    ]


@HOW
async def test_a_reload_does_not_wait_for_what_the_old_worker_does_after_close(
    action: str, gate: Gate, log: Path, logged: pytest.LogCaptureFixture
) -> None:
    async with open_pool([Flushes], workers=1, grace_period=PATIENCE) as pool:
        pid = await pool.execute(Flushes, action, gate)
        with trio.fail_after(PATIENCE):
            await pool.reload()
            await until(lambda: gate.has_come(pid))
            assert numbers(pool) == [1]
            assert await pool.run_sync(Flushes.who) == 1
            assert not gone(pid)
            gate.open()
            await until(lambda: lines(logged, 0))
    assert text(log) == f"flushed {pid}\n"
    assert lines(logged, 0) == [
        f"INFO slot 0: worker 0, retired (reload): process {pid} exited with code 0"
    ]


@HOW
async def test_a_worker_that_is_replaced_is_killed_after_grace_period(
    action: str, gate: Gate, log: Path, logged: pytest.LogCaptureFixture
) -> None:
    async with open_pool([Flushes], workers=1, grace_period=0.5) as pool:
        pid = await pool.execute(Flushes, action, gate)
        with trio.fail_after(PATIENCE):
            await pool.reload()
            await until(lambda: len(lines(logged, 0)) == 2)
    assert gone(pid)
    assert text(log) == ""
    assert lines(logged, 0) == [
        f"ERROR slot 0: worker 0, process {pid}, did not close within grace_period, and is killed",
        f"INFO slot 0: worker 0, retired (reload): process {pid} was killed by SIGKILL",
    ]


@HOW
async def test_leaving_kills_after_grace_period_and_says_so(
    action: str, gate: Gate, log: Path, logged: pytest.LogCaptureFixture
) -> None:
    before = children()
    with trio.fail_after(PROMPT):
        async with open_pool([Flushes], workers=2, grace_period=0.5) as pool:
            for _ in range(2):
                await pool.execute(Flushes, action, gate)
            workers = pool.statistics().workers
    assert children() == before
    assert text(log) == ""
    for slot, worker in enumerate(workers):
        assert lines(logged, worker.worker)[0] == (
            f"ERROR slot {slot}: worker {worker.worker}, process {worker.pid}, did not close "
            "within grace_period, and is killed"
        )
    assert len([record for record in logged.records if record.levelname == "ERROR"]) == 2
