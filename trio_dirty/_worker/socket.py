"""The worker's end of its socket. Imports nothing of trio."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
from collections import deque
from time import perf_counter

from .._common import wire
from .._common.frames import FrameReader
from .._common.segments import SegmentReader
from .._common.wire import INTERRUPT_SIGNAL, LARGE, STREAM
from .lane import WITHDRAWN, Lane
from .process import die_with

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Self, TypeAlias

    from .._common.wire import Segment

    Request: TypeAlias = tuple[int, int, float, bytes, bytes | SegmentReader]
    """A frame: kind, number, whether it may be interrupted, target and pickled arguments. It is no
    class: making an instance in a worker that has just slept adds 1 µs to a round trip."""


class ConnectionLost(BaseException):
    """The socket has ended or is unusable."""


class WorkerSocket:
    """The worker's end of the socket: frames in, frames out.

    Requests wait here between their arrival and their beginning. One thread does all of this:
    between requests, and inside one when its action is interrupted or asks whether it is cancelled.

    Attributes:
        lane: what this thread executes.
        pid: the process that the socket belongs to, and not to a fork of it.
    """

    def __init__(self, sock: socket.socket, lifeline: int) -> None:
        self._socket = sock
        self._lifeline = lifeline
        self._frames = FrameReader()
        self._queue: deque[Request] = deque()
        # What the pool has said of requests that wait: see `Lane.begin`.
        self._told: dict[int, int] = {}
        self._orders: deque[tuple[int, Any]] = deque()
        self._closing = False
        # The segments of a large request, which are read when it is executed: until then nothing
        # behind them can be received.
        self._segments: SegmentReader | None = None
        self.lane = Lane(self.receive_nowait, self.receive)
        # A recv() that waits is also woken up whenever the pool reads a reply, since that makes
        # room to write; it costs the pool's recv() 15 µs. poll() is not.
        readable = select.poll()
        readable.register(sock, select.POLLIN)
        self._poll, self._recv_into, self._send = readable.poll, sock.recv_into, sock.sendall
        self.pid = os.getpid()
        os.register_at_fork(after_in_child=self._close_in_child)

    @classmethod
    def connect(cls, address: str, token: bytes) -> Self:
        """Connect to the pool, send the token, and have this process die with the pool's."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(address)
        finally:
            # Unless the pool has done it already; it may have been killed.
            with contextlib.suppress(OSError):
                os.unlink(address)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(address))
        lifeline, pool_end = os.pipe()
        die_with(lifeline)
        socket.send_fds(sock, [token], [pool_end])
        os.close(pool_end)
        connected = cls(sock, lifeline)
        connected.install_handler()
        return connected

    def install_handler(self) -> None:
        """Have frames read in the middle of an action when a signal comes.

        Done again before each request that may be interrupted, since an earlier action may have
        blocked, ignored or handled the signal; that takes 3 µs.
        """
        on_signal = self.lane.on_signal
        if signal.getsignal(INTERRUPT_SIGNAL) != on_signal:
            signal.signal(INTERRUPT_SIGNAL, on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (INTERRUPT_SIGNAL,))

    def close(self) -> None:
        """Close the socket, so that the pool reads an end behind the last reply."""
        self._socket.close()

    def _close_in_child(self) -> None:
        # In a forked child: what must end with the worker itself.
        self._socket.close()
        with contextlib.suppress(OSError):
            os.close(self._lifeline)

    def send(self, segments: Sequence[Segment]) -> None:
        """Send frames, waiting while the socket is full.

        Raises:
            ConnectionLost: the pool has closed its end.
        """
        try:
            for segment in segments:
                self._send(segment)
        except OSError as error:
            raise ConnectionLost from error

    # Requests

    def next_order(self) -> tuple[int, Any] | None:
        """Wait for an order to look up or to boot apps, and which; None when told to close."""
        while not self._orders:
            if self._closing:
                return None
            self.receive()
        return self._orders.popleft()

    def take_up(self, lane: Lane) -> Request | None:
        """End the lane's request, and wait for its next; None when told to close."""
        lane.end()
        queue = self._queue
        if queue:
            lane.refresh()
        else:
            while not queue:
                if self._closing:
                    return None
                self.receive()
        request = queue.popleft()
        _, number, is_interruptible, _, _ = request
        if is_interruptible:
            self.install_handler()
        lane.begin(number, self._told.pop(number, 0) if self._told else 0)
        return request

    # Receiving

    def receive(self) -> None:
        """Wait until the pool has sent something, and take it in."""
        self._poll()
        self._receive()

    def receive_nowait(self) -> None:
        """Take in what the pool has sent, if it has."""
        if self._poll(0):
            self._receive()
        else:
            self.lane.received_at = perf_counter()

    def _receive(self) -> None:
        if self._segments is not None:
            if self._segments.remaining:
                return
            self._segments = None
        reader = self._frames
        try:
            count = self._recv_into(reader.room)
        except OSError as error:
            raise ConnectionLost from error
        if not count:
            raise ConnectionLost("the pool has closed the connection")
        frames = reader.received(count)
        while frames:
            for frame in frames:
                kind, number, seconds, target, body = frame
                if kind <= STREAM:
                    self._queue.append(frame)
                elif kind < LARGE:
                    self._obey(kind, number, body)
                else:
                    # A large request is sent only when a lane is free. So it is the next to be
                    # taken up, and reads its segments before anything behind them is received.
                    size = wire.large_size(body)
                    head = reader.take(size)
                    segments = SegmentReader(head, size, self._receive_segments)
                    self._queue.append((kind & ~LARGE, number, seconds, target, segments))
                    if len(head) < size:
                        self._segments = segments
            if kind < LARGE:
                break
            frames = reader.received()
        self.lane.received_at = perf_counter()

    def _obey(self, kind: int, number: int, body: bytes) -> None:
        if kind == wire.CLOSE:
            self._closing = True
        elif kind == wire.PING:
            self.send((wire.frame(wire.PONG, number),))
        elif kind == wire.BOOT or kind == wire.LOOK_UP:
            self._orders.append((kind, pickle.loads(body)))
        else:
            self._obey_about(number, kind, body)

    def _obey_about(self, number: int, kind: int, body: bytes) -> None:
        lane = self._lane_of(number)
        if lane is not None:
            lane.obey(kind, body)
        elif kind != wire.CREDIT and self._is_waiting(number):  # else it has been answered
            reason = WITHDRAWN if kind == wire.WITHDRAW else wire.pair(body)[0]
            self._told[number] = max(reason, self._told.get(number, 0))

    def _lane_of(self, number: int) -> Lane | None:
        return self.lane if self.lane.number == number else None

    def _is_waiting(self, number: int) -> bool:
        return any(waiting == number for _, waiting, _, _, _ in self._queue)

    def _receive_segments(self, buffer: memoryview) -> int:
        try:
            return self._recv_into(buffer)
        except OSError as error:
            raise ConnectionLost from error
