"""What the tests of workers that come and go have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from scripts.harness import PATIENCE, until

from trio_dirty import Pool

PROMPT = 15.0
"""Seconds that count as prompt, where what must not be waited for takes minutes."""


class Broken:
    """A file that keeps workers from booting while it exists."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def arise(self) -> None:
        self.path.touch()

    def mend(self) -> None:
        self.path.unlink()


def states(pool: Pool) -> list[str]:
    return [worker.state for worker in pool.statistics().workers]


def pids(pool: Pool) -> list[int | None]:
    return [worker.pid for worker in pool.statistics().workers]


def numbers(pool: Pool) -> list[int]:
    return [worker.worker for worker in pool.statistics().workers]


async def until_ready(pool: Pool, *, after: int = -1) -> None:
    """Wait until each slot has a worker, of a number greater than some."""

    def is_so() -> bool:
        return set(states(pool)) == {"ready"} and min(numbers(pool)) > after

    await until(is_so)


class Load:
    """Requests that are made without a pause, each of which must succeed.

    Attributes:
        results: what they have returned.
    """

    def __init__(self) -> None:
        self.results: list[Any] = []

    async def more(self, count: int = 20) -> None:
        """Wait until so many more have ended."""
        enough = len(self.results) + count
        await until(lambda: len(self.results) >= enough)


@asynccontextmanager
async def load(*calls: Callable[[], Any], callers: int = 3) -> AsyncIterator[Load]:
    """Have callers repeat calls during the block."""
    put = Load()
    is_over = False

    async def repeat(call: Callable[[], Any]) -> None:
        while not is_over:
            with trio.fail_after(PATIENCE):
                put.results.append(await call())

    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            for call in calls:
                nursery.start_soon(repeat, call)
        yield put
        is_over = True
