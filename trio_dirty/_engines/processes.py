"""The engine whose workers are processes.

The life of a worker is two tasks in a nursery: one runs the process's long job; the other waits
for the process to exit, and reaps it.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import secrets
import signal
import socket
import sys
import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
import trio
import trio_parallel

from .._common import wire
from .._common.errors import AppLoadError, DirtyError
from .._common.log import logger
from .._common.wire import INTERRUPT_SIGNAL
from .._worker.process import fill_standard_streams
from .._worker.serve import serve
from .contract import Blueprint, Engine, Exit, Worker
from .handshake import Connection, KillSwitch, accept_worker, private_listener
from .job import Job
from .nursery import open_service_nursery
from .socket import FrameSocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from .._common.wire import Segment
    from .._rules.targets import AppPaths
    from .contract import Answer

if sys.platform == "win32":
    raise ImportError("trio_dirty runs its workers on Linux and macOS; on Windows it has no engine")

EXIT_SECONDS = 1.0
"""How long a process may take to exit whose socket has ended although its apps have not been
closed. One whose apps have been ends in its own way, within the pool's ``grace_period``."""

HOLD_LOOKS = 5
"""How often, a millisecond apart, to look whether a process that was sent SIGSTOP stands still.
One that runs does within microseconds. One that sleeps in the kernel uninterruptibly, or whose
stop another part of the program has collected, never says so, and executes nothing all the same."""

STARTS_AT_ONCE = 2 * (os.cpu_count() or 1)
"""Starting more interpreters side by side than this makes none of them ready earlier."""


class ProcessEngine(Engine):
    """Starts each worker as one long job of a trio-parallel process of its own."""

    look_seconds = 1.0

    def __init__(self) -> None:
        this = multiprocessing.current_process()
        if getattr(this, "_inheriting", False):
            # multiprocessing would refuse to start a process, but only after this one, about
            # to be killed, has made a directory that would never be removed.
            raise DirtyError(
                "a pool cannot be opened here: this process is a worker that imports the program's "
                "main module. In a script, call trio.run() under `if __name__ == '__main__':`"
            )
        if this.daemon:
            raise DirtyError(
                "a pool cannot be opened here: this process is a daemonic child, which may have "
                "no children. In a script, call trio.run() under `if __name__ == '__main__':`, "
                "because workers import the script again. Under Hypercorn, set daemon = false "
                "in its TOML file and leave it at one worker, since of several it kills those that "
                "are still shutting down when the first has; or call hypercorn.trio.serve, with a "
                "shutdown_trigger that waits for SIGTERM, in your own trio.run()"
            )
        self._turns = trio.CapacityLimiter(STARTS_AT_ONCE)
        self._directory = _current_directory() or ""

    def now(self) -> float:
        """Return `time.perf_counter`."""
        return time.perf_counter()

    @asynccontextmanager
    async def start(self, blueprint: Blueprint) -> AsyncIterator[Worker]:
        """Return a block in which a worker process lives; wait for its turn to start."""
        turn = Turn(self._turns)
        await turn.take()
        try:
            async with open_service_nursery() as nursery:
                worker = ProcessWorker(blueprint, self._directory, turn, nursery)
                try:
                    yield worker
                finally:
                    with trio.CancelScope(shield=True):
                        await worker.end()
        finally:
            turn.give_back()


class Turn:
    """A worker's turn to start."""

    def __init__(self, turns: trio.CapacityLimiter) -> None:
        self._turns = turns
        self._is_held = False

    async def take(self) -> None:
        """Wait for it."""
        await self._turns.acquire_on_behalf_of(self)
        self._is_held = True

    def give_back(self) -> None:
        """Let another start; a second time does nothing."""
        if self._is_held:
            self._is_held = False
            self._turns.release_on_behalf_of(self)


class ProcessWorker(Worker):
    """A worker process, and the pool's end of its socket."""

    def __init__(
        self, blueprint: Blueprint, directory: str, turn: Turn, nursery: trio.Nursery
    ) -> None:
        self._blueprint = blueprint
        self._directory = directory
        self._turn = turn
        self._nursery = nursery
        # None until the process has been started.
        self._job: Job | None = None
        # Only the exit of the process ends its job: see `_watch`.
        self._running = trio.CancelScope(shield=True)
        self._job_failure = ""
        self._job_ended = trio.Event()
        # The job's end cancels this one: no worker will connect any more.
        self._connecting = trio.CancelScope()
        self._connection: Connection | None = None
        self._frames: FrameSocket
        self._killed_for: str | None = None
        self._process: psutil.Process
        # Seconds of a processor that it had used at the last look.
        self._used: tuple[float, float] | None = None

    # From start to end

    async def look_up(self, apps: AppPaths) -> Sequence[int | None]:
        """Have the process, started if need be, import apps and say what they declare."""
        declared: Sequence[int | None] = await self._order(wire.LOOK_UP, apps)
        return declared

    async def boot(self, apps: AppPaths) -> None:
        """Have the process, started if need be, boot its apps."""
        await self._order(wire.BOOT, apps)
        try:
            self._process = psutil.Process(self.pid)
        except (psutil.Error, OSError) as error:
            slot = self._blueprint.slot
            raise AppLoadError(f"the worker of slot {slot} cannot be watched: {error}") from error

    async def _order(self, kind: int, apps: AppPaths) -> Any:
        slot = self._blueprint.slot
        if self._connection is None:
            try:
                await self._connect()
            except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be started
                raise AppLoadError(f"the worker of slot {slot} could not start: {error}") from error
        paths = [(index, path.module, path.qualname) for index, path in apps]
        rest = self._frames.send_nowait([wire.frame(kind, 0, pickle.dumps(paths))])
        await self._frames.send_rest(rest)
        report = await self._frames.receive_report()
        if report is None:
            await self._wait_exit()
            raise AppLoadError(
                f"the worker of slot {slot} could not boot: {self.exit()} while it was loading "
                "its apps"
            )
        kind, value = report
        if kind == wire.FAILED:
            raise AppLoadError(f"the apps of slot {slot} could not boot:\n\n{value}")
        return value

    async def _connect(self) -> None:
        job = await self._start()
        self._turn.give_back()
        if self._connection is None:
            raise self._never_connected(job)
        if isinstance(job.lifeline, KillSwitch):
            job.lifeline.disarm()
        job.lifeline = self._connection.lifeline
        # Not a method of this object: in a cycle with it, each dead worker's buffer of half a
        # megabyte would wait for the collector.
        closing_failed = partial(log_closing, self._blueprint, self.pid)
        self._frames = FrameSocket(self._connection.socket, closing_failed)
        if job.exited.is_set():
            self._end_socket()

    async def _start(self) -> Job:
        """Start the process; wait until it has connected, or has ended."""
        if _current_directory() is None:  # multiprocessing tells each process where to run
            raise FileNotFoundError("the program's current directory has been removed")
        fill_standard_streams()
        with private_listener() as (address, listener):
            token = secrets.token_bytes(32)
            job = Job()
            await job.start()
            self._job, self.pid = job, job.pid
            self._nursery.start_soon(self._watch, job)
            self._nursery.start_soon(self._run, job, address, token)
            with self._connecting:
                self._connection = await accept_worker(listener, token, job.pid)
        return job

    @trio.lowlevel.enable_ki_protection
    async def _run(self, job: Job, address: str, token: bytes) -> None:
        blueprint = self._blueprint
        whose = blueprint.slot, blueprint.worker, blueprint.lanes
        try:
            with self._running:
                result = await job.run_sync(serve, address, token, *whose, self._directory)
                if result is not None:
                    result.unwrap()
        except trio_parallel.BrokenWorkerError:
            pass  # how it ended is known better from its exit
        except Exception as error:
            # Only the text is kept: it refers to the process and its pipes.
            self._job_failure = f"its job raised {error!r}"
            logger.exception("slot %d: worker %d failed", blueprint.slot, blueprint.worker)
        finally:
            self._connecting.cancel()
            self._job_ended.set()

    def _never_connected(self, job: Job) -> AppLoadError:
        return AppLoadError(
            f"the worker of slot {self._blueprint.slot} could not start: "
            f"{self._job_failure or self.exit()} "
            "before it had connected to the pool. Its own output tells more. Each worker "
            "imports the program's main module again, so a script must call trio.run() under "
            "`if __name__ == '__main__':`"
        )

    @trio.lowlevel.enable_ki_protection
    async def _watch(self, job: Job) -> None:
        """Wait for the process to exit: the end of its socket may be long in coming.

        A child that an action has forked may hold the socket and trio-parallel's pipe open.
        """
        with trio.CancelScope(shield=True):  # `end` sees to it that it comes
            await job.until_exit()
            self._end_socket()
            if self._connection is None:
                # What its job has raised may not have been read yet.
                with trio.move_on_after(EXIT_SECONDS):
                    await self._job_ended.wait()
        self._running.cancel()

    def _end_socket(self) -> None:
        """Have what was written before the exit be read, and an end behind it.

        Even while a forked child has the socket. On other systems than Linux this would drop
        what is unread.
        """
        if sys.platform == "linux" and self._connection is not None:
            with suppress(OSError):
                self._connection.socket.shutdown(socket.SHUT_RDWR)

    async def end(self) -> None:
        """Kill the process, unless it has exited, and wait until nothing of it is left."""
        job = self._job
        if job is None:
            return
        job.kill()
        await job.exited.wait()
        await self._job_ended.wait()
        if isinstance(job.lifeline, KillSwitch):
            job.lifeline.disarm()
        if self._connection is not None:
            trio.lowlevel.notify_closing(self._connection.socket)
            self._connection.close()
        job.dispose()

    def kill(self) -> None:
        """Send SIGKILL, or where that is not permitted, have the kernel do it."""
        if self._job is not None:
            self._job.kill()

    def interrupt(self) -> None:
        """Send the signal that has the worker read its frames.

        Where that is not permitted, it reads them between requests and in `check_cancelled`.
        """
        self._signal(INTERRUPT_SIGNAL)

    async def hold(self) -> None:
        """Send SIGSTOP, and wait until the process has stopped; do without if not permitted."""
        job = self._job
        if job is None or not job.signal(signal.SIGSTOP):
            return
        for _ in range(HOLD_LOOKS):
            await trio.sleep(0.001)
            if job.is_stopped():
                break

    def unread(self) -> bool:
        """Return whether anything can be received."""
        return self._frames.unread()

    def release(self) -> None:
        """Send SIGCONT."""
        self._signal(signal.SIGCONT)

    def memory(self) -> int:
        """Ask the system."""
        with suppress(psutil.Error, OSError):
            if self._job is not None and not self._job.exited.is_set():
                resident: int = self._process.memory_info().rss
                return resident
        return 0

    def stands_still(self, *, busy: bool) -> bool:
        """Ask the system for the state of the process, and how long it has run."""
        with suppress(psutil.Error, OSError):
            state, used = self._process.status(), self._process.cpu_times()
            rested, self._used = self._used == (used.user, used.system), (used.user, used.system)
            rests = state == psutil.STATUS_SLEEPING and not busy
            return rested and (rests or state == psutil.STATUS_STOPPED)
        return False

    def _signal(self, number: signal.Signals) -> None:
        if self._job is not None:
            self._job.signal(number)

    def exit(self) -> Exit:
        """Return the exit code."""
        exitcode = None if self._job is None else self._job.exitcode
        return Exit(self.pid, exitcode, self._killed_for)

    async def _wait_exit(self) -> None:
        """Wait for the exit that follows the end of the socket, and see to it."""
        assert self._job is not None
        exited = self._job.exited
        # Else it may flush and join whatever it wants to; the pool bounds that.
        if not self._frames.has_closed:
            with trio.move_on_after(EXIT_SECONDS):
                await exited.wait()
            if not exited.is_set():
                self._killed_for = "the pool killed it since its socket had ended, and it had not"
                self.kill()
        await exited.wait()

    # Frames

    def send_nowait(self, frames: Sequence[Segment]) -> Sequence[Segment]:
        """Send what the socket has room for; if the worker has ended, drop all."""
        return self._frames.send_nowait(frames)

    async def send_rest(self, rest: Sequence[Segment]) -> None:
        """Send the rest; if the worker has ended, drop it."""
        await self._frames.send_rest(rest)

    @property
    def unsent(self) -> int:
        """Bytes of the rest that are not in the socket."""
        return self._frames.unsent

    def unreceived(self, number: int) -> int | None:
        """Bytes of a large answer that have not been received."""
        return self._frames.unreceived(number)

    async def receive(self) -> Sequence[Answer]:
        """Wait for replies; once the socket has ended, wait for the exit and return none."""
        replies = await self._frames.receive()
        if not replies:
            await self._wait_exit()
        return replies


def _current_directory() -> str | None:
    with suppress(OSError):
        return os.getcwd()
    return None


def log_closing(blueprint: Blueprint, pid: int | None, text: str) -> None:
    """Log the traceback of a ``close()`` that raised, in a worker of any engine."""
    logger.error(
        "slot %d: close() raised in worker %d, process %s:\n%s",
        blueprint.slot,
        blueprint.worker,
        pid,
        text,
    )
