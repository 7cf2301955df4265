"""The slots of one pool, from the start of the first worker to the end of the last."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import trio

from .._rules.allocation import allocate
from .._rules.dispatcher import Dispatcher
from .._rules.displaced import Displaced
from .._rules.durations import Durations
from .._rules.statistics import AppStatistics, PoolStatistics
from .scaling import Scaling
from .slot import ROUTED_AT_ONCE, Slot
from .succession import Succession
from .wish import Inquiry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._common.errors import NoWorkersAvailableError
    from .._common.wire import Segment
    from .._engines.contract import Engine
    from .._rules.instruments import Instruments
    from .._rules.options import Options
    from .._rules.request import Request
    from .._rules.statistics import Cause, Restarts
    from .._rules.targets import AppPaths

CLOSED_AT_ONCE = 1_000
"""How many requests end in one step when a pool is closed: about 5 ms."""


class Supervisor:
    """Has every slot served, and settles what is left when that ends.

    Attributes:
        successions: the workers of each slot, in the order of the slots; of those that leave
            as well, until they are gone.
        app_limits: by how many slots each app may be carried.
        dispatcher: gives requests to slots.
        scaling: how many slots there are to be.
        progress: where those are parked who look again whenever something has ended.
        is_open: whether requests may be accepted.
    """

    def __init__(self, options: Options, engine: Engine) -> None:
        self._options = options
        self._engine = engine
        self._instruments = options.instruments
        self.is_open = False
        self.progress = trio.lowlevel.ParkingLot()
        # `_route_displaced` is parked here, until requests of a lost slot are left to be routed.
        self._displacement = trio.lowlevel.ParkingLot()
        self._numbers = itertools.count()
        self.successions: tuple[Succession, ...] = ()
        self.app_limits: Sequence[float] = ()
        self.dispatcher = Dispatcher(
            (),
            range(len(options.apps)),
            self._left,
            self._end_hopeless,
            routing=options.routing,
            max_queue=options.max_queue,
        )
        self.scaling = Scaling(self, options.workers)
        # What slots have done that have left.
        self._completed = self._failed = 0
        self._restarts: Restarts = {}
        self._durations = Durations()
        self._nursery: trio.Nursery

    def _left(self, request: Request) -> None:
        """Take note of a request whose caller has left while it waited for a slot."""
        self.progress.unpark_all()
        if self._instruments is not None:
            self._instruments.request_cancelled(request.number)
            self._instruments.request_ended(request.number, "withdrawn")

    def _end_hopeless(self, request: Request, error: NoWorkersAvailableError) -> None:
        """End a request that no slot can take, now or later."""
        request.fail(error)
        if self._instruments is not None:
            self._instruments.request_ended(request.number, "unavailable")
        self.progress.unpark_all()

    # Slots come and go

    @property
    def slots(self) -> list[Slot]:
        """The slots, in their order."""
        return [succession.slot for succession in self.successions]

    @property
    def staying(self) -> list[Succession]:
        """Those of the slots that do not leave."""
        return [each for each in self.successions if not each.slot.is_leaving]

    def paths(self, apps: Iterable[int]) -> AppPaths:
        """Return apps as workers are told of them."""
        return [(app, self._options.apps[app]) for app in sorted(apps)]

    async def boot(self, nursery: trio.Nursery) -> None:
        """Start every slot, and wait until each has a worker that has booted.

        Raises:
            AppLoadError: one could not boot. The others are being killed.
        """
        self._nursery = nursery
        nursery.start_soon(self._route_displaced)
        limits = self._options.app_limits
        unknown = [app for app, limit in enumerate(limits) if limit is None]
        if unknown:
            await self._ask_first(unknown)
        else:
            self.app_limits = [math.inf if limit is None else limit for limit in limits]
            self.open_slots(self._options.workers)
        while not all(each.has_booted for each in self.successions):
            await self.progress.park()
            self._check_booting()
        self.is_open = True
        nursery.start_soon(self.scaling.run)
        if self._engine.look_seconds < math.inf:
            nursery.start_soon(self._look_after_workers)

    async def _ask_first(self, unknown: Sequence[int]) -> None:
        """Open the first slot, whose worker tells who is to carry what, and then the others."""

        def answered(declared: Sequence[int | None]) -> None:
            said = dict(zip(unknown, declared, strict=True))
            self.app_limits = [
                math.inf if limit is None else limit
                for limit in (
                    said.get(app, limit) for app, limit in enumerate(self._options.app_limits)
                )
            ]
            slots = range(self._options.workers)
            apps = allocate(self.app_limits, {}, slots)
            first.slot.assign(self.paths(apps[0]))
            for index in slots[1:]:
                self._nursery.start_soon(self._add(index, apps[index]).run)

        first = self._add(0, ())
        self._nursery.start_soon(first.run, Inquiry(self.paths(unknown), answered))
        while not self.app_limits:
            await self.progress.park()
            self._check_booting()

    def _check_booting(self) -> None:
        for slot in self.slots:
            if slot.failure is not None:
                raise slot.failure

    def open_slots(self, count: int) -> None:
        """Open so many further slots."""
        taken = {slot.index for slot in self.slots}
        new = list(itertools.islice((i for i in itertools.count() if i not in taken), count))
        apps = allocate(self.app_limits, self._carried(), new)
        for index in new:
            self._nursery.start_soon(self._add(index, apps[index]).run)

    def next_apps(self, succession: Succession) -> frozenset[int]:
        """Return what the next worker of a slot is to carry.

        What the slot carries, and what nobody does. One that comes back after it has failed
        carries what is missing without it.
        """
        index, carried = succession.slot.index, succession.slot.carries
        others = {each.slot.index: each.slot.carries for each in self.staying}
        del others[index]
        if succession.is_lost:
            return allocate(self.app_limits, others, [index])[index]
        return carried | frozenset(range(len(self.app_limits))).difference(*others.values())

    def _carried(self) -> dict[int, frozenset[int]]:
        """Return what is carried by the slots that stay, unless they are lost."""
        return {each.slot.index: each.slot.carries for each in self.staying if not each.is_lost}

    def _add(self, index: int, apps: Iterable[int]) -> Succession:
        options = self._options
        slot = Slot(
            index,
            self.paths(apps),
            lanes=options.threads,
            now=self._engine.now,
            dispatcher=self.dispatcher,
            progress=self.progress,
            route_later=self._displacement.unpark_all,
            instruments=options.instruments,
        )
        succession = Succession(slot, self._engine, self._numbers, options)
        successions = [*self.successions, succession]
        self.successions = tuple(sorted(successions, key=lambda each: each.slot.index))
        self.dispatcher.add(slot)
        if self._instruments is not None:
            self._instruments.slot_opened(slot.index, slot.app_names)
        return succession

    def remove(self, succession: Succession) -> None:
        """Have a slot leave; it is among the others until it has ended what it has."""
        succession.leave()
        self._nursery.start_soon(self._forget, succession)

    async def _forget(self, succession: Succession) -> None:
        await succession.closed.wait()
        slot = succession.slot
        if slot.busy:  # it was cancelled with the pool, which settles what is left
            return
        self.successions = tuple(each for each in self.successions if each is not succession)
        self._completed += slot.completed
        self._failed += slot.failed
        _add_up(self._restarts, slot.restarts)
        self._durations.absorb(slot.durations)
        self.progress.unpark_all()

    # While it lives

    async def _route_displaced(self) -> None:
        """Route, some at a time, what a lost slot had waiting, where that was very much."""
        while True:
            await self._displacement.park()
            while self.dispatcher.has_displaced:
                self.dispatcher.route_displaced(ROUTED_AT_ONCE)
                await trio.lowlevel.checkpoint()

    async def _look_after_workers(self) -> None:
        """Notice workers that stand still."""
        while True:
            await trio.sleep(self._engine.look_seconds)
            for slot in self.slots:
                for incarnation in slot.incarnations:
                    incarnation.look_after()

    def statistics(self) -> PoolStatistics:
        """Return what the pool does at this moment."""
        workers = tuple(slot.statistics() for slot in self.slots)
        durations = Durations()
        restarts: dict[Cause, int] = dict(self._restarts)
        durations.absorb(self._durations)
        for slot in self.slots:
            durations.absorb(slot.durations)
            _add_up(restarts, slot.restarts)
        waiting, execution = durations.summary()
        return PoolStatistics(
            workers=workers,
            apps=tuple(
                self._app_statistics(app, durations)
                for app in (*range(len(self._options.apps)), None)
            ),
            queued=len(self.dispatcher) + sum(worker.queued for worker in workers),
            running=sum(worker.running for worker in workers),
            abandoned=sum(worker.abandoned for worker in workers),
            completed=self._completed + sum(worker.completed for worker in workers),
            failed=self._failed + sum(worker.failed for worker in workers),
            restarts=sum(restarts.values()),
            restarts_by_cause=restarts,
            utilisation=sum(worker.utilisation for worker in workers) / max(1, len(workers)),
            waiting=waiting,
            execution=execution,
        )

    def _app_statistics(self, app: int | None, durations: Durations) -> AppStatistics:
        waiting, execution = durations.summary(app)
        return AppStatistics(
            app=None if app is None else str(self._options.apps[app]),
            slots=tuple(self.dispatcher.carriers(app)),
            waiting=waiting,
            execution=execution,
        )

    # The end

    async def serve_rest(self) -> None:
        """Wait until all that was accepted has ended, then until every worker has closed."""
        self.scaling.stop()
        with trio.move_on_after(self._options.grace_period) as waiting:
            while self.dispatcher or any(slot.busy for slot in self.slots):
                await self.progress.park()
            for succession in self.successions:
                succession.close()
            for succession in self.successions:
                await succession.closed.wait()
        if waiting.cancelled_caught:
            # Their own time may be over at this very moment, too.
            for slot in self.slots:
                for incarnation in slot.incarnations:
                    incarnation.kill_overdue()

    @trio.lowlevel.enable_ki_protection
    async def settle_rest(self) -> None:
        """End, when no task is left to serve them, the requests that still wait.

        Some at a time, since there may be very many: the loop is not to be held.
        """
        rest = Rest(self._instruments)
        rest.take(self.dispatcher.let_go())
        with trio.CancelScope(shield=True):
            for slot in self.slots:
                for requests in slot.let_go():
                    rest.take(requests)
                await trio.lowlevel.checkpoint()
                while rest.close_some():
                    await trio.lowlevel.checkpoint()
            while rest.close_some():
                await trio.lowlevel.checkpoint()
        self.progress.unpark_all()


class Rest:
    """Requests that nothing will serve, until each of their callers has been told so."""

    def __init__(self, instruments: Instruments | None) -> None:
        self._instruments = instruments
        self._displaced = Displaced(self)

    def take(self, requests: Sequence[Request]) -> None:
        """Take requests over from where they were."""
        self._displaced.put(requests)

    def close_some(self) -> bool:
        """End some of them; return whether there are more."""
        for request in self._displaced.take(CLOSED_AT_ONCE):
            if request.cancelled:
                request.skip()
            else:
                request.fail(trio.ClosedResourceError("this pool was closed"))
            self._tell_end(request)
        return bool(self._displaced)

    def withdraw(self, request: Request) -> bool:
        """Let go of a request whose caller leaves."""
        self._displaced.withdraw(request)
        if self._instruments is not None:
            self._instruments.request_cancelled(request.number)
        self._tell_end(request)
        return True

    def tell(self, request: Request, frame: Segment) -> None:
        """No worker executes what is here."""

    def _tell_end(self, request: Request) -> None:
        if self._instruments is not None:
            self._instruments.request_ended(request.number, "closed")


def _add_up(totals: Restarts, more: Restarts) -> None:
    for cause, count in more.items():
        totals[cause] = totals.get(cause, 0) + count
