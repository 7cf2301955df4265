"""Memory and dispatch time of requests that wait.

Each number is of a fresh process. A waiting request has a task, so what it takes is compared
with a task in `trio.sleep_forever`. Requests are no-ops: arguments are not counted.

The machine drifts, so few waiting requests are dispatched right before many, and again right
after them; the segments of both are taken together.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from ..harness.child import run_script
from ..harness.figures import Figure

if TYPE_CHECKING:
    from ..output.display import Stage

EXTRA_KB = 1.5
SEGMENTS = 9
STEPS = 4
FEWER = 10
"""By how many times fewer requests wait where few do; more, up to `MOST_FEW`."""

MOST_FEW = 10_000
GROWTH = 1.25
"""The limit of growth; less than this is the noise of the machine."""


async def measure_waiting(workers: int, *, number: int, stage: Stage) -> list[Figure]:
    """Let ``number`` requests wait, as many tasks, and few requests."""
    few = min(number // FEWER, MOST_FEW)
    size = few // (SEGMENTS + 1)
    bare = await run_script("waiting", "tasks", number, workers, SEGMENTS, size)
    stage.advance()
    before = await run_script("waiting", "requests", few, workers, SEGMENTS, size)
    stage.advance()
    many_waiting = await run_script("waiting", "requests", number, workers, SEGMENTS, size)
    stage.advance()
    after = await run_script("waiting", "requests", few, workers, SEGMENTS, size)
    stage.advance()
    extra = (many_waiting["bytes"] - bare["bytes"]) / number / 1000
    few_us = 1e6 * median(before["dispatch_seconds"] + after["dispatch_seconds"])
    many_us = 1e6 * median(many_waiting["dispatch_seconds"])
    return [
        Figure(
            f"{number:,} requests waiting, each beyond its task",
            extra,
            "KB",
            at_most=EXTRA_KB,
            note=f"a task {bare['bytes'] / number / 1000:.2f} KB",
        ),
        Figure(
            f"time to dispatch one, {number:,} waiting against {few:,}",
            many_us / few_us,
            "times",
            at_most=GROWTH,
            note=f"{many_us:.1f} µs against {few_us:.1f} µs",
        ),
    ]
