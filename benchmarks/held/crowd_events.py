"""What happens to pools where many requests wait. Their workers are simulated."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from trio_dirty import PoolBusyError, open_pool
from trio_dirty.testing import SimEngine

from ..work import Work
from .crowds import Endless, call, crowd

if TYPE_CHECKING:
    from .watch import Watch

SLOTS = 64
TIMES = 20


@dataclass(frozen=True, slots=True)
class Crash:
    """A worker dies, in whose slot so many requests wait."""

    workers: int

    async def __call__(self, watch: Watch, size: int) -> None:
        """Kill the first one, and wait until another has its place."""
        async with (
            crowd(watch, size * self.workers, workers=self.workers) as found,
            watch.span(),
        ):
            found.engine.crash(0)
            await found.settled()


@dataclass(frozen=True, slots=True)
class CrashOfKeys:
    """A worker dies, in whose slot so many requests wait, each with a key of its own."""

    async def __call__(self, watch: Watch, size: int) -> None:
        """Kill the first one, and wait until another has its place."""
        async with crowd(watch, 2 * size, workers=2, keys=True) as found, watch.span():
            found.engine.crash(0)
            await found.settled()


async def fail(watch: Watch, size: int) -> None:
    """Have the only slot fail, where so many wait."""
    async with crowd(watch, size, workers=1, boots=False) as found, watch.span():
        found.engine.crash(0)
        await watch.until(lambda: found.pool.statistics().workers[0].state == "failed")
        await found.settled()


async def cancel(watch: Watch, size: int) -> None:
    """Have so many callers leave at once."""
    async with crowd(watch, size, workers=2) as found, watch.span():
        found.callers.cancel()
        await found.settled()


@dataclass(frozen=True, slots=True)
class LeaveCancelled:
    """The block of a pool is cancelled, where so many callers wait."""

    with_callers: bool

    async def __call__(self, watch: Watch, size: int) -> None:
        """Cancel it, alone or with them."""
        left, ready, go = trio.Event(), trio.Event(), trio.Event()

        async def hold() -> None:
            async with crowd(watch, size, workers=2) as found:
                ready.set()
                await go.wait()
                if self.with_callers:
                    found.callers.cancel()
                found.scope.cancel()
            left.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            await ready.wait()
            async with watch.span():
                go.set()
                await left.wait()


async def leave(watch: Watch, size: int) -> None:
    """Leave a pool whose time for serving so many is over at once."""
    left, ready, go = trio.Event(), trio.Event(), trio.Event()

    async def hold() -> None:
        async with (
            trio.open_nursery() as callers,
            open_pool([Work], workers=2, engine=SimEngine(Endless()), grace_period=0) as pool,
        ):
            for _ in range(size):
                callers.start_soon(call, pool)
            await watch.until(lambda: pool.statistics().queued >= size - 2)
            ready.set()
            await go.wait()
        left.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await ready.wait()
        async with watch.span():
            go.set()
            await left.wait()


@dataclass(frozen=True, slots=True)
class Resize:
    """A pool where so many requests wait gets another number of slots."""

    before: int
    after: int
    keys: bool = False

    async def __call__(self, watch: Watch, size: int) -> None:
        """Resize it."""
        async with (
            crowd(watch, size, workers=self.before, keys=self.keys) as found,
            trio.open_nursery() as nursery,
        ):
            async with watch.span():
                nursery.start_soon(found.pool.resize, self.after)
                await found.settled()
            nursery.cancel_scope.cancel()


async def reload(watch: Watch, size: int) -> None:
    """Replace both workers of a pool where so many requests wait."""
    async with crowd(watch, size, workers=2) as found, watch.span():
        await found.pool.reload()
        await found.settled()


async def statistics(watch: Watch, size: int) -> None:
    """Ask a pool of many slots, where so many wait, for its statistics."""
    async with crowd(watch, size, workers=SLOTS) as found, watch.span():
        for _ in range(TIMES):
            found.pool.statistics()
            await trio.lowlevel.checkpoint()


async def statistics_of_many(watch: Watch, size: int) -> None:
    """Ask a pool of so many slots, each of which has completed requests, for its statistics."""
    async with open_pool([Work], workers=size, engine=SimEngine(Endless())) as pool:
        async with trio.open_nursery() as callers:
            for _ in range(100 * size):
                callers.start_soon(pool.run_sync, Work.noop)
        async with watch.span():
            for _ in range(TIMES):
                pool.statistics()
                await trio.lowlevel.checkpoint()


async def broadcast(watch: Watch, size: int) -> None:
    """Call each worker of a pool of so many."""
    async with (
        open_pool([Work], workers=size, engine=SimEngine(Endless())) as pool,
        watch.span(),
    ):
        for _ in range(TIMES):
            await pool.broadcast(Work.noop)


async def cancel_broadcast(watch: Watch, size: int) -> None:
    """Give up a broadcast to many slots, in which so many requests wait before it."""
    async with crowd(watch, size, workers=SLOTS) as found, watch.span():
        with trio.move_on_after(0.1):
            await found.pool.broadcast(Work.noop)
        await found.settled()


async def block(watch: Watch, size: int) -> None:
    """Open and leave a pool of so many slots."""
    async with watch.span(), open_pool([Work], workers=size, engine=SimEngine()):
        pass


@dataclass(frozen=True, slots=True)
class Refused:
    """A call is refused, because every slot has so many requests that wait."""

    key: object = None
    routing: str = "round_robin"

    async def __call__(self, watch: Watch, size: int) -> None:
        """Try a number of times."""
        number = SLOTS * (size + 1)
        async with crowd(
            watch, number, workers=SLOTS, max_queue=size, routing=self.routing
        ) as found:
            view = found.pool.with_options(key=self.key)
            async with watch.span():
                for _ in range(TIMES):
                    with suppress(PoolBusyError):
                        await view.run_sync(Work.echo, None)
                        raise AssertionError("it was not refused")


async def deadlines(watch: Watch, size: int) -> None:
    """Have the deadlines of so many callers expire at the same moment."""
    deadline = trio.current_time() + 3600
    scopes = [trio.CancelScope(deadline=deadline) for _ in range(size)]

    async def caller(scope: trio.CancelScope) -> None:
        with scope:
            await pool.run_sync(Work.echo, None)

    async with (
        open_pool([Work], workers=2, engine=SimEngine(Endless()), grace_period=0) as pool,
        trio.open_nursery() as callers,
    ):
        for scope in scopes:
            callers.start_soon(caller, scope)
        await watch.until(lambda: pool.statistics().queued >= size - 2)
        async with watch.span():
            with watch.uncounted():
                now = trio.current_time() + 0.2
                for scope in scopes:
                    scope.deadline = now
            await watch.until(lambda: pool.statistics().queued == 0)
