"""Processes, descriptors, threads and memory of this program."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import psutil
import trio

from ..harness.figures import Figure
from ..harness.polling import wait_until

LOOK_SECONDS = 0.1
PATIENCE = 20.0
"""Seconds for threads to end: trio keeps idle ones for ten."""

GROWTH = 1.1
SLACK_MB = 8
"""Memory that has grown by at most both together has not grown."""

LEVEL_SECONDS = 60.0
"""In a shorter run growth says nothing: the allocator's caches have not filled yet."""


@dataclass(frozen=True, slots=True)
class Census:
    """What this program has at one moment: child processes, descriptors and threads."""

    processes: int
    descriptors: int
    threads: int

    @classmethod
    def now(cls) -> Census:
        """Count."""
        this = psutil.Process()
        with this.oneshot():
            return cls(len(this.children(recursive=True)), this.num_fds(), this.num_threads())

    def exceeds(self, other: Census) -> bool:
        """Whether there is more of anything."""
        return (
            self.processes > other.processes
            or self.descriptors > other.descriptors
            or self.threads > other.threads
        )


async def back_to(before: Census) -> Census:
    """Wait until there is no more than before, for `PATIENCE` at most; return what there is."""
    with suppress(trio.TooSlowError):
        await wait_until(
            lambda: not Census.now().exceeds(before), every=LOOK_SECONDS, patience=PATIENCE
        )
    return Census.now()


def compare(before: Census, after: Census) -> list[Figure]:
    """Return what there is as figures; none may be more than before."""
    rows = (
        ("processes of this program, after", before.processes, after.processes),
        ("descriptors, after", before.descriptors, after.descriptors),
        ("threads, after", before.threads, after.threads),
    )
    return [Figure(what, now, "", at_most=then, note=f"before: {then}") for what, then, now in rows]


@dataclass(frozen=True, slots=True)
class Memory:
    """This program's resident bytes, after so many seconds of the run."""

    seconds: float
    resident: float


def compare_memory(points: list[Memory]) -> list[Figure]:
    """Return the memory at each point; the last may not be much more than the first."""
    if not points:
        return []
    first, last = points[0], points[-1]
    figures = [
        Figure(f"resident memory after {point.seconds:.0f} s", point.resident / 1e6, "MB")
        for point in points[:-1]
    ]
    limit = round(first.resident / 1e6 * GROWTH + SLACK_MB, 1)
    long = last.seconds - first.seconds >= LEVEL_SECONDS
    figures.append(
        Figure(
            f"resident memory after {last.seconds:.0f} s, at the end",
            last.resident / 1e6,
            "MB",
            at_most=limit if long else None,
            note="" if long else "too short a run to judge it",
        )
    )
    return figures
