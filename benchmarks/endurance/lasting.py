"""Memory and descriptors of a program whose pool serves many requests and renews its workers.

Each number is of a moment in which every slot has its one worker: neither a successor that
boots nor a predecessor that closes is counted, nor garbage.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import psutil

from trio_dirty import open_pool

from ..harness.events import Watch
from ..harness.figures import Figure
from ..harness.load import drive
from ..harness.memory import settled
from ..harness.polling import wait_steady
from ..work import Work

if TYPE_CHECKING:
    from ..output.display import Stage

WORKERS = 4
CLIENTS = 40
TENTHS = 10
LATEST = 3
"""So many of the last looks are taken together: one alone may find what is about to be freed."""

GROWTH_MB = 2.0
"""More than this is growth, and not the allocator's, which moves by one and a half."""


def count_descriptors() -> int:
    """Return how many descriptors this process has open."""
    return int(psutil.Process().num_fds())


async def rest(watch: Watch) -> None:
    """Wait until every slot has its one worker.

    That a worker has ended is told before the last of it is closed; and one that is worn has no
    successor for a moment.
    """
    while True:
        await watch.wait_present(WORKERS)
        await wait_steady(count_descriptors)
        if watch.present == WORKERS:
            return


async def measure_lasting(requests: int, max_requests: int, *, stage: Stage) -> list[Figure]:
    """Make all requests, and look after each tenth of them."""
    watch = Watch()
    memory: list[float] = []
    descriptors: list[int] = []
    failed = 0
    async with open_pool(
        [Work], workers=WORKERS, max_requests=max_requests, instruments=[watch]
    ) as pool:
        for _ in range(TENTHS):
            load = await drive(
                lambda: pool.run_sync(Work.noop), clients=CLIENTS, requests=requests // TENTHS
            )
            failed += len(load.errors)
            del load
            await rest(watch)
            memory.append(settled() / 1e6)
            descriptors.append(count_descriptors())
            stage.advance()
    first, *later = memory
    what = f"growth in {requests:,} requests after the first {requests // TENTHS:,}"
    note = f"{watch.ready} workers, of max_requests={max_requests:,}; {failed} failed"
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
            descriptors[-1] - descriptors[0],
            "descriptors",
            at_most=0,
            note=f"{descriptors[0]}, in the end {descriptors[-1]}, at most {max(descriptors)}",
        ),
    ]
