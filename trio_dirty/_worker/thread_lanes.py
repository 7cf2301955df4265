"""Several lanes in one worker. Imports nothing of trio; a worker with one lane does not import it.

The main thread reads what the pool sends, all the time. Each lane is a thread, which takes up the
next request, executes it, answers it, and only then takes up another.

Signal handlers run in the main thread only. So here an interrupt is an asynchronous exception,
which CPython raises when it next checks for one: at the beginning of a function, after a call of
C code, in each turn of a loop. It may be pending for long after it was set; a lane does not leave
`ThreadLane.run` before none is pending and none can be set any more.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from contextvars import copy_context
from queue import SimpleQueue
from threading import Event, Lock, Thread, get_ident
from time import sleep

from .._common.context import current_lane
from .._common.errors import RequestCancelled
from .._common.segments import SegmentReader, SegmentsCutError
from .._common.wire import CANCELLED
from .lane import RAISED, Lane
from .loop import execute_requests, exit_if_raises
from .socket import ConnectionLost, WorkerSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import Any

    from .._common.wire import Segment
    from .apps import Apps
    from .socket import Request

_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc


def raise_in(thread: int, error: type[BaseException]) -> None:
    """Have an exception raised in a thread, in place of one that is pending."""
    _set_async_exc(ctypes.c_ulong(thread), ctypes.py_object(error))


class TooLate(BaseException):
    """Raised in place of an interrupt that was set when its action had ended."""


class ThreadLane(Lane):
    """A lane in a thread of its own; the main thread tells it what the pool has said."""

    def __init__(self) -> None:
        super().__init__()
        # Set when there is news for the lane's stream.
        self._news = Event()
        # What the stream's reader has taken. Only the lane's thread adds it up: of sums that two
        # threads change, some updates are lost.
        self._credits: deque[tuple[int, int]] = deque()
        # The step of a soft time-out that has not been raised.
        self._step = 0
        # Whether the main thread may be about to set an exception; whether it has since the
        # present step began; and whether that was a cancellation, since the request began.
        self._interrupting = False
        self._is_set = False
        self._is_cancelled = False

    def enter(self) -> None:
        """Make the present thread the lane's."""
        self._thread = get_ident()
        current_lane.set(self)

    def begin(self, number: int, told: int = 0) -> None:
        """Take a request up; see `Lane.begin`."""
        self._step = 0
        super().begin(number, told)
        self._is_cancelled = False
        self._news.clear()
        self._credits.clear()

    # Interrupts

    def run(self, action: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run what an interrupt may be raised in; when this ends, none is pending.

        One may be when the action ends. `_run` replaces it; or it is raised there before that,
        and then is the outcome. In either case nothing is pending when `_run` raises.
        """
        try:
            return self._run(action, args, kwargs)
        except BaseException:
            self._disarm()
            raise

    def _run(
        self, action: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            # Armed first: see `interrupt`.
            self.armed = True
            reason, self._interrupt = self._interrupt, 0
            if reason == CANCELLED or (reason and self._step == self.steps):
                raise RAISED[reason]
            return action(*args, **kwargs)
        finally:
            # At once, before CPython checks for exceptions: nothing more is set.
            self.armed = False
            self._disarm()

    def _disarm(self) -> None:
        self.armed = False
        while self._interrupting:
            sleep(0)
        if self._is_set:
            self._is_set = False
            # Clearing the pending exception would do as well, but CPython 3.11 would check for it
            # for ever; and where a debugger or a coverage tool traces, it would never go on.
            try:
                raise_in(self._thread, TooLate)
                while True:
                    sleep(0)
            except TooLate:
                pass

    def interrupt(self, reason: int, steps: int) -> None:
        """Raise what an interrupt frame asks for: now, or at the beginning of its step.

        Called by the main thread, while no request can be taken up.
        """
        # The main thread notes it first, and then checks whether the lane is armed; the lane is
        # armed first, and then checks what is noted. So one of the two finds it.
        if reason == CANCELLED or self._interrupt != CANCELLED:
            self._step = steps
            self._interrupt = reason
        self._interrupting = True
        # From here on a lane that is seen armed ends no step. (A soft time-out must not replace a
        # cancellation that is pending.)
        if self.armed and (reason == CANCELLED or (steps == self.steps and not self._is_cancelled)):
            self._interrupt = 0
            self._is_cancelled = reason == CANCELLED
            self._is_set = True
            raise_in(self._thread, RAISED[reason])
        self._interrupting = False

    def check_cancelled(self) -> None:
        """Raise `RequestCancelled` if the caller has left: the main thread reads all the time."""
        if self.abandoned:
            raise RequestCancelled

    # News for a stream

    def abandon(self) -> None:
        """Note that the caller has left."""
        self.abandoned = True
        self._news.set()

    def give_back(self, chunks: int, size: int) -> None:
        """Note how many chunks the stream's reader has taken, until `take_credits`."""
        self._credits.append((chunks, size))
        self._news.set()

    def take_credits(self) -> None:
        """Apply to the window what the stream's reader has taken."""
        while self._credits:
            self.window.give_back(*self._credits.popleft())

    def wait_for_news(self) -> None:
        """Wait until the main thread has noted something."""
        self._news.wait()
        self._news.clear()


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

    def refresh(self, lane: Lane) -> None:
        """Apply what the main thread has noted."""
        assert isinstance(lane, ThreadLane)
        lane.take_credits()

    def wait_for_news(self, lane: Lane) -> None:
        """Wait until the main thread has noted something about the lane's request."""
        assert isinstance(lane, ThreadLane)
        lane.wait_for_news()


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
