"""How long the event loop is held by large payloads."""

from __future__ import annotations

from math import inf
from time import perf_counter
from typing import TYPE_CHECKING

import trio

from trio_dirty import open_pool

from ..harness.figures import Figure, longest
from ..work import Work

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_dirty import Pool

    from ..output.display import Stage

HELD_MS = 20
TICK = 0.001


def large_bytes() -> object:
    """Return 200 MB."""
    return b"x" * 200_000_000


def many_strings() -> object:
    """Return 600,000 distinct strings."""
    return [f"distinct string {index}" for index in range(600_000)]


class Ticker:
    """Sleeps for a millisecond again and again; ``longest`` is its longest delay in seconds."""

    longest = 0.0

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            began = perf_counter()
            await trio.sleep(TICK)
            self.longest = max(self.longest, perf_counter() - began - TICK)


async def held(pool: Pool, payload: object) -> tuple[float, object]:
    """Return for how many milliseconds an echo held the loop, and the result.

    The caller keeps payload and result until the measured span is over: what freeing them
    costs is the caller's own.
    """
    ticker = Ticker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        await trio.sleep(0.02)
        result = await pool.run_sync(Work.echo, payload)
        await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    return 1000 * ticker.longest, result


async def undisturbed(seconds: float) -> float:
    """Return the longest delay of the ticker in milliseconds if nothing else runs."""
    ticker = Ticker()
    with trio.move_on_after(seconds):
        await ticker.run()
    return 1000 * ticker.longest


async def measure_loop(*, times: int, stage: Stage) -> list[Figure]:
    """Measure echoes of both payloads, and of none."""
    figures = []
    payloads: tuple[tuple[str, Callable[[], object]], ...] = (
        ("200 MB", large_bytes),
        ("600,000 strings", many_strings),
    )
    async with open_pool([Work], workers=1) as pool:
        for name, make in payloads:
            spans = []
            shortest = inf
            for _ in range(times):
                payload = make()
                began = perf_counter()
                span, result = await held(pool, payload)
                shortest = min(shortest, perf_counter() - began)
                spans.append(span)
                assert result == payload
                del payload, result
                stage.advance()
            figures.append(
                longest(
                    f"loop held during an echo of {name}",
                    spans,
                    "ms",
                    at_most=HELD_MS,
                    decimals=1,
                    note=f"; {shortest:.2f} s",
                )
            )
    figures.append(Figure("the same with no echo", await undisturbed(1), "ms", note="1 s"))
    stage.advance()
    return figures
