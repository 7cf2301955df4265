"""The pool's end of a worker's socket: frames out, replies in."""

from __future__ import annotations

import pickle
import select
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from .._common import wire
from .._common.frames import FrameReader
from .._common.segments import SegmentReader, SegmentsCutError, read_whole
from .._common.wire import CHUNK, CLOSED, LARGE, PONG, RESULT
from .contract import Chunks, Pong
from .replies import chunk, reply
from .threads import UNLIMITED, yield_lock

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from .._common.frames import Frame
    from .._common.wire import Segment
    from .contract import Answer, Reply

T = TypeVar("T")

AT_ONCE = 1 << 19
"""Bytes of one send(). It does not return when the socket's buffer is full as long as the worker
keeps reading: 200 MB took 230 ms in one call. This many bytes take less than 1 ms."""


AT_ONCE_LIMIT = 1 << 18
"""Longer values are received and unpickled in a thread, which costs 100 µs to begin with. As many
bytes of small objects take 2 to 4 ms to be unpickled."""


class FrameSocket:
    """The pool's end of a worker's socket.

    One task may send and another receive. A large value is received and unpickled in a
    thread, while the replies of other workers are handled.

    Attributes:
        unsent: how many bytes `send_rest` still has to send.
        has_closed: whether the worker has said that its apps are closed.
    """

    def __init__(self, sock: socket.socket, closing_failed: Callable[[str], object]) -> None:
        """``closing_failed`` is called with the traceback of each ``close()`` that raised."""
        self.has_closed = False
        self._socket = sock
        self._closing_failed = closing_failed
        self._frames = FrameReader(copies=False)
        # The large frame whose segments are next in the reader: kind, number, seconds and size.
        self._large: tuple[int, int, float, int] | None = None
        # What a thread receives at the moment, and how much of it remained when last asked for.
        self._segments: SegmentReader | _Arriving | None = None
        self._received_number = 0
        self._remaining_before = -1
        self.unsent = 0
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        self._readable = poll.poll

    async def receive_report(self) -> tuple[int, Any] | None:
        """Receive the one frame with which a worker obeys an order to look up, or to boot.

        Returns:
            Its kind, and what it says; None at the end of the socket.
        """
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            frames = self._receive_nowait()
            if frames is None:
                return None
            for kind, number, _, _, body in frames:
                if kind < LARGE:
                    return kind, pickle.loads(body) if body else None
                try:
                    size = wire.large_size(body)
                    return kind & ~LARGE, await self._load_large(number, size, _load_report)
                except SegmentsCutError:
                    return None

    def send_nowait(self, frames: Sequence[Segment]) -> Sequence[Segment]:
        """Send small frames in one call, and as much of large segments as the socket takes.

        Returns:
            What `send_rest` has to send: nothing where the socket has ended, since then
            `receive` reports that.
        """
        send = self._socket.send
        joined = _joined(frames)
        for index, data in enumerate(joined):
            try:
                sent = send(data if len(data) <= AT_ONCE else memoryview(data)[:AT_ONCE])
            except BlockingIOError:
                sent = 0
            except OSError:
                break  # it has ended
            if sent < len(data):
                rest = [memoryview(data)[sent:], *joined[index + 1 :]]
                self.unsent = sum(map(len, rest))
                return rest
        return ()

    async def send_rest(self, rest: Sequence[Segment]) -> None:
        """Send what `send_nowait` has returned, as fast as the worker reads."""
        sock = self._socket
        try:
            for data in rest:
                unsent = memoryview(data)
                while unsent:
                    try:
                        sent = sock.send(unsent[:AT_ONCE])
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(sock)
                        continue
                    unsent = unsent[sent:]
                    self.unsent -= sent
                    await trio.lowlevel.checkpoint()
        except OSError:
            pass  # it has ended
        finally:
            self.unsent = 0

    async def receive(self) -> Sequence[Answer]:
        """Wait for replies; return all that are there, and none at the end of the socket."""
        while True:
            answers: list[Answer] | None
            if self._large is not None:
                answers = await self._receive_large(*self._large)
                if answers is None:
                    return ()
            else:
                await trio.lowlevel.wait_readable(self._socket)
                frames = self._receive_nowait()
                if frames is None:
                    return ()
                answers = self._answers(frames)
            if answers:
                return answers

    def _receive_nowait(self) -> list[Frame] | None:
        """Return the frames that have arrived; None at the end of the socket."""
        try:
            count = self._socket.recv_into(self._frames.room)
        except BlockingIOError:
            return []
        except OSError:  # ECONNRESET: it died with requests unread; an end like any other
            return None
        return self._frames.received(count) if count else None

    def _answers(self, frames: list[Frame]) -> list[Answer]:
        """Return what small frames say; keep a large one, which is the last."""
        loads = pickle.loads
        answers: list[Answer] = []
        chunks: list[tuple[Any, int]] | None = None
        streamed = -1
        for kind, number, seconds, _, body in frames:
            if kind == RESULT:
                chunks = None
                answers.append(reply(kind, number, seconds, loads, body))
            elif kind == CHUNK:
                if chunks is None or number != streamed:
                    chunks, streamed = [], number
                    answers.append(Chunks(number, chunks))
                chunks.append((chunk(loads, body), len(body)))
            elif kind >= LARGE:
                self._large = kind & ~LARGE, number, seconds, wire.large_size(body)
            else:
                chunks = None
                if kind == CLOSED:
                    self._closed(loads(body))
                elif kind == PONG:
                    answers.append(Pong(number))
                else:
                    answers.append(reply(kind, number, seconds, loads, body))
        return answers

    def _closed(self, texts: Sequence[str]) -> None:
        self.has_closed = True
        for text in texts:
            self._closing_failed(text)

    async def _receive_large(
        self, kind: int, number: int, seconds: float, size: int
    ) -> list[Answer] | None:
        """Receive the segments of a large frame; return its reply and what has come with it.

        Returns:
            None at the end of the socket.
        """
        large: list[Answer] = []
        try:
            if kind == CLOSED:
                self._closed(await self._load_large(number, size, _load_report))
            else:
                load = partial(_load_reply, kind, number, seconds)
                large.append(await self._load_large(number, size, load))
        except SegmentsCutError:
            return None
        return large + self._answers(self._frames.received())

    async def _load_large(
        self, number: int, size: int, load: Callable[[SegmentReader, int], T]
    ) -> T:
        """Receive and unpickle a large value: in a thread, unless that does not take long.

        Args:
            number: the request's.
            size: the length of its segments.
            load: called with the segments and their length.

        Raises:
            SegmentsCutError: the socket ended before the value did.
        """
        head = self._frames.take(size)
        self._large = None
        self._received_number, self._remaining_before = number, -1
        if size <= AT_ONCE_LIMIT:
            data = await self._receive_whole(head, size)
            return load(read_whole(data), size)
        segments = SegmentReader(head, size, self._receive_in_thread)
        self._segments = segments
        try:
            # When the pool is cancelled, the worker's end shuts the socket down, which ends
            # the thread.
            return await trio.to_thread.run_sync(
                load, segments, size, abandon_on_cancel=True, limiter=UNLIMITED
            )
        finally:
            self._segments = None

    async def _receive_whole(self, head: bytes, size: int) -> bytearray:
        """Receive all segments of a value."""
        data = bytearray(size)
        data[: len(head)] = head
        room = memoryview(data)[len(head) :]
        self._segments = arriving = _Arriving(len(room))
        try:
            while room:
                await trio.lowlevel.wait_readable(self._socket)
                try:
                    count = self._socket.recv_into(room)
                except BlockingIOError:
                    continue
                except OSError:
                    count = 0
                if not count:
                    raise SegmentsCutError
                room = room[count:]
                arriving.remaining = len(room)
        finally:
            self._segments = None
        return data

    def unread(self) -> bool:
        """Return whether anything can be received, or has been and is about to be returned.

        A large reply whose rest does not arrive is neither. Finding that out takes two calls,
        since a thread receives it.
        """
        if self._large is not None or self._readable(0):
            return True
        if self._segments is None:
            return False
        before, self._remaining_before = self._remaining_before, self._segments.remaining
        return before != self._remaining_before or not self._remaining_before

    def unreceived(self, number: int) -> int | None:
        """Return how many bytes of a large reply to a request are still to come; else None."""
        if self._segments is None or number != self._received_number:
            return None
        return self._segments.remaining

    def _receive_in_thread(self, buffer: memoryview) -> int:
        sock = self._socket
        if len(buffer) <= wire.BODY_LIMIT:
            yield_lock()
        while True:
            try:
                return sock.recv_into(buffer[:AT_ONCE])
            except BlockingIOError:
                poll = select.poll()
                poll.register(sock, select.POLLIN)
                poll.poll()
            except OSError:
                return 0


class _Arriving:
    """How many bytes of a value are still to come."""

    __slots__ = ("remaining",)

    def __init__(self, remaining: int) -> None:
        self.remaining = remaining


def _load_reply(
    kind: int, number: int, seconds: float, reader: SegmentReader, size: int
) -> Reply | Chunks:
    try:
        if kind == wire.CHUNK:
            return Chunks(number, [(chunk(reader.load_next), size)])
        return reply(kind, number, seconds, reader.load_next)
    finally:
        reader.drain()


def _load_report(reader: SegmentReader, _: int) -> Any:
    return reader.load()


def _joined(frames: Sequence[Segment]) -> Sequence[Segment]:
    """Join small frames, so that they take one system call, but no large segments."""
    if len(frames) > 1 and sum(map(len, frames)) <= wire.BODY_LIMIT:
        return [b"".join(frames)]
    return frames
