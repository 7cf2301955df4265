"""Cancellation of a request that has begun; asking for it; and what those that wait leave."""

from __future__ import annotations

from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import trio

from trio_dirty import open_pool

from ..harness.child import run_script
from ..harness.figures import Figure, longest
from ..work import Work

if TYPE_CHECKING:
    from trio_dirty import Pool

    from ..harness.notes import Note
    from ..output.display import Stage

INTERRUPT_MS = 10
OVER_BOOT_MS = 50
CHECK_US = 1
KEPT_BYTES = 1

SLEEP_SECONDS = 1.5
CHECKS = 100_000


async def cancel_to_next(pool: Pool, note: Note) -> float:
    """Return the milliseconds from a sleeping request's cancellation to the next one's result.

    The pool has one worker. The action tells itself, in a note, that it has begun.
    """
    scope = trio.CancelScope()

    async def call() -> None:
        with scope:
            await pool.run_sync(Work.doze, note.path, SLEEP_SECONDS)

    note.erase()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await note.wait_above(0)
        cancelled = perf_counter()
        scope.cancel()
        await pool.run_sync(Work.noop)
        return 1000 * (perf_counter() - cancelled)


async def boot() -> float:
    """Return the milliseconds from `open_pool` of one worker to ready."""
    began = perf_counter()
    async with open_pool([Work], workers=1):
        return 1000 * (perf_counter() - began)


async def measure_interrupt(pool: Pool, note: Note, *, times: int, stage: Stage) -> Figure:
    """Measure cancellation that leaves the worker alive."""
    view = pool.with_options(on_cancel="interrupt")
    spans = [await cancel_to_next(view, note) for _ in range(times)]
    stage.advance()
    return longest(
        'cancel of a sleeping request to the next one\'s result, "interrupt"',
        spans,
        "ms",
        at_most=INTERRUPT_MS,
        decimals=2,
    )


async def measure_kill(pool: Pool, note: Note, *, times: int, stage: Stage) -> Figure:
    """Measure cancellation that kills the worker, and what a boot takes, in turn."""
    view = pool.with_options(on_cancel="kill")
    boots, spans = [], []
    for _ in range(times):
        boots.append(await boot())
        spans.append(await cancel_to_next(view, note))
    stage.advance()
    return Figure(
        'the same, "kill", less a boot',
        median(spans) - median(boots),
        "ms",
        at_most=OVER_BOOT_MS,
        note=f"medians of {times}, {median(spans):.1f} less {median(boots):.1f}",
    )


async def measure_asking(pool: Pool, *, times: int, stage: Stage) -> Figure:
    """Measure what it costs an action to check whether its caller has left."""
    costs = [1e6 * await pool.run_sync(Work.check_cost, CHECKS) for _ in range(times)]
    stage.advance()
    return Figure(
        "check_cancelled when nothing has happened",
        median(costs),
        "µs",
        at_most=CHECK_US,
        note=f"median of {times} times {CHECKS:,}, at most {max(costs):.2f}",
    )


async def measure_kept(number: int, rounds: int, *, stage: Stage) -> list[Figure]:
    """Measure what is kept of requests that were cancelled behind a stuck worker."""
    kept = await run_script("cancelled", number, rounds)
    stage.advance()
    return [
        Figure(
            f"{kind} memory kept of each request cancelled while it waits",
            kept[f"{kind}_growth"] / kept[f"{kind}_number"],
            "bytes",
            at_most=KEPT_BYTES,
            note=f"{kept[f'{kind}_number']:,} behind a stuck worker, after as many before",
        )
        for kind in ("resident", "traced")
    ]
