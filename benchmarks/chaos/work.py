"""What workers execute and write down. Imports neither trio nor rich: every worker imports this.

Each action writes down that it has begun before it does anything else, with one `os.write` to
a file opened with O_APPEND: what a worker had in memory would die with it.
"""

from __future__ import annotations

import os
import resource
import time
from struct import Struct

from trio_dirty import App, worker_info

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

RECORD = Struct("=QQ")
"""What is noted, in the upper byte, and the request or process; the slot and the worker.
Native order, to be read as an array. Its 16 bytes divide a page, so none is cut by a death."""

KIND_SHIFT = 56
BEGUN, BOOTED, EXITING, HOGGING = 0, 1, 2, 3

LOG_VARIABLE = "TRIO_DIRTY_CHAOS_LOG"
"""Names the file. Workers inherit it; an app's ``init()`` has no arguments."""

HOG_BYTES = 64 << 20
PIECE_BYTES = 1 << 20


def own(number: int) -> int:
    """Return the result that belongs to the request of this number."""
    return number * 0x9E3779B97F4A7C15 & (1 << 64) - 1


class Witness(App):
    """Writes down what begins."""

    def init(self) -> None:
        """Write down that a worker has booted."""
        info = worker_info()
        self._fd = os.open(os.environ[LOG_VARIABLE], os.O_WRONLY | os.O_APPEND)
        self._where = info.slot << 32 | info.worker
        self._note(BOOTED, info.pid)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _note(self, kind: int, value: int) -> None:
        os.write(self._fd, RECORD.pack(kind << KIND_SHIFT | value, self._where))

    def touch(self, number: int) -> int:
        """Do nothing."""
        self._note(BEGUN, number)
        return own(number)

    def nap(self, number: int, seconds: float) -> int:
        """Sleep."""
        self._note(BEGUN, number)
        time.sleep(seconds)
        return own(number)

    def spin(self, number: int, seconds: float) -> int:
        """Compute."""
        self._note(BEGUN, number)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return own(number)

    def echo(self, number: int, data: bytes) -> tuple[int, bytes]:
        """Return the argument."""
        self._note(BEGUN, number)
        return own(number), data

    def count(self, number: int, chunks: int) -> Iterator[tuple[int, int]]:
        """Yield so many chunks."""
        self._note(BEGUN, number)
        for chunk in range(chunks):
            yield own(number), chunk

    def exit(self, number: int, seconds: float) -> None:
        """Exit, after a while."""
        self._note(BEGUN, number)
        time.sleep(seconds)
        self._note(EXITING, os.getpid())
        os._exit(9)

    def hog(self, number: int) -> None:
        """Take memory until `MemoryError` is raised, an exception like any other."""
        self._note(BEGUN, number)
        self._note(HOGGING, os.getpid())
        _, hard = before = resource.getrlimit(resource.RLIMIT_AS)
        with open("/proc/self/statm") as statm:
            size = int(statm.read().split()[0]) * resource.getpagesize()
        taken = []
        resource.setrlimit(resource.RLIMIT_AS, (size + HOG_BYTES, hard))
        try:
            while True:
                taken.append(bytearray(PIECE_BYTES))
        finally:
            taken.clear()
            resource.setrlimit(resource.RLIMIT_AS, before)
