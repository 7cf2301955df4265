"""From SIGKILL of an idle worker until its slot is ready again."""

from __future__ import annotations

import os
import signal
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import trio

from trio_dirty import open_pool

from ..harness.events import WorkerEvents
from ..harness.figures import Figure
from ..work import Work

if TYPE_CHECKING:
    from ..output.display import Stage

BEYOND_BOOT_MS = 50
IDLE_SECONDS = 0.05


async def replace() -> tuple[float, float]:
    """Return the milliseconds that a worker takes to boot, and another to take its place."""
    events = WorkerEvents()
    began = perf_counter()
    async with open_pool([Work], workers=1, instruments=[events]) as pool:
        booted = events.ready_at - began
        await pool.run_sync(Work.noop)
        await trio.sleep(IDLE_SECONDS)
        pid = pool.statistics().workers[0].pid
        assert pid is not None
        killed = perf_counter()
        os.kill(pid, signal.SIGKILL)
        await events.wait_ready(2)
        return 1000 * booted, 1000 * (events.ready_at - killed)


async def measure_replacing(times: int, *, stage: Stage) -> Figure:
    """Boot a worker and kill it, several times, so that both are measured at the same time."""
    boots, replacements = [], []
    for _ in range(times):
        boot, replacement = await replace()
        boots.append(boot)
        replacements.append(replacement)
        stage.advance()
    return Figure(
        "SIGKILL of an idle worker to its slot ready, beyond the time of a boot",
        median(replacements) - median(boots),
        "ms",
        at_most=BEYOND_BOOT_MS,
        note=f"medians of {times}: {median(replacements):.0f} ms, a boot {median(boots):.0f} ms",
    )
