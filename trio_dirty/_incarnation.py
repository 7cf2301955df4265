"""One worker of a slot, from its start to the settlement of what it leaves.

Two tasks for each: `Incarnation.run` receives what the worker answers, and `Incarnation.oversee`
sees to it that what it executes keeps its limits. What they decide, they decide between two
awaits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from . import _wire
from ._engine import Chunks
from ._errors import (
    DirtyError,
    RemoteError,
    RequestCancelled,
    RequestTimeoutError,
    SoftTimeout,
    WorkerCrashedError,
)
from ._log import logger
from ._outbox import qualified
from ._oversight import TIMEOUT, Order, Oversight
from ._routing import number
from ._stream import StreamRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._dispatcher import Dispatcher
    from ._engine import Exit, Reply, Worker
    from ._instruments import Outcome
    from ._request import Request
    from ._slot import Slot

CATCH_UP_SECONDS = 0.001
"""For how long a stream's chunks may lie in the socket while its reader has others to take. Else
each step of a reader that is behind would wake up the pool for one more chunk: 16-byte chunks
came at half the rate."""

BEHIND_CHUNKS = 16


class Incarnation:
    """One worker in its slot.

    Attributes:
        worker: the engine's.
        number: the worker's; no other worker of the pool has it.
        is_deliberate: whether the pool itself has killed it.
    """

    def __init__(self, slot: Slot, worker: Worker, number: int) -> None:
        self._slot = slot
        self._backlog = slot.backlog
        self.worker = worker
        self.number = number
        self._oversight = Oversight(slot.cancel_grace)
        # `oversee` is parked here, and looks again when there may be something to do.
        self._attention = trio.lowlevel.ParkingLot()
        self._killed_for: Order | None = None

    @property
    def is_deliberate(self) -> bool:
        """Whether the pool itself has killed it, because of what it was executing."""
        return self._killed_for is not None

    async def run(self) -> None:
        """Receive what the worker answers, until it has ended."""
        receive = self.worker.receive
        while replies := await receive():
            behind = self._settle(replies)
            # A result may be large, and the next reply long in coming. Freeing 200 MB
            # would also hold the loop for 20 ms, at a moment that nobody expects.
            del replies
            if behind is not None:
                with trio.move_on_after(CATCH_UP_SECONDS):
                    await behind.wait_taken()
            del behind

    # What the worker answers

    def _settle(self, replies: Sequence[Reply | Chunks]) -> StreamRequest | None:
        """End the requests that have been answered, and make room for the next.

        Returns:
            The stream whose reader has enough to take, if the last that came were chunks.
        """
        slot = self._slot
        now = slot.now()
        backlog = self._backlog
        strike_out = backlog.answered
        attentive = backlog.attentive
        behind = None
        for reply in replies:
            # One by one: the next entry of the ledger may have begun as soon as this one
            # has been struck out, and not before.
            if type(reply) is Chunks:
                behind = self._pass_on(reply, now)
                continue
            behind = None
            answered, seconds, error, value = reply
            request = strike_out(answered, seconds)
            if seconds is None:
                request.skip()
            else:
                slot.completed += 1
                slot.durations.add(now - request.accepted - seconds, seconds)
                if error is None:
                    request.succeed(value)
                elif attentive:
                    self._fail(request, error)
                else:
                    request.fail(error)
            if request.key is not None:
                slot.release(request)
            if attentive:
                ended: Outcome = "returned" if error is None else "raised"
                slot.tell_end(request, "withdrawn" if seconds is None else ended)
                self._oversight.ended(answered)
                backlog.begin_next()
        if attentive:
            self._attention.unpark_all()
        if behind is None:
            slot.made_progress()
        return behind

    def _pass_on(self, reply: Chunks, now: float) -> StreamRequest | None:
        """Give a stream's reader what has arrived for it; return it if the reader is behind."""
        request = self._backlog.sent(reply.number)
        if not isinstance(request, StreamRequest):
            raise DirtyError(f"{request} was answered with chunks")
        request.arrive(reply.chunks)
        if self._backlog.attentive:
            since = math.inf if request.is_held else now
            self._oversight.stepped(reply.number, len(reply.chunks), since)
            self._attention.unpark_all()
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

    def begun(self, request: Request) -> None:
        """Watch a request from its beginning."""
        if request.limits.is_timed:
            self._oversight.begun(request, self._slot.now())
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

    @trio.lowlevel.enable_ki_protection
    async def oversee(self) -> None:
        """Interrupt what is over its limits, and kill the worker for it."""
        now, oversight = self._slot.now, self._oversight
        while True:
            order = oversight.order(now())
            if order is None:
                with trio.move_on_after(max(0.0, oversight.next_time() - now())):
                    await self._attention.park()
            elif order.action == "interrupt":
                steps = order.steps
                frame = _wire.pair_frame(_wire.INTERRUPT, order.request.number, order.reason, steps)
                self._slot.send_urgently(frame)
            else:
                await self._kill(order)

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

    def settle_exit(self, dispatcher: Dispatcher, exit_: Exit) -> DirtyError:
        """Settle, by the ledger, what a dead worker leaves; return what it died of.

        All of it is synchronous.
        """
        slot = self._slot
        begun, unbegun = slot.let_go()
        doing = " and ".join(str(request.target) for request in begun) or "nothing"
        text = f"worker {self.number} of slot {slot.index} died while executing {doing}: {exit_}"
        culprit = None
        if self._killed_for is not None:
            culprit = self._killed_for.request
            text += f"; {self._why_killed(self._killed_for)}"
        for request in begun:
            slot.failed += 1
            if request.key is not None:
                slot.release(request)
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
        for request in sorted(unbegun, key=number):
            if request.cancelled:
                slot.end_unbegun(request)
            elif request.key is not None:
                slot.give(request)
            else:
                dispatcher.route(request)
        logger.error("%s", text)
        return self._crashed(text, exit_)

    @staticmethod
    def _why_killed(order: Order) -> str:
        if order.reason == TIMEOUT:
            return f"the pool killed it after timeout={order.request.limits.timeout} seconds"
        return "the pool killed it because the caller was cancelled"

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
