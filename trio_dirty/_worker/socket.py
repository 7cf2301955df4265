"""The worker's end of its socket, and its tie to the life of the pool's process.

Imports nothing of trio.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import select
import signal
import socket
import sys
from collections import deque
from time import perf_counter

from .._common import wire
from .._common.segments import SegmentReader
from .._common.wire import HEADER, INTERRUPT_SIGNAL
from .lane import LOOK_SECONDS, Lane

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self

    from .._common.wire import Segment

HEADER_SIZE, unpack_header = HEADER.size, HEADER.unpack_from


class LinkLost(BaseException):
    """The socket has ended or is unusable."""


class Link:
    """The worker's end of the socket: frames in, frames out.

    Requests queue here between their arrival and their beginning. All of it happens in one
    thread: between requests, and inside one when its action asks whether it is cancelled, or is
    interrupted.

    Attributes:
        lane: what is executed; what arrives for it is told to it.
    """

    def __init__(self, sock: socket.socket, lifeline: int) -> None:
        self._socket = sock
        self._lifeline = lifeline
        self._buffer = bytearray(2 * wire.BODY_LIMIT)
        self._view = memoryview(self._buffer)
        # Invariant: _buffer[_start:_end] has been received and not been parsed.
        self._start = self._end = 0
        self._queue: deque[list[Any]] = deque()
        self._orders: deque[tuple[int, Any]] = deque()
        self._closing = False
        # The numbers of those in the queue that may be interrupted.
        self._interruptible: set[int] = set()
        # The segments of a large request, which are read when it is executed: until then nothing
        # behind them can be received.
        self._segments: SegmentReader | None = None
        self.lane = Lane(self.look)
        # A recv() that waits is woken up once more whenever the pool reads a reply, since
        # that makes room to write; it costs the pool's recv() 15 µs. poll() is not.
        readable = select.poll()
        readable.register(sock, select.POLLIN)
        self._poll, self._recv_into, self._send = readable.poll, sock.recv_into, sock.sendall
        self.pid = os.getpid()
        os.register_at_fork(after_in_child=self._forget)

    @classmethod
    def connect(cls, address: str, token: bytes) -> Self:
        """Connect to the pool, show it the token, and tie this process's life to its."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(address)
        finally:
            # Where the pool has not done it yet, and for one that was killed.
            with contextlib.suppress(OSError):
                os.unlink(address)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(address))
        lifeline, pool_end = os.pipe()
        tie_life_to(lifeline)
        socket.send_fds(sock, [token], [pool_end])
        os.close(pool_end)
        link = cls(sock, lifeline)
        link.heed_signals()
        return link

    def heed_signals(self) -> None:
        """Have frames read in the middle of an action when a signal comes.

        Called once more before each request that may be interrupted, since an earlier action may
        have had the signal blocked, ignored, or handled by itself; that takes 3 µs.
        """
        on_signal = self.lane.on_signal
        if signal.getsignal(INTERRUPT_SIGNAL) != on_signal:
            signal.signal(INTERRUPT_SIGNAL, on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (INTERRUPT_SIGNAL,))

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
        """Wait for a request and have the lane take it up; None when told to close.

        Returns:
            The request's number; its target, which is None if it was withdrawn; its
            pickled arguments, or the `SegmentReader` that has them; its kind; and what
            the lane has been told of it already.
        """
        queue = self._queue
        if queue:
            self.look_if_stale()
        else:
            while not queue:
                if self._closing:
                    return None
                self.wait()
        request = queue.popleft()
        if self._interruptible and request[0] in self._interruptible:
            self._interruptible.remove(request[0])
            self.heed_signals()
        self.lane.begin(request[0], request[4])
        return request

    def next_order(self) -> tuple[int, Any] | None:
        """Wait for an order to look up or to boot apps, and which; None when told to close."""
        while not self._orders:
            if self._closing:
                return None
            self.wait()
        return self._orders.popleft()

    def wait(self) -> None:
        """Wait until the pool has sent something, and take it in."""
        self._poll()
        self._receive()

    def look(self) -> None:
        """Take in what the pool has sent, if it has."""
        if self._poll(0):
            self._receive()
        else:
            self.lane.looked = perf_counter()

    def look_if_stale(self) -> None:
        """The same, unless it was done a moment ago."""
        if perf_counter() - self.lane.looked > LOOK_SECONDS:
            self.look()

    def _receive(self) -> None:
        """Receive what is there, and act on all the frames that have arrived whole."""
        if self._segments is not None:
            if self._segments.remaining:
                return
            self._segments = None
        start, view = self._start, self._view
        try:
            received = self._recv_into(view[self._end :])
        except OSError as error:
            raise LinkLost from error
        if not received:
            raise LinkLost("the pool has closed the connection")
        end = self._end + received
        while end - start >= HEADER_SIZE:
            length, kind, target_length, seconds, number = unpack_header(view, start)
            body = start + HEADER_SIZE
            stop = body + length
            if stop > end:
                wire.check_length(length)
                break
            if kind == wire.REQUEST or kind == wire.STREAM:
                split = body + target_length
                target, pickled = bytes(view[body:split]), bytes(view[split:stop])
                self._queue.append([number, target, pickled, kind, 0])
            elif not kind & wire.LARGE:
                self._obey(kind, number, view[body:stop])
            else:
                # A large request is sent only when a lane is free. So it is the next to be
                # taken up, and reads its segments before anything behind them is parsed.
                target = bytes(view[body : body + target_length])
                size = wire.large_size(view[body:stop])
                head = bytes(view[stop : min(stop + size, end)])
                reader = SegmentReader(head, size, self._receive_some)
                self._queue.append([number, target, reader, kind & ~wire.LARGE, 0])
                if len(head) < size:
                    self._segments = reader
                stop += len(head)
            if seconds:
                self._interruptible.add(number)
            start = stop
        if start == end:
            start = end = 0
        elif end > wire.BODY_LIMIT:
            view[: end - start] = bytes(view[start:end])
            start, end = 0, end - start
        self._start, self._end = start, end
        self.lane.looked = perf_counter()

    def _obey(self, kind: int, number: int, body: memoryview) -> None:
        """Act on a frame that is no request."""
        lane = self.lane
        if kind == wire.CLOSE:
            self._closing = True
        elif kind == wire.PING:
            self.send((wire.frame(wire.PONG, number),))
        elif kind == wire.BOOT or kind == wire.LOOK_UP:
            self._orders.append((kind, pickle.loads(body)))
        elif number == lane.number:
            if kind == wire.CREDIT:
                lane.window.give_back(*wire.pair(body))
            elif kind == wire.INTERRUPT:
                lane.interrupt(*wire.pair(body))
            else:
                lane.left = True
        else:
            for request in self._queue:
                if request[0] == number:
                    tell_waiting(request, kind, body)

    def _receive_some(self, buffer: memoryview) -> int:
        try:
            return self._recv_into(buffer)
        except OSError as error:
            raise LinkLost from error


def tell_waiting(request: list[Any], kind: int, body: memoryview) -> None:
    """Note what is said of a request that has not been taken up."""
    if kind == wire.WITHDRAW:
        request[1] = None
    elif kind == wire.INTERRUPT:
        request[4], _ = wire.pair(body)


def tie_life_to(lifeline: int) -> None:
    """Have this process end when the other end of a pipe is closed, whatever it is doing.

    On Linux the kernel sends SIGKILL itself: the owner of an O_ASYNC descriptor is
    signalled when the pipe hangs up. That needs no thread, which C code that holds the
    interpreter lock would stop, and follows the process, not the thread, that made the
    pipe, as PR_SET_PDEATHSIG would. Measured: 6 ms after the death of the pool.
    """
    if sys.platform == "linux":
        kill_at_end(lifeline, os.getpid())
    else:
        watch_life(lifeline)


def kill_at_end(lifeline: int, pid: int) -> None:
    """Have the kernel, of Linux, kill a process when the other end of a pipe is closed.

    As long as anybody has this end open.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, pid)
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)


def watch_life(lifeline: int) -> None:
    """Do the same with a thread, which waits for the interpreter lock if C code holds it."""
    import threading

    def wait_for_end() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_for_end, name="trio_dirty lifeline", daemon=True).start()
