"""What trio itself takes for as many tasks: the same events without a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.lowlevel

if TYPE_CHECKING:
    from .watch import Watch


async def cancel(watch: Watch, size: int) -> None:
    """Cancel so many tasks at once that only sleep."""
    async with trio.open_nursery() as nursery:
        sleepers: trio.Nursery = await nursery.start(hold_nursery)
        for _ in range(size):
            sleepers.start_soon(trio.sleep_forever)
        await trio.lowlevel.checkpoint()
        async with watch.span():
            sleepers.cancel_scope.cancel()
            await watch.until(lambda: not sleepers.child_tasks)
        nursery.cancel_scope.cancel()


async def hold_nursery(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """Hold a nursery open whose cancellation cancels only its own tasks."""
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()


async def deadlines(watch: Watch, size: int) -> None:
    """Have the deadlines of so many tasks that only sleep expire at the same moment."""
    deadline = trio.current_time() + 3600
    scopes = [trio.CancelScope(deadline=deadline) for _ in range(size)]

    async def sleeper(scope: trio.CancelScope) -> None:
        with scope:
            await trio.sleep_forever()

    async with trio.open_nursery() as sleepers:
        for scope in scopes:
            sleepers.start_soon(sleeper, scope)
        await trio.lowlevel.checkpoint()
        async with watch.span():
            with watch.uncounted():
                now = trio.current_time() + 0.2
                for scope in scopes:
                    scope.deadline = now
            await watch.until(lambda: not sleepers.child_tasks)
