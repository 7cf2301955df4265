"""The task that keeps one worker to the time limits of what it executes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from .._common import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._rules.deadlines import Due
    from .worker import SlotWorker

LATE_SECONDS = 0.5
"""How late the loop may be before that is taken for a time in which nothing could run."""

LOOK_SECONDS = 0.001
"""How often to look whether a worker that is held has been read to its last word."""


class Enforcement:
    """Interrupts what a worker executes beyond its limits, and kills the worker for it.

    Args:
        worker: the worker.
        now: the engine's clock.
        look_seconds: how often to look at the clock.
        grace_period: seconds that the worker may take to close.
    """

    def __init__(
        self,
        worker: SlotWorker,
        now: Callable[[], float],
        *,
        look_seconds: float,
        grace_period: float,
    ) -> None:
        self._worker = worker
        self._now = now
        self._look_seconds = look_seconds
        self._grace_period = grace_period

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Do what is due, until the worker has closed, and see to it that it does."""
        worker = self._worker
        while not worker.was_told_to_close:
            self._look_at_transfers()
            due = worker.deadlines.due(self._now())
            if due is None:
                await self._until_due()
            elif due.action == "interrupt":
                number, reason = due.request.number, due.reason
                frame = wire.pair_frame(wire.INTERRUPT, number, reason, due.steps)
                worker.notify(frame, is_urgent=True)
            else:
                await self._kill(due)
        await trio.sleep(self._grace_period)
        worker.kill_overdue()

    def _look_at_transfers(self) -> None:
        """See which payloads move: the time for that does not count as execution."""
        worker, now = self._worker, self._now()
        deadlines = worker.deadlines
        for request in deadlines.watched:
            if request is worker.sending:
                deadlines.transferred(request.number, worker.worker.unsent, now)
                continue
            unreceived = worker.worker.unreceived(request.number)
            if unreceived is not None:
                deadlines.transferred(request.number, unreceived, now, is_answer=True)

    async def _until_due(self) -> None:
        """Wait until something is due or has changed.

        Clocks run on while the program is stopped, and usually its workers with it: a terminal's
        Ctrl-Z, a container that is paused. So it looks at the clock now and then. Where much more
        has passed than it wanted to wait, the time does not count: whether anything was executed
        then is not known, and no request is to be killed for it.
        """
        worker, now = self._worker, self._now
        looked = now()
        seconds = max(0.0, worker.deadlines.next_time() - looked)
        if seconds < math.inf:
            seconds = min(seconds, self._look_seconds)
        with trio.move_on_after(seconds):
            await worker.due_changed.wait()
        passed = now() - looked
        if passed > seconds + LATE_SECONDS and self._look_seconds < math.inf:
            worker.deadlines.paused(passed, now())

    async def _kill(self, due: Due) -> None:
        """Kill the worker for what it executes, if that is still so.

        The answer may lie unread, or be written in the very moment, and then the next request
        would be hit. So the worker is stopped first, and what it has written is read; in a
        thousand kills without that ten hit an innocent.
        """
        worker = self._worker
        await worker.worker.hold()
        while worker.worker.unread():
            with trio.move_on_after(LOOK_SECONDS):
                await worker.due_changed.wait()
        still = worker.deadlines.kill(due.request.number, self._now())
        if still is not None:
            worker.killed_for = still
            worker.worker.kill()
            await trio.sleep_forever()
        worker.worker.release()
