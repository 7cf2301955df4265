"""The socket of a worker with several lanes. Imports nothing of trio.

The main thread reads what the pool sends, all the time. Each lane is a thread, which takes up the
next request, executes it, answers it, and only then takes up another.

A worker with one lane does not import this.
"""

from __future__ import annotations

import os
from contextvars import copy_context
from queue import SimpleQueue
from threading import Lock, Thread

from .._common.segments import SegmentReader, SegmentsCutError
from .loop import execute_requests, exit_if_raises
from .socket import ConnectionLost, WorkerSocket
from .thread_lane import ThreadLane

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from .._common.wire import Segment
    from .apps import Apps
    from .lane import Lane
    from .socket import Request


class SharedSocket(WorkerSocket):
    """The worker's end of its socket, from which one thread reads, and to which several answer."""

    def __init__(self, sock: socket.socket, lifeline: int) -> None:
        super().__init__(sock, lifeline)
        # Frames of two threads must not mix.
        self._sending = Lock()
        # While it is held, each request is in `_waiting` or with its lane.
        self._taking = Lock()
        self._lanes: Sequence[ThreadLane] = ()
        # What waits for a lane, and the numbers of that. None ends a lane.
        self._requests: SimpleQueue[Request | None] = SimpleQueue()
        self._waiting: set[int] = set()

    def install_handler(self) -> None:
        """Do nothing: the main thread reads without signals."""

    def send(self, segments: Sequence[Segment]) -> None:
        """Send frames while no other thread does."""
        if os.getpid() != self.pid:
            # The thread that has the lock is not in this forked child, and will not release it.
            raise ConnectionLost("this is a forked child")
        with self._sending:
            super().send(segments)

    # The main thread

    def read(self, lanes: Sequence[ThreadLane]) -> None:
        """Hand what the pool sends to the lanes, until told to close; then end the lanes.

        Nothing follows that order: the pool gives it when all requests have been answered.
        """
        self._lanes = lanes
        while not self._closing:
            self.receive()
            while self._queue:
                kind, number, seconds, target, pickled = self._queue.popleft()
                pieces = None
                if self._segments is not None and pickled is self._segments:
                    pieces = Pieces()
                    pickled = SegmentReader(b"", self._segments.remaining, pieces.receive_into)
                self._waiting.add(number)
                self._requests.put((kind, number, seconds, target, pickled))
                del pickled  # it is the lane's
                if pieces is not None:
                    self._hand_over(pieces)
                    del pieces
        for _ in lanes:
            self._requests.put(None)

    def _hand_over(self, pieces: Pieces) -> None:
        # The lane may be slow to unpickle them; and frames that follow may be for other lanes.
        segments = self._segments
        assert segments is not None
        try:
            while segments.remaining:
                piece = bytearray(min(segments.remaining, PIECE_BYTES))
                segments.readinto(piece)
                pieces.put(piece)
        except SegmentsCutError as error:
            raise ConnectionLost("the pool has closed the connection") from error
        except MemoryError as error:
            pieces.put(error)
            segments.drain()

    def _obey_about(self, number: int, kind: int, body: bytes) -> None:
        with self._taking:
            super()._obey_about(number, kind, body)

    def _lane_of(self, number: int) -> Lane | None:
        for lane in self._lanes:
            if lane.number == number:
                return lane
        return None

    def _is_waiting(self, number: int) -> bool:
        return number in self._waiting or super()._is_waiting(number)  # it has just come

    # The lanes' threads

    def take_up(self, lane: Lane) -> Request | None:
        """End the lane's request, and wait for its next; None when told to close."""
        with self._taking:
            lane.end()
        request = self._requests.get()
        if request is not None:
            with self._taking:
                _, number, _, _, _ = request
                self._waiting.remove(number)
                lane.begin(number, self._told.pop(number, 0))
        return request


PIECE_BYTES = 1 << 20
"""How much of a large request is handed over at a time, and freed when it has been unpickled."""


class Pieces:
    """The segments of a large request on their way from the main thread to a lane."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[bytearray | MemoryError] = SimpleQueue()
        self.put = self._queue.put
        self._rest = memoryview(b"")

    def receive_into(self, buffer: memoryview) -> int:
        """Wait for some of them, and fill some of the buffer; for `SegmentReader`.

        Raises:
            MemoryError: the main thread had no room for the next.
        """
        if not self._rest:
            piece = self._queue.get()
            if isinstance(piece, MemoryError):
                raise piece
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def execute_in_threads(sock: SharedSocket, count: int, apps: Apps) -> None:
    """Execute requests, so many at a time, until told to close."""
    lanes = [ThreadLane() for _ in range(count)]
    threads = [
        Thread(
            # With what the apps have set in the context of this thread, when they booted.
            target=copy_context().run,
            args=(exit_if_raises, sock, _execute_in_thread, sock, lane, apps),
            name=f"trio_dirty lane {index}",
            daemon=True,
        )
        for index, lane in enumerate(lanes)
    ]
    for thread in threads:
        thread.start()
    sock.read(lanes)
    for thread in threads:
        thread.join()


def _execute_in_thread(sock: SharedSocket, lane: ThreadLane, apps: Apps) -> None:
    lane.enter()
    execute_requests(sock, lane, apps)
