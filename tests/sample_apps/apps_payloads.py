"""Apps that take, return, yield and raise what is large, and keep buffers. Workers import this."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from apps_control import last, note

import trio_dirty

LONG_TEXT = "\U0001f600" * 30_000


class Payloads(trio_dirty.App):
    """Has a buffer, which its lanes share."""

    def init(self) -> None:
        self.buffer = bytearray()

    def echo(self, value: Any) -> Any:
        return value

    def pair(self, one: Any, other: Any) -> Any:
        return one, other

    def raises(self, value: Any) -> NoReturn:
        raise ValueError(value)

    def yields(self, value: Any) -> Iterator[Any]:
        yield value
        yield 1

    def size(self, value: Any) -> int:
        return len(value)

    def takes(self, value: Any, begun: str, go: str) -> int:
        """Note that it has begun, and last."""
        note(begun)
        last("sleep", go)
        return len(value)

    def last(self, begun: str, go: str) -> None:
        note(begun)
        last("sleep", go)

    def returns_buffer(self, before: int, size: int) -> tuple[bytes, bytearray]:
        """Return the buffer behind what takes a while to be sent."""
        self.buffer = bytearray(size)
        return bytes(before), self.buffer

    def yields_buffer(self, before: int, size: int) -> Iterator[Any]:
        self.buffer = bytearray(size)
        yield bytes(before), self.buffer
        yield len(self.buffer)

    def resize_buffer(self, size: int) -> int:
        """Change its length as soon as that can be; return how often it could not."""
        refused = 0
        while len(self.buffer) != size:
            time.sleep(0)
        while True:
            try:
                self.buffer.clear()
                return refused
            except BufferError:
                refused += 1
                time.sleep(0.0001)

    def returns_what_is_resized(self) -> Any:
        return resized_while_it_is_pickled(100_000)


class Resizes:
    """Pickles, and resizes another object meanwhile."""

    def __init__(self, buffer: bytearray) -> None:
        self.buffer = buffer

    def __reduce__(self) -> tuple[Any, ...]:
        self.buffer.extend(b"more")
        return int, ()


def resized_while_it_is_pickled(size: int) -> list[Any]:
    buffer = bytearray(size)
    return [buffer, Resizes(buffer)]


class Slow:
    """Takes its time to be unpickled."""

    def __init__(self, begun: str, go: str) -> None:
        self.state = begun, go, bytes(2_000_000)

    def __getstate__(self) -> Any:
        return self.state

    def __setstate__(self, state: Any) -> None:
        begun, go, self.data = state
        Path(begun).touch()
        last("sleep", go)


class RaisesAtItsEnd(trio_dirty.App):
    def close(self) -> NoReturn:
        raise ValueError(LONG_TEXT)


class RaisesAtItsBeginning(trio_dirty.App):
    def init(self) -> NoReturn:
        raise ValueError(LONG_TEXT)


class DeclaresMuch(trio_dirty.App):
    workers = math.factorial(300_000)

    def echo(self, value: Any) -> Any:
        return value


ENDINGS = [type(f"Ends{number}", (RaisesAtItsEnd,), {}) for number in range(12)]
globals().update({ending.__qualname__: ending for ending in ENDINGS})
