"""A slot: its memory channel, its consumer, and what it has been given.

One task for each slot, for as long as it lives: `Slot.consume` takes requests from the channel
and sends them to the slot's workers. Who these are is the business of `Succession`. What either
decides, it decides between two awaits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from .._rules.backlog import Backlog
from .._rules.dispatcher import no_workers
from .._rules.durations import Durations
from .._rules.keys import OnlySlot
from .._rules.request import Request
from .._rules.routing import number
from .._rules.statistics import WorkerStatistics
from .streams import StreamRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .._common.errors import DirtyError
    from .._common.wire import Segment
    from .._rules.dispatcher import Dispatcher
    from .._rules.instruments import Instruments, Outcome
    from .._rules.statistics import Restarts, SlotState
    from .._rules.targets import AppPaths
    from .worker import Incarnation

ROUTED_AT_ONCE = 1_000
"""How many requests of a lost slot are routed again in one step: about 3 ms."""

DRAIN_LIMIT = 1000
"""What is emptied out of the channel before others get the loop; 1,000 take about 1 ms."""


class Slot:
    """A place in the pool. It outlives its workers.

    Attributes:
        index: its place in the rotation.
        apps: what its present worker carries; without one, what the next will.
        state: see `WorkerStatistics`.
        current: the worker that it gives requests to; None while there is none.
        incarnations: the workers that have booted and have not ended, in their order: those
            that only finish what they have, and then the current one.
        is_leaving: whether it is going to be taken out of the pool.
        failure: why it has failed, if it has: a slot whose first worker could not boot has.
        backlog: what it has been given and has not ended: of its current worker, or of the next.
        completed: how many requests have ended with a result or the app's exception.
        failed: how many because a worker died.
        durations: of its completed requests.
        latest: the number of its present or latest worker.
        restarts: by cause, the workers after its first.
        now: the engine's clock.
        dispatcher: gives requests to slots.
        is_weighed: whether it matters to that how much each has.
        progress: where those are parked who wait until something has ended.
        instruments: who is told what happens.
    """

    def __init__(
        self,
        index: int,
        apps: AppPaths,
        *,
        lanes: int,
        now: Callable[[], float],
        dispatcher: Dispatcher,
        progress: trio.lowlevel.ParkingLot,
        route_later: Callable[[], object],
        instruments: Instruments | None,
    ) -> None:
        self.index = index
        self.apps = tuple(apps)
        self.carries = frozenset(app for app, _ in apps)
        self.state: SlotState = "booting"
        self.current: Incarnation | None = None
        self.incarnations: tuple[Incarnation, ...] = ()
        self.is_leaving = False
        self.failure: DirtyError | None = None
        self._give, self._given = trio.open_memory_channel[Request | None](math.inf)
        # With several lanes only the beginnings tell how long each of them has been executing.
        tells_all = instruments is not None or lanes > 1
        self.backlog = Backlog(lanes, _nothing_is_sent, tells_all=tells_all)
        # Invariant: what has arrived and _stale are together as many as the channel holds, with
        # what it has handed to the consumer. Stale are wake-ups, and what is queued already.
        self._stale = 0
        self._lanes = lanes
        self._opened = now()
        self.latest = -1
        self.restarts: Restarts = {}
        self.completed = 0
        self.failed = 0
        self.durations = Durations()
        self.now = now
        self.dispatcher = dispatcher
        self.progress = progress
        self._route_later = route_later
        self.instruments = instruments
        self.release = dispatcher.release
        self.is_weighed = dispatcher.weighs

    def __repr__(self) -> str:
        return f"<Slot {self.index} {self.state}, worker {self.latest}: {self.backlog!r}>"

    # Requests come in and leave. All of this is synchronous.

    def give(self, request: Request) -> None:
        """Take a request on, behind those given before."""
        request.place = self
        self.backlog.arrive(request)
        self._give.send_nowait(request)
        if self.instruments is not None:
            self.instruments.request_given(request.number, self.index)

    def give_all(self, requests: Sequence[Request]) -> None:
        """Take many requests on, in order, behind those given before.

        One by one through the channel, 10,000 of them would take 15 ms.
        """
        self._take_in_all()
        for request in requests:
            request.place = self
        if self.instruments is not None:
            for request in requests:
                self.instruments.request_given(request.number, self.index)
        self.backlog.put_last(requests)
        self.wake_consumer()

    def unsent(self) -> Iterable[Request]:
        """Return the requests that it has not sent to its worker, in order."""
        self._take_in_all()
        return self.backlog.unsent()

    def take_back(self, requests: Iterable[Request]) -> None:
        """Let go of some of the unsent ones."""
        self.backlog.take_back(requests)
        self.load_changed()

    def withdraw(self, request: Request) -> bool:
        """Let go of a request whose caller leaves, so that it does not begin any more.

        Returns:
            Whether nothing of it is left: it had not been sent to a worker.
        """
        if self.instruments is not None:
            self.instruments.request_cancelled(request.number)
        if self.backlog.arrived:
            self._take_in_all()
        incarnation = self._sent_to(request)
        backlog = self.backlog if incarnation is None else incarnation.backlog
        if backlog.withdraw(request):
            if self.is_weighed:
                self.load_changed()
            self.end_unbegun(request)
            if self.progress:
                self.progress.unpark_all()
            return True
        if incarnation is not None and request in backlog.executing():
            incarnation.left(request)
        self.wake_consumer()
        return False

    def _sent_to(self, request: Request) -> Incarnation | None:
        for incarnation in self.incarnations:
            if incarnation.backlog.sent(request.number) is request:
                return incarnation
        return None

    def end_unbegun(self, request: Request) -> None:
        """End a request that has been cancelled, and will not begin."""
        self._skip(request)
        if request.key is not None:
            self.release(request)

    def _skip(self, request: Request) -> None:
        request.skip()
        self.tell_end(request, "withdrawn")

    def pass_on(
        self, requests: Iterable[Request], *, keeps: bool, freed: Iterable[Request] = ()
    ) -> None:
        """Have requests that cannot have begun routed again, in the order of acceptance.

        Args:
            requests: the slot has let go of them.
            keeps: whether those with a key stay here, before all that came later.
            freed: what has waited for others of its key to end here, to be routed among them.
        """
        # In as few passes as can be, without a line of Python for each: there may be 100,000.
        moving = sorted(requests, key=number)
        keyed = [request for request in moving if request.key is not None]
        kept = [request for request in keyed if not request.cancelled] if keeps else []
        stay = set(kept)
        if len(kept) == len(moving):
            moving = keyed = []
        elif kept:
            moving = [request for request in moving if request not in stay]
            keyed = [request for request in keyed if request not in stay]
        freed = [*freed, *self.dispatcher.unplace_all(keyed)]
        ended = [request for request in moving if request.cancelled]
        for request in ended:
            self._skip(request)
        parts = [request for request in keyed if isinstance(request.key, OnlySlot)]
        for request in parts:
            if not request.cancelled:
                self._end_part(request)
        if ended or parts or freed:
            out = {*ended, *parts}
            moving = sorted([*freed, *(each for each in moving if each not in out)], key=number)
        if kept:  # first, so that the others find how much stays here
            self.backlog.put_first(kept)
            self.load_changed()
            self.wake_consumer()
        self.dispatcher.displace(moving)
        if self.instruments is None or not kept:
            self.dispatcher.route_displaced(ROUTED_AT_ONCE)
        else:
            self._tell_and_route(sorted([*kept, *moving], key=number), stay)
        if self.dispatcher.has_displaced:
            self._route_later()

    def _tell_and_route(self, requests: Iterable[Request], stay: set[Request]) -> None:
        """Route displaced requests, and tell of those that stay, in one order."""
        assert self.instruments is not None
        routed = 0
        for request in requests:
            if request in stay:
                self.instruments.request_given(request.number, self.index)
            elif routed < ROUTED_AT_ONCE:
                self.dispatcher.route_displaced(1)
                routed += 1

    def pass_on_unsent(self, *, keeps: bool) -> None:
        """Have what has not been sent routed again; what only this slot can execute stays."""
        staying = [
            request
            for request in self.unsent()
            if request.key is not None and (keeps or isinstance(request.key, OnlySlot))
        ]
        moving = self.take_unsent()
        if staying:
            stay = set(staying)
            moving = [request for request in moving if request not in stay]
            self.backlog.put_last(staying)
        self.pass_on(moving, keeps=keeps)

    def take_unsent(self) -> list[Request]:
        """Let go of all that has not been sent, and return it."""
        self._take_in_all()
        unsent = [*self.backlog.take_back_all()]
        self.load_changed()
        return unsent

    def _end_part(self, request: Request) -> None:
        """End the part of a broadcast that no worker of this slot will execute."""
        if self.is_leaving:
            request.skip()  # a broadcast does without a slot that has left
        else:
            request.fail(no_workers(request.target, self.failure))
        self.tell_end(request, "unavailable")

    def give_up(self, cause: DirtyError) -> None:
        """Fail: no worker will take what it has been given."""
        self.state = "failed"
        self.failure = cause
        if self.instruments is not None:
            self.instruments.slot_closed(self.index, cause)
        self.dispatcher.failed(self, cause)
        self.pass_on(self.take_unsent(), keeps=False)
        self.progress.unpark_all()

    def tell(self, request: Request, frame: Segment) -> None:
        """Send a frame to the worker that executes the stream."""
        incarnation = self._sent_to(request)
        if incarnation is not None:
            incarnation.backlog.notify(frame)
            if isinstance(request, StreamRequest) and not request.is_held:
                request.resume(self.now())
                incarnation.resumed(request)
            self.wake_consumer()

    @property
    def load(self) -> int:
        """How many requests it has been given that have not ended."""
        return sum(backlog.load for backlog in self._backlogs)

    @property
    def _backlogs(self) -> list[Backlog]:
        """Of all its workers, and where none is current, of the next."""
        others = (incarnation.backlog for incarnation in self.incarnations)
        return [self.backlog, *(other for other in others if other is not self.backlog)]

    def load_changed(self) -> None:
        """Take note that requests have ended, or have otherwise come or gone."""
        self.dispatcher.load_changed(self)

    def has_room(self, max_queue: int) -> bool:
        """Whether one more would leave at most so many that have not begun."""
        if self.current is None or self._waits_for_predecessors:
            return self.queued < max_queue
        return self.backlog.has_room(max_queue)

    @property
    def _waits_for_predecessors(self) -> bool:
        """Whether its present worker may not begin, since one before it has not begun its last."""
        return len(self.incarnations) > 1 and any(
            incarnation.backlog.queued for incarnation in self.incarnations[:-1]
        )

    @property
    def queued(self) -> int:
        """How many have not begun, and whose callers are still there."""
        return sum(backlog.queued for backlog in self._backlogs)

    @property
    def busy(self) -> bool:
        """Whether anything that it was given has not ended."""
        return any(backlog.busy for backlog in self._backlogs)

    def let_go(self) -> tuple[list[Request], list[Request]]:
        """Let go of everything: of what may have begun, and of what cannot have."""
        self._take_in_all()
        begun: list[Request] = []
        unbegun: list[Request] = []
        for backlog in self._backlogs:
            of_it = backlog.let_go()
            begun += of_it[0]
            unbegun += of_it[1]
        return begun, unbegun

    def wake_consumer(self) -> None:
        """Have the consumer look whether there is anything to send."""
        self._stale += 1
        self._give.send_nowait(None)

    # The consumer

    @trio.lowlevel.enable_ki_protection
    async def consume(self) -> None:
        """Take requests from the channel and send them, as many as the window allows."""
        while True:
            await self._given.receive()
            self._stale -= 1
            # Asking the channel how many it holds would cost each round trip 3 µs.
            self._take_in(self.backlog.arrived + self._stale)
            for incarnation in self.incarnations:
                incarnation.send()
                # In order: the next worker begins its first when this one has begun its last.
                if incarnation.retired_for is not None and incarnation.backlog.queued:
                    break

    def _take_in(self, waiting: int) -> None:
        """Take into the queue what has arrived, and out of the channel what it holds of it.

        Done by whoever looks at the queue first: so nothing is forgotten that the consumer has
        not come to yet, and the channel keeps no request that has left while it was sending.
        """
        drained = min(waiting, DRAIN_LIMIT)
        # Not until WouldBlock: an exception for each request costs its round trip 3 µs.
        for _ in range(drained):
            self._given.receive_nowait()
        self._stale += self.backlog.arrived - drained
        self.backlog.take_in()

    def _take_in_all(self) -> None:
        waiting = self._given.statistics().current_buffer_used
        self._take_in(waiting)
        if waiting:  # a wake-up among it was for something that the consumer has not looked at
            self.wake_consumer()

    # The workers

    def assign(self, apps: AppPaths) -> None:
        """Let the next worker carry these, while there is none."""
        self.apps = tuple(apps)
        self.carries = frozenset(app for app, _ in apps)
        self.dispatcher.add(self)
        if self.instruments is not None and self.failure is None:
            self.instruments.slot_carries(self.index, self.app_names)

    def take_over(self, incarnation: Incarnation, apps: AppPaths) -> None:
        """Have a worker that has booted take the place of the current one."""
        self.apps = tuple(apps)
        self.carries = frozenset(app for app, _ in apps)
        self.backlog = incarnation.backlog
        self.incarnations = (*self.incarnations, incarnation)
        self.current = incarnation
        if not self.is_leaving:
            self.state = "ready"

    def step_down(self) -> None:
        """Be without a current worker: it has ended, or is to finish what it has been sent."""
        self.current = None
        if not self.is_leaving:
            self.state = "booting"
        self.backlog = self.backlog.hand_over(_nothing_is_sent)

    def forget(self, incarnation: Incarnation) -> None:
        """Take note that a worker has ended, and everything of it is settled."""
        self.incarnations = tuple(each for each in self.incarnations if each is not incarnation)
        incarnation.backlog.tell_nobody()

    def made_progress(self) -> None:
        """Go on after requests have been answered."""
        if self.backlog.unsent() or len(self.incarnations) > 1:
            self.wake_consumer()
        if self.progress:
            self.progress.unpark_all()

    # What it tells

    def tell_end(self, request: Request, outcome: Outcome) -> None:
        """Tell the instruments how a request has ended."""
        if self.instruments is not None:
            self.instruments.request_ended(request.number, outcome)

    @property
    def app_names(self) -> tuple[str, ...]:
        """The apps that it carries, as text."""
        return tuple(str(path) for _, path in self.apps)

    def statistics(self) -> WorkerStatistics:
        """Return what the slot does at this moment."""
        executing = [
            (request, incarnation)
            for incarnation in self.incarnations
            for request in incarnation.backlog.executing()
        ]
        waiting, execution = self.durations.summary()
        now = self.now()
        busy = self.durations.seconds + sum(
            incarnation.executed(request, now) for request, incarnation in executing
        )
        return WorkerStatistics(
            slot=self.index,
            worker=self.latest,
            pid=None if self.current is None else self.current.worker.pid,
            state=self.state,
            failure=None if self.failure is None else str(self.failure),
            apps=self.app_names,
            queued=self.queued,
            running=len(executing),
            abandoned=sum(not request.awaited for request, _ in executing),
            completed=self.completed,
            failed=self.failed,
            restarts=sum(self.restarts.values()),
            restarts_by_cause=dict(self.restarts),
            utilisation=min(1.0, busy / ((now - self._opened) * self._lanes or math.inf)),
            waiting=waiting,
            execution=execution,
        )


def _nothing_is_sent(request: Request) -> None:
    """For the backlog of a slot that has no worker: what is not sent does not begin."""
