"""What a pool tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from .durations import Percentiles

if TYPE_CHECKING:
    from collections.abc import Mapping

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
leave; the pool's closing, which nobody succeeds."""

Restarts: TypeAlias = dict[Cause, int]

SlotState: TypeAlias = Literal["booting", "ready", "draining", "backing_off", "failed"]


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
