"""Let many requests, or as many bare tasks, wait; print memory and dispatch times.

Arguments: ``requests`` or ``tasks``; how many wait; how many workers; in how many segments,
and of what size, the requests that are then dispatched are timed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

import trio
import trio.testing

from trio_dirty import open_pool

from ..harness.polling import wait_until
from ..harness.process import settled
from ..work import Work

if TYPE_CHECKING:
    from trio_dirty import Pool


async def tasks(number: int) -> dict[str, object]:
    """Let tasks wait in `trio.sleep_forever`."""

    async def wait() -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        before = settled()
        for _ in range(number):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        after = settled()
        nursery.cancel_scope.cancel()
    return {"bytes": after - before}


async def requests(number: int, workers: int, segments: int, size: int) -> dict[str, object]:
    """Let requests wait behind one that holds each worker, then dispatch some of them."""
    times: list[float] = []
    ended = 0
    everything = trio.Event()

    async def request(pool: Pool) -> None:
        nonlocal ended
        await pool.run_sync(Work.noop)
        ended += 1
        if ended % size == 0:
            times.append(perf_counter())
            if len(times) > segments:
                everything.set()

    with tempfile.TemporaryDirectory() as directory:
        gate = os.path.join(directory, "gate")
        async with open_pool([Work], workers=workers) as pool, trio.open_nursery() as nursery:
            for _ in range(workers):
                nursery.start_soon(pool.run_sync, Work.hold, gate)
            await wait_until(lambda: pool.statistics().running >= workers)
            before = settled()
            for _ in range(number):
                nursery.start_soon(request, pool)
            await wait_until(lambda: pool.statistics().queued >= number)
            after = settled()
            await trio.Path(gate).touch()
            await everything.wait()
            nursery.cancel_scope.cancel()
    each = [(end - start) / size for start, end in pairwise(times)]
    return {"bytes": after - before, "dispatch_seconds": each[:segments]}


def main() -> None:
    """Run what the first argument says."""
    kind, number, workers, segments, size = sys.argv[1], *map(int, sys.argv[2:])
    if kind == "tasks":
        result = trio.run(tasks, number)
    else:
        result = trio.run(requests, number, workers, segments, size)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
