"""Cancel many requests that wait behind a stuck worker; print by how much memory grows.

Arguments: how many; in how many rounds of so many each. Before these is one more, which fills
what is kept for good, such as the allocator's pages and the queue's table. What grows is the
least that a round adds: pages come and go, and what leaks stays. Tracing takes several times as
long, and memory of its own: so it is done afterwards, with fewer.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import tracemalloc
from itertools import pairwise
from typing import TYPE_CHECKING

import trio
import trio.testing

from trio_dirty import open_pool

from ..harness.polling import wait_until
from ..harness.process import settled
from ..work import Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_dirty import Pool

BATCH = 1_000
"""How many wait at a time."""

TRACED_SHARE, LEAST_TRACED = 50, 4_000


async def cancel_many(pool: Pool, number: int) -> None:
    """Let requests wait and cancel them, batch after batch."""
    for _ in range(number // BATCH):
        async with trio.open_nursery() as nursery:
            for _ in range(BATCH):
                nursery.start_soon(pool.run_sync, Work.noop)
            await trio.testing.wait_all_tasks_blocked()
            assert pool.statistics().queued >= BATCH
            nursery.cancel_scope.cancel()


def traced() -> int:
    """Return the bytes that Python has allocated, less garbage."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def growth(pool: Pool, number: int, rounds: int, look: Callable[[], int]) -> int:
    """Return by how many bytes this process grows in a round."""
    sizes = []
    for _ in range(rounds + 1):
        await cancel_many(pool, number)
        sizes.append(look())
    return min(after - before for before, after in pairwise(sizes))


async def measure(number: int, rounds: int) -> dict[str, int]:
    """Measure both behind one worker that is stuck."""
    fewer = max(number // TRACED_SHARE, LEAST_TRACED)
    with tempfile.TemporaryDirectory() as directory:
        gate = os.path.join(directory, "gate")
        async with open_pool([Work], workers=1) as pool, trio.open_nursery() as nursery:
            nursery.start_soon(pool.run_sync, Work.hold, gate)
            await wait_until(lambda: pool.statistics().running > 0)
            resident_growth = await growth(pool, number, rounds, settled)
            tracemalloc.start()
            traced_growth = await growth(pool, fewer, 1, traced)
            tracemalloc.stop()
            await trio.Path(gate).touch()
    return {
        "resident_growth": resident_growth,
        "resident_number": number,
        "traced_growth": traced_growth,
        "traced_number": fewer,
    }


def main() -> None:
    """Cancel as many as the arguments say."""
    number, rounds = map(int, sys.argv[1:])
    json.dump(trio.run(measure, number, rounds), sys.stdout)


if __name__ == "__main__":
    main()
