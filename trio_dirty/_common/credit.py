"""How far a worker may run ahead of a stream's reader.

Both sides use it; it imports nothing of trio and does no I/O.
"""

from __future__ import annotations

CHUNKS_AHEAD = 1_000
BYTES_AHEAD = 1 << 20


class CreditWindow:
    """The chunks of one stream that the reader has not taken, as far as this side knows.

    The worker runs the generator's next step only while the window is open, so all that is
    ahead of the reader, on its way and on both sides together, is at most `CHUNKS_AHEAD`
    chunks or `BYTES_AHEAD` bytes, or one chunk that is larger.

    How large the next chunk will be is not known before the step is done: it is expected to
    be as large as those before it, a single large one being forgotten little by little. Both
    sides reckon alike, so the pool knows when the worker waits for it.

    Attributes:
        chunks: how many there are.
        size: their bytes.
    """

    __slots__ = ("_expected", "chunks", "size")

    def __init__(self) -> None:
        self.chunks = 0
        self.size = 0
        self._expected = 0

    @property
    def is_open(self) -> bool:
        """Whether the next chunk may be produced."""
        return not self.chunks or (
            self.chunks < CHUNKS_AHEAD and self.size + self._expected <= BYTES_AHEAD
        )

    def add(self, size: int) -> None:
        """Count a chunk that has been produced."""
        self.chunks += 1
        self.size += size
        expected = self._expected - (self._expected >> 3)
        self._expected = size if size > expected else expected

    def give_back(self, chunks: int, size: int) -> None:
        """Take off chunks that the reader has taken."""
        self.chunks -= chunks
        self.size -= size
