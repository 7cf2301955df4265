"""What a pool has to bear that runs for months: changes of its size, new code, deaths, and use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .lasting import TENTHS, measure_lasting
from .renewing import measure_renewing, measure_resizing
from .replacing import measure_replacing

if TYPE_CHECKING:
    from ..harness.figures import Figure
    from ..output.display import Stage


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        renewing: seconds of reloads and resizes.
        rest: seconds of clients before the pool is resized.
        resizes: how often it is.
        pause: seconds from one of these resizes to the next.
        kills: how many idle workers are killed.
        requests: of the pool that serves many.
        max_requests: of each of its workers.
    """

    renewing: float
    rest: float
    resizes: int
    pause: float
    kills: int
    requests: int
    max_requests: int

    @property
    def steps(self) -> int:
        """How many rounds there are in all."""
        return 1 + 2 + self.kills + TENTHS


FULL = Effort(
    renewing=60,
    rest=15,
    resizes=8,
    pause=5,
    kills=10,
    requests=1_000_000,
    max_requests=10_000,
)
QUICK = Effort(
    renewing=2, rest=0.5, resizes=2, pause=0.5, kills=2, requests=30_000, max_requests=1_000
)


async def measure_months(*, effort: Effort, stage: Stage) -> list[Figure]:
    """Measure one pool after the other."""
    return [
        *await measure_renewing(effort.renewing, stage=stage),
        await measure_resizing(effort.rest, effort.resizes, effort.pause, stage=stage),
        await measure_replacing(effort.kills, stage=stage),
        *await measure_lasting(effort.requests, effort.max_requests, stage=stage),
    ]
