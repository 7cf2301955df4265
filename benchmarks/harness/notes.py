"""A number that an action writes down, and this process reads whenever it likes.

A file, because it needs nothing of the pool: it tells how far an action is while it computes,
and after its worker was killed.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from ..work import NUMBER
from .polling import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


class Note:
    """One number; 0 as long as none has been written.

    Attributes:
        path: what an action is to be given.
    """

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.path = path

    def read(self) -> float:
        """Return the number that was written last."""
        written = os.pread(self._fd, NUMBER.size, 0)
        number: float = NUMBER.unpack(written)[0] if written else 0.0
        return number

    def erase(self) -> None:
        """Set it to 0 again."""
        os.ftruncate(self._fd, 0)

    async def wait_above(self, number: float) -> None:
        """Wait until there is a larger number."""
        await wait_until(lambda: self.read() > number)


@contextmanager
def open_note() -> Iterator[Note]:
    """Provide a note during the block."""
    with NamedTemporaryFile() as file:
        yield Note(file.fileno(), file.name)
