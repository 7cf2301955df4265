"""From SIGKILL of a busy worker to its caller's error."""

from __future__ import annotations

import os
import signal
from time import perf_counter
from typing import TYPE_CHECKING

import trio

from trio_dirty import WorkerCrashedError, open_pool

from ..harness.figures import longest
from ..harness.polling import wait_until
from ..work import Work

if TYPE_CHECKING:
    from trio_dirty import Pool

    from ..harness.figures import Figure
    from ..output.display import Stage

CRASH_MS = 20
LONG_MS = 60_000


async def crash(pool: Pool) -> float:
    """Return the milliseconds from a kill to the error, when all workers are ready again.

    Every worker completes a request first: slots whose workers die one after the other and
    complete none are made to wait, and fail in the end.
    """
    noticed = 0.0

    async def call() -> None:
        nonlocal noticed
        try:
            await pool.run_sync(Work.cpu_task, LONG_MS)
        except WorkerCrashedError:
            noticed = perf_counter()

    for _ in pool.statistics().workers:
        await pool.run_sync(Work.noop)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await wait_until(lambda: pool.statistics().running > 0)
        await trio.sleep(0.05)  # so that the worker has taken it up for certain
        pid = next(worker.pid for worker in pool.statistics().workers if worker.running)
        assert pid is not None
        killed = perf_counter()
        os.kill(pid, signal.SIGKILL)
    await wait_until(lambda: all(w.state == "ready" for w in pool.statistics().workers))
    return 1000 * (noticed - killed)


async def measure_crash(workers: int, *, times: int, stage: Stage) -> list[Figure]:
    """Kill a worker a number of times."""
    delays = []
    async with open_pool([Work], workers=workers) as pool:
        for _ in range(times):
            delays.append(await crash(pool))
            stage.advance()
    return [
        longest(
            "SIGKILL of a busy worker to WorkerCrashedError",
            delays,
            "ms",
            at_most=CRASH_MS,
            decimals=2,
        )
    ]
