"""What `Pool.statistics` returns, and percentiles of durations in constant memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Literal, TypeAlias

from fastdigest import TDigest

if TYPE_CHECKING:
    from collections.abc import Mapping

CENTROIDS = 100
"""Dunning, *Computing Extremely Accurate Quantiles Using t-Digests* (2019): the error of
a percentile q is then about q (1 - q) / 25, smallest in the tails."""

PENDING_LIMIT = 512

Cause: TypeAlias = Literal[
    "crashed",
    "killed",
    "unresponsive",
    "boot_failed",
    "max_requests",
    "max_memory",
    "max_lifetime",
    "reload",
    "resize",
    "closing",
]
"""Why a worker was succeeded by another, or retired: it died; the pool killed it, for a time-out
or a cancelled caller; it stood still, idle or stopped; it could not boot; one of the options of
recycling; `Pool.reload`; `Pool.resize`, for which it had to carry another app, or its slot to
leave; the pool's closing."""

Restarts: TypeAlias = dict[Cause, int]

SlotState: TypeAlias = Literal["booting", "ready", "draining", "backing_off", "failed"]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """How long something took, in seconds; all nan while ``count`` is 0.

    Percentiles are estimates of a t-digest; ``count`` and ``max`` are exact.
    """

    count: int = 0
    p50: float = nan
    p95: float = nan
    p99: float = nan
    max: float = nan


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """One slot and its present worker.

    Attributes:
        slot: the slot's index, from 0.
        worker: the number of its present or latest worker; no number is used twice.
        pid: the worker's process; None while there is none.
        state: ``"booting"``: a worker is starting; ``"ready"``: it takes requests;
            ``"draining"``: it serves what it has, and then closes; ``"backing_off"``: the
            next worker waits for its turn to start; ``"failed"``: there will be none, unless
            `Pool.reload` has success.
        failure: why the slot has failed, if it has.
        apps: the apps that the slot carries, as ``"module:Class"``.
        queued: requests given to the slot that have not begun, sent ahead or not.
        running: requests that a lane executes, abandoned ones included.
        abandoned: those of them whose callers have left.
        completed: requests that ended with a result or with the app's exception.
        failed: requests that failed because a worker died.
        restarts: workers of this slot after its first.
        restarts_by_cause: the same, by the cause for which each was started.
        utilisation: the share of the time since the slot was opened for which its lanes have been
            executing, from 0 to 1; of requests that have not ended as well.
        waiting: from acceptance to the beginning of execution, for completed requests.
        execution: as measured in the worker, for completed requests.
    """

    slot: int
    worker: int
    pid: int | None
    state: SlotState
    failure: str | None
    apps: tuple[str, ...]
    queued: int
    running: int
    abandoned: int
    completed: int
    failed: int
    restarts: int
    restarts_by_cause: Mapping[Cause, int]
    utilisation: float
    waiting: Percentiles
    execution: Percentiles


@dataclass(frozen=True, slots=True)
class AppStatistics:
    """One app, or all plain functions, over all slots that there have been.

    Attributes:
        app: ``"module:Class"``; None for plain functions.
        slots: the indices of the slots that carry it and have not failed.
        waiting, execution: of its completed requests, see `WorkerStatistics`.
    """

    app: str | None
    slots: tuple[int, ...]
    waiting: Percentiles
    execution: Percentiles


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A pool at one moment: its slots and apps, and totals.

    Attributes:
        workers: one for each slot, in the order of the slots; those that leave included.
        apps: one for each app, in the order in which they were given, and behind them one for
            plain functions.
        queued: requests that have not begun, those waiting for a slot included.
        running, abandoned: sums over the slots.
        completed, failed, restarts, restarts_by_cause: sums over the slots, those included that
            have left the pool.
        utilisation: the mean over the slots.
        waiting, execution: over all completed requests.
    """

    workers: tuple[WorkerStatistics, ...]
    apps: tuple[AppStatistics, ...]
    queued: int
    running: int
    abandoned: int
    completed: int
    failed: int
    restarts: int
    restarts_by_cause: Mapping[Cause, int]
    utilisation: float
    waiting: Percentiles
    execution: Percentiles


class Durations:
    """Takes how long requests of each app waited and were executed, and summarises it.

    They are kept in a list and digested by the hundreds: one at a time would cost the path
    of each request a microsecond.
    """

    __slots__ = ("_digests", "_pending", "_seconds")

    def __init__(self) -> None:
        self._digests: dict[int | None, tuple[TDigest, TDigest]] = {}
        self._pending: list[tuple[int | None, float, float]] = []
        self._seconds = 0.0

    def add(self, app: int | None, waiting: float, execution: float) -> None:
        """Take the two durations of a request, in seconds."""
        self._pending.append((app, waiting, execution))
        if len(self._pending) == PENDING_LIMIT:
            self._digest_pending()

    def add_unfinished(self, seconds: float) -> None:
        """Take how long a request was executed whose worker died of it, or with it."""
        self._seconds += seconds

    @property
    def seconds(self) -> float:
        """The sum of the executions, unfinished ones included."""
        self._digest_pending()
        return self._seconds

    def absorb(self, other: Durations) -> None:
        """Take in all that another one has taken."""
        other._digest_pending()
        self._seconds += other._seconds
        for app, (waiting, execution) in other._digests.items():
            mine = self._of(app)
            self._digests[app] = mine[0].merge(waiting), mine[1].merge(execution)

    def _of(self, app: int | None) -> tuple[TDigest, TDigest]:
        return self._digests.get(app) or (TDigest(CENTROIDS), TDigest(CENTROIDS))

    def _digest_pending(self) -> None:
        by_app: dict[int | None, tuple[list[float], list[float]]] = {}
        for app, waiting, execution in self._pending:
            if app not in by_app:
                by_app[app] = [], []
            by_app[app][0].append(waiting)
            by_app[app][1].append(execution)
            self._seconds += execution
        self._pending.clear()
        for app, durations in by_app.items():
            digests = self._digests[app] = self._of(app)
            for digest, seconds in zip(digests, durations, strict=True):
                digest.batch_update(seconds)

    def summary(self, *apps: int | None) -> tuple[Percentiles, Percentiles]:
        """Return the percentiles of waiting and of execution, over some apps, or over all."""
        self._digest_pending()
        totals = TDigest(CENTROIDS), TDigest(CENTROIDS)
        for app in apps or self._digests:
            waiting, execution = self._of(app)
            totals = totals[0].merge(waiting), totals[1].merge(execution)
        return _percentiles(totals[0]), _percentiles(totals[1])


def _percentiles(digest: TDigest) -> Percentiles:
    if not digest.n_values:
        return Percentiles()
    largest = digest.max()
    # Interpolation may round to one bit above it.
    p50, p95, p99 = (min(digest.percentile(percent), largest) for percent in (50, 95, 99))
    return Percentiles(digest.n_values, p50, p95, p99, largest)
