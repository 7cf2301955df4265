"""What is written down, by workers and by clients, and how it is read.

Both are files, so that ten minutes of it do not count as this program's memory.
"""

from __future__ import annotations

from array import array
from collections import Counter
from enum import IntEnum
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Ending(IntEnum):
    """How a request ended for its client."""

    NONE = 0
    """It never ended."""
    SERVED = 1
    NO_MEMORY = 2
    """By an error of its own action, or of a worker that was starved at the time."""
    CRASHED = 3
    CANCELLED = 4
    REFUSED = 5
    """Every slot had failed."""
    FOREIGN = 6
    """With a result that is not its own."""
    UNEXPLAINED = 7
    """With an error that nothing explains."""
    TIMED_OUT = 8


ENDING_BITS = 4
BUFFERED = 8192
CHUNK_BYTES = 1 << 19


class Book:
    """Numbers requests, and writes down how they end.

    Attributes:
        sent: how many requests have been numbered, from 0.
        endings: how many ended how.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.sent = 0
        self.endings: Counter[Ending] = Counter()
        self._file = file
        self._buffer = array("Q")

    def send(self) -> int:
        """Return the number of a new request."""
        number = self.sent
        self.sent += 1
        return number

    def end(self, number: int, ending: Ending) -> None:
        """Write down how a request ended."""
        self.endings[ending] += 1
        self._buffer.append(number << ENDING_BITS | ending)
        if len(self._buffer) == BUFFERED:
            self.flush()

    def flush(self) -> None:
        """Write what has not been written yet."""
        self._buffer.tofile(self._file)
        del self._buffer[:]


def read_words(path: Path) -> Iterator[memoryview[int]]:
    """Yield a file of 64-bit words, a chunk at a time; chunks have even lengths.

    Raises:
        TypeError: a word was cut.
    """
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield memoryview(chunk).cast("Q")
