"""From `open_pool` to ready, and each worker's memory."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from ..harness.child import run_script
from ..harness.figures import Figure

if TYPE_CHECKING:
    from ..output.display import Stage

READY_SECONDS = 0.6
RESIDENT_MB = 22
STEPS = 2


async def measure_boot(workers: int, *, times: int, stage: Stage) -> list[Figure]:
    """Measure programs of which one imports trio at its top and one does not.

    The first boot of each program is its slowest, and is counted.
    """
    figures = []
    programs = (("boot_light", "no trio in __main__"), ("boot_trio", "trio in __main__"))
    for script, which in programs:
        result = await run_script(script, workers, times)
        seconds, resident = result["seconds"], [size / 1e6 for size in result["resident"]]
        light = script == "boot_light"
        figures += [
            Figure(
                f"open_pool to ready, {workers} workers, {which}",
                median(seconds),
                "s",
                at_most=READY_SECONDS if light else None,
                note=f"median of {len(seconds)}, at most {max(seconds):.3f}",
            ),
            Figure(
                f"resident memory of a worker, {which}",
                max(resident),
                "MB",
                at_most=RESIDENT_MB if light else None,
                note=f"the largest of {len(resident)}, median {median(resident):.1f}",
            ),
        ]
        stage.advance()
    return figures
