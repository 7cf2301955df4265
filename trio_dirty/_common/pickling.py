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


class _TooLargeError(Exception):
    pass


class SmallPickler:
    """Pickles what is small, and gives up early on what is large.

    So it takes at most as long as 128 KiB of pickled objects, about a millisecond.
    """

    __slots__ = ("_dump", "_forget", "_written")

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._written: bytes | None = None
        pickler = pickle.Pickler(self, PROTOCOL)
        self._dump, self._forget = pickler.dump, pickler.clear_memo

    def write(self, data: bytes | bytearray | pickle.PickleBuffer) -> None:
        """Keep the pickle's only segment, if it is small; refuse a second."""
        if self._written is not None or type(data) is not bytes or len(data) > SMALL_LIMIT:
            raise _TooLargeError
        self._written = data

    def dump(self, value: object) -> bytes | None:
        """Return the pickled value, or None where it is large.

        Raises:
            BaseException: whatever pickling the value raises.
        """
        try:
            self._dump(value)
        except BaseException as error:
            self._renew()
            if isinstance(error, _TooLargeError):
                return None
            raise
        written, self._written = self._written, None
        self._forget()
        return written
