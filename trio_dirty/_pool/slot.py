"""A slot: its memory channel, its consumer, and its queue.

One task for each slot, for as long as it lives: `Slot.consume` takes requests from the channel
into the queue, and has the slot's workers send what they may be sent. Which workers these are is
the business of `Replacement`. All decisions are made between two awaits.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Protocol

import trio

from .._rules.dispatcher import no_workers
from .._rules.ledger import Queue
from .._rules.lifecycle import Lifecycle
from .._rules.settlement import Settlement, settle
from .._rules.statistics import Durations, WorkerStatistics
from .waiting import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .._common.errors import DirtyError
    from .._rules.dispatcher import Dispatcher
    from .._rules.instruments import Instruments
    from .._rules.ledger import Ledger
    from .._rules.request import Request
    from .._rules.statistics import Cause, Restarts
    from .._rules.targets import AppPaths

ROUTED_AT_ONCE = 1_000
"""How many requests of a lost slot are routed again in one step: about 3 ms."""

DRAIN_LIMIT = 1_000
"""What is emptied out of the channel before others get the loop; 1,000 take about 1 ms."""


class Sender(Protocol):
    """A worker, as the consumer of its slot sees it."""

    @property
    def ledger(self) -> Ledger:
        """What it has been sent and has not answered."""

    @property
    def pid(self) -> int | None:
        """Its process."""

    def send(self) -> None:
        """Send what it may be sent now."""

    def look_after(self) -> None:
        """Kill it if it stands still, and ask it for a sign of life if it is idle."""

    def kill_overdue(self) -> None:
        """Kill it if it was told to close and has not."""

    def retire(self, cause: Cause) -> None:
        """Have it end what it has been given, then close."""

    def step_down(self) -> None:
        """Let its successor have what it has not been sent."""


class Slot:
    """A place in the pool. It outlives its workers.

    Args:
        dispatcher: gives requests to slots.
        changed: called whenever what the slot's next worker waits for may have changed.
        progressed: called whenever a request has ended, or that has changed.
        route_later: to be called where displaced requests are left to be routed.

    Attributes:
        index: its place in the rotation.
        apps: what its present worker carries; without one, what the next will.
        carries: the indices of these.
        life: where it is in its life.
        queue: what it has been given and has not sent, in order.
        workers: those that have booted and have not ended, in their order: first those that only
            end what they have been sent.
        current: the one of them that is sent what is queued; None while there is none.
        is_weighed: whether it matters to the routing how much each slot has.
        completed: how many requests have ended with a result or the app's exception.
        failed: how many because a worker died.
        durations: of its completed requests.
        latest: the number of its present or latest worker.
        restarts: by cause, the workers after its first.
        now: the engine's clock.
    """

    def __init__(
        self,
        index: int,
        apps: AppPaths,
        *,
        lanes: int,
        now: Callable[[], float],
        dispatcher: Dispatcher,
        instruments: Instruments,
        changed: Callable[[], object],
        progressed: Callable[[], object],
        route_later: Callable[[], object],
    ) -> None:
        self.index = index
        self.apps = tuple(apps)
        self.carries = frozenset(app for app, _ in apps)
        self._changed = changed
        self.life = Lifecycle(self._life_changed)
        self.queue = Queue()
        self.workers: tuple[Sender, ...] = ()
        self.current: Sender | None = None
        self.lanes = lanes
        self.latest = -1
        self.restarts: Restarts = {}
        self.completed = 0
        self.failed = 0
        self.durations = Durations()
        self.now = now
        self.dispatcher = dispatcher
        self.is_weighed = dispatcher.weighs
        self.instruments = instruments
        self.progressed = progressed
        self._route_later = route_later
        self._opened = now()
        self._give, self._given = trio.open_memory_channel["Request"](math.inf)
        # How many requests the channel holds. Asking it would cost each round trip 3 µs.
        self._in_channel = 0
        # Where the consumer waits, and whether it has something to look at. It does not wait in
        # `receive`: what that returns would for a moment be with a task that has not run.
        self._consumer = Waiters()
        self._has_news = False

    def __repr__(self) -> str:
        return f"<Slot {self.index} {self.life.shown}, worker {self.latest}: {len(self.queue)}>"

    def _life_changed(self) -> None:
        self._changed()
        self.progressed()

    # Requests come

    def give(self, request: Request) -> None:
        """Take a request on, behind those given before."""
        request.place = self
        self._give.send_nowait(request)
        self._in_channel += 1
        self._has_news = True
        self._consumer.wake()
        self.instruments.request_given(request.number, self.index)

    def give_all(self, requests: Sequence[Request]) -> None:
        """Take many requests on, in order, behind those given before.

        One by one through the channel, 10,000 of them would take 15 ms.
        """
        self._take_in(self._in_channel)
        for request in requests:
            request.place = self
        self.queue.put(requests)
        self.wake_consumer()
        for request in requests:  # now that a hook may have one of them cancelled
            self.instruments.request_given(request.number, self.index)

    # Requests leave

    def unsent(self) -> Iterable[Request]:
        """Return the requests that it has not sent to its worker, in order."""
        self._take_in(self._in_channel)
        return self.queue

    def take_back(self, requests: Iterable[Request]) -> None:
        """Let go of some of the unsent ones."""
        self.queue.remove(requests)
        self.load_changed()

    def withdraw(self, request: Request) -> bool:
        """Let go of an unsent request whose caller leaves."""
        self._take_in(self._in_channel)
        if request not in self.queue:
            return False  # a hook has it cancelled while it is being ended
        del self.queue[request]
        self.load_changed()
        self.instruments.request_cancelled(request.number)
        self.end_unbegun(request)
        return True

    def end_unbegun(self, request: Request) -> None:
        """End a request that has been cancelled, and will not begin."""
        request.skip()
        self.instruments.request_ended(request.number, "withdrawn")
        if request.key is not None:
            self.dispatcher.release(request)
        self.progressed()

    def settle(
        self, requests: Iterable[Request], *, keeps_keys: bool = False, keeps_pinned: bool = False
    ) -> None:
        """See to requests that cannot have begun, of a worker or of the queue. See `settle`."""
        settlement = settle(requests, keeps_keys=keeps_keys, keeps_pinned=keeps_pinned)
        dispatcher, instruments = self.dispatcher, self.instruments
        # First each is put where it belongs: what is reported may have callers cancelled.
        if settlement.kept:
            for request in settlement.kept:
                request.place = self
            self.queue.put_first(settlement.kept)
            self.wake_consumer()
        self.load_changed()
        leaving = (*settlement.moved, *settlement.withdrawn)
        dispatcher.release_all([request for request in leaving if request.key is not None])
        dispatcher.displace(settlement.moved)
        for request in settlement.withdrawn:
            request.skip()
            instruments.request_ended(request.number, "withdrawn")
        for request in settlement.stranded:
            self._end_stranded(request)
        if settlement.kept and instruments.are_there:
            self._report_kept(settlement)
        dispatcher.route_displaced(ROUTED_AT_ONCE)
        if dispatcher.has_displaced:
            self._route_later()

    def _report_kept(self, settlement: Settlement) -> None:
        """Report that requests stay, each in its turn among those that are routed again."""
        moved = deque(settlement.moved[:ROUTED_AT_ONCE])
        for request in settlement.kept:
            while moved and moved[0].number < request.number:
                moved.popleft()
                self.dispatcher.route_displaced(1)
            self.instruments.request_given(request.number, self.index)

    def settle_queue(self, *, keeps_keys: bool = False, keeps_pinned: bool = False) -> None:
        """See to all that has not been sent."""
        requests = self.take_unsent()
        self.settle(requests, keeps_keys=keeps_keys, keeps_pinned=keeps_pinned)

    def take_unsent(self) -> list[Request]:
        """Let go of all that has not been sent, and return it."""
        self._take_in(self._in_channel)
        return self.queue.take_all()

    def _end_stranded(self, request: Request) -> None:
        """End the part of a broadcast that no worker of this slot will execute."""
        if self.life.is_leaving:
            request.skip()  # a broadcast does without a slot that has left
        else:
            request.fail(no_workers(request.target, self.life.failure))
        self.instruments.request_ended(request.number, "unavailable")

    def give_up(self, cause: DirtyError) -> None:
        """Let go of everything: no worker will serve it."""
        self.instruments.slot_closed(self.index, cause)
        self.dispatcher.failed(self, cause)
        self.settle_queue()

    def let_go(self) -> list[list[Request]]:
        """Let go of everything, of what may have begun, too, and return it in several lists."""
        requests = [self.take_unsent()]
        for worker in self.workers:
            requests += worker.ledger.settle()
        return requests

    # The consumer

    @trio.lowlevel.enable_ki_protection
    async def consume(self) -> None:
        """Take requests from the channel and have them sent, as many as the window allows."""
        while True:
            self._has_news = False
            self._take_in(min(self._in_channel, DRAIN_LIMIT))
            for worker in self.workers:
                worker.send()
                # In order: the next worker begins its first when this one has begun its last.
                if worker is not self.current and worker.ledger.waiting:
                    break
            if self._in_channel or self._has_news:
                await trio.lowlevel.checkpoint()
            else:
                await self._consumer.wait()

    def _take_in(self, count: int) -> None:
        """Move requests from the channel to the queue, where they can be looked at."""
        # By their number: an exception at the end would cost each round trip 3 µs.
        self._in_channel -= count
        queue, receive = self.queue, self._given.receive_nowait
        for _ in range(count):
            queue[receive()] = None

    def wake_consumer(self) -> None:
        """Have the consumer look whether there is anything to send."""
        self._has_news = True
        self._consumer.wake()

    # The workers

    def assign(self, apps: AppPaths) -> None:
        """Let the next worker carry these, while there is none."""
        self._carry(apps)
        self.dispatcher.add(self)
        if self.life.failure is None:
            self.instruments.slot_carries(self.index, self.app_names)

    def _carry(self, apps: AppPaths) -> None:
        self.apps = tuple(apps)
        self.carries = frozenset(app for app, _ in apps)

    def take_over(self, worker: Sender, apps: AppPaths) -> None:
        """Have a worker that has booted take the place of the current one."""
        self._carry(apps)
        self.workers = (*self.workers, worker)
        self.current = worker

    def forget(self, worker: Sender) -> None:
        """Take note that a worker has ended, and everything of it is settled."""
        self.workers = tuple(each for each in self.workers if each is not worker)
        self.wake_consumer()  # its successor may have waited for it

    # How much it has

    @property
    def load(self) -> int:
        """How many requests it has been given that have not ended."""
        sent = sum(len(worker.ledger.entries) for worker in self.workers)
        return self._in_channel + len(self.queue) + sent

    def load_changed(self) -> None:
        """Take note that requests have ended, or have otherwise come or gone."""
        self.dispatcher.load_changed(self)

    @property
    def queued(self) -> int:
        """How many have not begun, and whose callers are still there."""
        ahead = sum(worker.ledger.waiting for worker in self.workers)
        return self._in_channel + len(self.queue) + ahead

    def has_room(self, max_queue: int) -> bool:
        """Whether one more would leave at most so many that have not begun."""
        if self.current is None:
            return self.queued < max_queue
        if any(worker.ledger.waiting for worker in self.workers[:-1]):
            return self.queued < max_queue  # the current one may not begin before they have
        sent = len(self.current.ledger.entries)
        if self._in_channel + len(self.queue) + sent < self.lanes + max_queue:
            return True
        return self.queued + (sent >= self.lanes) <= max_queue

    @property
    def is_busy(self) -> bool:
        """Whether anything that it was given has not ended."""
        return bool(self.load)

    # What it tells

    @property
    def app_names(self) -> tuple[str, ...]:
        """The apps that it carries, as text."""
        return tuple(str(path) for _, path in self.apps)

    def statistics(self) -> WorkerStatistics:
        """Return what the slot does at this moment."""
        executing = [
            request for worker in self.workers for request in worker.ledger.may_have_begun()
        ]
        waiting, execution = self.durations.summary()
        now = self.now()
        busy = self.durations.seconds + sum(request.executed(now) for request in executing)
        failure = self.life.failure
        return WorkerStatistics(
            slot=self.index,
            worker=self.latest,
            pid=None if self.current is None else self.current.pid,
            state=self.life.shown,
            failure=None if failure is None else str(failure),
            apps=self.app_names,
            queued=self.queued,
            running=len(executing),
            abandoned=sum(not request.awaited for request in executing),
            completed=self.completed,
            failed=self.failed,
            restarts=sum(self.restarts.values()),
            restarts_by_cause=dict(self.restarts),
            utilisation=min(1.0, busy / ((now - self._opened) * self.lanes or math.inf)),
            waiting=waiting,
            execution=execution,
        )
