"""The reader of frames, on both sides of a socket. It does no I/O: it is told what has arrived.

::

    while count := sock.recv_into(reader.room):
        frames = reader.received(count)
        while frames:
            for kind, number, seconds, target, body in frames:
                if kind & wire.LARGE:
                    size = wire.large_size(body)
                    head = reader.take(size)  # the other size - len(head) bytes are next to arrive
            frames = reader.received()
"""

from __future__ import annotations

from . import wire
from .wire import BODY_LIMIT, HEADER, LARGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TypeAlias

    Frame: TypeAlias = tuple[int, int, float, bytes, bytes]
    """Kind, number, seconds, target, and the rest of the body; see `wire.HEADER`."""

HEADER_SIZE, unpack_header = HEADER.size, HEADER.unpack_from


class FrameReader:
    """Splits a stream of bytes into frames.

    Args:
        copies: whether targets and bodies are ``bytes``. Else they may be views of the buffer, to
            be used before anything more is received: unpickling needs no copy.
        size: how much is received at a time, at most.

    Attributes:
        room: where the next bytes are to be received. It is never empty.
    """

    __slots__ = ("_copies", "_end", "_start", "_view", "room")

    def __init__(self, *, copies: bool = True, size: int = 2 * BODY_LIMIT) -> None:
        self._copies = copies
        self._view = self.room = memoryview(bytearray(size))
        # _view[_start:_end] has been received and not been returned.
        self._start = self._end = 0

    def received(self, count: int = 0) -> list[Frame]:
        """Return the whole frames, after so many bytes have been received into `room`.

        A large frame is the last of them: `take` its segments, and then call this again, since
        further frames may have arrived behind these.

        Raises:
            ValueError: a frame is too long. The connection cannot be used any more.
        """
        at, end = self._start, self._end + count
        data: Any = self._view
        size = end
        if self._copies or end > BODY_LIMIT:  # below, the rest may be moved to where bodies are
            data, at, size = bytes(self._view[at:end]), 0, end - at
        frames: list[Frame] = []
        while (body := at + HEADER_SIZE) <= size:
            length, kind, target_length, seconds, number = unpack_header(data, at)
            body_end = body + length
            if body_end > size:
                wire.check_length(length)
                break
            if target_length:
                split = body + target_length
                frames.append((kind, number, seconds, data[body:split], data[split:body_end]))
            else:
                frames.append((kind, number, seconds, b"", data[body:body_end]))
            at = body_end
            if kind >= LARGE:
                break
        if at != size or self._end:
            self._keep(end - (size - at), end)
        return frames

    def take(self, size: int) -> bytes:
        """Return what has arrived of the segments of the last frame, which have so many bytes."""
        start = self._start
        head = bytes(self._view[start : min(start + size, self._end)])
        self._keep(start + len(head), self._end)
        return head

    def _keep(self, start: int, end: int) -> None:
        view = self._view
        if start == end:
            start = end = 0
        elif end > BODY_LIMIT:
            view[: end - start] = bytes(view[start:end])
            start, end = 0, end - start
        self._start, self._end = start, end
        self.room = view[end:]


def read_frames(data: bytes) -> Iterator[Frame]:
    """Return the frames of data that has arrived whole; large ones as if they were small."""
    rest = memoryview(data)
    reader = FrameReader(size=min(len(data) + 1, 2 * BODY_LIMIT))
    while rest:
        count = min(len(rest), len(reader.room))
        reader.room[:count], rest = rest[:count], rest[count:]
        frames = reader.received(count)
        while frames:
            for kind, number, seconds, target, body in frames:
                if kind & LARGE:
                    size = wire.large_size(body)
                    head = reader.take(size)
                    body, rest = head + rest[: size - len(head)], rest[size - len(head) :]
                yield kind & ~LARGE, number, seconds, target, body
            frames = reader.received()
