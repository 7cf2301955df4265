"""How much later than it should a caller learns that the time of its request is up.

A request's time begins when its action says so, in a note.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import trio

from trio_dirty import RequestTimeoutError

from ..harness.figures import longest
from ..work import Work

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_dirty import Pool

    from ..harness.figures import Figure
    from ..harness.notes import Note
    from ..output.display import Stage

LATER_MS = 20
LIMIT_SECONDS = 0.1
SLEEP_SECONDS = 1.5
KINDS = 4
"""How many kinds of time-outs are measured."""


async def doze(note: Note, pool: Pool) -> None:
    """Sleep beyond the limit."""
    await pool.run_sync(Work.doze, note.path, SLEEP_SECONDS)


async def backtrack(note: Note, pool: Pool) -> None:
    """Hold the interpreter lock beyond the limit."""
    await pool.run_sync(Work.backtrack, note.path)


async def doze_stopped(note: Note, pool: Pool) -> None:
    """Sleep in a worker that is stopped."""

    async def stop() -> None:
        await note.wait_above(0)
        pid = pool.statistics().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)

    timed_out = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        try:
            await doze(note, pool)
        except RequestTimeoutError as error:
            timed_out = error
    if timed_out is not None:  # not out of the nursery, which would wrap it
        raise timed_out


async def told_later(pool: Pool, note: Note, call: Callable[[Pool], Awaitable[object]]) -> float:
    """Return by how many milliseconds after the limit the caller has its error."""
    await pool.run_sync(Work.noop)  # so that there is a worker, and idle
    note.erase()
    try:
        await call(pool)
    except RequestTimeoutError:
        return 1000 * (perf_counter() - note.read() - LIMIT_SECONDS)
    raise AssertionError("an action ended that should have been timed out")


async def measure_timeouts(pool: Pool, note: Note, *, times: int, stage: Stage) -> list[Figure]:
    """Measure limits that are reached by actions which must be ended in different ways."""
    hard = pool.with_options(timeout=LIMIT_SECONDS)
    soft = pool.with_options(soft_timeout=LIMIT_SECONDS)
    kinds = (
        ("timeout, sleeping action", hard, doze),
        ("timeout, C code that holds the lock", hard, backtrack),
        ("timeout, stopped worker", hard, doze_stopped),
        ("soft_timeout, sleeping action", soft, doze),
    )
    assert len(kinds) == KINDS
    figures = []
    for what, view, call in kinds:
        spans = [await told_later(view, note, partial(call, note)) for _ in range(times)]
        stage.advance()
        figures.append(
            longest(f"caller told after its {what}", spans, "ms", at_most=LATER_MS, decimals=2)
        )
    return figures
