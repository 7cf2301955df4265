"""What a pool tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ._durations import Percentiles

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
            next worker waits for its turn to start; ``"failed"``: there will be none.
        apps: the apps that the slot carries, as ``"module:Class"``.
        queued: requests given to the slot that have not begun, sent ahead or not.
        running: requests that a lane executes, abandoned ones included.
        abandoned: those of them whose callers have left.
        completed: requests that ended with a result or with the app's exception.
        failed: requests that failed because a worker died.
        restarts: workers of this slot after its first.
        waiting: from acceptance to the beginning of execution, for completed requests.
        execution: as measured in the worker, for completed requests.
    """

    slot: int
    worker: int
    pid: int | None
    state: SlotState
    apps: tuple[str, ...]
    queued: int
    running: int
    abandoned: int
    completed: int
    failed: int
    restarts: int
    waiting: Percentiles
    execution: Percentiles


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A pool at one moment: its slots, and totals over them.

    Attributes:
        workers: one for each slot, in the order of the slots.
        queued: requests that have not begun, those waiting for a slot included.
        running, abandoned, completed, failed, restarts: sums over the slots.
        waiting, execution: over the completed requests of all slots.
    """

    workers: tuple[WorkerStatistics, ...]
    queued: int
    running: int
    abandoned: int
    completed: int
    failed: int
    restarts: int
    waiting: Percentiles
    execution: Percentiles
