"""What workers execute. Imports neither trio nor rich: every worker imports this."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TypeVar

from trio_dirty import App

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def sleep_task(ms: float) -> None:
    """Sleep."""
    time.sleep(ms / 1000)


def cpu_task(ms: float) -> None:
    """Compute until the wall clock says that it is enough."""
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


class Work(App):
    """The same functions as actions, and a few that only a pool is asked for."""

    def sleep_task(self, ms: float) -> None:
        """Sleep."""
        sleep_task(ms)

    def cpu_task(self, ms: float) -> None:
        """Compute until the wall clock says that it is enough."""
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


class Empty(App):
    """An app with nothing in it."""
