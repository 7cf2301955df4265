"""All of it, from before the pool is opened until after it is closed."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import trio

from trio_dirty import open_pool

from ..harness.figures import Figure
from ..harness.process import children, resident, settled
from ..work import Empty
from .agents import Agents
from .census import Census, Memory, back_to, compare, compare_memory
from .clients import Clients
from .journal import Book, read_words
from .judge import ending_of, judge, offenders, places, weigh
from .plan import CHANGES, DEADLY, Kind, plan_faults
from .stderr import errors_to
from .work import LOG_VARIABLE, Witness

if TYPE_CHECKING:
    from trio_dirty import Pool, PoolStatistics

    from ..output.display import Countdown
    from .judge import Evidence

POINTS, LOOKS = 5, 10
"""How many stretches memory is judged over, and how often it is looked at in the later half
of each. The least counts: payloads under way come and go, and what leaks stays."""

PATIENCE = 60.0
"""Seconds for the last requests to end. Those that do not are lost."""

MOST_OFFENDERS = 5

MAX_REQUESTS = 10_000
"""A worker that lives so long is replaced every few seconds."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line wants."""

    seconds: float
    seed: int
    kills_per_second: float
    workers: int
    threads: int
    clients: int


@dataclass(slots=True)
class Findings:
    """What a run found: the figures of the table, and what is known of a few violations."""

    figures: list[Figure] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def violated(self) -> bool:
        """Whether anything is not as it must be."""
        return any(figure.reached is False for figure in self.figures)


async def run_chaos(settings: Settings, display: Countdown) -> Findings:
    """Run it all, and judge it."""
    threads = Census.now().threads
    # What the first pool of a program leaves behind for all others, multiprocessing's
    # resource tracker, is no leak.
    async with open_pool([Empty], workers=1):
        pass
    before = replace(Census.now(), threads=threads)
    resident_before = resident()
    with TemporaryDirectory(prefix="trio_dirty-chaos-") as directory:
        begun, ended = Path(directory, "begun"), Path(directory, "ended")
        os.environ[LOG_VARIABLE] = str(begun)
        errors = Path(directory, "errors")
        # In the loop only 64 KiB are written at a time, to the file of endings.
        with open(begun, "wb"), open(ended, "wb") as file, errors_to(errors):  # noqa: ASYNC230
            chaos = _Chaos(settings, Book(file), display)
            await chaos.run()
        display.tell("waiting for threads to end")
        after = await back_to(before)
        display.tell("comparing the logs")
        evidence = weigh(chaos.book.sent, read_words(ended), read_words(begun))
        figures = [
            *judge(
                evidence,
                chaos.clients.crashes,
                chaos.agents.met + chaos.clients.overdue,
                settings.threads,
            ),
            *chaos.figures(evidence),
            *compare(before, after),
            Figure("resident memory before the run", resident_before / 1e6, "MB"),
            *compare_memory(chaos.memory),
            Figure("resident memory after the run", resident() / 1e6, "MB"),
        ]
        return Findings(figures, [*chaos.clients.problems, *_describe(evidence, begun)])


class _Chaos:
    """The time during which the pool is open."""

    clients: Clients
    agents: Agents
    statistics: PoolStatistics

    def __init__(self, settings: Settings, book: Book, display: Countdown) -> None:
        self.book = book
        self.memory: list[Memory] = []
        self._settings = settings
        self._display = display
        self._started = 0.0
        self._called = 0.0

    async def run(self) -> None:
        """Let clients call and agents kill until the time is over; wait for the last answers."""
        settings = self._settings
        others = children()
        async with open_pool(
            [Witness],
            workers=settings.workers,
            threads=settings.threads,
            max_requests=MAX_REQUESTS,
        ) as pool:
            self.clients = Clients(pool, self.book, settings.seed)
            self._started = trio.current_time()
            async with trio.open_nursery() as requests:
                self.agents = Agents(pool, self.clients, requests, others)
                for index in range(settings.clients):
                    requests.start_soon(self.clients.client, index)
                await self._disturb(pool)
                self._called = trio.current_time() - self._started
                self.clients.stopping = True
                self._display.tell("waiting for the last requests")
                requests.cancel_scope.deadline = trio.current_time() + PATIENCE
            self.book.flush()
            self.statistics = pool.statistics()

    async def _disturb(self, pool: Pool) -> None:
        settings = self._settings
        faults = plan_faults(settings.seed, settings.kills_per_second)
        with trio.move_on_after(settings.seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.agents.run, faults)
                nursery.start_soon(self._show)
                nursery.start_soon(self._look_at_memory)
                await self.clients.given_up.wait()
                nursery.cancel_scope.cancel()

    async def _show(self) -> None:
        seconds, ended = 0.0, 0
        while True:
            await trio.sleep(self._display.interval)
            before, last = seconds, ended
            seconds = trio.current_time() - self._started
            ended = self.book.endings.total()
            rate = (ended - last) / (seconds - before)
            left = max(0.0, self._settings.seconds - seconds)
            self._display.tell(
                f"{ended:,} requests, {rate:,.0f}/s; {self.agents.kills:,} kills; "
                f"{left:.0f} s left",
                seconds,
            )

    async def _look_at_memory(self) -> None:
        stretch = 0.99 * self._settings.seconds / POINTS  # the end cancels this
        for point in range(POINTS):
            least = math.inf
            for look in range(1, LOOKS + 1):
                seconds = (point + (1 + look / LOOKS) / 2) * stretch
                await trio.sleep_until(self._started + seconds)
                least = min(least, settled())
            self.memory.append(Memory(seconds, least))

    def figures(self, evidence: Evidence) -> list[Figure]:
        """Return what was done to the workers, and what the pool says that it cost."""
        done, booting = self.agents.done, self.agents.booting
        begun = {Kind.EXIT: evidence.exits.total(), Kind.HOG: evidence.hogs.total()}
        totals = {kind: begun.get(kind, done[kind] + booting[kind]) for kind in Kind}
        failed = sum(worker.state == "failed" for worker in self.statistics.workers)
        kills = sum(totals[kind] for kind in DEADLY)
        return [
            Figure("requests ended a second", self._rate(), ""),
            Figure("kills", kills, "", note=f"{kills / self._called:.1f} a second"),
            *(
                Figure(
                    f"{'kills' if kind in DEADLY else 'faults'} by {kind.value}",
                    totals[kind],
                    "",
                    note=f"{booting[kind]} of them while booting" if booting[kind] else "",
                )
                for kind in Kind
                if kind not in CHANGES
            ),
            *(
                Figure(
                    f"times that the pool was told to {kind.value}",
                    totals[kind],
                    "",
                    note=f"{booting[kind]} failed since a new worker was killed"
                    if booting[kind]
                    else "",
                )
                for kind in CHANGES
            ),
            Figure("workers started after the first ones", self.statistics.restarts, ""),
            Figure(
                "slots given up for good",
                failed,
                "",
                note="seven of its workers in a row died unused" if failed else "",
            ),
        ]

    def _rate(self) -> float:
        return self.book.endings.total() / self._called


def _describe(evidence: Evidence, begun: Path) -> list[str]:
    """Return where the first few requests began that are not as they must be, in words."""
    numbers = offenders(evidence, MOST_OFFENDERS)
    where = [*places(numbers, read_words(begun))]
    return [
        f"request {number}, {ending_of(evidence.states[number]).name}, began in: "
        + (", ".join(f"worker {w} of slot {s}" for n, s, w in where if n == number) or "none")
        for number in numbers
    ]
