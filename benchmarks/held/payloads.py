"""What is sent and returned. Workers import this: it imports neither trio nor rich."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from trio_dirty import App

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Point:
    """An object of a user's own class."""

    number: int
    name: str
    near: tuple[float, float]


class Unpicklable:
    """Refuses to be pickled."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("it does not pickle")


def _numpy(size: int) -> object:
    return import_module("numpy").ones(size // 8)


MAKERS: dict[str, Callable[[int], object]] = {
    "bytes": lambda size: b"x" * size,
    "str": lambda size: "x" * size,
    "text": lambda size: "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * (size // 3),
    "bytearray": lambda size: bytearray(b"x") * size,
    "array": lambda size: array("d", [1.0]) * (size // 8),
    "numpy": _numpy,
    "int": lambda size: (1 << 8 * size) - 1,
    "strings": lambda size: [f"distinct string {index}" for index in range(size)],
    "nested": lambda size: [[index, {"name": [index, None]}] for index in range(size)],
    "objects": lambda size: [Point(index, "a name", (0.5, index)) for index in range(size)],
    "unpicklable": lambda size: [[f"string {index}" for index in range(size)], Unpicklable()],
}


class Payloads(App):
    """Takes and returns payloads."""

    def take(self, payload: object) -> None:
        """Let go of it."""

    def give(self, kind: str, size: int) -> object:
        """Return one."""
        return MAKERS[kind](size)

    def fail(self, kind: str, size: int) -> NoReturn:
        """Raise an exception that carries one."""
        raise ValueError(MAKERS[kind](size))

    def chunks(self, kind: str, size: int, number: int) -> Iterator[object]:
        """Yield so many."""
        payload = MAKERS[kind](size)
        for _ in range(number):
            yield payload
