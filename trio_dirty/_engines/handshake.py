"""Where a worker connects to, and how it proves who it is."""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import hmac
import math
import os
import shutil
import socket
import struct
import sys
import tempfile
import weakref
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from .._worker.process import kill_at_end

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN_SECONDS = 5.0
"""For a stranger that connects and says nothing; a worker sends its token at once."""

SHORTAGE_SECONDS = 5.0
"""For how long to try again where descriptors or memory have run out."""

RETRY_SECONDS = 0.05

ANYWHERE = "/tmp"  # noqa: S108  # what is in it is private
"""Where the directory of a socket is made that cannot be in the one for temporary files."""

SHORTAGES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@contextmanager
def private_listener() -> Iterator[tuple[str, socket.socket]]:
    """Listen on a Unix socket that no other user can reach, for one worker.

    Its directory has mode 0700. Where a child can reach the socket through a descriptor of it, on
    Linux, it is removed at once: nothing stays behind even when everything is killed while the
    worker starts. Elsewhere it is removed when the block is left, and also by the worker as
    soon as it has connected.

    Raises:
        OSError: no directory for temporary files can be used.
    """
    with ExitStack() as cleanup:
        listener = cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        directory = _bind(listener)
        cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        address: str = listener.getsockname()
        listener.listen()
        listener.setblocking(False)
        _open_ends.add(listener)
        if _shows_descriptors():
            descriptor = os.open(address, os.O_PATH)
            cleanup.callback(os.close, descriptor)
            address = f"/proc/{os.getpid()}/fd/{descriptor}"
            shutil.rmtree(directory, ignore_errors=True)
        yield address, listener


def _bind(listener: socket.socket) -> str:
    """Bind a socket in a directory of its own; return the directory.

    The program's directory for temporary files may have a name that is too long for a socket, may
    be full, or may have been removed since the program started.
    """
    try:
        return _bind_below(None, listener)
    except OSError:
        with suppress(OSError):
            return _bind_below(ANYWHERE, listener)
        raise


def _bind_below(parent: str | None, listener: socket.socket) -> str:
    directory = tempfile.mkdtemp(prefix="trio_dirty-", dir=parent)
    try:
        listener.bind(os.path.join(directory, "s"))
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return directory


def _shows_descriptors() -> bool:
    """Return whether a child finds the descriptors of this program in the file system.

    Not where the program has changed its user or group since it started: Linux hides them then,
    as from everybody that may not read its memory.
    """
    if sys.platform != "linux" or not os.path.isdir("/proc/self/fd"):
        return False
    pr_get_dumpable = 3  # <linux/prctl.h>
    return bool(ctypes.CDLL(None).prctl(pr_get_dumpable, 0, 0, 0, 0) == 1)


class Lifeline:
    """The pool's end of a pipe whose other end kills the worker when this one closes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        _open_ends.add(self)

    def close(self) -> None:
        """Close it; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class KillSwitch(Lifeline):
    """The lifeline of a process that has not connected: the pool has both of its ends.

    The kernel asks for the rights that the program had when it was made.
    """

    def __init__(self, read_end: int, write_end: int) -> None:
        super().__init__(write_end)
        self._read_end = read_end

    @classmethod
    def of(cls, pid: int) -> KillSwitch | None:
        """Return that of a child; None on other systems, and when descriptors have run out."""
        if sys.platform != "linux":
            return None
        with suppress(OSError):
            read_end, write_end = os.pipe()
            switch = cls(read_end, write_end)
            try:
                kill_at_end(read_end, pid)
            except OSError:
                switch.disarm()
            else:
                return switch
        return None

    def close(self) -> None:
        """Kill the process."""
        super().close()
        fd, self._read_end = self._read_end, -1
        if fd >= 0:
            os.close(fd)

    def disarm(self) -> None:
        """Close both ends, and leave the process alone.

        Another process that is being started in this moment has both ends as well, until it runs
        its program: closing this one's first would not be enough, since the kernel may let go of
        that one's in another order than it closes them.
        """
        if self._read_end >= 0:
            fcntl.fcntl(self._read_end, fcntl.F_SETFL, 0)  # no more O_ASYNC, in all copies
        self.close()


@dataclass(frozen=True, slots=True)
class Connection:
    """What leads to a worker that has proved who it is."""

    socket: socket.socket
    lifeline: Lifeline

    def close(self) -> None:
        """Close it; the worker does not survive that."""
        self.socket.close()
        self.lifeline.close()


class _Shortage:
    """Tries again, now and then, what fails for want of descriptors or memory; not for ever."""

    def __init__(self) -> None:
        self._end = math.inf

    async def wait(self, error: OSError) -> None:
        """Wait until the next try.

        Raises:
            OSError: it has lasted too long.
        """
        now = trio.current_time()
        self._end = min(self._end, now + SHORTAGE_SECONDS)
        if now >= self._end:
            raise error
        await trio.sleep(RETRY_SECONDS)


async def accept_worker(listener: socket.socket, token: bytes, pid: int) -> Connection:
    """Wait for the worker that knows the token; turn away everybody else.

    The peer's process number comes from the kernel, and has to be that of the process that was
    started: so a kill of that one hits the worker.

    Raises:
        OSError: descriptors or memory have run out, and do not come back.
    """
    shortage = _Shortage()
    while True:
        await trio.lowlevel.wait_readable(listener)
        try:
            sock = listener.accept()[0]
        except OSError as error:
            if error.errno in SHORTAGES:
                await shortage.wait(error)
            continue  # else a stranger that has gone again
        with ExitStack() as unless_proved:
            unless_proved.enter_context(sock)
            sock.setblocking(False)
            lifeline = await _proved(sock, token, shortage)
            if lifeline is not None and _peer_pid(sock) == pid:
                unless_proved.pop_all()
                _open_ends.add(sock)
                return Connection(sock, lifeline)
            if lifeline is not None:
                lifeline.close()


async def _proved(sock: socket.socket, token: bytes, shortage: _Shortage) -> Lifeline | None:
    """Return the lifeline that comes with the right token."""
    with trio.move_on_after(TOKEN_SECONDS) as silent:
        await trio.lowlevel.wait_readable(sock)
    if silent.cancelled_caught:
        return None
    while True:
        try:
            shown, fds, is_cut = _peek_token(sock, len(token))
        except OSError:
            return None  # a stranger that has gone again
        lifelines = [Lifeline(fd) for fd in fds]
        is_right = hmac.compare_digest(shown, token)
        if is_right and len(lifelines) == 1:
            sock.recv(len(token))
            return lifelines[0]
        for lifeline in lifelines:
            lifeline.close()
        if not is_right or not is_cut:
            return None
        await shortage.wait(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))


def _peek_token(sock: socket.socket, size: int) -> tuple[bytes, list[int], bool]:
    """Look at what is sent first, and can be looked at again.

    Returns:
        The token, the descriptors that come with it, and whether some were left out: the kernel
        does that, without an error, where the program may have no more of them.
    """
    fds = array.array("i")
    flags = socket.MSG_PEEK | getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, ancillary, returned, _ = sock.recvmsg(size, socket.CMSG_SPACE(fds.itemsize), flags)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds), bool(returned & socket.MSG_CTRUNC)


def _peer_pid(sock: socket.socket) -> int:
    if sys.platform == "linux":
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int(struct.unpack("iII", credentials)[0])
    sol_local, local_peerpid = 0, 2  # <sys/un.h> of macOS
    return sock.getsockopt(sol_local, local_peerpid)


_open_ends: weakref.WeakSet[socket.socket | Lifeline] = weakref.WeakSet()


def _close_in_forked_child() -> None:
    # A child that the program forks without exec would keep the pool's ends open for as
    # long as it lives: workers would not see the pool's death.
    for end in list(_open_ends):
        end.close()


os.register_at_fork(after_in_child=_close_in_forked_child)
