"""How long leaving an idle and a busy pool takes."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

import trio

from trio_dirty import open_pool

from ..harness.figures import longest
from ..harness.polling import wait_until
from ..work import Work

if TYPE_CHECKING:
    from ..harness.figures import Figure
    from ..output.display import Stage

IDLE_SECONDS = 0.3
BUSY_SECONDS = 0.2
LONG_MS = 60_000


async def leave_idle(workers: int) -> float:
    """Return the seconds that leaving an idle pool normally takes."""
    async with open_pool([Work], workers=workers):
        started = perf_counter()
    return perf_counter() - started


async def leave_busy(workers: int) -> float:
    """Return the seconds from cancellation to the end of the block of a busy pool.

    Every worker computes; as many requests wait.
    """
    started = 0.0
    with trio.CancelScope() as scope:
        async with open_pool([Work], workers=workers) as pool, trio.open_nursery() as nursery:
            for _ in range(2 * workers):
                nursery.start_soon(pool.run_sync, Work.cpu_task, LONG_MS)
            await wait_until(lambda: pool.statistics().running >= workers)
            await trio.sleep(0.1)
            started = perf_counter()
            scope.cancel()
    return perf_counter() - started


async def measure_leaving(workers: int, *, times: int, stage: Stage) -> list[Figure]:
    """Measure both a number of times."""
    idle, busy = [], []
    for _ in range(times):
        idle.append(await leave_idle(workers))
        busy.append(await leave_busy(workers))
        stage.advance()
    return [
        longest(f"leaving an idle pool of {workers}", idle, "s", at_most=IDLE_SECONDS, decimals=3),
        longest(
            f"leaving a busy pool of {workers} by cancellation",
            busy,
            "s",
            at_most=BUSY_SECONDS,
            decimals=3,
        ),
    ]
