"""Events with payloads, on worker processes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from trio_dirty import open_pool

from ..work import Work
from .payloads import MAKERS, Payloads

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from trio_dirty import Pool

    from .watch import Watch

# What crosses is made before the span and freed after it: what both cost is the caller's own.


@dataclass(frozen=True, slots=True)
class Argument:
    """A payload is sent to a worker."""

    kind: str

    async def __call__(self, watch: Watch, size: int) -> None:
        """Send one."""
        payload = MAKERS[self.kind](size)
        async with opened() as pool, watch.span():
            await pool.run_sync(Payloads.take, payload)


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A payload is sent to two workers."""

    kind: str

    async def __call__(self, watch: Watch, size: int) -> None:
        """Send one."""
        payload = MAKERS[self.kind](size)
        async with opened(2) as pool, watch.span():
            await pool.broadcast(Payloads.take, payload)


@dataclass(frozen=True, slots=True)
class Refused:
    """A payload cannot be pickled."""

    kind: str

    async def __call__(self, watch: Watch, size: int) -> None:
        """Try to send it."""
        payload = MAKERS[self.kind](size)
        error = None
        async with opened() as pool, watch.span():
            try:
                await pool.run_sync(Payloads.take, payload)
            except TypeError as refusal:
                error = refusal
        assert error is not None


@dataclass(frozen=True, slots=True)
class Regretted:
    """A caller leaves while its payload is on its way."""

    kind: str

    async def __call__(self, watch: Watch, size: int) -> None:
        """Leave after a moment, and wait until the worker is free again."""
        payload = MAKERS[self.kind](size)
        async with opened() as pool, watch.span():
            with trio.move_on_after(0.02):
                await pool.run_sync(Payloads.take, payload)
            await pool.run_sync(Work.noop)


@dataclass(frozen=True, slots=True)
class Result:
    """A worker returns a payload."""

    kind: str

    async def __call__(self, watch: Watch, size: int) -> None:
        """Take one."""
        result = None
        async with opened() as pool, watch.span():
            result = await pool.run_sync(Payloads.give, self.kind, size)
        del result


@dataclass(frozen=True, slots=True)
class Raised:
    """A worker raises an exception that carries a payload."""

    kind: str

    async def __call__(self, watch: Watch, size: int) -> None:
        """Catch one."""
        error = None
        async with opened() as pool, watch.span():
            try:
                await pool.run_sync(Payloads.fail, self.kind, size)
            except ValueError as raised:
                error = raised
        assert error is not None


@dataclass(frozen=True, slots=True)
class Chunks:
    """A worker yields payloads."""

    kind: str
    number: int

    async def __call__(self, watch: Watch, size: int) -> None:
        """Read all of them."""
        kept: list[object] = []
        async with (
            opened() as pool,
            watch.span(),
            pool.stream(Payloads.chunks, self.kind, size, self.number) as chunks,
        ):
            async for chunk in chunks:
                kept.append(chunk)
        assert len(kept) == self.number


async def many_chunks(watch: Watch, size: int) -> None:
    """Read so many small chunks."""
    async with (
        opened() as pool,
        watch.span(),
        pool.stream(Payloads.chunks, "bytes", 10, size) as chunks,
    ):
        async for _ in chunks:
            pass


async def flood(watch: Watch, size: int) -> None:
    """Have so many callers call a no-op at once."""
    async with opened() as pool, watch.span(), trio.open_nursery() as nursery:
        with watch.uncounted():
            for _ in range(size):
                nursery.start_soon(pool.run_sync, Work.noop)


async def block(watch: Watch, size: int) -> None:
    """Open and leave a pool of so many processes."""
    async with watch.span(), open_pool([Work], workers=size):
        pass


async def served_block(watch: Watch, size: int) -> None:
    """Leave a pool of one process where so many callers wait for no-ops."""
    async with (
        trio.open_nursery() as callers,
        watch.span(),
        open_pool([Work], workers=1) as pool,
    ):
        with watch.uncounted():
            for _ in range(size):
                callers.start_soon(call_noop, pool)
        await trio.lowlevel.checkpoint()


async def call_noop(pool: Pool) -> None:
    """Call, whether or not the pool is closed by then."""
    with suppress(trio.ClosedResourceError):
        await pool.run_sync(Work.noop)


def opened(workers: int = 1) -> AbstractAsyncContextManager[Pool]:
    """Open a pool whose workers take and give payloads."""
    return open_pool([Payloads, Work], workers=workers)
