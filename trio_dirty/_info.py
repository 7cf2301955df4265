"""What an action can ask about the worker that executes it. Imports nothing of trio."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple


class WorkerInfo(NamedTuple):
    """Where an action runs.

    Attributes:
        slot: the index of the worker's slot.
        worker: the worker's number; no other worker of the pool has it.
        pid: its process.
    """

    slot: int
    worker: int
    pid: int


current_worker: ContextVar[WorkerInfo] = ContextVar("current_worker")


def worker_info() -> WorkerInfo:
    """Return the slot, the number and the process of the worker that calls this.

    Raises:
        RuntimeError: it was not called in a worker, by an action or an app's ``init()``.
    """
    try:
        return current_worker.get()
    except LookupError:
        raise RuntimeError("worker_info() must be called in a worker of a pool") from None
