"""The life of one pool, from the start of the first worker to the end of the last."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from .closing import Rest
from .scaling import Scaling
from .slot import ROUTED_AT_ONCE
from .slots import Slots

if TYPE_CHECKING:
    from .._engines.contract import Engine
    from .._rules.options import Options


class Supervisor:
    """Has every slot served, and settles what is left when that ends.

    Attributes:
        slots: the slots.
        scaling: how many slots there are to be.
    """

    def __init__(self, options: Options, engine: Engine) -> None:
        self._options = options
        self._look_seconds = engine.look_seconds
        self.slots = Slots(options, engine)
        self.scaling = Scaling(self.slots, options.workers)

    async def boot(self, nursery: trio.Nursery) -> None:
        """Start every slot, and wait until each has a worker that has booted.

        Raises:
            AppLoadError: one could not boot. The others are being killed.
        """
        slots, limits = self.slots, self._options.app_limits
        slots.use(nursery)
        nursery.start_soon(self._route_displaced)
        unknown = [app for app, limit in enumerate(limits) if limit is None]
        if unknown:
            slots.open_first(unknown)
        else:
            slots.app_limits = [math.inf if limit is None else limit for limit in limits]
            slots.open(self._options.workers)
        await slots.progress.until(self._has_booted)
        slots.is_open = True
        nursery.start_soon(self.scaling.run)
        if self._look_seconds < math.inf:
            nursery.start_soon(self._look_after_workers)

    def _has_booted(self) -> bool:
        """Whether all slots have a worker.

        Raises:
            AppLoadError: one could not boot.
        """
        slots = self.slots.all
        for slot in slots:
            if slot.life.failure is not None:
                raise slot.life.failure
        return len(slots) == self._options.workers and all(each.life.has_booted for each in slots)

    # While it lives

    async def _route_displaced(self) -> None:
        """Route, some at a time, what a lost slot had waiting, where that was very much."""
        dispatcher = self.slots.dispatcher
        while True:
            await self.slots.displacement.until(lambda: dispatcher.has_displaced)
            dispatcher.route_displaced(ROUTED_AT_ONCE)
            await trio.lowlevel.checkpoint()

    async def _look_after_workers(self) -> None:
        """Notice workers that stand still."""
        while True:
            await trio.sleep(self._look_seconds)
            for slot in self.slots.all:
                for worker in slot.workers:
                    worker.look_after()

    # The end

    async def serve_rest(self) -> None:
        """Wait until all that was accepted has ended, then until every worker has closed."""
        slots = self.slots
        self.scaling.stop()
        with trio.move_on_after(self._options.grace_period) as waiting:
            await slots.progress.until(lambda: not slots.is_busy)
            for replacement in slots.replacements:
                replacement.close()
            for replacement in slots.replacements:
                await replacement.closed.wait()
        if waiting.cancelled_caught:
            # Their own time may be over at this very moment, too.
            for slot in slots.all:
                for worker in slot.workers:
                    worker.kill_overdue()

    @trio.lowlevel.enable_ki_protection
    async def settle_rest(self) -> None:
        """End, when no task is left to serve them, the requests that still wait.

        Some at a time, since there may be very many: the loop is not to be held.
        """
        rest = Rest(self._options.instruments)
        rest.take(self.slots.dispatcher.let_go())
        with trio.CancelScope(shield=True):
            for slot in self.slots.all:
                for requests in slot.let_go():
                    rest.take(requests)
                await rest.close()
            await rest.close()
        self.slots.progress.wake()
