"""The slots of one pool, from the start of the first worker to the end of the last."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import trio

from ._dispatcher import Dispatcher
from ._durations import Durations
from ._slot import Slot
from ._statistics import PoolStatistics

if TYPE_CHECKING:
    from ._engine import Engine
    from ._options import Options
    from ._request import Request


class Supervisor:
    """Has every slot served, and settles what is left when that ends.

    Attributes:
        slots: all of them.
        dispatcher: gives requests to them.
        is_open: whether requests may be accepted.
    """

    def __init__(self, options: Options, engine: Engine) -> None:
        self._grace_period = options.grace_period
        self._instruments = options.instruments
        self.is_open = False
        # Whoever waits for the pool to become quiet is parked here, and looks again
        # whenever something has ended.
        self._progress = trio.lowlevel.ParkingLot()
        workers = itertools.count()
        apps = tuple(enumerate(options.apps))
        self.slots = tuple(
            Slot(
                index,
                apps,
                engine=engine,
                numbers=workers,
                lanes=1,
                boot_timeout=options.boot_timeout,
                cancel_grace=options.cancel_grace,
                release=self._release,
                progress=self._progress,
                instruments=options.instruments,
            )
            for index in range(options.workers)
        )
        self.dispatcher = Dispatcher(
            self.slots,
            range(len(apps)),
            self._left,
            routing=options.routing,
            max_queue=options.max_queue,
        )

    def _left(self, request: Request) -> None:
        """Take note of a request whose caller has left while it waited for a slot."""
        self._progress.unpark_all()
        if self._instruments is not None:
            self._instruments.request_cancelled(request.number)
            self._instruments.request_ended(request.number, "withdrawn")

    def _release(self, request: Request) -> None:
        self.dispatcher.release(request)

    def statistics(self) -> PoolStatistics:
        """Return what the pool does at this moment."""
        workers = tuple(slot.statistics() for slot in self.slots)
        waiting, execution = Durations.summarise(slot.durations for slot in self.slots)
        return PoolStatistics(
            workers=workers,
            queued=len(self.dispatcher) + sum(worker.queued for worker in workers),
            running=sum(worker.running for worker in workers),
            abandoned=sum(worker.abandoned for worker in workers),
            completed=sum(worker.completed for worker in workers),
            failed=sum(worker.failed for worker in workers),
            restarts=sum(worker.restarts for worker in workers),
            waiting=waiting,
            execution=execution,
        )

    async def boot(self, nursery: trio.Nursery) -> None:
        """Start every slot, and wait until each has a worker that has booted.

        Raises:
            AppLoadError: one could not boot. The others are being killed.
        """
        for slot in self.slots:
            nursery.start_soon(slot.consume)
            nursery.start_soon(slot.supervise, self.dispatcher)
        while not all(slot.has_booted for slot in self.slots):
            await self._progress.park()
            for slot in self.slots:
                if slot.failure is not None:
                    raise slot.failure
        self.is_open = True

    async def serve_rest(self) -> None:
        """Wait until all that was accepted has ended, then until every worker has closed."""
        with trio.move_on_after(self._grace_period):
            while self.dispatcher or any(slot.busy for slot in self.slots):
                await self._progress.park()
            for slot in self.slots:
                slot.close()
            for slot in self.slots:
                await slot.closed.wait()

    @trio.lowlevel.enable_ki_protection
    def settle_rest(self) -> None:
        """End, when no task is left to serve them, the requests that still wait."""
        waiting = self.dispatcher.let_go()
        for slot in self.slots:
            begun, unbegun = slot.let_go()
            waiting += begun + unbegun
        for request in waiting:
            if request.cancelled:
                request.skip()
            else:
                request.fail(trio.ClosedResourceError("this pool was closed"))
            if self._instruments is not None:
                self._instruments.request_ended(request.number, "closed")
