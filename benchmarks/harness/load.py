"""Clients that call one request after the other, and what became of their calls."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import trio

from .words import error_in_words

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


@dataclass(frozen=True, slots=True)
class Load:
    """What became of a number of requests.

    Attributes:
        seconds: from the first call to the last end.
        latencies: seconds of each request that succeeded.
        errors: one text for each request that failed.
    """

    seconds: float
    latencies: list[float]
    errors: list[str]

    @property
    def rate(self) -> float:
        """Successful requests a second."""
        return len(self.latencies) / self.seconds


def shares(total: int, parts: int) -> list[int]:
    """Divide a number into parts that differ by at most one, larger ones first."""
    each, rest = divmod(total, parts)
    return [each + (index < rest) for index in range(parts)]


class _Tally:
    """What has become of the calls so far."""

    def __init__(self) -> None:
        self._latencies: list[float] = []
        self._errors: list[str] = []
        self._started = perf_counter()

    async def make(self, call: Callable[[], Awaitable[object]]) -> None:
        """Make a call, and note how it ends."""
        began = perf_counter()
        try:
            await call()
        except Exception as error:
            self._errors.append(error_in_words(error))
            await trio.lowlevel.checkpoint()  # what fails at once must not hold the loop
        else:
            self._latencies.append(perf_counter() - began)

    def load(self) -> Load:
        """Return it, when the last call has ended."""
        return Load(perf_counter() - self._started, self._latencies, self._errors)


async def drive(call: Callable[[], Awaitable[object]], *, clients: int, requests: int) -> Load:
    """Let each client, a task, make its share of the requests, one after the other."""
    tally = _Tally()

    async def client(share: int) -> None:
        for _ in range(share):
            await tally.make(call)

    async with trio.open_nursery() as nursery:
        for share in shares(requests, clients):
            nursery.start_soon(client, share)
    return tally.load()


async def drive_during(
    during: Callable[[], Awaitable[object]],
    calls: Sequence[Callable[[], Awaitable[object]]],
    *,
    clients: int,
) -> Load:
    """Let each client make one request after the other, until something else has ended.

    The clients divide the calls between them: each makes only one.
    """
    tally = _Tally()
    is_over = False

    async def client(call: Callable[[], Awaitable[object]]) -> None:
        while not is_over:
            await tally.make(call)

    async with trio.open_nursery() as nursery:
        for index in range(clients):
            nursery.start_soon(client, calls[index % len(calls)])
        await during()
        is_over = True
    return tally.load()
