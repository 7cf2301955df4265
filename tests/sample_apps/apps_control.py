"""Apps that stream, last, and heed or ignore being told to stop. Workers import this."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, NoReturn

import trio_dirty
from trio_dirty import RequestCancelled, SoftTimeout, check_cancelled


def note(path: str, text: object = "") -> None:
    """Make a file that has its text as soon as it exists."""
    part = Path(f"{path}.part")
    part.write_text(str(text))
    part.rename(path)


def tally(path: str) -> None:
    """Make a file longer by one byte."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b".")
    os.close(fd)


def last(how: str, go: str) -> None:
    """Sleep, loop or compute in C until a file exists."""
    if how == "sleep":
        while not os.access(go, os.F_OK):
            time.sleep(0.01)
    elif how == "loop":
        while not os.access(go, os.F_OK):
            pass
    elif how == "c":
        # Nothing of it is evaluated by Python: no handler of a signal runs before it is over.
        next(filter(None, map(os.access, repeat(go), repeat(os.F_OK))))


def hang(how: str) -> NoReturn:
    """Never end."""
    while True:
        if how == "sleep":
            time.sleep(600)
        elif how == "loop":
            while True:
                pass
        elif how == "stop":
            # Until somebody else continues it: it executes nothing meanwhile.
            os.kill(os.getpid(), signal.SIGSTOP)
        elif how == "match":
            # Keeps the interpreter lock for minutes, and heeds signals.
            re.match("(a+)+$", "a" * 34 + "b")
        elif how == "c":
            # Keeps the interpreter lock for years, and heeds nothing.
            sum(repeat(0))


def told() -> None:
    """Wait until the caller has left."""
    while True:
        check_cancelled()


class DoesNotPickle:
    def __reduce__(self) -> NoReturn:
        raise ValueError("exploded while it was pickled")


def explode() -> NoReturn:
    raise ValueError("exploded while it was unpickled")


class DoesNotUnpickle:
    def __reduce__(self) -> tuple[Any, ...]:
        return explode, ()


class AsksWhenUnpickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return check_cancelled, ()


class Countdown:
    """An iterator that is no generator, and has nothing else."""

    def __init__(self, start: int) -> None:
        self.left = start

    def __iter__(self) -> Countdown:
        return self

    def __next__(self) -> int:
        if not self.left:
            raise StopIteration
        self.left -= 1
        return self.left


class Control(trio_dirty.App):
    """Counts its requests, to show that state is kept."""

    def init(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def pid(self) -> int:
        return os.getpid()

    def echo(self, value: Any) -> Any:
        return value

    def die(self, code: int) -> NoReturn:
        os._exit(code)

    # Requests that last

    def last(self, how: str, begun: str, go: str) -> str:
        self.count += 1
        note(begun, os.getpid())
        last(how, go)
        return "lasted"

    def hang(self, how: str, begun: str) -> NoReturn:
        self.count += 1
        note(begun, os.getpid())
        hang(how)

    def nap(self, seconds: float) -> float:
        """Sleep, and count the requests that have begun and those that have been left."""
        self.count += 1
        time.sleep(seconds)
        return seconds

    def spin(self, seconds: float) -> float:
        self.count += 1
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return seconds

    def straddle(self, seconds: float) -> int:
        """Count the requests that have begun, and sleep."""
        self.count += 1
        count = self.count
        time.sleep(seconds)
        return count

    def take(self, data: bytes, begun: str) -> NoReturn:
        note(begun, len(data))
        hang("sleep")

    def fork_and_hang(self, begun: str) -> NoReturn:
        """Leave a child that holds all that its parent has open."""
        pid = ctypes.CDLL(None).fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        note(begun, pid)
        hang("sleep")

    # Requests that heed it, or do not

    def asks(self, begun: str, ended: str) -> None:
        """Last until its caller has left."""
        note(begun)
        try:
            told()
        except RequestCancelled as error:
            note(ended, error)
            raise

    def asks_and_lasts(self, begun: str, left: str, go: str) -> None:
        """Last until its caller has left, and then until a file exists."""
        note(begun)
        try:
            told()
        except RequestCancelled as error:
            note(left, error)
            last("sleep", go)
            raise

    def asks_once(self) -> str:
        check_cancelled()
        return "awaited"

    def cleans_up(self, how: str, begun: str, cleaned: str) -> NoReturn:
        note(begun)
        try:
            hang(how)
        finally:
            self.count += 1
            note(cleaned, repr(sys.exc_info()[1]))

    def returns_instead(self, how: str) -> str:
        """Return what it has so far."""
        try:
            hang(how)
        except SoftTimeout as error:
            return f"in time: {error}"

    def raises_instead(self, how: str) -> NoReturn:
        try:
            hang(how)
        except SoftTimeout as error:
            raise LookupError("not found in time") from error

    def ignores(self, how: str, begun: str, ignored: str) -> NoReturn:
        """Go on, whatever is raised."""
        note(begun, os.getpid())
        while True:
            try:
                hang(how)
            except (SoftTimeout, RequestCancelled) as error:
                note(ignored, repr(error))

    def swallows_exceptions(self, begun: str) -> NoReturn:
        note(begun)
        while True:
            with contextlib.suppress(Exception):
                hang("sleep")

    # Streams

    def numbers(self, stop: int, start: int = 0) -> Iterator[int]:
        yield from range(start, stop)

    def sizes(self, *sizes: int) -> Iterator[bytes]:
        for size in sizes:
            yield b"\1" * size

    def echoes(self, *values: Any) -> Iterator[Any]:
        yield from values

    def tallied(self, count: int, size: int, path: str) -> Iterator[bytes]:
        """Take note of each step at its beginning."""
        for _ in range(count):
            tally(path)
            yield bytes(size)

    def nothing(self) -> Iterator[int]:
        return
        yield 1

    def values(self, *kinds: Callable[[], Any]) -> Iterator[Any]:
        for kind in kinds:
            yield kind()

    def steps(self, *steps: float) -> Iterator[float]:
        for seconds in steps:
            time.sleep(seconds)
            yield seconds

    def fails(self, count: int, kind: type[BaseException], *args: Any) -> Iterator[int]:
        yield from range(count)
        raise kind(*args)

    def dies(self, count: int, how: str) -> Iterator[int]:
        yield from range(count)
        if how == "exit":
            os._exit(3)
        os.kill(os.getpid(), signal.SIGKILL)

    def kept(self, count: int, ended: str) -> Iterator[int]:
        """Count the streams that were begun, and say when one has ended and how."""
        self.count += 1
        try:
            yield from range(count)
        finally:
            note(ended, repr(sys.exc_info()[1]))

    def lasting(self, how: str, begun: str, go: str, ended: str) -> Iterator[int]:
        """Compute on behind the first chunk."""
        self.count += 1
        try:
            yield 0
            note(begun, os.getpid())
            last(how, go)
            yield 1
        finally:
            note(ended, repr(sys.exc_info()[1]))

    def asks_between(self, begun: str, ended: str) -> Iterator[int]:
        yield 0
        note(begun)
        try:
            told()
        finally:
            note(ended, repr(sys.exc_info()[1]))

    def when(self, *paths: str) -> Iterator[int]:
        """Yield as many numbers as files exist."""
        for number, path in enumerate(paths):
            last("sleep", path)
            yield number

    def goes_on(self, how: str) -> Iterator[str]:
        """Go on behind a soft time-out, until the second one."""
        yield "quick"
        try:
            hang(how)
        except SoftTimeout:
            yield "interrupted"
        hang(how)

    def hangs_at_second(self, how: str) -> Iterator[int]:
        yield 0
        hang(how)

    def ignores_interrupts(self, how: str, begun: str) -> Iterator[int]:
        yield 0
        note(begun, os.getpid())
        while True:
            with contextlib.suppress(RequestCancelled):
                hang(how)

    def ignores_closing(self, ignored: str) -> Iterator[int]:
        number = 0
        while True:
            try:
                yield number
            except GeneratorExit:
                note(ignored)
            number += 1

    def raises_at_closing(self, raised: str) -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            note(raised)
            raise ValueError("raised in finally")

    def hangs_at_closing(self, closing: str) -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            note(closing, os.getpid())
            hang("sleep")

    def never_yields(self, begun: str) -> Iterator[int]:
        note(begun, os.getpid())
        hang("sleep")
        yield 1

    # What is no stream, or is one and no generator

    def a_list(self) -> list[int]:
        return [1, 2, 3]

    def raises_at_call(self, kind: type[BaseException]) -> Iterator[int]:
        raise kind("at the call")

    def mapped(self) -> Iterator[str]:
        return map(str, range(5))

    def countdown(self, start: int) -> Iterator[int]:
        return Countdown(start)

    async def asynchronous(self) -> list[int]:
        return [1]

    async def async_generator(self) -> Any:
        yield 1


class AsksAtItsEnd(Control):
    """Closes with the help of code that asks whether it is cancelled."""

    def close(self) -> None:
        check_cancelled()


class AsksAtItsBeginning(Control):
    def init(self) -> None:
        super().init()
        check_cancelled()


def plain_numbers(stop: int) -> Iterator[int]:
    """No action."""
    yield from range(stop)
