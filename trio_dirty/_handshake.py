"""Where a worker connects to, and how it proves who it is."""

from __future__ import annotations

import array
import ctypes
import hmac
import multiprocessing
import os
import shutil
import socket
import struct
import sys
import tempfile
import weakref
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.process import BaseProcess

ADDRESS_LIMIT = 100
"""`sun_path` holds 104 bytes on macOS and 108 on Linux, the closing zero included."""

TOKEN_SECONDS = 5.0
"""For a stranger that connects and says nothing; a worker sends its token at once."""


@contextmanager
def private_listener() -> Iterator[tuple[str, socket.socket]]:
    """Listen on a Unix socket that nobody else can reach, for one worker.

    Its directory has mode 0700. Where a child can reach the socket through a descriptor of it, on
    Linux, it is removed at once: nothing stays behind even when everything is killed while the
    worker starts. Elsewhere it is removed when the block is left, and also by the worker as
    soon as it has connected.
    """
    name = "s"
    directory = tempfile.mkdtemp(prefix="trio_dirty-")
    if len(os.fsencode(directory)) + 1 + len(name) > ADDRESS_LIMIT:  # a long TMPDIR
        os.rmdir(directory)
        directory = tempfile.mkdtemp(prefix="trio_dirty-", dir="/tmp")
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        listener = cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        address = os.path.join(directory, name)
        listener.bind(address)
        listener.listen()
        listener.setblocking(False)
        _open_ends.add(listener)
        if _shows_descriptors():
            descriptor = os.open(address, os.O_PATH)
            cleanup.callback(os.close, descriptor)
            address = f"/proc/{os.getpid()}/fd/{descriptor}"
            shutil.rmtree(directory, ignore_errors=True)
        yield address, listener


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


@dataclass(frozen=True, slots=True)
class Connection:
    """A worker that has proved who it is."""

    process: BaseProcess
    socket: socket.socket
    lifeline: Lifeline

    def close(self) -> None:
        """Close what leads to the worker, which does not survive it."""
        self.socket.close()
        self.lifeline.close()


async def accept_worker(listener: socket.socket, token: bytes) -> Connection:
    """Wait for the worker that knows the token; turn away everybody else.

    The process is found among this program's own children by the peer's process number,
    which comes from the kernel: a kill through it cannot hit a stranger.
    """
    while True:
        await trio.lowlevel.wait_readable(listener)
        with ExitStack() as unless_proved:
            try:
                sock = unless_proved.enter_context(listener.accept()[0])
                sock.setblocking(False)
                lifeline = await _proved(sock, token)
            except OSError:
                continue  # a stranger that has gone again
            process = _child_process(_peer_pid(sock))
            if lifeline is not None and process is not None:
                unless_proved.pop_all()
                _open_ends.add(sock)
                return Connection(process, sock, lifeline)
            if lifeline is not None:
                lifeline.close()


async def _proved(sock: socket.socket, token: bytes) -> Lifeline | None:
    """Return the lifeline that comes with the right token."""
    with trio.move_on_after(TOKEN_SECONDS):
        await trio.lowlevel.wait_readable(sock)
        shown, fds = _receive_token(sock, len(token))
        lifelines = [Lifeline(fd) for fd in fds]
        if len(lifelines) == 1 and hmac.compare_digest(shown, token):
            return lifelines[0]
        for lifeline in lifelines:
            lifeline.close()
    return None


def _child_process(pid: int) -> BaseProcess | None:
    return next((p for p in multiprocessing.active_children() if p.pid == pid), None)


def _receive_token(sock: socket.socket, size: int) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    data, ancillary, _, _ = sock.recvmsg(
        size, socket.CMSG_SPACE(fds.itemsize), getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    )
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds)


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
