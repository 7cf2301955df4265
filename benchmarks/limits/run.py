"""What a caller asks of a request besides its outcome: that it ends in time, and how it is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trio_dirty import open_pool

from ..harness.notes import open_note
from ..work import Work
from .cancelling import measure_asking, measure_interrupt, measure_kept, measure_kill
from .timeouts import KINDS, measure_timeouts

if TYPE_CHECKING:
    from ..harness.figures import Figure
    from ..output.display import Stage

STEPS = 4 + KINDS


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        times: how often each.
        number: how many requests are cancelled while they wait.
        rounds: of so many each, of which the least growth counts.
    """

    times: int
    number: int
    rounds: int


FULL = Effort(times=20, number=1_000_000, rounds=1)
QUICK = Effort(times=2, number=10_000, rounds=2)


async def measure_limits(*, effort: Effort, stage: Stage) -> list[Figure]:
    """Measure one worker: how it is interrupted, killed, asked, and stuck."""
    times = effort.times
    async with open_pool([Work], workers=1) as pool:
        with open_note() as note:
            figures = [
                await measure_interrupt(pool, note, times=times, stage=stage),
                await measure_kill(pool, note, times=times, stage=stage),
                *await measure_timeouts(pool, note, times=times, stage=stage),
            ]
        figures.append(await measure_asking(pool, times=times, stage=stage))
    return figures + await measure_kept(effort.number, effort.rounds, stage=stage)
