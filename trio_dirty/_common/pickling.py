"""Objects to pickled segments, without copying what is large.

A pickle is a list of *segments*. CPython's C pickler, when it writes to a file object,
hands over frames of about 64 KiB, and hands over each larger ``bytes``, ``bytearray``
and buffer as the object itself. They are sent one after the other, never joined, and the
C unpickler, when its file has a ``readinto``, has them read to where they will stay: see
`segments`. So only the kernel copies large data, however deep in the arguments it lies.
"""

from __future__ import annotations

import pickle

from .wire import PROTOCOL, SMALL_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .wire import Segment


class SegmentPickler:
    """Pickles values of any size.

    The `pickle.Pickler` is reused: making one takes 2.7 µs, a small pickle 0.6 µs. For a small
    pickle it calls no Python code: in a worker that has just slept, each line of that is a cache
    miss. Not thread-safe.
    """

    __slots__ = ("_dump", "_forget", "_segments", "write")

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._segments: list[Any] = []
        self.write = self._segments.append
        pickler = pickle.Pickler(self, PROTOCOL)
        self._dump, self._forget = pickler.dump, pickler.clear_memo

    def dump(self, value: object) -> list[Segment]:
        """Return the segments of the pickled value.

        Raises:
            BaseException: whatever pickling the value raises.
        """
        try:
            self._dump(value)
        except BaseException:
            self._renew()  # an interrupted pickler may keep half a frame
            raise
        self._forget()
        written = self._segments
        try:
            if len(written) == 1:
                return [*written]
            return [*map(as_segment, [b"", *written], written)]
        finally:
            written.clear()


def as_segment(before: Any, data: bytes | bytearray | pickle.PickleBuffer) -> Segment:
    """Return what the pickler has written, in a form whose length cannot change.

    A ``bytearray`` belongs to the app or the program. As long as the segment exists, resizing it
    raises `BufferError`.

    Args:
        before: what was written before it; its last eight bytes are the announced length.
        data: what was written.

    Raises:
        BufferError: it has been resized since the pickler announced its length. Surplus bytes
            would be read as instructions of the pickle.
    """
    if type(data) is bytes:
        return data
    if isinstance(data, pickle.PickleBuffer):
        return data.raw()
    view = memoryview(data)
    if len(view) != int.from_bytes(before[-8:], "little"):
        raise BufferError("a bytearray was resized while it was being pickled")
    return view


BUFFERS_LIMIT = 1 << 22
"""How many bytes of large buffers are pickled at once. Usually they are only handed over; but some
types copy their content first, such as `array.array`: 1.2 ms for each megabyte."""


class _TooLongError(Exception):
    pass


class QuickPickler:
    """Pickles what does not take long, and gives up early on what does.

    Large buffers are only handed over. Everything else is pickled up to 128 KiB, which takes about
    a millisecond.
    """

    __slots__ = ("_buffers", "_dump", "_forget", "_objects", "_segments")

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._segments: list[Segment] = []
        # How many bytes there are of large buffers, and of everything else.
        self._buffers = self._objects = 0
        pickler = pickle.Pickler(self, PROTOCOL)
        self._dump, self._forget = pickler.dump, pickler.clear_memo

    def write(self, data: bytes | bytearray | pickle.PickleBuffer) -> None:
        """Keep a segment; give up where there is too much."""
        segments = self._segments
        if not segments and type(data) is bytes and len(data) <= SMALL_LIMIT:  # usually all
            self._objects = len(data)
            segments.append(data)
            return
        before = segments[-1] if segments else b""
        segment = as_segment(before, data)
        if type(segment) is not bytes or _is_buffer(segment, before):
            self._buffers += len(segment)
        else:
            self._objects += len(segment)
        if self._objects > SMALL_LIMIT or self._buffers > BUFFERS_LIMIT:
            raise _TooLongError
        segments.append(segment)

    def dump(self, value: object) -> bytes | list[Segment] | None:
        """Return the pickled value; in segments where it has large buffers; None if it takes long.

        Raises:
            BaseException: whatever pickling the value raises.
        """
        try:
            self._dump(value)
        except BaseException as error:
            self._segments.clear()  # the traceback refers to it, and no buffer is to be kept
            self._renew()
            if isinstance(error, _TooLongError):
                return None
            raise
        self._forget()
        segments = self._segments
        if len(segments) == 1:
            return segments.pop()  # type: ignore[return-value]  # the pickle itself
        self._segments, self._buffers = [], 0
        return segments


def _is_buffer(data: bytes, before: Segment) -> bool:
    """Return whether these bytes are an object of their own: then they are announced by BINBYTES.

    Neither what the pickler has collected of small objects, nor a large text, which it has
    copied.
    """
    return type(before) is bytes and before.endswith(b"B" + len(data).to_bytes(4, "little"))
