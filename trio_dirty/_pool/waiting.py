"""Tasks that wait until something has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


class Waiters:
    """Tasks that look again whenever something has changed: a condition variable without a lock.

    What changes announces that itself, through `wake`, so that no caller can forget it.
    """

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: list[trio.lowlevel.Task] = []

    def wake(self) -> None:
        """Let all that wait look again."""
        # Not a `trio.lowlevel.ParkingLot`, which takes four times as long for the one task that
        # there usually is; each request wakes two.
        if self._tasks:
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                trio.lowlevel.reschedule(task)

    async def wait(self) -> None:
        """Wait until something has changed."""
        task = trio.lowlevel.current_task()

        def abort(_: Callable[[], Any]) -> trio.lowlevel.Abort:
            self._tasks.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._tasks.append(task)
        await trio.lowlevel.wait_task_rescheduled(abort)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition is met, which is looked at now and whenever something changes."""
        while not condition():
            await self.wait()
