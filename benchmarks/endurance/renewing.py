"""Clients of a pool whose size and workers change under them."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import trio

from trio_dirty import open_pool

from ..harness.figures import Figure, percentile
from ..harness.load import drive_during
from ..harness.words import error_in_words
from ..work import Work

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_dirty import Pool

    from ..output.display import Stage

RENEWING_CLIENTS = 200
RENEWING_SIZES = (8, 1, 5, 2, 7, 3, 6, 4)
EVERY_SECONDS = 1

RESIZING_CLIENTS = 40
RESIZING_MS = 10
FEW, MANY = 4, 8
OF_THE_REST = 2
"""How many times longer than at rest a request may take while the size changes."""


class Renewal:
    """Reloads and resizes of a pool, each of them every second.

    Attributes:
        resizes: how many there have been.
        reloads: how many there have been.
        errors: one text for each that has failed.
    """

    def __init__(self, pool: Pool, seconds: float) -> None:
        self._pool = pool
        self._seconds = seconds
        self.resizes = self.reloads = 0
        self.errors: list[str] = []

    async def run(self) -> None:
        """Reload and resize for so many seconds; wait until the last of each has ended."""
        ends = trio.current_time() + self._seconds
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reload, ends)
            for size in cycle(RENEWING_SIZES):
                # The next one does not wait for it: a size may be given up for another.
                nursery.start_soon(self._resize, size)
                await trio.sleep(EVERY_SECONDS)
                if trio.current_time() >= ends:
                    break

    async def _resize(self, size: int) -> None:
        await self._try(lambda: self._pool.resize(size))
        self.resizes += 1

    async def _reload(self, ends: float) -> None:
        """Reload every second, or as soon as the last reload has ended, if that took longer."""
        while (began := trio.current_time()) < ends:
            await self._try(self._pool.reload)
            self.reloads += 1
            await trio.sleep_until(began + EVERY_SECONDS)

    async def _try(self, change: Callable[[], Awaitable[None]]) -> None:
        try:
            await change()
        except Exception as error:
            self.errors.append(error_in_words(error))


async def measure_renewing(seconds: float, *, stage: Stage) -> list[Figure]:
    """Reload and resize a pool under requests that do nothing or sleep for one millisecond."""
    async with open_pool([Work], workers=4) as pool:
        renewal = Renewal(pool, seconds)
        calls = (lambda: pool.run_sync(Work.noop), lambda: pool.run_sync(Work.sleep_task, 1))
        load = await drive_during(renewal.run, calls, clients=RENEWING_CLIENTS)
    stage.advance()
    few, many = min(RENEWING_SIZES), max(RENEWING_SIZES)
    what = f"reload and resize between {few} and {many} each second"
    errors = renewal.errors + load.errors
    noted = (
        f"{renewal.reloads} reloads, {renewal.resizes} resizes, {RENEWING_CLIENTS} clients, no-op "
        "and 1 ms"
    )
    return [
        Figure(
            f"{what}: failed",
            len(errors),
            "requests",
            at_most=0,
            note=f"of {len(load.latencies):,}; {noted}" + "".join(f"; {e}" for e in errors[:1]),
        ),
        Figure(f"{what}: served", load.rate, "a second"),
        Figure(
            f"{what}: the longest wait",
            max(load.latencies),
            "s",
            note=f"p99 {percentile(load.latencies, 99):.3f}, p50 "
            f"{percentile(load.latencies, 50):.3f}",
        ),
    ]


async def measure_resizing(rest: float, resizes: int, pause: float, *, stage: Stage) -> Figure:
    """Compare the time of requests while the size changes with that at the smaller size."""
    async with open_pool([Work], workers=FEW) as pool:

        async def lie_still() -> None:
            await trio.sleep(rest)

        async def resize() -> None:
            for _, size in zip(range(resizes), cycle((MANY, FEW)), strict=False):
                await pool.resize(size)
                await trio.sleep(pause)

        calls = (lambda: pool.run_sync(Work.sleep_task, RESIZING_MS),)
        resting = await drive_during(lie_still, calls, clients=RESIZING_CLIENTS)
        stage.advance()
        changing = await drive_during(resize, calls, clients=RESIZING_CLIENTS)
        stage.advance()
    before, meanwhile = (1000 * percentile(each.latencies, 99) for each in (resting, changing))
    failed = len(resting.errors) + len(changing.errors)
    return Figure(
        f"p99 while resized between {FEW} and {MANY}, of that at rest at {FEW}",
        meanwhile / before,
        "times",
        at_most=OF_THE_REST,
        note=f"{meanwhile:.0f} ms against {before:.0f} ms; {RESIZING_CLIENTS} clients, "
        f"{RESIZING_MS} ms requests, {resizes} resizes, the longest "
        f"{1000 * max(changing.latencies):.0f} ms; {failed} failed",
    )
