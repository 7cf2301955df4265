"""Boot pools of an empty app; print how long each took, and its workers' memory."""

from __future__ import annotations

import json
import sys
from time import perf_counter

import trio

from trio_dirty import open_pool

from ..harness.process import resident
from ..work import Empty


async def boot(workers: int) -> tuple[float, list[int]]:
    """Return the seconds from `open_pool` to ready, and each worker's resident bytes."""
    started = perf_counter()
    async with open_pool([Empty], workers=workers) as pool:
        seconds = perf_counter() - started
        pids = [worker.pid for worker in pool.statistics().workers]
        return seconds, [resident(pid) for pid in pids]


def main() -> None:
    """Boot one pool after the other, as many as the second argument says."""
    workers, times = int(sys.argv[1]), int(sys.argv[2])
    boots = [trio.run(boot, workers) for _ in range(times)]
    json.dump(
        {
            "seconds": [seconds for seconds, _ in boots],
            "resident": [memory for _, workers_memory in boots for memory in workers_memory],
        },
        sys.stdout,
    )
