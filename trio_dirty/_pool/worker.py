"""One worker in its slot, from the moment in which it takes over until nothing of it is left.

Three tasks for each: `SlotWorker.run` receives what the worker answers; one of `Enforcement` keeps
it to its time limits; and one at a time sends what does not fit into the socket at once. All
decisions are made between two awaits.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING

import trio

from .._common import wire
from .._common.errors import (
    DirtyError,
    RemoteError,
    RequestCancelled,
    SoftTimeout,
    qualified,
)
from .._common.log import logger
from .._engines.contract import Chunks, Pong
from .._rules.deadlines import Deadlines
from .._rules.health import Health
from .._rules.ledger import Ledger, Queue
from .._rules.settlement import Death, timed_out
from .streams import StreamRequest
from .waiting import Waiters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._common.wire import Segment
    from .._engines.contract import Answer, Exit, Worker
    from .._rules.deadlines import Due
    from .._rules.instruments import Outcome
    from .._rules.request import Request
    from .._rules.statistics import Cause
    from .slot import Slot

CATCH_UP_SECONDS = 0.001
"""For how long a stream's chunks may lie in the socket while its reader has others to take. Else
each step of a reader that is behind would wake up the pool for one more chunk: 16-byte chunks
came at half the rate."""

BEHIND_CHUNKS = 16


class SlotWorker:
    """A worker in its slot.

    Attributes:
        worker: the engine's.
        number: the worker's; no other worker of the pool has it.
        ledger: what it has been sent and has not answered.
        queue: what it is sent requests from: its slot's queue, as long as it is the current worker.
        sending: the request whose frames do not fit into the socket, while a task sends the rest.
        deadlines: when what it executes is to be interrupted, or killed with it.
        due_changed: waits for a change of these, or an answer: the task that keeps it to them.
        health: whether it stands still.
        has_answered: waits for answers: the task that looks whether it is worn.
        completed: how many requests it has answered.
        retired_for: why it is sent nothing more, and closes when it has ended what it has; None
            as long as that is not so.
        was_told_to_close: whether it was told to close, having ended what it had.
        is_overdue: whether it was killed because it did not close in time.
        killed_for: what it was killed for, if it was because of what it executed.
    """

    def __init__(
        self, slot: Slot, worker: Worker, number: int, tasks: trio.Nursery, cancel_grace: float
    ) -> None:
        self._slot = slot
        self._instruments = slot.instruments
        self._tasks = tasks
        self.worker = worker
        self.pid = worker.pid
        self.number = number
        self.ledger = Ledger(slot.lanes)
        self.queue = slot.queue
        self.sending: Request | None = None
        self.due_changed = Waiters()
        self.deadlines = Deadlines(cancel_grace, self.due_changed.wake)
        self.health = Health()
        self.has_answered = Waiters()
        self.completed = 0
        self.retired_for: Cause | None = None
        self.was_told_to_close = False
        self.is_overdue = False
        self.killed_for: Due | None = None
        # Frames that are no requests, and whether they are to be read in the middle of an action.
        self._notices: list[Segment] = []
        self._is_urgent = False

    def __str__(self) -> str:
        return f"slot {self._slot.index}: worker {self.number}, process {self.pid},"

    def memory(self) -> int:
        """Return how many bytes are resident for it."""
        return self.worker.memory()

    @property
    def is_retired(self) -> bool:
        """Whether it is sent nothing more."""
        return self.retired_for is not None

    @property
    def is_busy(self) -> bool:
        """Whether it has anything to end."""
        return bool(self.ledger.entries or self.queue)

    # What it is sent

    def send(self) -> None:
        """Send what may be sent now.

        It never waits for the socket. What does not fit, which is a part of a large request, a task
        of its own sends, and nothing else is sent meanwhile: frames never mix.
        """
        while self.sending is None and (frames := self._next_frames()):
            # Of these frames: what becomes urgent while the rest is sent is not among them.
            is_urgent, self._is_urgent = self._is_urgent, False
            rest = self.worker.send_nowait(frames)
            if rest:
                self.sending = self.ledger.latest_sent()
                self._tasks.start_soon(self._send_rest, rest, is_urgent)
            elif is_urgent:
                self.worker.interrupt()
            if not self.queue and not self.is_retired:
                break  # the usual case, without a second look

    @trio.lowlevel.enable_ki_protection
    async def _send_rest(self, rest: Sequence[Segment], is_urgent: bool) -> None:
        await self.worker.send_rest(rest)
        request, self.sending = self.sending, None
        if request is not None:
            self.deadlines.transferred(request.number, 0, self._slot.now())
        if is_urgent:
            self.worker.interrupt()
        self._slot.wake_consumer()

    def _next_frames(self) -> Sequence[Segment]:
        """Decide what to send now; the last is the order to close."""
        queue, notices = self.queue, self._notices
        if notices:
            self._notices = []
        if self.health.is_pinged:
            # If it turns out to have been stopped, nothing that it was given has begun.
            return notices
        if not queue:
            return notices or self._close()
        ledger = self.ledger
        executing = len(ledger.entries)
        frames = ledger.take(queue, [*notices], self)
        if executing < ledger.lanes:
            now = self._slot.now()
            for request in ledger.begun_since(executing):
                self._begin(request, now)
        return frames

    def _close(self) -> Sequence[Segment]:
        """Tell it to close, when it has ended what it has."""
        if not self.is_retired or self.is_busy or self.was_told_to_close:
            return ()
        self.was_told_to_close = True
        self.due_changed.wake()
        return [wire.frame(wire.CLOSE)]

    def notify(self, frame: Segment, *, is_urgent: bool = False) -> None:
        """Have a frame sent that is no request, before any further request.

        Args:
            frame: the frame.
            is_urgent: whether it is to be read in the middle of an action.
        """
        self._notices.append(frame)
        self._is_urgent = self._is_urgent or is_urgent
        self._slot.wake_consumer()

    def retire(self, cause: Cause) -> None:
        """Have it end what it has been given, then close."""
        if self.is_retired:
            return
        self.retired_for = cause
        self._instruments.worker_retired(self._slot.index, self.number, cause)
        self._slot.wake_consumer()

    def look_after(self) -> None:
        """Kill a worker that stands still, and ask an idle one for a sign of life."""
        health = self.health
        decision = health.look(
            self.ledger.may_have_begun(),
            lambda: self.worker.stands_still(busy=not health.is_pinged),
            is_closing=self.was_told_to_close,
            is_idle=not self.is_retired and not self._slot.is_busy,
        )
        if decision == "ping":
            self.notify(wire.frame(wire.PING, health.ping))
        elif decision == "kill":
            self.worker.kill()

    def kill_overdue(self) -> None:
        """Kill it if it was told to close and has not ended within ``grace_period``."""
        if self.was_told_to_close and not self.is_overdue:
            self.is_overdue = True
            logger.error("%s did not close within grace_period, and is killed", self)
            self.worker.kill()

    def step_down(self) -> None:
        """Let its successor have what it has not been sent."""
        self.queue = Queue()

    # What it executes

    def _begin(self, request: Request, now: float) -> None:
        """Take note that a lane may have taken a request up."""
        request.began = now
        self._instruments.request_begun(request.number, self._slot.index, self.number)
        if request.limits.is_timed or request.cancelled:
            self.deadlines.begun(request, now)
            if request.cancelled:
                self.deadlines.left(request, now)

    def withdraw(self, request: Request) -> bool:
        """Have a request whose caller leaves skipped, or let its action know.

        It stays in the ledger, since it may have begun, until the worker has answered.
        """
        self._instruments.request_cancelled(request.number)
        self.notify(wire.frame(wire.WITHDRAW, request.number))
        if request in self.ledger.may_have_begun():
            self.deadlines.left(request, self._slot.now())
        return False

    def give_credit(self, request: StreamRequest, chunks: int, size: int) -> None:
        """Tell the generator of a stream what its reader has taken."""
        self.notify(wire.pair_frame(wire.CREDIT, request.number, chunks, size))
        if not request.is_held:
            now = self._slot.now()
            request.resume(now)
            self.deadlines.resumed(request.number, now)

    # What it answers

    async def run(self) -> None:
        """Receive what the worker answers, until it has ended."""
        receive = self.worker.receive
        while replies := await receive():
            behind = self._settle(replies)
            # A result may be large, and the next reply long in coming. Freeing 200 MB
            # would also hold the loop for 20 ms, at an unexpected moment.
            del replies
            # Not while another lane's reply may come, whose caller would wait for this reader.
            if behind is not None and len(self.ledger.may_have_begun()) == 1:
                with trio.move_on_after(CATCH_UP_SECONDS):
                    await behind.wait_taken()
            del behind

    def _settle(self, replies: Sequence[Answer]) -> StreamRequest | None:
        """End the requests that have been answered, and make room for the next.

        Returns:
            The stream whose reader has enough to take, if the last that came were chunks.
        """
        slot, ledger, deadlines = self._slot, self.ledger, self.deadlines
        entries, lanes = ledger.entries, ledger.lanes
        strike_out, add_duration = ledger.answered, slot.durations.add
        report_end = self._instruments.request_ended
        now = slot.now()
        completed = slot.completed
        behind = None
        has_room = False
        for reply in replies:
            # One by one: the next entry of the ledger may have begun as soon as this one
            # has been struck out, and not before.
            if type(reply) is Chunks:
                behind = self._pass_on(reply, now)
                continue
            if type(reply) is Pong:
                self.health.ponged()
                slot.wake_consumer()
                continue
            behind = None
            has_room = True
            number, seconds, error, value = reply
            request = strike_out(number, seconds)
            ended: Outcome = "returned"
            if seconds is None:
                ended = "withdrawn"
                request.skip()
            else:
                slot.completed += 1
                add_duration(request.app, request.began - request.accepted, seconds)
                if error is None:
                    request.succeed(value)
                else:
                    ended = "raised"
                    self._fail(request, error)
            report_end(number, ended)
            if deadlines.are_there:
                deadlines.ended(number)
            if len(entries) >= lanes:
                self._begin(next(islice(entries.values(), lanes - 1, None)), now)
            if request.key is not None:
                slot.dispatcher.release(request)
        self.completed += slot.completed - completed
        if has_room:
            if slot.is_weighed:
                slot.load_changed()
            if self.queue or self.retired_for is not None or len(slot.workers) > 1:
                slot.wake_consumer()
            slot.progressed()
            self.has_answered.wake()
        if deadlines.are_there:
            self.due_changed.wake()
        return behind

    def _pass_on(self, reply: Chunks, now: float) -> StreamRequest | None:
        """Give a stream's reader what has arrived for it; return it if the reader is behind."""
        request = self.ledger.entries.get(reply.number)
        if not isinstance(request, StreamRequest):
            raise DirtyError(f"{request} was answered with chunks")
        request.arrive(reply.chunks, self)
        if request.is_held:
            request.hold(now)
        since = math.inf if request.is_held else now
        self.deadlines.stepped(reply.number, len(reply.chunks), since)
        return request if len(request.arrived) > BEHIND_CHUNKS else None

    def _fail(self, request: Request, error: BaseException) -> None:
        """End a request with what its action raised, which may be an interrupt of ours."""
        raised = error.type_name if isinstance(error, RemoteError) else ""
        seconds = request.limits.soft_timeout
        if raised == qualified(SoftTimeout) and seconds < math.inf:
            what = f"took longer than soft_timeout={seconds} seconds, and was interrupted"
            place = self._slot.index
            late = timed_out(request, what, seconds, slot=place, pid=self.pid, soft=True)
            late.__cause__ = error.__cause__
            request.fail(late)
        elif raised == qualified(RequestCancelled) and request.cancelled:
            request.skip()  # as the caller who has waited for it wanted
        else:
            request.fail(error)

    # What it leaves

    def settle_exit(self, exit_: Exit) -> DirtyError:
        """Settle, by the ledger, what a dead worker leaves; return what it died of.

        All of it is synchronous.
        """
        slot = self._slot
        begun, unbegun = self.ledger.settle()
        slot.load_changed()
        death = Death(
            slot.index,
            self.number,
            exit_.pid,
            exit_.exitcode,
            str(exit_),
            self.killed_for,
            is_unresponsive=self.health.is_unresponsive,
        )
        text = death.described(begun)
        now = slot.now()
        for request in begun:
            slot.failed += 1
            slot.durations.add_unfinished(request.executed(now))
            ended, error = death.outcome(request, text)
            # First end it, then report it: a hook may come back here.
            if error is None:
                request.skip()
            else:
                request.fail(error)
            self._instruments.request_ended(request.number, ended)
        slot.dispatcher.release_all([each for each in begun if each.key is not None])
        if slot.current is None:
            unbegun += slot.take_unsent()
        # Else its successor serves the rest.
        stays = not slot.life.is_leaving and slot.life.failure is None
        slot.settle(unbegun, keeps_keys=stays, keeps_pinned=stays)
        slot.progressed()
        logger.error("%s", text)
        return death.error(text)

    def let_go(self) -> None:
        """Let go of what has ended.

        Requests refer to their worker, and exceptions of actions to their requests: a program that
        keeps one would keep the half megabyte of a socket's buffer.
        """
        self.deadlines.clear()
        self.sending = self.killed_for = None
        del self.worker
