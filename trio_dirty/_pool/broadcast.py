"""One call that every worker executes: a request for each slot, and the caller who waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import outcome
import trio

from .._rules.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._rules.targets import Target


class Part(Request):
    """The request of one slot.

    Args:
        pinned: the slot.
        args: those of `Request`.

    Attributes:
        result: what it ended with; None as long as it has not.
        ended: to be called when it has.
    """

    __slots__ = ("ended", "pinned", "result")

    def __init__(self, *args: Any, pinned: int) -> None:
        super().__init__(*args)
        self.pinned = pinned
        self.result: outcome.Outcome[Any] | None = None
        self.ended: Callable[[], object] = _do_nothing

    def succeed(self, value: Any) -> None:
        """End it with a result."""
        self._end(outcome.Value(value))

    def fail(self, error: BaseException) -> None:
        """End it with an exception."""
        self._end(outcome.Error(error))

    def skip(self) -> None:
        """End one that was withdrawn in time."""
        self._end(None)

    def _end(self, result: outcome.Outcome[Any] | None) -> None:
        self.frames = ()
        if self.awaited:
            self.awaited = False
            self.result = result
            self.ended()


def _do_nothing() -> None:
    """For a part that ends before its broadcast is waited for."""


class Broadcast:
    """The parts of one broadcast, which have just been accepted, and their caller."""

    def __init__(self, target: Target, parts: Sequence[Part]) -> None:
        self._target = target
        self._parts = parts
        self._task = trio.lowlevel.current_task()
        self._raise_cancel: Callable[[], Any] | None = None
        for part in parts:
            part.ended = self._look

    async def results(self) -> list[Any]:
        """Wait for all; return their results in order.

        Raises:
            ExceptionGroup: what those that failed have raised, in order.
        """
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        errors = [
            part.result.error for part in self._parts if isinstance(part.result, outcome.Error)
        ]
        if errors:
            count = f"{len(errors)} of {len(self._parts)}"
            raise BaseExceptionGroup(f"{self._target} failed on {count} workers", errors)
        return [part.result.value for part in self._parts if isinstance(part.result, outcome.Value)]

    def _look(self) -> None:
        """Go on when the last part has ended."""
        if any(part.awaited for part in self._parts):
            return
        if self._raise_cancel is not None and any(part.result is None for part in self._parts):
            trio.lowlevel.reschedule(self._task, outcome.capture(self._raise_cancel))
        else:
            trio.lowlevel.reschedule(self._task)

    def _abort(self, raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
        """Let the cancelled caller leave: at once, unless it wants to wait for the end."""
        if self._raise_cancel is not None:
            return trio.lowlevel.Abort.FAILED
        waiting = [part for part in self._parts if part.awaited]
        for part in waiting:
            part.cancelled = True
            part.ended = _do_nothing
            part.awaited = part.limits.on_cancel == "wait"
            part.place.withdraw(part)
            part.ended = self._look
        if not any(part.awaited for part in waiting):
            return trio.lowlevel.Abort.SUCCEEDED
        self._raise_cancel = raise_cancel
        return trio.lowlevel.Abort.FAILED
