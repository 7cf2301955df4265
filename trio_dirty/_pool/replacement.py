"""The workers of a slot, one after the other.

One task for each slot, for as long as it lives: `Replacement.run` does what the state of the slot's
life asks for. And one task for each worker, from its start to its end: `Replacement._live`. All
decisions are made between two awaits.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from .._common.errors import AppLoadError, MemoryLimitError
from .._common.log import logger
from .._engines.contract import Blueprint
from .._engines.nursery import open_service_nursery
from .._rules.lifecycle import State
from .._rules.recycling import Wear
from .enforcement import Enforcement
from .renewal import Renewal
from .waiting import Waiters
from .wear import watch_wear
from .worker import SlotWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._common.errors import DirtyError
    from .._engines.contract import Engine, Worker
    from .._rules.options import Options
    from .._rules.statistics import Cause
    from .._rules.targets import AppPaths
    from .slot import Sender, Slot


class Inquiry:
    """What the first worker of a pool is asked before anything is booted.

    Args:
        apps: those of which only a worker can tell how many slots are to carry them.
        answered: called with what it says of each.
    """

    def __init__(self, apps: AppPaths, answered: Callable[[Sequence[int | None]], object]) -> None:
        self.apps = apps
        self.answered = answered


class Replacement:
    """Has one worker after the other in a slot.

    Args:
        changed: where its task waits for what happens to the slot; see `Slot`.

    Attributes:
        slot: the slot.
        closed: set when there is no worker, and there will be none.
    """

    def __init__(
        self,
        slot: Slot,
        engine: Engine,
        numbers: Iterator[int],
        options: Options,
        changed: Waiters,
    ) -> None:
        self.slot = slot
        self._life = slot.life
        self._engine = engine
        self._numbers = numbers
        self._options = options
        self._changed = changed
        self.closed = trio.Event()
        self._inquiry: Inquiry | None = None
        # What is wanted and has not been tried, in order.
        self._renewals: list[Renewal] = []
        # The worker that has taken over last, until nothing of it is left.
        self._latest: SlotWorker | None = None
        self._starting = trio.CancelScope()
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
                    with self._starting:
                        while True:
                            await self._do_what_is_next()
                    # Its workers may have long to go on; no caller is to wait for that.
                    self._refuse_renewals()
        finally:
            self._refuse_renewals()
            if self._life.failure is None:
                slot.instruments.slot_closed(slot.index, None)
            self.closed.set()

    @property
    def is_lost(self) -> bool:
        """Whether the slot has failed, and nothing is done about that."""
        return self._life.is_lost and not self._renewals

    def want(self, renewal: Renewal) -> Renewal:
        """Have the worker replaced, or one started where the slot has failed or backs off."""
        if self._life.is_leaving or self._starting.cancel_called or self.closed.is_set():
            renewal.end(_is_ending())
        else:
            self._renewals.append(renewal)
            self._changed.wake()
        return renewal

    def withdraw(self, renewal: Renewal) -> None:
        """Want it no more, if it has not been tried."""
        if renewal in self._renewals:
            self._renewals.remove(renewal)

    def close(self) -> None:
        """Have the workers close, which must be idle; start no further one."""
        self._end("closing")

    def leave(self) -> None:
        """Take the slot out of the pool: its workers end what they have been sent, and close."""
        slot = self.slot
        slot.dispatcher.remove(slot)
        slot.instruments.slot_leaving(slot.index)
        self._end("resize")
        slot.settle_queue(keeps_pinned=slot.current is not None)

    def _end(self, cause: Cause) -> None:
        self._life.leave()
        self._starting.cancel()
        if self.slot.current is not None:
            self.slot.current.retire(cause)

    # The next worker

    async def _do_what_is_next(self) -> None:
        life = self._life
        if life.state in (State.BOOTING, State.RENEWING, State.REVIVING):
            await self._start()
        elif life.state is State.BACKING_OFF:
            await self._back_off()
        elif self._renewals and life.state in (State.READY, State.FAILED):
            self._renew()
        else:
            await self._changed.wait()
        # It may have left after this was woken up and before it ran.
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _back_off(self) -> None:
        delay = self._life.delay
        if not self._renewals:
            index = self.slot.index
            logger.warning("slot %d: the next worker starts in %g seconds", index, delay)
            with trio.move_on_after(delay):
                await self._changed.until(lambda: self._renewals)
        # It may have left after this was woken up and before it ran.
        await trio.lowlevel.checkpoint_if_cancelled()
        self._life.due()

    def _renew(self) -> None:
        """Have the next worker started: at once, or where there is no room for two, afterwards."""
        slot, worker = self.slot, self.slot.current
        overlaps = all(renewal.overlaps for renewal in self._renewals)
        if worker is None or overlaps:
            self._life.renew(overlaps=True)
            return
        slot.dispatcher.lost(slot)
        worker.retire(_cause(self._renewals))
        self._step_down(worker)
        self._life.renew(overlaps=False)
        slot.settle_queue(keeps_keys=True, keeps_pinned=True)

    async def _start(self) -> None:
        """Start a worker, and wait until it has taken over or could not."""
        renewals, self._renewals = self._renewals, []
        apps = next((each.apps for each in reversed(renewals) if each.apps is not None), None)
        cause = _cause(renewals) if renewals else self._life.cause
        try:
            await self._workers.start(self._live, cause, apps)
        except AppLoadError as error:
            for renewal in renewals:
                renewal.end(error)
            if self._life.not_booted(error):
                self._give_up(error)
        except BaseException:
            self._renewals += renewals  # `run` refuses them
            raise
        else:
            # Also what has been wanted meanwhile for the one that has been succeeded.
            late = [each for each in self._renewals if each.worn and each.worn.is_retired]
            self._renewals = [renewal for renewal in self._renewals if renewal not in late]
            for renewal in [*renewals, *late]:
                renewal.end()

    def _give_up(self, cause: DirtyError) -> None:
        index = self.slot.index
        logger.error("slot %d has failed, and gets no further worker: %s", index, cause)
        self.slot.give_up(cause)

    def _refuse_renewals(self) -> None:
        renewals, self._renewals = self._renewals, []
        for renewal in renewals:
            renewal.end(_is_ending())

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
        slot, options = self.slot, self._options
        number = next(self._numbers)
        blueprint = Blueprint(slot.index, number, options.threads)
        served = None
        try:
            async with self._engine.start(blueprint) as worker, open_service_nursery() as nursery:
                self._report_start(number, cause)
                try:
                    wear = await self._boot(worker, number, apps or slot.apps)
                    # The slot may have left after this was woken up and before it ran.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    served = SlotWorker(slot, worker, number, nursery, options.cancel_grace)
                    self._take_over(served, cause, apps or slot.apps)
                except BaseException as error:
                    self._report_no_boot(worker, number, error)
                    raise
                self._watch(served, wear, nursery)
                task_status.started()
                failure = await self._serve(served)
            self._ended(served, failure)
        finally:
            if served is not None:
                if self._latest is served:
                    self._latest = None
                served.let_go()

    def _watch(self, served: SlotWorker, wear: Wear, nursery: trio.Nursery) -> None:
        """Have a worker kept to its limits, for as long as it is there."""
        enforcement = Enforcement(
            served,
            self.slot.now,
            look_seconds=self._engine.look_seconds,
            grace_period=self._options.grace_period,
        )
        nursery.start_soon(enforcement.run)
        if wear.is_limited:
            nursery.start_soon(watch_wear, self, served, wear)

    async def _serve(self, served: SlotWorker) -> DirtyError | None:
        """Let a worker serve until it has ended; return what it died of, if it died."""
        slot, worker = self.slot, served.worker
        try:
            await served.run()
        finally:
            if served is slot.current:
                if not slot.life.is_leaving:
                    slot.dispatcher.lost(slot)
                self._step_down(served)
                slot.life.lost()
            self._report_exit(worker, served.number)
        failure = None
        if served.was_told_to_close:
            self._log_close(served)
        else:
            failure = served.settle_exit(worker.exit())
        slot.forget(served)
        return failure

    async def _boot(self, worker: Worker, number: int, apps: AppPaths) -> Wear:
        limit = self._options.boot_timeout
        with trio.move_on_after(limit) as booting:
            if self._inquiry is not None:
                self._inquiry.answered(await worker.look_up(self._inquiry.apps))
                self._inquiry = None
                apps = self.slot.apps
            await worker.boot(apps)
        where = f"slot {self.slot.index}: worker {number}, process {worker.pid},"
        if booting.cancelled_caught:
            raise AppLoadError(f"{where} did not boot within boot_timeout={limit} seconds")
        wear = Wear(self._options.recycling)
        refusal = wear.refusal(worker.memory()) if wear.limits_memory else None
        if refusal is not None:
            raise MemoryLimitError(f"{where} cannot be used: {refusal}")
        return wear

    def _take_over(self, worker: SlotWorker, cause: Cause | None, apps: AppPaths) -> None:
        """Have a worker that has booted serve from now on, in place of the current one."""
        slot, instruments = self.slot, self.slot.instruments
        previous, carried = slot.current, slot.carries
        has_failed = slot.life.failure is not None
        if previous is not None:
            if cause is not None:
                previous.retire(cause)
            previous.step_down()
        slot.take_over(worker, apps)
        slot.latest = worker.number
        self._latest = worker
        slot.life.booted()
        if has_failed:
            slot.dispatcher.revive(slot)
            instruments.slot_opened(slot.index, slot.app_names)
        who = slot.index, worker.number, worker.pid
        logger.info("slot %d: worker %d, process %s, is ready", *who)
        if slot.carries != carried:
            instruments.slot_carries(slot.index, slot.app_names)
        instruments.worker_ready(*who)
        if previous is None:
            slot.dispatcher.ready(slot)
        else:
            slot.dispatcher.gained(slot, sorted(slot.carries - carried))
        slot.wake_consumer()

    def _step_down(self, worker: Sender) -> None:
        """Be without a current worker: it has ended, or is to end what it has been sent."""
        worker.step_down()
        self.slot.current = None

    def _ended(self, worker: SlotWorker, failure: DirtyError | None) -> None:
        """Decide about the next worker, when nothing is left of one."""
        life = self._life
        if failure is not None and not worker.is_retired:
            completed = worker.completed + (worker.killed_for is not None)
            cause, is_latest = _cause_of_death(worker), worker is self._latest
            if life.died(failure, cause, completed=completed, is_latest=is_latest):
                self._give_up(failure)
        elif worker is self._latest:
            life.gone()

    # What is reported of it

    def _report_start(self, number: int, cause: Cause | None) -> None:
        slot = self.slot
        if slot.latest >= 0 and cause is not None:
            slot.restarts[cause] = slot.restarts.get(cause, 0) + 1
        if slot.current is None:
            slot.latest = number
        logger.info("slot %d: worker %d starts (%s)", slot.index, number, cause or "the first")
        slot.instruments.worker_started(slot.index, number)

    def _report_no_boot(self, worker: Worker, number: int, error: BaseException) -> None:
        if isinstance(error, AppLoadError):
            who = self.slot.index, number, worker.pid
            logger.error("slot %d: worker %d, process %s, has not booted: %s", *who, error)
        self._report_exit(worker, number)

    def _report_exit(self, worker: Worker, number: int) -> None:
        slot, exit_ = self.slot, worker.exit()
        slot.instruments.worker_exited(slot.index, number, exit_.pid, exit_.exitcode)

    def _log_close(self, worker: SlotWorker) -> None:
        exit_ = worker.worker.exit()
        is_odd = exit_.exitcode and not worker.is_overdue
        level = logging.WARNING if is_odd else logging.INFO
        who = self.slot.index, worker.number, worker.retired_for
        logger.log(level, "slot %d: worker %d, retired (%s): %s", *who, exit_)


def _cause(renewals: Sequence[Renewal]) -> Cause:
    """Return what a worker is replaced for: the latest, those without overlap first."""
    return min(reversed(renewals), key=lambda renewal: renewal.overlaps).cause


def _cause_of_death(worker: SlotWorker) -> Cause:
    if worker.health.is_unresponsive:
        return "unresponsive"
    return "crashed" if worker.killed_for is None else "killed"


def _is_ending() -> trio.ClosedResourceError:
    return trio.ClosedResourceError("the pool is being closed, or has shrunk")
