"""A slot: its memory channel, its consumer, and the workers that succeed each other in it.

Two tasks for each slot, for as long as the pool lives: `Slot.supervise` has one worker
after the other, and settles what they answer; `Slot.consume` takes requests from the
channel and sends them. What they decide, they decide between two awaits.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

import trio

from . import _wire
from ._backoff import Backoff
from ._dispatcher import no_workers
from ._durations import Durations
from ._engine import Blueprint
from ._errors import AppLoadError, DirtyError, WorkerCrashedError
from ._ledger import AHEAD_BYTES, Ledger, Window
from ._log import logger
from ._request import Request, number
from ._statistics import WorkerStatistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ._dispatcher import Dispatcher
    from ._engine import Engine, Exit, Reply, Worker
    from ._pickling import Segment
    from ._statistics import SlotState
    from ._targets import AppPath

DRAIN_LIMIT = 1000
"""Requests taken from the channel before others get the loop; 1,000 take about 1 ms."""


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
    ) -> None:
        self.index = index
        self.carries = frozenset(app for app, _ in apps)
        self.state: SlotState = "booting"
        self._apps = tuple(apps)
        self._engine = engine
        self._numbers = numbers
        self._boot_timeout = boot_timeout
        self._progress = progress
        self._scope = trio.CancelScope()
        self.closed = trio.Event()
        self.has_booted = False
        self.failure: DirtyError | None = None
        self._give, self._given = trio.open_memory_channel[Request | None](math.inf)
        # Where a request is: arriving, in the channel; then in the queue; then in the ledger;
        # then answered. The consumer moves it on. What the channel yields and is not
        # arriving any more has left meanwhile, and is dropped.
        self._arriving: dict[Request, None] = {}
        self._queue: OrderedDict[Request, None] = OrderedDict()
        self._ledger: Ledger[Request] = Ledger(lanes)
        self._window = Window()
        self._notices: list[Segment] = []
        # The worker that requests are sent to; None while there is none.
        self._worker: Worker | None = None
        self._pid: int | None = None
        self._number = -1
        self._started = 0
        self._completed = 0
        self._failed = 0
        self.durations = Durations()

    def __repr__(self) -> str:
        return (
            f"<Slot {self.index} {self.state}, worker {self._number}: "
            f"{len(self._queue)} queued, {len(self._ledger.entries)} sent>"
        )

    # Requests come in and leave. All of this is synchronous.

    def give(self, request: Request) -> None:
        """Take a request on, behind those given before."""
        request.place = self
        self._arriving[request] = None
        self._give.send_nowait(request)

    def unsent(self) -> Iterable[Request]:
        """Return the queue: what has not been sent to the worker, in order."""
        return self._queue

    def take_back(self, requests: Iterable[Request]) -> None:
        """Let go of some of the queue."""
        for request in requests:
            del self._queue[request]

    def withdraw(self, request: Request) -> None:
        """Let go of a request whose caller has left, so that it does not begin any more.

        One that was sent stays in the ledger until the worker answers: it may have begun.
        """
        if request in self._queue:
            del self._queue[request]
            self._progress.unpark_all()
        elif request in self._arriving:
            del self._arriving[request]
            self._progress.unpark_all()
        elif request.number in self._ledger.entries:
            self._notices.append(_wire.frame(_wire.WITHDRAW, request.number))
            self._wake_consumer()

    @property
    def busy(self) -> bool:
        """Whether anything that it was given has not ended."""
        return bool(self._ledger.entries or self._queue or self._arriving)

    def close(self) -> None:
        """Have the worker close, which must be idle; give up starting one."""
        if self.state == "ready":
            self.state = "draining"
            self._wake_consumer()
        else:
            self._scope.cancel()

    def let_go(self) -> tuple[list[Request], list[Request]]:
        """Let go of everything: of what may have begun, and of what cannot have."""
        self._drain_channel(self._given.statistics().current_buffer_used)
        begun, unbegun = self._ledger.settle()
        # Still arriving is what the channel has handed to the consumer, which has not run since.
        unbegun += [*self._queue, *self._arriving]
        self._queue.clear()
        self._arriving.clear()
        return begun, unbegun

    def _wake_consumer(self) -> None:
        self._give.send_nowait(None)

    # The consumer

    @trio.lowlevel.enable_ki_protection
    async def consume(self) -> None:
        """Take requests from the channel and send them, as many as the window allows.

        The one task that sends: frames of two requests never mix.
        """
        while True:
            self._enqueue(await self._given.receive())
            if self._arriving:
                self._drain_channel(min(len(self._arriving), DRAIN_LIMIT))
            while (worker := self._worker) is not None and (frames := self._next_frames()):
                await worker.send(frames)

    def _drain_channel(self, count: int) -> None:
        # Not until WouldBlock: an exception for each request costs its round trip 3 µs.
        for _ in range(count):
            self._enqueue(self._given.receive_nowait())

    def _enqueue(self, request: Request | None) -> None:
        if request in self._arriving:
            del self._arriving[request]
            self._queue[request] = None

    def _next_frames(self) -> Sequence[Segment]:
        """Decide what to send now, and enter it into the ledger."""
        frames = self._notices
        self._notices = []
        queue, ledger = self._queue, self._ledger
        entries = ledger.entries
        limit = ledger.lanes + self._window.ahead
        while queue and len(entries) < limit and ledger.size < AHEAD_BYTES:
            request = next(iter(queue))
            if request.large:
                # While a worker executes it does not read: what exceeds the socket's buffer
                # would block the way for notices.
                if entries or frames:
                    break
                del queue[request]
                ledger.sent(request)
                return request.frames
            del queue[request]
            ledger.sent(request)
            frames += request.frames
        if not frames and self.state == "draining" and not queue and not entries:
            frames.append(_wire.frame(_wire.CLOSE))
            self._worker = None
        return frames

    # The workers

    @trio.lowlevel.enable_ki_protection
    async def supervise(self, dispatcher: Dispatcher) -> None:
        """Have one worker after the other, until the slot is closed or has failed."""
        backoff = Backoff()
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
            self.closed.set()

    async def _run_worker(self, dispatcher: Dispatcher) -> DirtyError | None:
        """Start a worker and let it serve until it ends; return what it died of, if it did."""
        self._number = next(self._numbers)
        self._started += 1
        async with self._engine.start(Blueprint(self.index, self._number, self._apps)) as worker:
            try:
                await self._wait_ready(worker)
            except AppLoadError as error:
                logger.error("worker %d: %s", self._number, error)
                return error
            self._worker = worker
            self._pid = worker.pid
            self._window = Window()
            self.state = "ready"
            self.has_booted = True
            dispatcher.ready(self)
            self._progress.unpark_all()
            while replies := await worker.receive():
                self._settle(replies)
                # A result may be large, and the next reply long in coming. Freeing 200 MB
                # would also hold the loop for 20 ms, at a moment that nobody expects.
                del replies
            return self._lose_worker(dispatcher, worker.exit())

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
        ledger, window = self._ledger, self._window
        for answered, seconds, error, value in replies:
            # One by one: the next entry of the ledger may have begun as soon as this one
            # has been struck out, and not before.
            request = ledger.answered(answered)
            if seconds is not None:
                window.observe(seconds)
                self._completed += 1
                self.durations.add(now - request.accepted - seconds, seconds)
            if error is None:
                request.succeed(value)
            else:
                request.fail(error)
        if self._queue:
            self._wake_consumer()
        if self._progress:
            self._progress.unpark_all()

    def _lose_worker(self, dispatcher: Dispatcher, exit_: Exit) -> DirtyError | None:
        """Settle, by the ledger, what the worker leaves. All of it is synchronous.

        Returns:
            What it died of, or None if it was told to close and had answered everything.
        """
        self._worker = None
        self._pid = None
        dispatcher.lost(self)
        self._progress.unpark_all()
        if self.state == "draining":
            return None
        self.state = "booting"
        self._notices.clear()
        begun, unbegun = self.let_go()
        doing = " and ".join(str(request.target) for request in begun) or "nothing"
        for request in begun:
            self._failed += 1
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
        text = f"worker {self._number} of slot {self.index} died while executing {doing}: {exit_}"
        logger.error("%s", text)
        return WorkerCrashedError(text, slot=self.index, pid=exit_.pid, exitcode=exit_.exitcode)

    def _give_up(self, dispatcher: Dispatcher, cause: DirtyError) -> None:
        self.state = "failed"
        self.failure = cause
        logger.error("slot %d has failed: %s", self.index, cause)
        for request in dispatcher.failed(self, cause):
            request.fail(no_workers(request.target, cause))
        self._progress.unpark_all()

    def statistics(self) -> WorkerStatistics:
        """Return what the slot does at this moment."""
        executing = self._ledger.may_have_begun()
        ahead = islice(self._ledger.entries.values(), len(executing), None)
        waiting, execution = Durations.summarise([self.durations])
        return WorkerStatistics(
            slot=self.index,
            worker=self._number,
            pid=self._pid,
            state=self.state,
            apps=tuple(str(path) for _, path in self._apps),
            queued=len(self._arriving)
            + len(self._queue)
            + sum(request.task is not None for request in ahead),
            running=len(executing),
            abandoned=sum(request.task is None for request in executing),
            completed=self._completed,
            failed=self._failed,
            restarts=max(0, self._started - 1),
            waiting=waiting,
            execution=execution,
        )
