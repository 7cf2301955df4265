"""A slot: its memory channel, its consumer, and the workers that succeed each other in it.

Two tasks for each slot, for as long as the pool lives: `Slot.supervise` has one worker
after the other; `Slot.consume` takes requests from the channel and sends them. What they
decide, they decide between two awaits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from . import _wire
from ._backlog import Backlog
from ._backoff import Backoff
from ._dispatcher import no_workers
from ._durations import Durations
from ._engine import Blueprint
from ._errors import AppLoadError, DirtyError, NoWorkersAvailableError
from ._incarnation import Incarnation
from ._log import logger
from ._nursery import open_service_nursery
from ._request import Request
from ._routing import number
from ._statistics import WorkerStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ._dispatcher import Dispatcher
    from ._engine import Engine, Worker
    from ._instruments import Instruments, Outcome
    from ._pickling import Segment
    from ._statistics import SlotState
    from ._stream import StreamRequest
    from ._targets import AppPath

DRAIN_LIMIT = 1000
"""What is emptied out of the channel before others get the loop; 1,000 take about 1 ms."""


class Slot:
    """A place in the pool. It outlives its workers.

    Attributes:
        index: its place in the rotation.
        carries: the indices of its apps.
        state: see `WorkerStatistics`.
        closed: set when it has no worker and will have none.
        has_booted: whether it has ever had a worker that was ready.
        failure: why it has failed, if it has: a slot whose first worker could not boot has.
        backlog: what it has been given and has not ended.
        completed: how many requests have ended with a result or the app's exception.
        failed: how many because a worker died.
        durations: of its completed requests.
        now: the engine's clock.
        release: to be called with each request with a key that has ended.
        cancel_grace: seconds that an interrupted request may take to end.
    """

    def __init__(
        self,
        index: int,
        apps: Sequence[tuple[int, AppPath]],
        *,
        engine: Engine,
        numbers: Iterator[int],
        lanes: int,
        boot_timeout: float,
        cancel_grace: float,
        release: Callable[[Request], object],
        progress: trio.lowlevel.ParkingLot,
        instruments: Instruments | None,
    ) -> None:
        self.index = index
        self.carries = frozenset(app for app, _ in apps)
        self.state: SlotState = "booting"
        self._apps = tuple(apps)
        self._engine = engine
        self._numbers = numbers
        self._boot_timeout = boot_timeout
        self._progress = progress
        self._instruments = instruments
        self._scope = trio.CancelScope()
        self.closed = trio.Event()
        self.has_booted = False
        self.failure: DirtyError | None = None
        self._give, self._given = trio.open_memory_channel[Request | None](math.inf)
        self.backlog = Backlog(lanes, self._begun, tells_all=instruments is not None)
        # Invariant: what has arrived and _stale are together as many as the channel holds, with
        # what it has handed to the consumer. Stale are wake-ups, and what is queued already.
        self._stale = 0
        # The worker that requests are sent to; None while there is none.
        self._worker: Worker | None = None
        self._incarnation: Incarnation | None = None
        # Whether what is sent next is to be read at once.
        self._is_urgent = False
        self._was_killed_deliberately = False
        self._pid: int | None = None
        self._number = -1
        self._started = 0
        self.completed = 0
        self.failed = 0
        self.durations = Durations()
        self.now = engine.now
        self.release = release
        self.cancel_grace = cancel_grace

    def __repr__(self) -> str:
        return f"<Slot {self.index} {self.state}, worker {self._number}: {self.backlog!r}>"

    # Requests come in and leave. All of this is synchronous.

    def give(self, request: Request) -> None:
        """Take a request on, behind those given before."""
        request.place = self
        self.backlog.arrive(request)
        self._give.send_nowait(request)
        if self._instruments is not None:
            self._instruments.request_given(request.number, self.index)

    def unsent(self) -> Iterable[Request]:
        """Return the requests that it has not sent to its worker, in order."""
        self._take_in_all()
        return self.backlog.unsent()

    def take_back(self, requests: Iterable[Request]) -> None:
        """Let go of some of the unsent ones."""
        self.backlog.take_back(requests)

    def withdraw(self, request: Request) -> bool:
        """Let go of a request whose caller leaves, so that it does not begin any more.

        Returns:
            Whether nothing of it is left: it had not been sent to the worker.
        """
        if self._instruments is not None:
            self._instruments.request_cancelled(request.number)
        self._take_in_all()
        if self.backlog.withdraw(request):
            self.end_unbegun(request)
            self._progress.unpark_all()
            return True
        if self._incarnation is not None and request in self.backlog.executing():
            self._incarnation.left(request)
        self._wake_consumer()
        return False

    def end_unbegun(self, request: Request) -> None:
        """End a request that has been cancelled, and will not begin."""
        if request.key is not None:
            self.release(request)
        request.skip()
        self.tell_end(request, "withdrawn")

    def tell(self, request: StreamRequest, frame: Segment) -> None:
        """Send a frame to the worker that executes the stream."""
        self.backlog.notify(frame)
        if self.backlog.attentive and self._incarnation is not None and not request.is_held:
            self._incarnation.resumed(request)
        self._wake_consumer()

    def send_urgently(self, frame: Segment) -> None:
        """Send a frame, and have the worker read it in the middle of its action."""
        self.backlog.notify(frame)
        self._is_urgent = True
        self._wake_consumer()

    @property
    def load(self) -> int:
        """How many requests it has been given that have not ended."""
        return self.backlog.load

    def has_room(self, max_queue: int) -> bool:
        """Whether one more would leave at most so many that have not begun."""
        if self._worker is None:
            return self.backlog.queued < max_queue
        return self.backlog.has_room(max_queue)

    @property
    def busy(self) -> bool:
        """Whether anything that it was given has not ended."""
        return self.backlog.busy

    def close(self) -> None:
        """Have the worker close, which must be idle; give up starting one."""
        if self.state == "ready":
            self.state = "draining"
            self._wake_consumer()
        else:
            self._scope.cancel()

    def let_go(self) -> tuple[list[Request], list[Request]]:
        """Let go of everything: of what may have begun, and of what cannot have."""
        self._take_in_all()
        return self.backlog.let_go()

    def _wake_consumer(self) -> None:
        self._stale += 1
        self._give.send_nowait(None)

    # The consumer

    @trio.lowlevel.enable_ki_protection
    async def consume(self) -> None:
        """Take requests from the channel and send them, as many as the window allows.

        The one task that sends: frames of two requests never mix.
        """
        while True:
            await self._given.receive()
            self._stale -= 1
            # Asking the channel how many it holds would cost each round trip 3 µs.
            self._take_in(self.backlog.arrived + self._stale)
            while (worker := self._worker) is not None and (frames := self._next_frames()):
                # Of these frames: what becomes urgent while they are sent is not among them.
                is_urgent, self._is_urgent = self._is_urgent, False
                await worker.send(frames)
                if is_urgent:
                    worker.interrupt()

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
        self._take_in(self._given.statistics().current_buffer_used)

    def _next_frames(self) -> Sequence[Segment]:
        """Return what to send now: the last is the order to close."""
        frames = self.backlog.next_frames()
        if not frames and self.state == "draining" and not self.backlog.busy:
            self._worker = None
            return [_wire.frame(_wire.CLOSE)]
        return frames

    # The workers

    @trio.lowlevel.enable_ki_protection
    async def supervise(self, dispatcher: Dispatcher) -> None:
        """Have one worker after the other, until the slot is closed or has failed."""
        backoff = Backoff()
        if self._instruments is not None:
            self._instruments.slot_opened(self.index, self._app_names())
        try:
            with self._scope:
                while True:
                    self.state = "booting"
                    completed = self.completed
                    cause = await self._run_worker(dispatcher)
                    if cause is None:
                        break
                    blameless = self._was_killed_deliberately
                    delay = backoff.died(completed=self.completed - completed + blameless)
                    if delay is None or not self.has_booted:
                        self._give_up(dispatcher, cause)
                        break
                    if delay:
                        self.state = "backing_off"
                        await trio.sleep(delay)
        finally:
            if self.failure is None:
                self.state = "draining"
                self._tell_closed()
            self.closed.set()

    async def _run_worker(self, dispatcher: Dispatcher) -> DirtyError | None:
        """Start a worker and let it serve until it ends; return what it died of, if it did."""
        self._number = next(self._numbers)
        self._started += 1
        self._was_killed_deliberately = False
        if self._instruments is not None:
            self._instruments.worker_started(self.index, self._number)
        blueprint = Blueprint(self.index, self._number, self._apps)
        async with self._engine.start(blueprint) as worker, open_service_nursery() as nursery:
            incarnation = Incarnation(self, worker, self._number)
            try:
                await self._wait_ready(worker)
                self._take_part(dispatcher, incarnation)
                nursery.start_soon(incarnation.oversee)
                await incarnation.run()
            except AppLoadError as error:
                logger.error("worker %d: %s", self._number, error)
                return error
            finally:
                was_told_to_close = self.state == "draining"
                self._take_no_part(dispatcher, incarnation)
            if was_told_to_close:
                return None
            self._was_killed_deliberately = incarnation.is_deliberate
            return incarnation.settle_exit(dispatcher, worker.exit())

    def _take_part(self, dispatcher: Dispatcher, incarnation: Incarnation) -> None:
        self._incarnation = incarnation
        self._worker = incarnation.worker
        self._pid = self._worker.pid
        self.state = "ready"
        self.has_booted = True
        if self._instruments is not None:
            self._instruments.worker_ready(self.index, self._number, self._pid)
        dispatcher.ready(self)
        # Requests with a key may have waited here.
        self._wake_consumer()
        self._progress.unpark_all()

    def _take_no_part(self, dispatcher: Dispatcher, incarnation: Incarnation) -> None:
        if self.state in ("ready", "draining"):
            dispatcher.lost(self)
        self.state = "booting"
        self._worker = None
        self._incarnation = None
        self._is_urgent = False
        self._pid = None
        if self._instruments is not None:
            exit_ = incarnation.worker.exit()
            self._instruments.worker_exited(self.index, self._number, exit_.pid, exit_.exitcode)
        self._progress.unpark_all()

    async def _wait_ready(self, worker: Worker) -> None:
        with trio.move_on_after(self._boot_timeout) as booting:
            await worker.wait_ready()
        if booting.cancelled_caught:
            raise AppLoadError(
                f"slot {self.index}: worker {self._number}, process {worker.pid}, did not "
                f"boot within boot_timeout={self._boot_timeout} seconds"
            )

    def made_progress(self) -> None:
        """Go on after requests have been answered."""
        if self.backlog.unsent():
            self._wake_consumer()
        if self._progress:
            self._progress.unpark_all()

    def _give_up(self, dispatcher: Dispatcher, cause: DirtyError) -> None:
        self.state = "failed"
        self.failure = cause
        logger.error("slot %d has failed: %s", self.index, cause)
        self._tell_closed()
        for request in dispatcher.failed(self, cause):
            self._end_hopeless(request, no_workers(request.target, cause))
        _, waiting = self.let_go()
        waiting.sort(key=number)
        for request in waiting:  # all of a key, before any of it is given to another slot
            if request.key is not None:
                self.release(request)
        for request in waiting:
            try:
                dispatcher.route(request)
            except NoWorkersAvailableError as error:
                self._end_hopeless(request, error)
        self._progress.unpark_all()

    def _end_hopeless(self, request: Request, error: NoWorkersAvailableError) -> None:
        request.fail(error)
        self.tell_end(request, "unavailable")

    def _begun(self, request: Request) -> None:
        if self._instruments is not None:
            self._instruments.request_begun(request.number, self.index, self._number)
        if self._incarnation is not None:
            self._incarnation.begun(request)

    # What it tells

    def tell_end(self, request: Request, outcome: Outcome) -> None:
        """Tell the instruments how a request has ended."""
        if self._instruments is not None:
            self._instruments.request_ended(request.number, outcome)

    def _tell_closed(self) -> None:
        if self._instruments is not None:
            self._instruments.slot_closed(self.index, self.failure)

    def _app_names(self) -> tuple[str, ...]:
        return tuple(str(path) for _, path in self._apps)

    def statistics(self) -> WorkerStatistics:
        """Return what the slot does at this moment."""
        executing = self.backlog.executing()
        waiting, execution = Durations.summarise([self.durations])
        return WorkerStatistics(
            slot=self.index,
            worker=self._number,
            pid=self._pid,
            state=self.state,
            apps=self._app_names(),
            queued=self.backlog.queued,
            running=len(executing),
            abandoned=sum(not request.awaited for request in executing),
            completed=self.completed,
            failed=self.failed,
            restarts=max(0, self._started - 1),
            waiting=waiting,
            execution=execution,
        )
