"""The engine whose workers are processes.

The life of a worker is two tasks in a nursery: one runs trio-parallel's long job, from
the start of the process to its reaping; the other waits for the process to exit.
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

from . import _wire
from ._engine import Blueprint, Engine, Exit, Worker, describe_exit
from ._errors import AppLoadError, DirtyError
from ._frames import FrameSocket
from ._handshake import Connection, accept_worker, private_listener
from ._lane import INTERRUPT_SIGNAL
from ._log import logger
from ._nursery import open_service_nursery
from ._threads import UNLIMITED
from ._worker import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from multiprocessing.process import BaseProcess

    from ._engine import Answer, AppPaths
    from ._pickling import Segment

if sys.platform == "win32":
    raise ImportError("trio_dirty runs its workers on Linux and macOS; on Windows it has no engine")

EXIT_SECONDS = 1.0
"""How long a process may take to exit after its apps are closed: time for exit handlers,
but not for threads that an action has left behind."""

HOLD_LOOKS = 5
"""How often, a millisecond apart, to look whether a process that was sent SIGSTOP stands still.
One that runs does within microseconds. One that sleeps in the kernel uninterruptibly, or whose
stop somebody else has collected, never says so, and executes nothing all the same."""

STARTS_AT_ONCE = 2 * (os.cpu_count() or 1)
"""Starting more interpreters side by side than this makes none of them ready earlier."""


class ProcessEngine(Engine):
    """Starts each worker as one long job of a trio-parallel process of its own."""

    look_seconds = 1.0

    def __init__(self) -> None:
        this = multiprocessing.current_process()
        if getattr(this, "_inheriting", False):
            # multiprocessing would refuse to start a process, but only after this one, about
            # to be killed, has made a directory that nobody would remove.
            raise DirtyError(
                "a pool cannot be opened here: this process is a worker that imports the program's "
                "main module. In a script, call trio.run() under `if __name__ == '__main__':`"
            )
        if this.daemon:
            raise DirtyError(
                "a pool cannot be opened here: this process is a daemonic child, which may have "
                "no children. In a script, call trio.run() under `if __name__ == '__main__':`, "
                "because workers import the script again. Under Hypercorn, set daemon = false "
                "in its TOML file, or use -w 0, or hypercorn.trio.serve in your own trio.run()"
            )
        self._starts = trio.CapacityLimiter(STARTS_AT_ONCE)

    def now(self) -> float:
        """Return `time.perf_counter`."""
        return time.perf_counter()

    @asynccontextmanager
    async def start(self, blueprint: Blueprint) -> AsyncIterator[Worker]:
        """Return a block in which a worker process lives."""
        async with open_service_nursery() as nursery:
            worker = ProcessWorker(blueprint, self._starts, nursery)
            try:
                yield worker
            finally:
                with trio.CancelScope(shield=True):
                    await worker.end()


class ProcessWorker(Worker):
    """A worker process, and the pool's end of its socket."""

    def __init__(
        self, blueprint: Blueprint, starts: trio.CapacityLimiter, nursery: trio.Nursery
    ) -> None:
        self._blueprint = blueprint
        self._starts = starts
        self._nursery = nursery
        # Cancelling this one has trio-parallel kill the process. It is shielded, because the
        # process must be dead before trio-parallel waits for it: see `_watch`.
        self._job = trio.CancelScope(shield=True)
        self._job_failure = ""
        self._job_ended: trio.Event | None = None
        # The job's end cancels this one: nobody will connect any more.
        self._connecting = trio.CancelScope()
        self._connection: Connection | None = None
        self._frames: FrameSocket
        # Open from the connection to the exit: a number may belong to a stranger after it.
        self._pidfd: int | None = None
        self._exited = trio.Event()
        self._exitcode: int | None = None
        self._killed_for: str | None = None
        self._process: psutil.Process
        # Seconds of a processor that it had used at the last look.
        self._used: tuple[float, float] | None = None

    # From start to end

    async def look_up(self, apps: AppPaths) -> Sequence[int | None]:
        """Have the process, started if need be, import apps and say what they declare."""
        declared: Sequence[int | None] = await self._order(_wire.LOOK_UP, apps)
        return declared

    async def boot(self, apps: AppPaths) -> None:
        """Have the process, started if need be, boot its apps."""
        await self._order(_wire.BOOT, apps)
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
            except OSError as error:
                raise AppLoadError(f"the worker of slot {slot} could not start: {error}") from error
        paths = [(index, path.module, path.qualname) for index, path in apps]
        rest = self._frames.send_nowait([_wire.frame(kind, 0, pickle.dumps(paths))])
        await self._frames.send_rest(rest)
        report = await self._frames.receive_report()
        if report is None:
            await self._wait_exit()
            raise AppLoadError(
                f"the worker of slot {slot} could not boot: {self.exit()} while it was loading "
                "its apps"
            )
        kind, value = report
        if kind == _wire.FAILED:
            raise AppLoadError(f"the apps of slot {slot} could not boot:\n\n{value}")
        return value

    async def _connect(self) -> None:
        async with self._starts:
            with private_listener() as (address, listener):
                token = secrets.token_bytes(32)
                self._job_ended = trio.Event()
                self._nursery.start_soon(self._run_job, address, token)
                with self._connecting:
                    self._connection = await accept_worker(listener, token)
        if self._connection is None:
            raise self._never_connected()
        _never_block_on(self._connection.process)
        self.pid = self._connection.process.pid
        # Not a method of this object: in a cycle with it, each dead worker's buffer of half a
        # megabyte would wait for the collector.
        closing_failed = partial(log_closing, self._blueprint, self.pid)
        self._frames = FrameSocket(self._connection.socket, closing_failed)
        self._nursery.start_soon(self._watch, self._connection)

    @trio.lowlevel.enable_ki_protection
    async def _run_job(self, address: str, token: bytes) -> None:
        assert self._job_ended is not None
        blueprint = self._blueprint
        arguments = address, token, blueprint.slot, blueprint.worker, blueprint.lanes
        try:
            with self._job:
                async with trio_parallel.open_worker_context(grace_period=EXIT_SECONDS) as context:
                    await context.run_sync(
                        serve, *arguments, kill_on_cancel=True, limiter=UNLIMITED
                    )
        # Of the errors only the text is kept: they refer to the process and its pipes.
        except trio_parallel.BrokenWorkerError as error:
            process = error.args[-1]
            self._job_failure = f"process {process.pid} {describe_exit(process.exitcode)}"
        except Exception as error:
            self._job_failure = f"its job raised {error!r}"
            logger.exception(
                "slot %d: worker %d failed", self._blueprint.slot, self._blueprint.worker
            )
        finally:
            self._connecting.cancel()
            self._job_ended.set()

    def _never_connected(self) -> AppLoadError:
        return AppLoadError(
            f"the worker of slot {self._blueprint.slot} could not start: {self._job_failure} "
            "before it had connected to the pool. Its own output tells more. Each worker "
            "imports the program's main module again, so a script must call trio.run() under "
            "`if __name__ == '__main__':`"
        )

    @trio.lowlevel.enable_ki_protection
    async def _watch(self, connection: Connection) -> None:
        """Wait for the process to exit: the end of its socket may be long in coming.

        A child that an action has forked holds the socket open, and also trio-parallel's
        pipe and multiprocessing's sentinel. Only a process descriptor tells the truth.
        """
        process = connection.process
        assert process.pid is not None
        with trio.CancelScope(shield=True):  # `end` sees to it that it comes
            fd = _open_pidfd(process.pid)
            if fd is None:
                await trio.lowlevel.wait_readable(process.sentinel)
            else:
                self._pidfd = fd
                try:
                    await trio.lowlevel.wait_readable(fd)
                    self._exitcode = _peek_exitcode(fd)
                finally:
                    self._pidfd = None
                    os.close(fd)
        if self._exitcode is None:
            self._exitcode = process.exitcode
        if sys.platform == "linux":
            # What has been written can still be read, and behind it there is an end, even
            # while a forked child has the socket. Elsewhere this would drop what is unread.
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        self._job.cancel()
        if self._exitcode is None and self._job_ended is not None:
            # Reaped by the thread in which trio-parallel waits for an orderly end, and not
            # told by it yet; or by something else in the program, and never to be told.
            with trio.move_on_after(EXIT_SECONDS, shield=True):
                await self._job_ended.wait()
            self._exitcode = process.exitcode
        self._exited.set()

    async def end(self) -> None:
        """Kill the process, unless it has exited, and wait until nothing of it is left."""
        if self._job_ended is None:
            return
        self.kill()
        if self._connection is not None:
            await self._exited.wait()
        await self._job_ended.wait()
        if self._connection is not None:
            trio.lowlevel.notify_closing(self._connection.socket)
            self._connection.close()
            self._connection.process.close()
        else:
            # A process that died between its kill and trio-parallel's look at its exit code has
            # been reaped, but not joined: multiprocessing would keep it and its pipes until it
            # next looks after its children.
            multiprocessing.active_children()

    def kill(self) -> None:
        """Send SIGKILL, through the handle that owns the process."""
        if self._connection is not None:
            self._connection.process.kill()
        else:
            self._job.cancel()

    def interrupt(self) -> None:
        """Send the signal that has the worker read its frames."""
        self._signal(INTERRUPT_SIGNAL)

    async def hold(self) -> None:
        """Send SIGSTOP, and wait until the process has stopped."""
        self._signal(signal.SIGSTOP)
        for _ in range(HOLD_LOOKS):
            await trio.sleep(0.001)
            if self._pidfd is None or _is_stopped(self._pidfd):
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
            if not self._exited.is_set():
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
        with suppress(ProcessLookupError):
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            elif self.pid is not None and not self._exited.is_set():
                os.kill(self.pid, number)

    def exit(self) -> Exit:
        """Return the exit code."""
        return Exit(self.pid, self._exitcode, self._killed_for)

    async def _wait_exit(self) -> None:
        """Wait for the exit that follows the end of the socket, and see to it."""
        with trio.move_on_after(EXIT_SECONDS):
            await self._exited.wait()
        if not self._exited.is_set():
            self._killed_for = "the pool killed it since its socket had ended, and it had not"
            self.kill()
            await self._exited.wait()

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


def log_closing(blueprint: Blueprint, pid: int | None, text: str) -> None:
    """Log the traceback of a ``close()`` that raised, in a worker of any engine."""
    logger.error(
        "slot %d: close() raised in worker %d, process %s:\n%s",
        blueprint.slot,
        blueprint.worker,
        pid,
        text,
    )


def _open_pidfd(pid: int) -> int | None:
    """Return a process descriptor; None on other systems, and when descriptors have run out."""
    if sys.platform == "linux":
        with suppress(OSError):
            return os.pidfd_open(pid)
    return None


def _peek_exitcode(pidfd: int) -> int | None:
    """Return the exit code, and leave the process to be reaped by its owner."""
    try:
        status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return None
    if status is None:
        return None
    return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status


def _is_stopped(pidfd: int) -> bool:
    try:
        look = os.WSTOPPED | os.WNOWAIT | os.WNOHANG
        return os.waitid(os.P_PIDFD, pidfd, look) is not None
    except ChildProcessError:
        return True  # it has exited


def _never_block_on(process: BaseProcess) -> None:
    """Have trio-parallel not block the loop on a worker that has closed its descriptors.

    It takes an end of its pipe and of the sentinel for the exit, and joins the process. An
    action that closes all descriptors does that to a process which lives on, and is of no
    more use.
    """
    join = process.join

    def kill_and_join(timeout: float | None = None) -> None:
        if timeout is None:
            process.kill()
        join(timeout)

    process.join = kill_and_join  # type: ignore[method-assign]  # this one process only
