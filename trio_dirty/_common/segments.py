"""Pickled segments back to objects: what is large is received to where it will stay."""

from __future__ import annotations

import pickle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class SegmentsCutError(Exception):
    """The other side ended before the last byte of its segments."""


# Allocated in advance: it is needed when memory has run out. Several threads may write to it.
_WASTE = memoryview(bytearray(1 << 16))


class SegmentReader:
    """The file that a `pickle.Unpickler` reads segments from.

    Args:
        head: what has been received already.
        size: the length of all segments.
        receive_into: fills some of a non-empty buffer and returns how much, 0 at the end.
    """

    __slots__ = ("_head", "_receive_into", "_remaining")

    def __init__(
        self, head: bytes | bytearray, size: int, receive_into: Callable[[memoryview], int]
    ) -> None:
        self._head = memoryview(head)
        self._remaining = size
        self._receive_into = receive_into

    @property
    def remaining(self) -> int:
        """How many bytes have not been read."""
        return self._remaining

    def load(self) -> Any:
        """Unpickle the one value that the segments hold.

        Whether it succeeds or raises, all segments have been read afterwards: else they
        would be taken for frames.

        Raises:
            SegmentsCutError: the other side ended before the last byte, or the rest could not
                be read, for want of memory. The connection cannot be used any more.
        """
        try:
            return self.load_next()
        finally:
            self.drain()

    def load_next(self) -> Any:
        """Unpickle the next of several values that the segments hold one behind the other."""
        return pickle.Unpickler(self).load()

    def drain(self) -> None:
        """Read and drop the rest.

        Raises:
            SegmentsCutError: see `load`.
        """
        try:
            while self._remaining:
                self.readinto(_WASTE[: self._remaining])
        except BaseException as error:
            raise SegmentsCutError from error

    def readinto(self, buffer: Any) -> int:
        """Fill the whole buffer."""
        target = memoryview(buffer).cast("B")
        size = len(target)
        if size > self._remaining:
            raise EOFError("the pickle is longer than was announced")
        at = min(size, len(self._head))
        target[:at] = self._head[:at]
        self._head = self._head[at:]
        self._remaining -= at
        while at < size:
            try:
                received = self._receive_into(target[at:])
            except BaseException:
                self._remaining = 0  # nothing more will come
                raise
            if not received:
                self._remaining = 0
                raise SegmentsCutError
            at += received
            self._remaining -= received
        return size

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes."""
        buffer = bytearray(size)
        self.readinto(buffer)
        return bytes(buffer)

    def readline(self) -> bytes:
        """Not part of protocol 5; the unpickler requires that it exists."""
        raise pickle.UnpicklingError("not a pickle of protocol 5")


def read_whole(data: bytes | bytearray) -> SegmentReader:
    """Return a reader of segments that have all been received."""
    return SegmentReader(data, len(data), _receive_nothing)


def _receive_nothing(_: memoryview) -> int:
    return 0
