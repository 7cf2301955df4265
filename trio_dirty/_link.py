"""The worker's end of its socket, and its tie to the life of the pool's process.

Imports nothing of trio.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
from collections import deque
from time import perf_counter

from . import _wire
from ._pickling import SegmentReader
from ._wire import HEADER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ._pickling import Segment

HEADER_SIZE, unpack_header = HEADER.size, HEADER.unpack_from

LOOK_SECONDS = 50e-6
"""How stale the knowledge of withdrawals may be when a request begins. A frame takes
about as long from the pool's decision to here, and a look costs 1 µs."""


class LinkLost(BaseException):
    """The socket has ended or is unusable."""


class Link:
    """The worker's end of the socket: frames in, frames out.

    Requests queue here between their arrival and their beginning, and leave when they
    are withdrawn. All of it happens in one thread, between requests.
    """

    def __init__(self, sock: socket.socket, lifeline: int) -> None:
        self._socket = sock
        self._lifeline = lifeline
        self._buffer = bytearray(2 * _wire.BODY_LIMIT)
        self._view = memoryview(self._buffer)
        # Invariant: _buffer[_start:_end] has been received and not been parsed.
        self._start = self._end = 0
        self._queue: deque[list[Any]] = deque()
        self._closing = False
        self._looked = 0.0
        # A recv() that waits is woken up once more whenever the pool reads a reply, since
        # that makes room to write; it costs the pool's recv() 15 µs. poll() is not.
        readable = select.poll()
        readable.register(sock, select.POLLIN)
        self._poll, self._recv_into, self._send = readable.poll, sock.recv_into, sock.sendall
        self.pid = os.getpid()
        os.register_at_fork(after_in_child=self._forget)

    @classmethod
    def connect(cls, address: str, token: bytes) -> Link:
        """Connect to the pool, show it the token, and tie this process's life to its."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(address)
        finally:
            # The pool does this as well; it is done here for a pool that was killed.
            with contextlib.suppress(OSError):
                os.unlink(address)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(address))
        lifeline, pool_end = os.pipe()
        tie_life_to(lifeline)
        socket.send_fds(sock, [token], [pool_end])
        os.close(pool_end)
        return cls(sock, lifeline)

    def close(self) -> None:
        """Close the socket, so that the pool reads an end behind the last reply."""
        self._socket.close()

    def _forget(self) -> None:
        """In a forked child: let go of what must end with the worker itself."""
        self._socket.close()
        with contextlib.suppress(OSError):
            os.close(self._lifeline)

    def send(self, segments: Sequence[Segment]) -> None:
        """Send frames, waiting while the socket is full.

        Raises:
            LinkLost: nobody reads any more.
        """
        try:
            for segment in segments:
                self._send(segment)
        except OSError as error:
            raise LinkLost from error

    def next_request(self) -> list[Any] | None:
        """Wait for a request and take it up; None when told to close.

        Returns:
            The request's number; its target, which is None if it was withdrawn; and its
            pickled arguments, or the `SegmentReader` that has them.
        """
        queue = self._queue
        if queue:
            if perf_counter() - self._looked > LOOK_SECONDS and self._poll(0):
                self._receive()
        else:
            while not queue:
                if self._closing:
                    return None
                self._poll()
                self._receive()
        return queue.popleft()

    def _receive(self) -> None:
        """Receive what is there, and act on all the frames that have arrived whole."""
        start, view = self._start, self._view
        try:
            received = self._recv_into(view[self._end :])
        except OSError as error:
            raise LinkLost from error
        if not received:
            raise LinkLost("the pool has closed the connection")
        end = self._end + received
        while end - start >= HEADER_SIZE:
            length, kind, target_length, _, number = unpack_header(view, start)
            body = start + HEADER_SIZE
            stop = body + length
            if stop > end:
                break
            if kind == _wire.REQUEST:
                split = body + target_length
                self._queue.append([number, bytes(view[body:split]), bytes(view[split:stop])])
            elif kind == _wire.WITHDRAW:
                for request in self._queue:
                    if request[0] == number:
                        request[1] = None
            elif kind == _wire.CLOSE:
                self._closing = True
            else:
                # A large request is sent to an idle worker only. So it is the next to be
                # taken up, and reads its segments before anything behind them is parsed.
                target = bytes(view[body : body + target_length])
                size = _wire.large_size(view[body:stop])
                head = bytes(view[stop : min(stop + size, end)])
                self._queue.append([number, target, SegmentReader(head, size, self._receive_some)])
                stop += len(head)
            start = stop
        if start == end:
            start = end = 0
        elif end > _wire.BODY_LIMIT:
            view[: end - start] = bytes(view[start:end])
            start, end = 0, end - start
        self._start, self._end = start, end
        self._looked = perf_counter()

    def _receive_some(self, buffer: memoryview) -> int:
        try:
            return self._recv_into(buffer)
        except OSError as error:
            raise LinkLost from error


def tie_life_to(lifeline: int) -> None:
    """Have this process end when the other end of a pipe is closed, whatever it is doing.

    On Linux the kernel sends SIGKILL itself: the owner of an O_ASYNC descriptor is
    signalled when the pipe hangs up. That needs no thread, which C code that holds the
    interpreter lock would stop, and follows the process, not the thread, that made the
    pipe, as PR_SET_PDEATHSIG would. Measured: 6 ms after the death of the pool.
    """
    if sys.platform == "linux":
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    else:
        watch_life(lifeline)


def watch_life(lifeline: int) -> None:
    """Do the same with a thread, which waits for the interpreter lock if C code holds it."""
    import threading

    def wait_for_end() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_for_end, name="trio_dirty lifeline", daemon=True).start()
