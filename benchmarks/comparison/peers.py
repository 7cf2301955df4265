"""What trio_dirty is compared with, and itself, behind one interface."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import trio
import trio_parallel

from trio_dirty import open_pool

from ..harness.load import Load, drive
from ..work import FUNCTIONS, Work, noop
from .executors import METHODS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from trio_dirty import Pool

    from .catalogue import Job


class Peer(Protocol):
    """Something that executes functions in processes."""

    @property
    def name(self) -> str:
        """What it is called in the tables."""

    async def one_at_a_time(self, requests: int) -> list[float]:
        """Return the seconds of each of a number of no-op requests."""

    async def flood(self, job: Job, *, clients: int, requests: int) -> Load:
        """Let clients make requests between them."""


class TrioDirty:
    """A pool of trio_dirty."""

    name = "trio_dirty"

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def one_at_a_time(self, requests: int) -> list[float]:
        """See `Peer`."""
        return await _one_at_a_time(partial(self._pool.run_sync, Work.noop), requests)

    async def flood(self, job: Job, *, clients: int, requests: int) -> Load:
        """See `Peer`."""
        call = partial(self._pool.run_sync, getattr(Work, job.action), *job.args)
        return await drive(call, clients=clients, requests=requests)


class TrioParallel:
    """`trio_parallel.run_sync` as it comes, but that floods get as many tokens as workers."""

    name = "trio_parallel"

    def __init__(self, workers: int) -> None:
        self._limiter = trio.CapacityLimiter(workers)

    async def one_at_a_time(self, requests: int) -> list[float]:
        """See `Peer`."""
        return await _one_at_a_time(partial(trio_parallel.run_sync, noop), requests)

    async def flood(self, job: Job, *, clients: int, requests: int) -> Load:
        """See `Peer`."""
        call = partial(
            trio_parallel.run_sync, FUNCTIONS[job.action], *job.args, limiter=self._limiter
        )
        return await drive(call, clients=clients, requests=requests)


class Executor:
    """A `ProcessPoolExecutor` in the process that serves `benchmarks.comparison.executors`."""

    def __init__(self, process: subprocess.Popen[str], method: str) -> None:
        self.name = f"concurrent.futures ({method})"
        self._process = process
        self._method = method

    async def one_at_a_time(self, requests: int) -> list[float]:
        """See `Peer`."""
        answer = await self._ask(clients=None, requests=requests)
        return list(answer["latencies"])

    async def flood(self, job: Job, *, clients: int, requests: int) -> Load:
        """See `Peer`."""
        answer = await self._ask(
            action=job.action, args=job.args, clients=clients, requests=requests
        )
        return Load(**answer)

    async def _ask(self, **question: object) -> dict[str, Any]:
        line = json.dumps({"method": self._method, **question})
        return await trio.to_thread.run_sync(self._exchange, line, abandon_on_cancel=True)

    def _exchange(self, line: str) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(line + "\n")
        stdin.flush()
        answer: dict[str, Any] = json.loads(stdout.readline())
        return answer


async def _one_at_a_time(call: Callable[[], Awaitable[object]], requests: int) -> list[float]:
    latencies = []
    for _ in range(requests):
        began = perf_counter()
        await call()
        latencies.append(perf_counter() - began)
    return latencies


@contextmanager
def _executors(workers: int) -> Iterator[list[Peer]]:
    command = [sys.executable, "-m", "benchmarks.comparison.executors", str(workers)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # ready
        yield [Executor(process, method) for method in METHODS]


@asynccontextmanager
async def open_peers(workers: int) -> AsyncIterator[list[Peer]]:
    """Start them all, trio_dirty first in the list."""
    with _executors(workers) as executors:
        async with open_pool([Work], workers=workers) as pool:
            yield [TrioDirty(pool), TrioParallel(workers), *executors]
