"""What workers execute. Imports neither trio nor rich: every worker imports this."""

from __future__ import annotations

import os
import re
import time
from struct import Struct
from typing import TYPE_CHECKING, TypeVar

from trio_dirty import App, check_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from socket import socket

T = TypeVar("T")

NUMBER = Struct("=d")
"""How numbers are written to notes and to the bare relay."""

STAMP_SECONDS = 0.005
"""From one stamp to the next."""


def sleep_task(ms: float) -> None:
    """Sleep."""
    time.sleep(ms / 1000)


def cpu_task(ms: float) -> None:
    """Compute for so many milliseconds by the wall clock."""
    end = time.perf_counter() + ms / 1000
    x = 0
    while time.perf_counter() < end:
        x = (x * 1103515245 + 12345) & 0x7FFFFFFF


def mixed_task(sleep_ms: float, busy_ms: float) -> None:
    """Sleep, then compute."""
    sleep_task(sleep_ms)
    cpu_task(busy_ms)


def noop() -> None:
    """Do nothing."""


FUNCTIONS: dict[str, Callable[..., None]] = {
    function.__name__: function for function in (sleep_task, cpu_task, mixed_task, noop)
}


def stamps(number: int) -> Iterator[float]:
    """Yield the time, as often as is wanted, by the clock of the whole machine."""
    for _ in range(number):
        time.sleep(STAMP_SECONDS)
        yield time.perf_counter()


def relay_stamps(connection: socket) -> None:
    """Write as many stamps as are asked for, again and again, until the other end is closed."""
    while wanted := connection.recv(NUMBER.size):
        for stamp in stamps(int(*NUMBER.unpack(wanted))):
            connection.sendall(NUMBER.pack(stamp))


def note(path: str, value: float) -> None:
    """Write down a number for the pool's process to read: see `benchmarks.harness.notes`."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, NUMBER.pack(value), 0)
    finally:
        os.close(fd)


class Work(App):
    """The same functions as actions, and a few that only pools execute."""

    def sleep_task(self, ms: float) -> None:
        """Sleep."""
        sleep_task(ms)

    def cpu_task(self, ms: float) -> None:
        """Compute for so many milliseconds by the wall clock."""
        cpu_task(ms)

    def mixed_task(self, sleep_ms: float, busy_ms: float) -> None:
        """Sleep, then compute."""
        mixed_task(sleep_ms, busy_ms)

    def noop(self) -> None:
        """Do nothing."""

    def echo(self, value: T) -> T:
        """Return the argument."""
        return value

    def hold(self, path: str) -> None:
        """Occupy the worker until a file exists."""
        while not os.path.exists(path):
            time.sleep(0.005)

    # Streams

    def chunks(self, number: int, size: int) -> Iterator[bytes]:
        """Yield so many chunks of so many bytes."""
        chunk = bytes(size)
        for _ in range(number):
            yield chunk

    def counted_chunks(self, path: str, size: int) -> Iterator[bytes]:
        """Yield chunks without end, and note how many."""
        chunk = bytes(size)
        number = 0
        fd = os.open(path, os.O_WRONLY)
        try:
            while True:
                number += 1
                os.pwrite(fd, NUMBER.pack(number), 0)
                yield chunk
        finally:
            os.close(fd)

    def stamps(self, number: int) -> Iterator[float]:
        """Yield the time every few milliseconds."""
        return stamps(number)

    # Limits

    def doze(self, path: str, seconds: float) -> None:
        """Note when it begins, and sleep."""
        note(path, time.perf_counter())
        time.sleep(seconds)

    def backtrack(self, path: str) -> None:
        """Note when it begins, and stay in C code that holds the interpreter lock."""
        note(path, time.perf_counter())
        re.match("(a+)+$", "a" * 34 + "b")

    def check_cost(self, times: int) -> float:
        """Return the seconds that one `check_cancelled` takes, when nothing has happened."""
        began = time.perf_counter()
        for _ in range(times):
            pass
        empty = time.perf_counter() - began
        began = time.perf_counter()
        for _ in range(times):
            check_cancelled()
        return (time.perf_counter() - began - empty) / times


class Empty(App):
    """An app with nothing in it."""
