"""Pools of simulated workers where many requests wait."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from trio_dirty import DirtyError, open_pool
from trio_dirty.testing import Boot, Call, Plan, SimEngine, Turn

from ..work import Work
from .control import hold_nursery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from trio_dirty import Pool

    from .watch import Watch


class Endless(Plan):
    """Requests never end, except no-ops. All workers boot, or only the first of each slot."""

    def __init__(self, *, boots: bool = True) -> None:
        self._boots = boots
        self._booted: set[int] = set()

    def boot(self, slot: int, worker: int) -> Boot:
        """Return how the boot of this worker goes."""
        if not self._boots and slot in self._booted:
            return Boot(exitcode=7)
        self._booted.add(slot)
        return Boot()

    def turn(self, call: Call) -> Turn:
        """Return how the execution of this request goes."""
        return Turn(0 if call.action == "noop" else math.inf)


@dataclass(frozen=True, slots=True)
class Crowd:
    """A pool, and so many callers in it.

    Attributes:
        engine: has its workers crash.
        scope: cancels the pool's block.
        callers: cancels all callers.
    """

    pool: Pool
    engine: SimEngine
    watch: Watch
    scope: trio.CancelScope
    callers: trio.CancelScope

    def look(self) -> object:
        """Return something that changes whenever requests move."""
        now = self.pool.statistics()
        return now.queued, [(w.worker, w.state, w.queued, w.running) for w in now.workers]

    async def settled(self) -> None:
        """Wait until requests have stopped moving."""
        await self.watch.settled(self.look)


async def call(pool: Pool) -> None:
    """Wait for what never ends, or for the pool's closing."""
    with suppress(DirtyError, trio.ClosedResourceError):
        await pool.run_sync(Work.echo, None)


@asynccontextmanager
async def crowd(
    watch: Watch,
    number: int,
    *,
    workers: int,
    keys: bool = False,
    boots: bool = True,
    **options: Any,
) -> AsyncIterator[Crowd]:
    """Open a pool, and have so many callers wait in it, until the block is left.

    The callers are outside of the scope of the pool's block.
    """
    engine = SimEngine(Endless(boots=boots))
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        callers: trio.Nursery = await nursery.start(hold_nursery)

        async def end() -> None:
            await watch.until(lambda: not callers.child_tasks)
            nursery.cancel_scope.cancel()

        stack.push_async_callback(end)
        scope = stack.enter_context(trio.CancelScope())
        pool = await stack.enter_async_context(
            open_pool([Work], workers=workers, engine=engine, grace_period=0, **options)
        )
        for index in range(number):
            callers.start_soon(call, pool.with_options(key=index) if keys else pool)
        found = Crowd(pool, engine, watch, scope, callers.cancel_scope)
        await watch.until(lambda: _accepted(pool) >= number)
        await found.settled()
        yield found
        if not scope.cancel_called:
            callers.cancel_scope.cancel()
            await watch.until(lambda: not callers.child_tasks)


def _accepted(pool: Pool) -> int:
    now = pool.statistics()
    return now.queued + now.running
