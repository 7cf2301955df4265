"""One worker of a slot, from its start to the settlement of what it leaves.

Two tasks for each: `Incarnation.run` receives what the worker answers, and `Incarnation.oversee`
sees to it that what it executes keeps its limits. What they decide, they decide between two
awaits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from .._common import wire
from .._common.errors import (
    DirtyError,
    RemoteError,
    RequestCancelled,
    RequestTimeoutError,
    SoftTimeout,
    WorkerCrashedError,
    qualified,
)
from .._common.log import logger
from .._engines.contract import Chunks, Pong
from .._rules.deadlines import TIMEOUT, Order, Oversight
from .streams import StreamRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._common.wire import Segment
    from .._engines.contract import Answer, Exit, Worker
    from .._rules.instruments import Outcome
    from .._rules.request import Request
    from .._rules.statistics import Cause
    from .slot import Slot

CATCH_UP_SECONDS = 0.001
"""For how long a stream's chunks may lie in the socket while its reader has others to take. Else
each step of a reader that is behind would wake up the pool for one more chunk: 16-byte chunks
came at half the rate."""

BEHIND_CHUNKS = 16

LATE_SECONDS = 0.5
"""How late the loop may be before that is taken for a time in which nothing could run."""

STILL_LIMIT = 2
"""How many looks in a row have to find that a worker has stood still since the one before, and
has not answered, before it is killed."""


class Incarnation:
    """One worker in its slot, from the moment in which it takes it over.

    Attributes:
        worker: the engine's.
        number: the worker's; no other worker of the pool has it.
        backlog: what its slot has been given for it, and has not ended.
        completed: how many requests it has answered.
        settled: when it last answered; before that, when it became ready.
        retired_for: why it is given nothing more, and closes when it has ended what it has; None
            as long as that is not so.
        was_told_to_close: whether it has, and closes.
        is_urgent: whether what is sent next is to be read at once.
        is_unresponsive: whether it was killed because it stood still.
        is_overdue: whether it was killed because it did not close in time.
        wear: where those are parked who want to know when it has answered.
    """

    def __init__(
        self,
        slot: Slot,
        worker: Worker,
        number: int,
        tasks: trio.Nursery,
        *,
        cancel_grace: float,
        grace_period: float,
        look_seconds: float,
    ) -> None:
        self._slot = slot
        self._tasks = tasks
        self._look_seconds = look_seconds
        self.worker = worker
        self.number = number
        self.backlog = slot.backlog.hand_over(self._begun)
        self.completed = 0
        self.settled = slot.now()
        self.retired_for: Cause | None = None
        self.was_told_to_close = False
        self.is_urgent = False
        self.is_unresponsive = False
        self.is_overdue = False
        self.wear = trio.lowlevel.ParkingLot()
        self._grace_period = grace_period
        self._oversight = Oversight(cancel_grace)
        # The request whose frames do not fit the socket: a task sends the rest of them.
        self._sending: Request | None = None
        # `oversee` is parked here, and looks again when there may be something to do.
        self._attention = trio.lowlevel.ParkingLot()
        self._killed_for: Order | None = None
        # The number of the latest PING, and whether it is unanswered.
        self._ping = 0
        self._is_pinged = False
        # What was unanswered at the last look, and how often in a row the worker has stood still
        # since.
        self._doubted: object = None
        self._still = 0

    @property
    def is_retired(self) -> bool:
        """Whether it is given nothing more."""
        return self.retired_for is not None

    @property
    def is_deliberate(self) -> bool:
        """Whether the pool itself has killed it, because of what it was executing."""
        return self._killed_for is not None

    def __str__(self) -> str:
        slot = self._slot.index
        return f"slot {slot}: worker {self.number}, process {self.worker.pid},"

    # What it is sent

    def send(self) -> None:
        """Send what may be sent now.

        It never waits for the socket. What does not fit, which is a part of a large request, a task
        of its own sends, and nothing else is sent meanwhile: frames never mix.
        """
        while self._sending is None and (frames := self._next_frames()):
            # Of these frames: what becomes urgent while the rest is sent is not among them.
            is_urgent, self.is_urgent = self.is_urgent, False
            rest = self.worker.send_nowait(frames)
            if rest:
                self._sending = self.backlog.latest_sent()
                self._tasks.start_soon(self._send_rest, rest, is_urgent)
            elif is_urgent:
                self.worker.interrupt()

    @trio.lowlevel.enable_ki_protection
    async def _send_rest(self, rest: Sequence[Segment], is_urgent: bool) -> None:
        await self.worker.send_rest(rest)
        request, self._sending = self._sending, None
        if request is not None:
            self._oversight.transferred(request.number, 0, self._slot.now())
        if is_urgent:
            self.worker.interrupt()
        self._slot.wake_consumer()

    def _next_frames(self) -> Sequence[Segment]:
        """Decide what to send now; the last is the order to close."""
        if self._is_pinged:
            # If it turns out to have been stopped, nothing that it was given has begun.
            return self.backlog.next_notices()
        frames = self.backlog.next_frames()
        if not frames and self.is_retired and not self.was_told_to_close and not self.backlog.busy:
            self.was_told_to_close = True
            self._attention.unpark_all()
            return [wire.frame(wire.CLOSE)]
        return frames

    def retire(self, cause: Cause) -> None:
        """Have it end what it has been given, then close."""
        if self.is_retired:
            return
        self.retired_for = cause
        if self._slot.instruments is not None:
            self._slot.instruments.worker_retired(self._slot.index, self.number, cause)
        self._slot.wake_consumer()

    # Whether it is well

    def look_after(self) -> None:
        """Kill a worker that stands still, and ask an idle one for a sign of life.

        To be called now and then. A worker that executes something is left alone unless it has
        been stopped: how long that takes is for time-outs to bound.
        """
        doubt = self._doubt()
        if doubt is None:
            if not self.is_retired and not self.backlog.busy:
                self._ping += 1
                self._is_pinged = True
                self.backlog.notify(wire.frame(wire.PING, self._ping))
                self._slot.wake_consumer()
        else:
            # At the first look of a doubt this is what the next one compares with.
            still = self.worker.stands_still(busy=not self._is_pinged)
            self._still = self._still + 1 if still and doubt == self._doubted else 0
            if self._still == STILL_LIMIT:
                self.is_unresponsive = True
                self.worker.kill()
        self._doubted = doubt

    def _doubt(self) -> tuple[int, int] | None:
        """Return what the worker has been sent, has not obeyed, and may never obey."""
        if self._is_pinged:
            return wire.PING, self._ping
        if self.was_told_to_close:
            return wire.CLOSE, 0
        executing = self.backlog.executing()
        if any(map(_is_timed, executing)):
            return None
        return (wire.REQUEST, executing[0].number) if executing else None

    def _ponged(self) -> None:
        self._is_pinged = False
        self._slot.wake_consumer()

    async def run(self) -> None:
        """Receive what the worker answers, until it has ended."""
        receive = self.worker.receive
        while replies := await receive():
            behind = self._settle(replies)
            # A result may be large, and the next reply long in coming. Freeing 200 MB
            # would also hold the loop for 20 ms, at a moment that nobody expects.
            del replies
            # Not while another lane's reply may come, whose caller would wait for this reader.
            if behind is not None and len(self.backlog.executing()) == 1:
                with trio.move_on_after(CATCH_UP_SECONDS):
                    await behind.wait_taken()
            del behind

    # What the worker answers

    def _settle(self, replies: Sequence[Answer]) -> StreamRequest | None:
        """End the requests that have been answered, and make room for the next.

        Returns:
            The stream whose reader has enough to take, if the last that came were chunks.
        """
        slot = self._slot
        now = slot.now()
        completed = slot.completed
        has_room = False
        backlog = self.backlog
        strike_out = backlog.answered
        attentive = backlog.attentive
        is_watched = attentive and bool(self._oversight)
        behind = None
        for reply in replies:
            # One by one: the next entry of the ledger may have begun as soon as this one
            # has been struck out, and not before.
            if type(reply) is Chunks:
                behind = self._pass_on(reply, now)
                continue
            if type(reply) is Pong:
                self._ponged()
                continue
            behind = None
            has_room = True
            answered, seconds, error, value = reply
            request = strike_out(answered, seconds)
            if seconds is None:
                request.skip()
            else:
                slot.completed += 1
                began = now - seconds if request.began is None else request.began
                slot.durations.add(request.app, began - request.accepted, seconds)
                if error is None:
                    request.succeed(value)
                elif attentive:
                    self._fail(request, error)
                else:
                    request.fail(error)
            if attentive:
                ended: Outcome = "returned" if error is None else "raised"
                slot.tell_end(request, "withdrawn" if seconds is None else ended)
                self._oversight.ended(answered)
                backlog.begin_next()
            if request.key is not None:
                slot.release(request)
        self.completed += slot.completed - completed
        if is_watched:
            self._attention.unpark_all()
        if has_room:
            self.settled = now
            if slot.is_weighed:
                slot.load_changed()
            if self.wear:
                self.wear.unpark_all()
            if self.retired_for is not None:  # so that it closes, or its successor begins
                slot.wake_consumer()
            slot.made_progress()
        return behind

    def _pass_on(self, reply: Chunks, now: float) -> StreamRequest | None:
        """Give a stream's reader what has arrived for it; return it if the reader is behind."""
        request = self.backlog.sent(reply.number)
        if not isinstance(request, StreamRequest):
            raise DirtyError(f"{request} was answered with chunks")
        request.arrive(reply.chunks)
        if request.is_held:
            request.hold(now)
        if self._oversight:
            since = math.inf if request.is_held else now
            self._oversight.stepped(reply.number, len(reply.chunks), since)
        return request if len(request.arrived) > BEHIND_CHUNKS else None

    def _fail(self, request: Request, error: BaseException) -> None:
        """End a request with what its action raised, which may be an interrupt of ours."""
        raised = error.type_name if isinstance(error, RemoteError) else ""
        if raised == qualified(SoftTimeout) and request.limits.soft_timeout < math.inf:
            seconds = request.limits.soft_timeout
            timed_out = self._timed_out(
                request,
                seconds,
                soft=True,
                text=f"took longer than soft_timeout={seconds} seconds, and was interrupted",
            )
            timed_out.__cause__ = error.__cause__
            request.fail(timed_out)
        elif raised == qualified(RequestCancelled) and request.cancelled:
            request.skip()  # as the caller who has waited for it wanted
        else:
            request.fail(error)

    # What it executes

    def _begun(self, request: Request) -> None:
        """Watch a request from its beginning."""
        slot = self._slot
        now = request.began = slot.now()
        if slot.instruments is not None:
            slot.instruments.request_begun(request.number, slot.index, self.number)
        if request.limits.is_timed:
            self._oversight.begun(request, now)
            self._attention.unpark_all()
        if request.cancelled:
            self.left(request)

    def left(self, request: Request) -> None:
        """See to a request that has begun and whose caller has left."""
        self._oversight.left(request, self._slot.now())
        self._attention.unpark_all()

    def resumed(self, request: Request) -> None:
        """Watch the next step of a stream that was held."""
        self._oversight.resumed(request.number, self._slot.now())
        self._attention.unpark_all()

    def executed(self, request: Request, now: float) -> float:
        """Return for how many seconds a request that has begun has been executed until now."""
        began = request.began
        if began is None:  # the only one that is executed: it began when the last was answered
            began = max(self.settled, request.accepted)
        held = request.held(now) if isinstance(request, StreamRequest) else 0.0
        return max(0.0, now - began - held)

    @trio.lowlevel.enable_ki_protection
    async def oversee(self) -> None:
        """Interrupt what is over its limits, and kill the worker for it."""
        now, oversight = self._slot.now, self._oversight
        while not self.was_told_to_close:
            self._look_at_transfers()
            order = oversight.order(now())
            if order is None:
                await self._until_due()
            elif order.action == "interrupt":
                steps = order.steps
                frame = wire.pair_frame(wire.INTERRUPT, order.request.number, order.reason, steps)
                self.send_urgently(frame)
            else:
                await self._kill(order)
        with trio.move_on_after(self._grace_period):
            await trio.sleep_forever()
        self.kill_overdue()

    def kill_overdue(self) -> None:
        """Kill a worker that was told to close and has not ended within ``grace_period``."""
        if self.was_told_to_close and not self.is_overdue:
            self.is_overdue = True
            logger.error("%s did not close within grace_period, and is killed", self)
            self.worker.kill()

    def _look_at_transfers(self) -> None:
        """See which payloads move: the time for that does not count as execution."""
        worker, now = self.worker, self._slot.now()
        for request in self._oversight.watched:
            if request is self._sending:
                self._oversight.transferred(request.number, worker.unsent, now)
                continue
            unreceived = worker.unreceived(request.number)
            if unreceived is not None:
                self._oversight.transferred(request.number, unreceived, now, is_answer=True)

    async def _until_due(self) -> None:
        """Wait until something is due or has changed.

        Clocks run on while the program is stopped, and usually its workers with it: a terminal's
        Ctrl-Z, a container that is paused. So it looks at the clock now and then. Where much more
        has passed than it wanted to wait, the time does not count: whether anything was executed
        then is not known, and nobody is to be killed for it.
        """
        now, oversight = self._slot.now, self._oversight
        looked = now()
        seconds = max(0.0, oversight.next_time() - looked)
        if seconds < math.inf:
            seconds = min(seconds, self._look_seconds)
        with trio.move_on_after(seconds):
            await self._attention.park()
        passed = now() - looked
        if passed > seconds + LATE_SECONDS and self._look_seconds < math.inf:
            oversight.paused(passed, now())

    def send_urgently(self, frame: Segment) -> None:
        """Send a frame, and have the worker read it in the middle of its action."""
        self.backlog.notify(frame)
        self.is_urgent = True
        self._slot.wake_consumer()

    async def _kill(self, order: Order) -> None:
        """Kill the worker for what it executes, if that is still so.

        The answer may lie unread, or be written in the very moment, and then the next request
        would be hit. So the worker is stopped first, and what it has written is read; in a
        thousand kills without that ten hit an innocent.
        """
        worker = self.worker
        await worker.hold()
        while worker.unread():
            with trio.move_on_after(CATCH_UP_SECONDS):
                await self._attention.park()
        still = self._oversight.kill(order.request.number, self._slot.now())
        if still is not None:
            self._killed_for = still
            worker.kill()
            await trio.sleep_forever()
        worker.release()

    # What it leaves

    def settle_exit(self, exit_: Exit) -> DirtyError:
        """Settle, by the ledger, what a dead worker leaves; return what it died of.

        All of it is synchronous.
        """
        slot = self._slot
        begun, unbegun = self.backlog.let_go()
        slot.load_changed()
        now = slot.now()
        for request in begun:
            slot.durations.add_unfinished(self.executed(request, now))
        doing = " and ".join(str(request.target) for request in begun) or "nothing"
        text = f"worker {self.number} of slot {slot.index} died while executing {doing}: {exit_}"
        culprit = None
        if self.is_unresponsive:
            text += "; the pool killed it because it stood still, as if stopped"
        if self._killed_for is not None:
            culprit = self._killed_for.request
            # Those who only shared the worker are to know whose limits it was.
            which = [request.target for request in begun if request is culprit]
            of_what = f" of {which[0]}" if len(begun) > 1 and which else ""
            text += f"; {self._why_killed(self._killed_for, of_what)}"
        freed: list[Request] = []
        for request in begun:
            slot.failed += 1
            if request.key is not None:
                freed += slot.dispatcher.unplace(request)
            # First it is ended, and then told of: a hook may come back here.
            if request is not culprit:
                request.fail(self._crashed(text, exit_, request))
                slot.tell_end(request, "crashed")
            elif self._killed_for is not None and self._killed_for.reason == TIMEOUT:
                seconds = request.limits.timeout
                request.fail(
                    self._timed_out(
                        request,
                        seconds,
                        soft=False,
                        text=f"took longer than timeout={seconds} seconds, and its worker "
                        f"{self.number} of slot {slot.index} was killed",
                    )
                )
                slot.tell_end(request, "timed_out")
            else:
                request.skip()
                slot.tell_end(request, "killed")
        keeps = not slot.is_leaving and slot.failure is None
        if slot.current is None:
            unbegun += slot.take_unsent()
        # Else its successor serves the rest.
        slot.pass_on(unbegun, keeps=keeps, freed=freed)
        logger.error("%s", text)
        return self._crashed(text, exit_)

    @staticmethod
    def _why_killed(order: Order, of_what: str) -> str:
        if order.reason == TIMEOUT:
            seconds = order.request.limits.timeout
            return f"the pool killed it after timeout={seconds} seconds{of_what}"
        return f"the pool killed it because the caller{of_what} was cancelled"

    def _crashed(self, text: str, exit_: Exit, request: Request | None = None) -> DirtyError:
        target = None if request is None else request.target
        return WorkerCrashedError(
            text,
            app=str(target.path) if target is not None and target.path else None,
            action=None if target is None else target.action,
            slot=self._slot.index,
            pid=exit_.pid,
            exitcode=exit_.exitcode,
        )

    def _timed_out(
        self, request: Request, seconds: float, *, soft: bool, text: str
    ) -> RequestTimeoutError:
        path = request.target.path
        what = "a step of its generator" if request.streams else "it"
        return RequestTimeoutError(
            f"{request.target}: {what} {text}",
            soft=soft,
            seconds=seconds,
            app=None if path is None else str(path),
            action=request.target.action,
            slot=self._slot.index,
            pid=self.worker.pid,
        )


def _is_timed(request: Request) -> bool:
    """Whether a time-out will end a request; that of a stream stands still while it is held."""
    is_held = isinstance(request, StreamRequest) and request.is_held
    return request.limits.timeout < math.inf and not is_held
