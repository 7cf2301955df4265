"""What an action can ask about its worker and its caller. Imports nothing of trio."""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple, Protocol


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


class Cancellable(Protocol):
    """The lane that executes an action."""

    def check_cancelled(self) -> None: ...


current_lane: ContextVar[Cancellable] = ContextVar("current_lane")


def check_cancelled() -> None:
    """Raise `RequestCancelled` in an action whose caller has left; else do nothing.

    An action that computes for long should call it now and then. A call takes 0.2 µs; at most
    once in 50 µs it reads from the pool's socket, which takes 1 µs. A caller has left when it
    was cancelled, or has left the block of its stream.

    Raises:
        RequestCancelled: the caller has left. It is a `BaseException`, so that ``except
            Exception`` does not catch it.
        RuntimeError: it was not called in a worker.
    """
    try:
        lane = current_lane.get()
    except LookupError:
        raise RuntimeError("check_cancelled() must be called in a worker of a pool") from None
    lane.check_cancelled()
