"""One process, and the one long job that it runs.

trio-parallel's worker without its context: a context starts and closes its processes in threads
of trio's default limiter, all tokens of which a program may hold while it waits for the pool. The
exit of the process is watched here, so that neither its start nor its end needs a thread that
another part of the program could withhold, and no wait of trio-parallel's blocks the loop.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio
from trio_parallel._proc import SpawnProcWorker

from .handshake import KillSwitch
from .threads import UNLIMITED

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from .handshake import Lifeline

EXIT_LOOK_SECONDS = 0.001
"""How often to look for the exit of a process that was killed, without a descriptor of it."""

UNKNOWN_EXITCODE = 255
"""What multiprocessing is told where the exit code cannot be known any more."""

# After its one job the process ends by itself: it does not wait until the pool closes a pipe, of
# which a child that the program has forked may have a copy.
_exits_after_job = partial(bool, 1)


class Job(SpawnProcWorker):
    """A process that ends when its job has; and how it ends.

    Attributes:
        lifeline: what kills the process when it is closed, where signals are not permitted.
        exited: set when the process has exited, and has been reaped.
        exitcode: as of `multiprocessing.Process`, once it has exited; None where it cannot be
            known, because SIGCHLD is ignored or something else in the program has collected it.
    """

    def __init__(self) -> None:
        super().__init__(math.inf, bool, _exits_after_job)  # type: ignore[no-untyped-call]
        self.lifeline: Lifeline | None = None
        self.exited = trio.Event()
        self.exitcode: int | None = None
        # Open until the exit: a number may belong to a stranger after it.
        self._pidfd: int | None = None

    @property
    def pid(self) -> int:
        """The number of the process, which has been started."""
        process: BaseProcess = self.proc
        assert process.pid is not None
        return process.pid

    async def start(self) -> None:
        """Start the process. To be followed by `until_exit`, in a task of its own."""
        try:
            await trio.to_thread.run_sync(self.proc.start, limiter=UNLIMITED)
        except BaseException:
            self._close_pipes()
            raise
        self._child_send_pipe.close()
        self._child_recv_pipe.close()
        self._pidfd = _open_pidfd(self.pid)
        self.lifeline = KillSwitch.of(self.pid)

    async def until_exit(self) -> None:
        """Wait until the process has exited, and reap it.

        A child that an action has forked holds trio-parallel's pipe open, and multiprocessing's
        sentinel. Only a process descriptor tells the truth.
        """
        process: BaseProcess = self.proc
        if self._pidfd is not None:
            await trio.lowlevel.wait_readable(self._pidfd)
            self.exitcode = _peek_exitcode(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        else:
            await trio.lowlevel.wait_readable(process.sentinel)
            # An action that closes all descriptors ends the sentinel, too, of a process that
            # lives on and is of no more use.
            self.kill()
            while process.exitcode is None and _is_there(self.pid):  # noqa: ASYNC110
                await trio.sleep(EXIT_LOOK_SECONDS)
        reaped = process.exitcode
        if self.exitcode is None:
            self.exitcode = reaped
        self.exited.set()

    async def wait(self) -> int | None:
        """Wait until `until_exit` has seen the exit."""
        await self.exited.wait()
        return self.exitcode

    def kill(self) -> None:
        """Have the process end at once, whatever it is doing. Does not wait."""
        if not self.signal(signal.SIGKILL):
            self.shutdown()  # type: ignore[no-untyped-call]
            if self.lifeline is not None:
                self.lifeline.close()

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal, unless the process has exited.

        Returns:
            Whether that was permitted: not after the program has given up the rights with which
            it had started the process.
        """
        try:
            if self.exited.is_set():
                pass
            elif self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            return False
        return True

    def is_stopped(self) -> bool:
        """Return whether the process is seen to stand still, as after SIGSTOP; or has exited."""
        return self._pidfd is None or _is_stopped(self._pidfd)

    def dispose(self) -> None:
        """Close what is left of a process that has exited, when its job has ended, too."""
        self._close_pipes()
        process: BaseProcess = self.proc
        if process.exitcode is None:
            # Without an exit code it is alive for multiprocessing, which would refuse to close it
            # and keep it for ever.
            process._popen.returncode = UNKNOWN_EXITCODE  # type: ignore[attr-defined]
        process.close()

    def _close_pipes(self) -> None:
        for pipe in (
            self._child_send_pipe,
            self._child_recv_pipe,
            self._send_pipe,
            self._recv_pipe,
        ):
            pipe.close()


def _open_pidfd(pid: int) -> int | None:
    """Return a process descriptor; None on other systems, and when descriptors have run out."""
    if sys.platform == "linux":
        with suppress(OSError):
            return os.pidfd_open(pid)
    return None


def _peek_exitcode(pidfd: int) -> int | None:
    """Return the exit code, and leave the process to be reaped by multiprocessing."""
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


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
