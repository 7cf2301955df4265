"""Runs the scripts of this directory as programs of their own, and watches processes end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import trio

HERE = Path(__file__).parent
TESTS = HERE.parent
ROOT = TESTS.parent
PATH = [str(ROOT), *(str(TESTS / folder) for folder in (".", "support", "sample_apps"))]

ORPHAN_SECONDS = 2.0
"""What the pool promises; the kernel needs milliseconds."""

PATIENCE = 60.0
"""Seconds after which a test gives up. No test takes as long unless something hangs."""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(PATH)}


async def run_script(
    script: str | Path,
    *arguments: str,
    options: tuple[str, ...] = (),
    seconds: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, with its output captured."""
    command = [sys.executable, *options, str(HERE / script), *arguments]
    with trio.fail_after(seconds):
        done = await trio.run_process(
            command,
            check=False,
            capture_stdout=True,
            capture_stderr=True,
            env=environment(),
            start_new_session=True,
            deliver_cancel=kill_session,
        )
    return subprocess.CompletedProcess(
        command, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


async def kill_session(process: trio.Process) -> None:
    """Kill a script and whatever it has started."""
    os.killpg(process.pid, signal.SIGKILL)


class Program:
    """A script that runs, in a session of its own."""

    def __init__(self, process: trio.Process, errors: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._errors = errors
        self._read = bytearray()

    async def numbers(self) -> list[int]:
        """Wait for the next line of its output, and return the numbers in it."""
        assert self.process.stdout is not None
        with trio.fail_after(PATIENCE):
            while b"\n" not in self._read:
                some = await self.process.stdout.receive_some()
                assert some, f"the script has ended: {self.errors}"
                self._read += some
        line, _, rest = self._read.partition(b"\n")
        self._read = rest
        return [int(number) for number in line.split()]

    @property
    def errors(self) -> str:
        return self._errors.read_text()


@asynccontextmanager
async def running(script: str, *arguments: str, errors: Path) -> AsyncIterator[Program]:
    """Run a script during the block; ``errors`` is the file for its standard error."""
    with open(errors, "wb") as stderr:  # noqa: ASYNC230
        process = await trio.lowlevel.open_process(
            [sys.executable, str(HERE / script), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment(),
            start_new_session=True,
        )
    try:
        yield Program(process, errors)
    finally:
        with trio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for what no event tells of."""
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


def gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def children() -> set[int]:
    """Return this program's child processes, but for multiprocessing's resource tracker."""
    found = set()
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if "resource_tracker" not in " ".join(process.cmdline()):
                found.add(process.pid)
    return found


def descriptors() -> list[str]:
    """Return what this program has open, without the numbers that differ each time."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}").partition(":")[0])
    return sorted(found)


@asynccontextmanager
async def killed_at_end(*pids: int) -> AsyncIterator[None]:
    """Kill processes that a test has left behind on purpose."""
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
