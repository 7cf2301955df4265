"""Several lanes in one worker. Imports nothing of trio; a worker with one lane does not import it.

The main thread reads what the pool sends, all the time. Each lane is a thread, that takes up the
next request, executes it, answers it, and only then takes up another.

A signal is of no use to a thread that is not the main one: here an interrupt is an asynchronous
exception, which CPython raises when it next looks for one: at the beginning of a function, behind
a call of C code, in each turn of a loop. So it may be pending long after it was set off, and a
lane does not leave `ThreadLane.run` before none is pending, nor can be.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from contextvars import copy_context
from queue import SimpleQueue
from threading import Event, Lock, Thread, get_ident
from time import sleep

from .._common import wire
from .._common.context import current_lane
from .._common.errors import RequestCancelled
from .._common.segments import SegmentReader, SegmentsCutError
from .._common.wire import CANCELLED
from .execution import StreamExecution, answer
from .lane import RAISED, Lane
from .outcomes import Outbox
from .serve import stand_or_fall
from .socket import Link, LinkLost, tell_waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import Any

    from .._common.wire import Segment
    from .apps import Apps

_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc


def set_off(thread: int, error: type[BaseException]) -> None:
    """Have an exception raised in a thread, in place of one that is pending."""
    _set_async_exc(ctypes.c_ulong(thread), ctypes.py_object(error))


class CalledOff(BaseException):
    """Raised in place of an interrupt that has come too late."""


class ThreadLane(Lane):
    """A lane in a thread of its own; the main thread tells it what the pool has said."""

    def __init__(self) -> None:
        super().__init__()
        # Set when there is news for the lane's stream.
        self._told = Event()
        # What the stream's reader has given back. Only the lane's thread reckons with it: of sums
        # that two threads make, some are lost.
        self._credits: deque[tuple[int, int]] = deque()
        # The step that a soft time-out which has not been raised is meant for.
        self._step = 0
        # Whether the main thread may be about to set an interrupt off; whether it has since the
        # present step began; and whether a cancellation since the request began.
        self._interrupting = False
        self._is_set_off = False
        self._is_cancelled = False

    def enter(self) -> None:
        """Make the present thread the lane's."""
        self._thread = get_ident()
        current_lane.set(self)

    def begin(self, number: int, interrupt: int = 0) -> None:
        """Take a request up, which is interrupted at once if the pool has asked for it."""
        self._step = 0
        super().begin(number, interrupt)
        self._is_cancelled = False
        self._told.clear()
        self._credits.clear()

    # Interrupts

    def run(self, action: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run what an interrupt may be raised in; when this ends, none is pending.

        One may be when the action ends. It is called off below; or is raised there before that, and
        then is the outcome. So what `_run` raises leaves nothing pending either way.
        """
        try:
            return self._run(action, args, kwargs)
        except BaseException:
            self._settle()
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
            # At once, where CPython does not look: nothing more is set off.
            self.armed = False
            self._settle()

    def _settle(self) -> None:
        self.armed = False
        while self._interrupting:
            sleep(0)
        if self._is_set_off:
            self._is_set_off = False
            # Setting off nothing in its place would do, but for ever have CPython 3.11 look for
            # it; and there, where a debugger or a coverage tool traces, never go on.
            try:
                set_off(self._thread, CalledOff)
                while True:
                    sleep(0)
            except CalledOff:
                pass

    def interrupt(self, reason: int, steps: int) -> None:
        """Raise what an interrupt frame asks for: now, or at the beginning of its step.

        Called by the main thread, while no request can be taken up.
        """
        # Noted first, and then it looks whether the lane is armed; the lane is armed first, and
        # then looks what is noted. So one of them finds it.
        if reason == CANCELLED or self._interrupt != CANCELLED:
            self._step = steps
            self._interrupt = reason
        self._interrupting = True
        # From here on a lane that is seen armed ends no step. (After a cancellation, in whose place
        # it might be raised, a soft time-out is of no use.)
        if self.armed and (reason == CANCELLED or (steps == self.steps and not self._is_cancelled)):
            self._interrupt = 0
            self._is_cancelled = reason == CANCELLED
            self._is_set_off = True
            set_off(self._thread, RAISED[reason])
        self._interrupting = False

    def check_cancelled(self) -> None:
        """Raise `RequestCancelled` if the caller has left: the main thread looks all the time."""
        if self.left:
            raise RequestCancelled

    # What else is told

    def leave(self) -> None:
        """Take note that the caller has left."""
        self.left = True
        self._told.set()

    def give_back(self, chunks: int, size: int) -> None:
        """Take note of chunks that the stream's reader has taken."""
        self._credits.append((chunks, size))
        self._told.set()

    def reckon(self) -> None:
        """Reckon with what the stream's reader has given back."""
        while self._credits:
            self.window.give_back(*self._credits.popleft())

    def wait_told(self) -> None:
        """Wait for news for the stream."""
        self._told.wait()
        self._told.clear()


class SharedLink(Link):
    """The worker's end of its socket, from which one thread reads, and to which several answer."""

    def __init__(self, sock: socket.socket, lifeline: int) -> None:
        super().__init__(sock, lifeline)
        # Frames of two threads never mix.
        self._sending = Lock()
        # What is being taken up can be told nothing, and is waiting or with its lane.
        self._taking = Lock()
        self._lanes: Sequence[ThreadLane] = ()
        # What waits for a lane: in order, and by number. None ends a lane.
        self._requests: SimpleQueue[list[Any] | None] = SimpleQueue()
        self._waiting: dict[int, list[Any]] = {}

    def heed_signals(self) -> None:
        """Do not: the main thread reads without being told to."""

    def send(self, segments: Sequence[Segment]) -> None:
        """Send frames when no other thread does."""
        if os.getpid() != self.pid:
            # Whoever has the lock is not in this forked child, and will not release it.
            raise LinkLost("this is a forked child")
        with self._sending:
            super().send(segments)

    def read(self, lanes: Sequence[ThreadLane]) -> None:
        """Let the lanes have what the pool sends, until told to close; then let them end.

        What is told behind that order is not heeded: it is given when all has been answered.
        """
        self._lanes = lanes
        while not self._closing:
            self.wait()
            self._interruptible.clear()  # not by signals, here
            while self._queue:
                request = self._queue.popleft()
                pieces = None
                if self._segments is not None and request[2] is self._segments:
                    pieces = Pieces()
                    request[2] = SegmentReader(b"", self._segments.remaining, pieces.receive_into)
                self._waiting[request[0]] = request
                self._requests.put(request)
                del request  # its arguments are the lane's
                if pieces is not None:
                    self._receive_segments(pieces)
                    del pieces
        for _ in lanes:
            self._requests.put(None)

    def _receive_segments(self, pieces: Pieces) -> None:
        """Receive the segments of a large request for the lane that takes it up.

        It may be slow to unpickle them; and behind them is what concerns the other lanes.
        """
        segments = self._segments
        assert segments is not None
        try:
            while segments.remaining:
                piece = bytearray(min(segments.remaining, PIECE_BYTES))
                segments.readinto(piece)
                pieces.put(piece)
        except SegmentsCutError as error:
            raise LinkLost("the pool has closed the connection") from error
        except MemoryError as error:
            pieces.put(error)
            segments.drain()

    def take_up(self, lane: ThreadLane) -> list[Any] | None:
        """Wait for a request and have a lane take it up; None when there will be none.

        Returns:
            As `next_request`.
        """
        with self._taking:
            lane.end()
        request = self._requests.get()
        if request is not None:
            with self._taking:
                del self._waiting[request[0]]
                lane.begin(request[0], request[4])
        return request

    def _obey(self, kind: int, number: int, body: memoryview) -> None:
        if kind not in (wire.WITHDRAW, wire.INTERRUPT, wire.CREDIT):
            super()._obey(kind, number, body)
            return
        with self._taking:
            if number in self._waiting:
                tell_waiting(self._waiting[number], kind, body)
                return
            for lane in self._lanes:
                if lane.number == number:
                    if kind == wire.CREDIT:
                        lane.give_back(*wire.pair(body))
                    elif kind == wire.INTERRUPT:
                        lane.interrupt(*wire.pair(body))
                    else:
                        lane.leave()
                    return
        # It has come with this frame, or has been answered.
        super()._obey(kind, number, body)


PIECE_BYTES = 1 << 20
"""What of a large request is handed over at a time, and freed when it has been unpickled."""


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


def execute_requests(link: SharedLink, apps: Apps, count: int) -> None:
    """Execute the requests of the link, so many at a time, until told to close."""
    lanes = [ThreadLane() for _ in range(count)]
    threads = [
        Thread(
            # With what the apps have set in the context of this thread, at their boot.
            target=copy_context().run,
            args=(stand_or_fall, link, execute_in_lane, link, apps, lane),
            name=f"trio_dirty lane {index}",
            daemon=True,
        )
        for index, lane in enumerate(lanes)
    ]
    for thread in threads:
        thread.start()
    link.read(lanes)
    for thread in threads:
        thread.join()


def execute_in_lane(link: SharedLink, apps: Apps, lane: ThreadLane) -> None:
    """Execute requests in the present thread, each answered before the next is taken up."""
    lane.enter()
    outbox = Outbox()
    while (request := link.take_up(lane)) is not None:
        number, target, pickled, kind, _ = request
        if target is None:
            link.send((wire.frame(wire.SKIPPED, number),))
        elif kind == wire.REQUEST:
            link.send(answer(lane, apps, outbox, number, target, pickled))
        else:
            send_stream(link, lane, StreamExecution(lane, apps, outbox, number, target, pickled))
        # Nothing here may keep arguments: see `_worker.execute_requests`.
        del request, pickled


def send_stream(link: SharedLink, lane: ThreadLane, execution: StreamExecution) -> None:
    """Send what a generator yields, each chunk at once, as far ahead as the reader allows."""
    while not execution.ended:
        lane.reckon()
        if lane.left:
            link.send(execution.close())
        elif lane.window.is_open:
            link.send(execution.step())
        else:
            lane.wait_told()
