"""A slot: its memory channel, its consumer, and the workers that succeed each other in it.

Two tasks for each slot, for as long as the pool lives: `Slot.supervise` has one worker
after the other, and settles what they answer; `Slot.consume` takes requests from the
channel and sends them. What they decide, they decide between two awaits.
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
from ._errors import AppLoadError, DirtyError, WorkerCrashedError
from ._log import logger
from ._request import Request
from ._routing import number
from ._statistics import WorkerStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ._dispatcher import Dispatcher
    from ._engine import Engine, Exit, Reply, Worker
    from ._instruments import Instruments, Outcome
    from ._pickling import Segment
    from ._statistics import SlotState
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
        durations: of its completed requests.
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
        self._backlog = Backlog(lanes, None if instruments is None else self._tell_begin)
        # Invariant: what has arrived and _stale are together as many as the channel holds, with
        # what it has handed to the consumer. Stale are wake-ups, and what is queued already.
        self._stale = 0
        # The worker that requests are sent to; None while there is none.
        self._worker: Worker | None = None
        self._pid: int | None = None
        self._number = -1
        self._started = 0
        self._completed = 0
        self._failed = 0
        self.durations = Durations()

    def __repr__(self) -> str:
        return f"<Slot {self.index} {self.state}, worker {self._number}: {self._backlog!r}>"

    # Requests come in and leave. All of this is synchronous.

    def give(self, request: Request) -> None:
        """Take a request on, behind those given before."""
        request.place = self
        self._backlog.arrive(request)
        self._give.send_nowait(request)
        if self._instruments is not None:
            self._instruments.request_given(request.number, self.index)

    def unsent(self) -> Iterable[Request]:
        """Return the requests that it has not sent to its worker, in order."""
        self._take_in_all()
        return self._backlog.unsent()

    def take_back(self, requests: Iterable[Request]) -> None:
        """Let go of some of the unsent ones."""
        self._backlog.take_back(requests)

    def withdraw(self, request: Request) -> None:
        """Let go of a request whose caller has left, so that it does not begin any more."""
        if self._instruments is not None:
            self._instruments.request_cancelled(request.number)
        self._take_in_all()
        if self._backlog.withdraw(request):
            self._progress.unpark_all()
            self._tell_end(request, "withdrawn")
        else:
            self._wake_consumer()

    @property
    def busy(self) -> bool:
        """Whether anything that it was given has not ended."""
        return self._backlog.busy

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
        return self._backlog.let_go()

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
            self._take_in(self._backlog.arrived + self._stale)
            while (worker := self._worker) is not None and (frames := self._next_frames()):
                await worker.send(frames)

    def _take_in(self, waiting: int) -> None:
        """Take into the queue what has arrived, and out of the channel what it holds of it.

        Done by whoever looks at the queue first: so nothing is forgotten that the consumer has
        not come to yet, and the channel keeps no request that has left while it was sending.
        """
        drained = min(waiting, DRAIN_LIMIT)
        # Not until WouldBlock: an exception for each request costs its round trip 3 µs.
        for _ in range(drained):
            self._given.receive_nowait()
        self._stale += self._backlog.arrived - drained
        self._backlog.take_in()

    def _take_in_all(self) -> None:
        self._take_in(self._given.statistics().current_buffer_used)

    def _next_frames(self) -> Sequence[Segment]:
        """Return what to send now: the last is the order to close."""
        frames = self._backlog.next_frames()
        if not frames and self.state == "draining" and not self._backlog.busy:
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
                    completed = self._completed
                    cause = await self._run_worker(dispatcher)
                    if cause is None:
                        break
                    delay = backoff.died(completed=self._completed - completed)
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
        if self._instruments is not None:
            self._instruments.worker_started(self.index, self._number)
        async with self._engine.start(Blueprint(self.index, self._number, self._apps)) as worker:
            try:
                await self._wait_ready(worker)
                self._take_part(dispatcher, worker)
                while replies := await worker.receive():
                    self._settle(replies)
                    # A result may be large, and the next reply long in coming. Freeing 200 MB
                    # would also hold the loop for 20 ms, at a moment that nobody expects.
                    del replies
            except AppLoadError as error:
                logger.error("worker %d: %s", self._number, error)
                return error
            finally:
                was_told_to_close = self.state == "draining"
                self._take_no_part(dispatcher, worker.exit())
            return None if was_told_to_close else self._settle_exit(dispatcher, worker.exit())

    def _take_part(self, dispatcher: Dispatcher, worker: Worker) -> None:
        self._worker = worker
        self._pid = worker.pid
        self.state = "ready"
        self.has_booted = True
        if self._instruments is not None:
            self._instruments.worker_ready(self.index, self._number, worker.pid)
        dispatcher.ready(self)
        self._progress.unpark_all()

    def _take_no_part(self, dispatcher: Dispatcher, exit_: Exit) -> None:
        if self.state in ("ready", "draining"):
            dispatcher.lost(self)
        self.state = "booting"
        self._worker = None
        self._pid = None
        if self._instruments is not None:
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

    def _settle(self, replies: Sequence[Reply]) -> None:
        """End the requests that have been answered, and make room for the next."""
        now = self._engine.now()
        backlog = self._backlog
        strike_out = backlog.answered
        for answered, seconds, error, value in replies:
            # One by one: the next entry of the ledger may have begun as soon as this one
            # has been struck out, and not before.
            request = strike_out(answered, seconds)
            if seconds is not None:
                self._completed += 1
                self.durations.add(now - request.accepted - seconds, seconds)
            if error is None:
                request.succeed(value)
            else:
                request.fail(error)
            if self._instruments is not None:
                ended: Outcome = "returned" if error is None else "raised"
                self._tell_end(request, "withdrawn" if seconds is None else ended)
                backlog.begin_next()
        if backlog.unsent():
            self._wake_consumer()
        if self._progress:
            self._progress.unpark_all()

    def _settle_exit(self, dispatcher: Dispatcher, exit_: Exit) -> DirtyError:
        """Settle, by the ledger, what a dead worker leaves; return what it died of.

        All of it is synchronous.
        """
        begun, unbegun = self.let_go()
        doing = " and ".join(str(request.target) for request in begun) or "nothing"
        for request in begun:
            self._failed += 1
            self._tell_end(request, "crashed")
            request.fail(
                WorkerCrashedError(
                    f"worker {self._number} of slot {self.index} died while executing {doing}: "
                    f"{exit_}",
                    app=str(request.target.path) if request.target.path else None,
                    action=request.target.action,
                    slot=self.index,
                    pid=exit_.pid,
                    exitcode=exit_.exitcode,
                )
            )
        for request in sorted(unbegun, key=number):
            if request.task is not None:
                dispatcher.accept(request)
            else:
                self._tell_end(request, "withdrawn")
        text = f"worker {self._number} of slot {self.index} died while executing {doing}: {exit_}"
        logger.error("%s", text)
        return WorkerCrashedError(text, slot=self.index, pid=exit_.pid, exitcode=exit_.exitcode)

    def _give_up(self, dispatcher: Dispatcher, cause: DirtyError) -> None:
        self.state = "failed"
        self.failure = cause
        logger.error("slot %d has failed: %s", self.index, cause)
        self._tell_closed()
        for request in dispatcher.failed(self, cause):
            self._tell_end(request, "unavailable")
            request.fail(no_workers(request.target, cause))
        self._progress.unpark_all()

    # What it tells

    def _tell_begin(self, request: Request) -> None:
        if self._instruments is not None:
            self._instruments.request_begun(request.number, self.index, self._number)

    def _tell_end(self, request: Request, outcome: Outcome) -> None:
        if self._instruments is not None:
            self._instruments.request_ended(request.number, outcome)

    def _tell_closed(self) -> None:
        if self._instruments is not None:
            self._instruments.slot_closed(self.index, self.failure)

    def _app_names(self) -> tuple[str, ...]:
        return tuple(str(path) for _, path in self._apps)

    def statistics(self) -> WorkerStatistics:
        """Return what the slot does at this moment."""
        executing = self._backlog.executing()
        waiting, execution = Durations.summarise([self.durations])
        return WorkerStatistics(
            slot=self.index,
            worker=self._number,
            pid=self._pid,
            state=self.state,
            apps=self._app_names(),
            queued=self._backlog.queued,
            running=len(executing),
            abandoned=sum(request.task is None for request in executing),
            completed=self._completed,
            failed=self._failed,
            restarts=max(0, self._started - 1),
            waiting=waiting,
            execution=execution,
        )
