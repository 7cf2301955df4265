"""Worker processes, held by descriptors that cannot go stale. Linux only.

A process number does not do. Between reading it and using it without an await, the pool's
tasks cannot reap the process; but a thread can: each start of a worker runs in one, and
multiprocessing looks there after all its children. And the number is read from a list, which
is as old as the listing. So: take a descriptor first, have the kernel confirm that what it
means is a child of this program and alive, and send signals through it. The pool has no
children but its workers, and what this program had before the pool is left alone.
"""

from __future__ import annotations

import os
import resource
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator


class Process:
    """A child of this program, which was alive when this was made."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self._fd = fd

    @property
    def alive(self) -> bool:
        """Whether it has not exited.

        Raises:
            ChildProcessError: it has been reaped, or never was a child of this program.
        """
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT  # and leave it to be reaped by its owner
        return os.waitid(os.P_PIDFD, self._fd, look) is None

    def signal(self, number: int) -> bool:
        """Send a signal; return whether the process was alive."""
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(self._fd, number)
        except (ChildProcessError, ProcessLookupError):
            return False
        return True

    def limit(self, size: int) -> bool:
        """Limit its address space, `resource.RLIM_INFINITY` for none; return whether it lives.

        This takes a process number. It was right a moment ago, and Linux gives a number out
        again only after all others have had their turn.
        """
        try:
            if not self.alive:
                return False
            _, hard = resource.prlimit(self.pid, resource.RLIMIT_AS)
            resource.prlimit(self.pid, resource.RLIMIT_AS, (size, hard))
        except (ChildProcessError, ProcessLookupError, PermissionError):
            return False
        return True

    def size(self) -> int:
        """Return the bytes of its address space, 0 once it has exited."""
        try:
            with open(f"/proc/{self.pid}/statm") as statm:
                return int(statm.read().split()[0]) * resource.getpagesize()
        except OSError:
            return 0

    async def exited(self) -> None:
        """Wait until it has exited, reaped or not."""
        await trio.lowlevel.wait_readable(self._fd)


@contextmanager
def hold(pid: int) -> Iterator[Process | None]:
    """Hold a child by a descriptor during the block; None if it has exited."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        process = Process(pid, fd)
        yield process if process.signal(0) else None
    finally:
        os.close(fd)
