"""The workers that succeed each other in a slot.

One task for each slot, for as long as it lives: `Succession.run` has one worker start after the
other, whenever the slot wants one. And one task for each worker, from its start to its end. What
they decide, they decide between two awaits.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from .._common.errors import AppLoadError, MemoryLimitError
from .._common.log import logger
from .._engines.contract import Blueprint
from .._engines.nursery import open_service_nursery
from .._rules.recycling import Backoff, Wear, retry_delays
from .wish import Inquiry, Wish
from .worker import Incarnation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._common.errors import DirtyError
    from .._engines.contract import Engine, Worker
    from .._rules.options import Options
    from .._rules.statistics import Cause
    from .._rules.targets import AppPaths
    from .slot import Slot

MEASURE_SECONDS = 0.1
"""How often memory is measured at most: it costs 30 µs, which would be a third of a request."""


class Succession:
    """Has one worker after the other in a slot.

    Attributes:
        slot: the slot.
        has_booted: whether there has ever been a worker that was ready.
        closed: set when there is no worker, and there will be none.
    """

    def __init__(
        self, slot: Slot, engine: Engine, numbers: Iterator[int], options: Options
    ) -> None:
        self.slot = slot
        self._engine = engine
        self._numbers = numbers
        self._options = options
        self.has_booted = False
        self.closed = trio.Event()
        self._inquiry: Inquiry | None = None
        self._backoff = Backoff()
        self._delay = 0.0
        # What the next worker is started for; nothing for the first.
        self._cause: Cause | None = None
        self._wishes: list[Wish] = []
        self._is_hiring = False
        # The worker for which no successor is wanted yet, until nothing of it is left.
        self._serving: Incarnation | None = None
        # `run` is parked here, and looks again when something has changed.
        self._attention = trio.lowlevel.ParkingLot()
        self._hiring = trio.CancelScope()
        self._workers: trio.Nursery

    @trio.lowlevel.enable_ki_protection
    async def run(self, inquiry: Inquiry | None = None) -> None:
        """Start a worker whenever one is wanted; end when all have, after `close` or `leave`."""
        slot = self.slot
        self._inquiry = inquiry
        try:
            async with open_service_nursery() as nursery:
                nursery.start_soon(slot.consume)
                async with trio.open_nursery() as self._workers:
                    with self._hiring:
                        while True:
                            await self._until_wanted()
                            await self._hire()
                    # Its workers may have long to go on; nobody is to wait for that.
                    self._disappoint()
        finally:
            self._disappoint()
            if slot.failure is None and slot.instruments is not None:
                slot.instruments.slot_closed(slot.index, None)
            self.closed.set()
            slot.progress.unpark_all()

    @property
    def is_lost(self) -> bool:
        """Whether the slot has failed, and nothing is done about that."""
        return self.slot.failure is not None and not self._is_hiring and not self._wishes

    def want(self, wish: Wish) -> Wish:
        """Have the worker replaced, or one started where the slot has failed or backs off."""
        if self._hiring.cancel_called or self.closed.is_set():
            wish.decide(_is_ending())
        else:
            self._wishes.append(wish)
            self._attention.unpark_all()
        return wish

    def close(self) -> None:
        """Have the workers close, which must be idle; start no further one."""
        self._end("closing")

    def leave(self) -> None:
        """Take the slot out of the pool: its workers end what they have been sent, and close."""
        slot = self.slot
        slot.dispatcher.remove(slot)
        if slot.instruments is not None:
            slot.instruments.slot_leaving(slot.index)
        self._end("resize")
        if slot.current is None:
            slot.pass_on(slot.take_unsent(), keeps=False)
        else:
            slot.pass_on_unsent(keeps=False)

    def _end(self, cause: Cause) -> None:
        slot = self.slot
        slot.is_leaving = True
        if slot.failure is None:
            slot.state = "draining"
        self._hiring.cancel()
        if slot.current is not None:
            slot.current.retire(cause)

    # When a worker is wanted

    async def _until_wanted(self) -> None:
        slot = self.slot
        while not self._wishes and (self._serving is not None or slot.failure is not None):
            await self._attention.park()
        delay, self._delay = self._delay, 0.0
        if delay and not self._wishes:
            slot.state = "backing_off"
            logger.warning("slot %d: the next worker starts in %g seconds", slot.index, delay)
            with trio.move_on_after(delay):
                while not self._wishes:
                    await self._attention.park()
        # It may have left after this was woken up and before it ran.
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _hire(self) -> None:
        """Start a worker, and wait until it has taken over or could not."""
        slot = self.slot
        wishes, self._wishes = self._wishes, []
        apps = next((wish.apps for wish in reversed(wishes) if wish.apps is not None), None)
        cause = self._cause
        if wishes:
            cause = min(reversed(wishes), key=lambda wish: wish.overlaps).cause
        self._is_hiring = True
        try:
            if cause is not None and not all(wish.overlaps for wish in wishes):
                await self._see_off(cause)
            if slot.current is None:
                slot.state = "booting"
            await self._workers.start(self._live, cause, apps)
        except AppLoadError as error:
            self._is_hiring = False
            self._not_booted(error, wishes)
        except BaseException:
            self._wishes += wishes  # `run` disappoints those who have them
            raise
        else:
            self._is_hiring = False
            # Also what has been wished meanwhile for the one that has been succeeded.
            late = [wish for wish in self._wishes if wish.worn is not None and wish.worn.is_retired]
            self._wishes = [wish for wish in self._wishes if wish not in late]
            for wish in [*wishes, *late]:
                wish.decide()

    async def _see_off(self, cause: Cause) -> None:
        """Let the present worker end before the next one starts: there is no room for two."""
        slot = self.slot
        if slot.current is not None:
            slot.dispatcher.lost(slot)
            slot.current.retire(cause)
            slot.step_down()
            slot.pass_on_unsent(keeps=True)
        while self._serving is not None:
            await self._attention.park()

    def _not_booted(self, error: AppLoadError, wishes: Sequence[Wish]) -> None:
        slot = self.slot
        for wish in wishes:
            wish.decide(error)
        if slot.current is not None:
            return  # it serves on
        self._cause = "boot_failed"
        if slot.failure is not None:
            slot.state = "failed"
            slot.failure = error
            return
        delay = self._backoff.died(completed=0)
        if delay is None or not self.has_booted:
            self._give_up(error)
        else:
            self._delay = delay

    def _give_up(self, cause: DirtyError) -> None:
        slot = self.slot
        logger.error("slot %d has failed, and gets no further worker: %s", slot.index, cause)
        self._backoff = Backoff()
        slot.give_up(cause)

    def _disappoint(self) -> None:
        wishes, self._wishes = self._wishes, []
        for wish in wishes:
            wish.decide(_is_ending())

    # One worker

    @trio.lowlevel.enable_ki_protection
    async def _live(
        self,
        cause: Cause | None,
        apps: AppPaths | None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Start a worker, let it take over and serve, and settle what it leaves.

        Raises:
            AppLoadError: it could not boot.
        """
        slot = self.slot
        number = next(self._numbers)
        blueprint = Blueprint(slot.index, number, self._options.threads)
        failure = None
        async with self._engine.start(blueprint) as worker, open_service_nursery() as nursery:
            self._tell_start(number, cause)
            try:
                wear = await self._boot(worker, number, apps)
                # The slot may have left after this was woken up and before it ran.
                await trio.lowlevel.checkpoint_if_cancelled()
                incarnation = self._take_over(worker, number, nursery, cause, apps or slot.apps)
            except BaseException as error:
                if isinstance(error, AppLoadError):
                    where = slot.index, number, worker.pid
                    logger.error(
                        "slot %d: worker %d, process %s, has not booted: %s", *where, error
                    )
                self._tell_exit(worker, number)
                raise
            nursery.start_soon(incarnation.oversee)
            if wear.is_limited:
                nursery.start_soon(self._watch_wear, incarnation, wear)
            task_status.started()
            try:
                await incarnation.run()
            finally:
                if incarnation is slot.current:
                    if not slot.is_leaving:
                        slot.dispatcher.lost(slot)
                    slot.step_down()
                self._tell_exit(worker, number)
                slot.progress.unpark_all()
            if incarnation.was_told_to_close:
                exit_ = worker.exit()
                retired = slot.index, number, incarnation.retired_for
                logger.log(
                    logging.WARNING
                    if exit_.exitcode and not incarnation.is_overdue
                    else logging.INFO,
                    "slot %d: worker %d, retired (%s): %s",
                    *retired,
                    exit_,
                )
            else:
                failure = incarnation.settle_exit(worker.exit())
            slot.forget(incarnation)
            slot.wake_consumer()  # its successor may have waited for it
        self._ended(incarnation, failure)

    def _tell_start(self, number: int, cause: Cause | None) -> None:
        slot = self.slot
        if slot.latest >= 0 and cause is not None:
            slot.restarts[cause] = slot.restarts.get(cause, 0) + 1
        if slot.current is None:
            slot.latest = number
        logger.info("slot %d: worker %d starts (%s)", slot.index, number, cause or "the first")
        if slot.instruments is not None:
            slot.instruments.worker_started(slot.index, number)

    def _tell_exit(self, worker: Worker, number: int) -> None:
        slot, exit_ = self.slot, worker.exit()
        if slot.instruments is not None:
            slot.instruments.worker_exited(slot.index, number, exit_.pid, exit_.exitcode)

    async def _boot(self, worker: Worker, number: int, apps: AppPaths | None) -> Wear:
        limit = self._options.boot_timeout
        with trio.move_on_after(limit) as booting:
            if self._inquiry is not None:
                self._inquiry.answered(await worker.look_up(self._inquiry.apps))
                self._inquiry = None
            await worker.boot(apps or self.slot.apps)
        where = f"slot {self.slot.index}: worker {number}, process {worker.pid},"
        if booting.cancelled_caught:
            raise AppLoadError(f"{where} did not boot within boot_timeout={limit} seconds")
        wear = Wear(self._options.recycling)
        refusal = wear.refusal(worker.memory()) if wear.limits_memory else None
        if refusal is not None:
            raise MemoryLimitError(f"{where} cannot be used: {refusal}")
        return wear

    def _take_over(
        self,
        worker: Worker,
        number: int,
        tasks: trio.Nursery,
        cause: Cause | None,
        apps: AppPaths,
    ) -> Incarnation:
        slot, options = self.slot, self._options
        previous, carried = slot.current, slot.carries
        incarnation = Incarnation(
            slot,
            worker,
            number,
            tasks,
            cancel_grace=options.cancel_grace,
            grace_period=options.grace_period,
            look_seconds=self._engine.look_seconds,
        )
        if previous is not None and cause is not None:
            previous.retire(cause)
        slot.take_over(incarnation, apps)
        slot.latest = number
        self._serving = incarnation
        self._delay = 0.0
        self.has_booted = True
        if slot.failure is not None:
            slot.failure = None
            slot.dispatcher.revive(slot)
            if slot.instruments is not None:
                slot.instruments.slot_opened(slot.index, slot.app_names)
        logger.info("slot %d: worker %d, process %s, is ready", slot.index, number, worker.pid)
        if slot.instruments is not None:
            if slot.carries != carried:
                slot.instruments.slot_carries(slot.index, slot.app_names)
            slot.instruments.worker_ready(slot.index, number, worker.pid)
        if previous is None:
            slot.dispatcher.ready(slot)
        else:
            slot.dispatcher.gained(slot, sorted(slot.carries - carried))
        slot.wake_consumer()
        slot.progress.unpark_all()
        return incarnation

    def _ended(self, incarnation: Incarnation, failure: DirtyError | None) -> None:
        """Decide about the next worker, when nothing is left of one."""
        if failure is not None and not incarnation.is_retired:
            served = incarnation.completed + incarnation.is_deliberate
            delay = self._backoff.died(completed=served)
            if incarnation is self._serving:  # else its successor has taken over already
                self._cause = _cause_of_death(incarnation)
                if delay is not None:
                    self._delay = delay
                elif not self._is_hiring:  # else its successor decides
                    self._give_up(failure)
        if incarnation is self._serving:
            self._serving = None
        self._attention.unpark_all()

    async def _watch_wear(self, incarnation: Incarnation, wear: Wear) -> None:
        """Have a worker replaced when it is worn, again and again until that succeeds."""
        # Not a comparison of ages: a wait until a moment may end one rounding before them.
        end = trio.current_time() + wear.lifetime
        worker = incarnation.worker
        while True:
            completed = incarnation.completed
            memory = worker.memory() if wear.limits_memory else 0
            cause = wear.cause(completed, memory, is_old=trio.current_time() >= end)
            if cause is not None:
                break
            with trio.move_on_at(end):
                if wear.limits_memory:
                    await trio.sleep(MEASURE_SECONDS)
                while incarnation.completed == completed:
                    await incarnation.wear.park()
        if not incarnation.is_retired:
            logger.info("%s is to be replaced: %s", incarnation, wear.why(cause, completed, memory))
        for delay in retry_delays():
            if incarnation.is_retired:
                return  # it has been replaced for something else
            wish = self.want(Wish(cause, worn=incarnation))
            try:
                await wish.granted()
            except AppLoadError:
                logger.warning(
                    "%s is to be replaced, and its successor could not boot: next try in %g s",
                    incarnation,
                    delay,
                )
                await trio.sleep(delay)
            except trio.ClosedResourceError:
                return
            else:
                return
            finally:  # it may have ended by itself
                if wish in self._wishes:
                    self._wishes.remove(wish)


def _cause_of_death(incarnation: Incarnation) -> Cause:
    if incarnation.is_unresponsive:
        return "unresponsive"
    return "killed" if incarnation.is_deliberate else "crashed"


def _is_ending() -> trio.ClosedResourceError:
    return trio.ClosedResourceError("the pool is being closed, or has shrunk")
