"""The pool's end of a worker's socket: frames out, replies in."""

from __future__ import annotations

import pickle
import select
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from .._common import wire
from .._common.segments import SegmentReader, SegmentsCutError
from .._common.wire import HEADER
from .contract import Chunks, Pong
from .replies import chunk, reply
from .threads import UNLIMITED, yield_lock

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from .._common.wire import Segment
    from .contract import Answer, Reply

T = TypeVar("T")

HEADER_SIZE, unpack_header = HEADER.size, HEADER.unpack_from

AT_ONCE = 1 << 19
"""A send() does not return at the end of the socket's buffer as long as the worker keeps on
reading: 200 MB took 230 ms in one call. This many bytes take less than one."""


class FrameSocket:
    """The pool's end of a worker's socket.

    One task may send and another receive. What is large is received and unpickled in a
    thread, while other workers' replies are being settled.

    Attributes:
        unsent: how many bytes `send_rest` has still to send.
        has_closed: whether the worker has said that its apps are closed.
    """

    def __init__(self, sock: socket.socket, closing_failed: Callable[[str], object]) -> None:
        """``closing_failed`` is called with the traceback of each ``close()`` that raised."""
        self.has_closed = False
        self._socket = sock
        self._closing_failed = closing_failed
        self._buffer = bytearray(2 * wire.BODY_LIMIT)
        self._view = memoryview(self._buffer)
        # Invariant: _buffer[:_end] has been received and holds no whole frame, unless
        # _large_arrived: then it begins with a large one.
        self._end = 0
        self._large_arrived = False
        # What a thread receives at the moment, and how much of it was left at the last look.
        self._reader: SegmentReader | None = None
        self._received_number = 0
        self._left_before = -1
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
            if not self._receive_nowait():
                return None
            if self._end < HEADER_SIZE:
                continue
            length, kind, _, _, _ = unpack_header(self._view)
            if self._end < HEADER_SIZE + length:
                wire.check_length(length)
                continue
            if kind & wire.LARGE:
                try:
                    return kind & ~wire.LARGE, await self._load_large(_load_report)
                except SegmentsCutError:
                    return None
            self._end = 0
            body = self._view[HEADER_SIZE : HEADER_SIZE + length]
            return kind, pickle.loads(body) if length else None

    def send_nowait(self, frames: Sequence[Segment]) -> Sequence[Segment]:
        """Send small frames in one go, and of large segments what there is room for.

        Returns what is left for `send_rest`. Nothing is left when nobody reads any more:
        `receive` tells.
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
        """Send what `send_nowait` has left, as fast as the worker reads."""
        sock = self._socket
        try:
            for data in rest:
                left = memoryview(data)
                while left:
                    try:
                        sent = sock.send(left[:AT_ONCE])
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(sock)
                        continue
                    left = left[sent:]
                    self.unsent -= sent
                    await trio.lowlevel.checkpoint()
        except OSError:
            pass  # it has ended
        finally:
            self.unsent = 0

    async def receive(self) -> Sequence[Answer]:
        """Wait for replies; return all that are there, and none at the end of the socket."""
        while True:
            if self._large_arrived:
                replies = await self._receive_large()
                if replies is None:
                    return ()
            else:
                await trio.lowlevel.wait_readable(self._socket)
                if not self._receive_nowait():
                    return ()
                replies = self._parse()
            if replies:
                return replies

    def _receive_nowait(self) -> bool:
        """Receive what is there; return False at the end of the socket."""
        try:
            received = self._socket.recv_into(self._view[self._end :] if self._end else self._view)
        except BlockingIOError:
            return True
        except OSError:  # ECONNRESET: it died with requests unread; an end like any other
            return False
        self._end += received
        return received > 0

    def _parse(self) -> list[Answer]:
        """Take the whole small frames off the buffer, up to a large one."""
        view, end = self._view, self._end
        loads = pickle.loads
        replies: list[Answer] = []
        chunks: list[tuple[Any, int]] | None = None
        streamed = -1
        start = 0
        while end - start >= HEADER_SIZE:
            length, kind, _, seconds, number = unpack_header(view, start)
            stop = start + HEADER_SIZE + length
            if stop > end:
                wire.check_length(length)
                break
            if kind & wire.LARGE:
                self._large_arrived = True
                break
            body = view[start + HEADER_SIZE : stop]
            start = stop
            if kind == wire.CHUNK:
                if chunks is None or number != streamed:
                    chunks, streamed = [], number
                    replies.append(Chunks(number, chunks))
                chunks.append((chunk(loads, body), length))
                continue
            chunks = None
            if kind == wire.CLOSED:
                self._closed(loads(body))
            elif kind == wire.PONG:
                replies.append(Pong(number))
            else:
                replies.append(reply(kind, number, seconds, loads, body))
        self._end = end - start
        if start and start != end:
            view[: self._end] = bytes(view[start:end])
        return replies

    def _closed(self, texts: Sequence[str]) -> None:
        self.has_closed = True
        for text in texts:
            self._closing_failed(text)

    async def _receive_large(self) -> list[Answer] | None:
        """Receive the large reply that the buffer begins with; return it and what came with it.

        Returns:
            None at the end of the socket.
        """
        _, kind, _, seconds, number = unpack_header(self._view)
        kind &= ~wire.LARGE
        try:
            if kind == wire.CLOSED:
                self._closed(await self._load_large(_load_report))
                return self._parse()
            large = await self._load_large(partial(_load_reply, kind, number, seconds))
        except SegmentsCutError:
            return None
        return [large, *self._parse()]

    async def _load_large(self, load: Callable[[SegmentReader, int], T]) -> T:
        """Receive and unpickle, in a thread, the large value that the buffer begins with.

        Args:
            load: called there with what to read it from, and its bytes.

        Raises:
            SegmentsCutError: the socket ended before the value did.
        """
        view = self._view
        length, _, _, _, number = unpack_header(view)
        body = HEADER_SIZE + length
        size = wire.large_size(view[HEADER_SIZE:body])
        head_end = min(body + size, self._end)
        reader = SegmentReader(bytes(view[body:head_end]), size, self._receive_in_thread)
        self._end -= head_end
        view[: self._end] = bytes(view[head_end : head_end + self._end])
        try:
            self._large_arrived = False
            self._reader, self._received_number, self._left_before = reader, number, -1
            # When the pool is cancelled, the worker's end shuts the socket down, which ends
            # the thread.
            return await trio.to_thread.run_sync(
                load, reader, size, abandon_on_cancel=True, limiter=UNLIMITED
            )
        finally:
            self._reader = None

    def unread(self) -> bool:
        """Return whether anything can be received, or has been and is about to be returned.

        A large reply whose rest does not come is neither: but that takes two looks to know,
        since a thread receives it.
        """
        if self._large_arrived or self._readable(0):
            return True
        if self._reader is None:
            return False
        left, self._left_before = self._left_before, self._reader.remaining
        return left != self._left_before or not self._left_before

    def unreceived(self, number: int) -> int | None:
        """Return how many bytes of a large reply to a request are still to come; else None."""
        if self._reader is None or number != self._received_number:
            return None
        return self._reader.remaining

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
    """Join small frames, so that they cost one system call; leave large segments alone."""
    if len(frames) > 1 and sum(map(len, frames)) <= wire.BODY_LIMIT:
        return [b"".join(frames)]
    return frames
