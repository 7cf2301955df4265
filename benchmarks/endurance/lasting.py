"""Memory and descriptors of a program whose pool serves many requests and renews its workers.

Each number is of a moment in which every slot has its one worker: neither a successor that
boots nor a predecessor that closes is counted, nor garbage.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from trio_dirty import open_pool

from ..harness.events import WorkerEvents
from ..harness.figures import Figure
from ..harness.load import drive
from ..harness.polling import wait_steady
from ..harness.process import descriptors, settled
from ..work import Work

if TYPE_CHECKING:
    from ..output.display import Stage

WORKERS = 4
CLIENTS = 40
TENTHS = 10
LATEST = 3
"""The median of so many last values counts: a single one may include what is about to be freed."""

GROWTH_MB = 2.0
"""The limit of growth. The allocator alone causes changes of one and a half."""


async def rest(events: WorkerEvents) -> None:
    """Wait until every slot has its one worker.

    That a worker has ended is told before the last of it is closed; and one that is worn has no
    successor for a moment.
    """
    while True:
        await events.wait_present(WORKERS)
        await wait_steady(descriptors)
        if events.present == WORKERS:
            return


async def measure_lasting(requests: int, max_requests: int, *, stage: Stage) -> list[Figure]:
    """Make all requests; measure after each tenth of them."""
    events = WorkerEvents()
    memory: list[float] = []
    counts: list[int] = []
    failed = 0
    async with open_pool(
        [Work], workers=WORKERS, max_requests=max_requests, instruments=[events]
    ) as pool:
        for _ in range(TENTHS):
            load = await drive(
                lambda: pool.run_sync(Work.noop), clients=CLIENTS, requests=requests // TENTHS
            )
            failed += len(load.errors)
            del load
            await rest(events)
            memory.append(settled() / 1e6)
            counts.append(descriptors())
            stage.advance()
    first, *later = memory
    what = f"growth in {requests:,} requests after the first {requests // TENTHS:,}"
    note = f"{events.ready} workers, of max_requests={max_requests:,}; {failed} failed"
    return [
        Figure(
            f"{what}: memory",
            median(later[-LATEST:]) - first,
            "MB",
            at_most=GROWTH_MB,
            note=f"{first:.1f} MB, in the end {median(later[-LATEST:]):.1f}, at most "
            f"{max(later):.1f}; {note}",
        ),
        Figure(
            f"{what}: descriptors",
            counts[-1] - counts[0],
            "descriptors",
            at_most=0,
            note=f"{counts[0]}, in the end {counts[-1]}, at most {max(counts)}",
        ),
    ]
