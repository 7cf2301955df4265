"""The slots of one pool: which there are, what they carry, and what they do together."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from .._rules.allocation import allocate
from .._rules.dispatcher import Dispatcher
from .._rules.statistics import AppStatistics, Durations, PoolStatistics
from .replacement import Inquiry, Replacement
from .slot import Slot
from .waiting import Waiters

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import trio

    from .._common.errors import NoWorkersAvailableError
    from .._engines.contract import Engine
    from .._rules.options import Options
    from .._rules.request import Request
    from .._rules.statistics import Cause, Restarts
    from .._rules.targets import AppPaths


class Slots:
    """The slots of one pool.

    Attributes:
        replacements: what has the workers of each slot replaced, in the order of the slots; of
            those that leave as well, until they are gone.
        app_limits: by how many slots each app may be carried.
        dispatcher: gives requests to slots.
        progress: waits for the end of a request, or of a worker, or for the boot of one.
        displacement: waits for displaced requests that are left to be routed.
        is_open: whether requests may be accepted.
    """

    def __init__(self, options: Options, engine: Engine) -> None:
        self._options = options
        self._engine = engine
        self._instruments = options.instruments
        self.progress = Waiters()
        self.displacement = Waiters()
        self.is_open = False
        self._numbers = itertools.count()
        self.replacements: tuple[Replacement, ...] = ()
        self.app_limits: Sequence[float] = ()
        self.dispatcher = Dispatcher(
            (),
            range(len(options.apps)),
            self._left,
            self._end_hopeless,
            routing=options.routing,
            max_queue=options.max_queue,
        )
        # What slots have done that have left.
        self._completed = self._failed = 0
        self._restarts: Restarts = {}
        self._durations = Durations()
        self._nursery: trio.Nursery

    def _left(self, request: Request) -> None:
        """Take note of a request whose caller has left while it waited for a slot."""
        self.progress.wake()
        self._instruments.request_cancelled(request.number)
        self._instruments.request_ended(request.number, "withdrawn")

    def _end_hopeless(self, request: Request, error: NoWorkersAvailableError) -> None:
        """End a request that no slot can take, now or later."""
        request.fail(error)
        self._instruments.request_ended(request.number, "unavailable")
        self.progress.wake()

    @property
    def all(self) -> list[Slot]:
        """The slots, in their order."""
        return [replacement.slot for replacement in self.replacements]

    @property
    def staying(self) -> list[Replacement]:
        """Those of the slots that do not leave."""
        return [each for each in self.replacements if not each.slot.life.is_leaving]

    @property
    def is_busy(self) -> bool:
        """Whether any request has not ended."""
        return bool(self.dispatcher) or any(slot.is_busy for slot in self.all)

    # Slots come and go

    def use(self, nursery: trio.Nursery) -> None:
        """Have the tasks of slots run in a nursery."""
        self._nursery = nursery

    def open(self, count: int) -> None:
        """Open so many further slots."""
        taken = {slot.index for slot in self.all}
        new = list(itertools.islice((i for i in itertools.count() if i not in taken), count))
        apps = allocate(self.app_limits, self._carried(), new)
        for index in new:
            self._nursery.start_soon(self._add(index, apps[index]).run)

    def open_first(self, unknown: Sequence[int]) -> None:
        """Open the first slot, whose worker says how many are to carry some apps; then the others.

        Args:
            unknown: these apps.
        """
        limits = dict(enumerate(self._options.app_limits))

        def answered(declared: Sequence[int | None]) -> None:
            limits.update(zip(unknown, declared, strict=True))
            self.app_limits = [math.inf if limit is None else limit for limit in limits.values()]
            indices = range(self._options.workers)
            apps = allocate(self.app_limits, {}, indices)
            first.slot.assign(self.paths(apps[0]))
            for index in indices[1:]:
                self._nursery.start_soon(self._add(index, apps[index]).run)

        first = self._add(0, ())
        self._nursery.start_soon(first.run, Inquiry(self.paths(unknown), answered))

    def _add(self, index: int, apps: Iterable[int]) -> Replacement:
        options = self._options
        changed = Waiters()
        slot = Slot(
            index,
            self.paths(apps),
            lanes=options.threads,
            now=self._engine.now,
            dispatcher=self.dispatcher,
            instruments=options.instruments,
            changed=changed.wake,
            progressed=self.progress.wake,
            route_later=self.displacement.wake,
        )
        replacement = Replacement(slot, self._engine, self._numbers, options, changed)
        replacements = [*self.replacements, replacement]
        self.replacements = tuple(sorted(replacements, key=lambda each: each.slot.index))
        self.dispatcher.add(slot)
        self._instruments.slot_opened(slot.index, slot.app_names)
        return replacement

    def remove(self, replacement: Replacement) -> None:
        """Have a slot leave; it is among the others until it has ended what it has."""
        replacement.leave()
        self._nursery.start_soon(self._forget, replacement)

    async def _forget(self, replacement: Replacement) -> None:
        await replacement.closed.wait()
        slot = replacement.slot
        if slot.is_busy:  # it was cancelled with the pool, which settles what is left
            return
        self.replacements = tuple(each for each in self.replacements if each is not replacement)
        self._completed += slot.completed
        self._failed += slot.failed
        _add_up(self._restarts, slot.restarts)
        self._durations.absorb(slot.durations)
        self.progress.wake()

    # Which apps they carry

    def paths(self, apps: Iterable[int]) -> AppPaths:
        """Return apps as workers are told of them."""
        return [(app, self._options.apps[app]) for app in sorted(apps)]

    def next_apps(self, replacement: Replacement) -> frozenset[int]:
        """Return what the next worker of a slot is to carry.

        What the slot carries, and what no other does. One that comes back after it has failed
        carries what is missing without it.
        """
        index, carried = replacement.slot.index, replacement.slot.carries
        others = {each.slot.index: each.slot.carries for each in self.staying}
        del others[index]
        if replacement.is_lost:
            return allocate(self.app_limits, others, [index])[index]
        return carried | frozenset(range(len(self.app_limits))).difference(*others.values())

    def _carried(self) -> dict[int, frozenset[int]]:
        """Return what is carried by the slots that stay, unless they are lost."""
        return {each.slot.index: each.slot.carries for each in self.staying if not each.is_lost}

    # What they report

    def statistics(self) -> PoolStatistics:
        """Return what the pool does at this moment."""
        slots = self.all
        workers = tuple(slot.statistics() for slot in slots)
        durations = Durations()
        restarts: dict[Cause, int] = dict(self._restarts)
        durations.absorb(self._durations)
        for slot in slots:
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


def _add_up(totals: Restarts, more: Restarts) -> None:
    for cause, count in more.items():
        totals[cause] = totals.get(cause, 0) + count
