"""The engine whose workers are simulated, and one such worker."""

from __future__ import annotations

import math
import pickle
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from .._common import wire
from .._common.app import declared_workers
from .._common.context import WorkerInfo, current_lane, current_worker
from .._common.errors import AppLoadError, traceback_text
from .._common.frames import read_frames
from .._common.segments import read_whole
from .._engines.contract import Blueprint, Chunks, Engine, Exit, Pong, Worker
from .._engines.nursery import open_service_nursery
from .._engines.processes import log_closing
from .._engines.replies import chunk, reply
from .._worker.apps import Apps, load
from .._worker.execution import StreamExecution, answer
from .._worker.lane import WITHDRAWN, Lane
from .._worker.outcomes import OutcomeEncoder
from ._plans import Boot, Call, Plan, Turn, ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from .._common.frames import Frame
    from .._common.wire import Segment
    from .._engines.contract import Answer
    from .._rules.targets import AppPaths

FIRST_PID = 1 << 22
"""Larger than any process number of Linux, so that no test can signal a real process."""


class SimEngine(Engine):
    """Starts simulated workers, on trio's clock and in this process, for one pool at a time.

    An action is executed at the moment at which it begins, and its result arrives after the
    time that the plan gives it. Its caller gets whatever it raises, even a `SystemExit`. An
    action must not end its process, which is the test's: plan a `Turn` with an exit code
    instead. A Ctrl-C in an app's code ends only that code, for instance an action that hangs;
    its caller gets a `RemoteError`.

    Args:
        plan: how boots and executions go; None: smoothly and at once.
        look_seconds: how often the pool checks whether a worker is stopped. By default it
            never does, since virtual hours without requests would take real time.

    Raises:
        TypeError: it is no plan.
    """

    def __init__(self, plan: Plan | None = None, *, look_seconds: float = math.inf) -> None:
        self.look_seconds = look_seconds
        if not isinstance(plan, Plan | None):
            raise TypeError(f"plan must be a Plan, such as RandomPlan(seed=1), was {plan!r}")
        self._plan = Plan() if plan is None else plan
        # In the order of their starts. While one takes over from another, both are there.
        self._workers: list[SimWorker] = []

    def now(self) -> float:
        """Return `trio.current_time`."""
        return trio.current_time()

    def crash(self, slot: int, exitcode: int = -9) -> bool:
        """Have the slot's present worker die now; return whether there was one alive."""
        worker = self._alive(slot)
        if worker is None:
            return False
        worker.die(exitcode)
        return True

    def stall(self, slot: int) -> bool:
        """Stop the slot's present worker, as SIGSTOP does.

        It does not boot, begin, answer or close until `resume` or its death.

        Returns:
            Whether there was one alive.
        """
        worker = self._alive(slot)
        if worker is None:
            return False
        worker.stall()
        return True

    def resume(self, slot: int) -> bool:
        """Continue a stalled worker; return whether there was one."""
        worker = self._alive(slot)
        if worker is None or worker.stalled is None:
            return False
        worker.resume()
        return True

    def _alive(self, slot: int) -> SimWorker | None:
        alive = [
            worker
            for worker in self._workers
            if worker.slot == slot and worker.exit().exitcode is None
        ]
        ready = [worker for worker in alive if worker.is_ready]
        return next(reversed(ready or alive), None)

    def _make(self, blueprint: Blueprint) -> SimWorker:
        return SimWorker(blueprint, self._plan)

    @asynccontextmanager
    async def start(self, blueprint: Blueprint) -> AsyncIterator[Worker]:
        """Return a block in which a simulated worker lives."""
        async with open_service_nursery() as nursery:
            worker = self._make(blueprint)
            self._workers.append(worker)
            nursery.start_soon(worker.run)
            try:
                yield worker
            finally:
                worker.kill()
                self._workers.remove(worker)


class SimLane(Lane):
    """What one lane of a simulated worker executes.

    Attributes:
        lasting: the scope of the time that an action takes; an interrupt cancels it.
    """

    lasting: trio.CancelScope | None = None


class SimWorker(Worker):
    """A simulated worker: one task that boots, and then one for each lane."""

    def __init__(self, blueprint: Blueprint, plan: Plan) -> None:
        self.pid: int | None = FIRST_PID + blueprint.worker
        self.slot: int = blueprint.slot
        self.number: int = blueprint.worker
        self.stalled: trio.Event | None = None
        self._blueprint = blueprint
        self._plan = plan
        self._name = f"worker {blueprint.worker} of slot {blueprint.slot}"
        self._life = trio.CancelScope()
        self._exit: Exit | None = None
        self._paths: list[tuple[int, str, str]] | None = None
        self._boot_error: str | None = None
        self.is_ready: bool = False
        self._closing = False
        self._inbox: deque[Frame] = deque()
        self._withdrawn: set[int] = set()
        self._replies: list[Answer] = []
        self._lanes = [SimLane() for _ in range(blueprint.lanes)]
        self._held: trio.Event | None = None
        self._pinged = 0
        self._was_stopped = False
        self._memory = 0
        # Where the worker's tasks and the pool's receiving task wait for any change.
        self._changed = trio.lowlevel.ParkingLot()

    # The pool's side

    async def look_up(self, apps: AppPaths) -> Sequence[int | None]:
        """Import the apps here and now."""
        await trio.lowlevel.checkpoint()
        try:
            return [declared_workers(load(path.module, path.qualname)) for _, path in apps]
        except BaseException as error:
            raise AppLoadError(
                f"the apps of slot {self._blueprint.slot} could not boot:\n\n"
                f"{traceback_text(error)}"
            ) from None

    async def boot(self, apps: AppPaths) -> None:
        """Wait until the plan's boot has ended."""
        self._paths = [(index, path.module, path.qualname) for index, path in apps]
        self._changed.unpark_all()
        while not self.is_ready:
            if self._boot_error is not None:
                raise AppLoadError(
                    f"the apps of slot {self._blueprint.slot} could not boot:\n\n{self._boot_error}"
                )
            if self._exit is not None:
                raise AppLoadError(
                    f"the worker of slot {self._blueprint.slot} could not boot: {self._exit} "
                    "while it was loading its apps"
                )
            await self._changed.park()

    unsent = 0

    async def send_rest(self, rest: Sequence[Segment]) -> None:
        """Do nothing: `send_nowait` sends all."""

    def unreceived(self, number: int) -> int | None:
        """Return None: answers arrive whole."""
        return None

    def send_nowait(self, frames: Sequence[Segment]) -> Sequence[Segment]:
        """Put the frames into the worker's inbox."""
        if self._exit is not None:
            return ()
        for kind, number, seconds, target, body in read_frames(b"".join(frames)):
            if kind == wire.CLOSE:
                self._closing = True
            elif kind == wire.PING:
                self._pinged = number
            elif kind <= wire.STREAM:
                self._inbox.append((kind, number, seconds, target, body))
            else:
                for lane in self._lanes:
                    if lane.number == number:
                        lane.obey(kind, body)
                if kind == wire.WITHDRAW and any(number == other for _, other, *_ in self._inbox):
                    self._withdrawn.add(number)
        self._changed.unpark_all()
        return ()

    async def receive(self) -> Sequence[Answer]:
        """Wait for replies."""
        await trio.lowlevel.checkpoint()
        while not self._replies and self._exit is None:
            await self._changed.park()
        replies, self._replies = self._replies, []
        return replies

    def interrupt(self) -> None:
        """End the time of interrupted actions; of a stopped worker, when it is resumed."""
        for lane in self._lanes:
            if self.stalled is None and lane.lasting is not None and lane.interrupted:
                lane.lasting.cancel()

    async def hold(self) -> None:
        """Stop the worker until `release`, independently of `stall`."""
        self._held = trio.Event()
        await trio.lowlevel.checkpoint()

    def unread(self) -> bool:
        """Return whether there are replies."""
        return bool(self._replies)

    def release(self) -> None:
        """End `hold`."""
        if self._held is not None:
            self._held.set()
            self._held = None

    def memory(self) -> int:
        """Return the memory that the plan has given it."""
        return 0 if self._exit is not None else self._memory

    def stands_still(self, *, busy: bool) -> bool:
        """Return whether it was stopped at the last call, and is now."""
        was_stopped, self._was_stopped = self._was_stopped, self.stalled is not None
        return was_stopped and self._was_stopped

    def exit(self) -> Exit:
        """Return how the worker ended."""
        return self._exit or Exit(self.pid, None)

    def kill(self) -> None:
        """End the worker as SIGKILL does."""
        self.die(-9)

    def die(self, exitcode: int) -> None:
        """End the worker now, unless it has ended."""
        if self._exit is None:
            self._exit = Exit(self.pid, exitcode)
            self._life.cancel()
            self._changed.unpark_all()

    def stall(self) -> None:
        """Stop the worker as SIGSTOP does."""
        if self.stalled is None:
            self.stalled = trio.Event()

    def resume(self) -> None:
        """Continue the worker, if it is stopped."""
        if self.stalled is not None:
            self.stalled.set()
            self.stalled = None
            self.interrupt()

    # The worker's side

    async def run(self) -> None:
        """Boot, execute requests, close."""
        blueprint = self._blueprint
        current_worker.set(WorkerInfo(blueprint.slot, blueprint.worker, self.pid or 0))
        current_lane.set(self._lanes[0])
        with self._life:
            while self._paths is None:
                await self._changed.park()
            boot = ask(self._plan, "boot", Boot, self._name, blueprint.slot, blueprint.worker)
            await trio.sleep(boot.seconds)
            await self._not_stalled()
            if boot.exitcode is not None:
                self.die(boot.exitcode)
                return
            self._boot_error = boot.error
            self._memory = boot.memory
            if boot.error is None:
                try:
                    apps = Apps(self._paths)
                except BaseException as error:
                    self._boot_error = traceback_text(error)
                else:
                    self.is_ready = True
                    self._changed.unpark_all()
                    first, *others = self._lanes
                    async with trio.open_nursery() as nursery:
                        for lane in others:
                            nursery.start_soon(self._execute_requests, apps, lane)
                        await self._execute_requests(apps, first)
                    for text in apps.close():
                        log_closing(blueprint, self.pid, text)
            self.die(0)

    async def _execute_requests(self, apps: Apps, lane: SimLane) -> None:
        current_lane.set(lane)
        encoder = OutcomeEncoder()
        while True:
            await self._not_stalled()
            if self._pinged:
                self._replies.append(Pong(self._pinged))
                self._pinged = 0
                self._changed.unpark_all()
            if not self._inbox:
                if self._closing:
                    return
                await self._changed.park()
                continue
            kind, number, _, target, pickled = self._inbox.popleft()
            lane.begin(number, WITHDRAWN if number in self._withdrawn else 0)
            self._withdrawn.discard(number)
            if lane.abandoned:
                self._report([wire.frame(wire.SKIPPED, number)])
                continue
            turn = self._turn(target, pickled)
            self._memory += turn.memory
            if kind == wire.REQUEST:
                frames = answer(lane, apps, encoder, number, target, pickled)
                seconds, began = turn.seconds, trio.current_time()
                interrupt = await self._last(lane, turn)
                if interrupt is not None:
                    seconds = min(seconds, trio.current_time() - began)
                    frames = encoder.error(interrupt, number, seconds)
                await self._not_stalled()
                if interrupt is None:
                    await self._die_as_planned(turn)
                self._report(frames, seconds)
            else:
                execution = StreamExecution(lane, apps, encoder, number, target, pickled)
                await self._stream(lane, execution, turn, encoder, number)

    async def _stream(
        self,
        lane: SimLane,
        execution: StreamExecution,
        turn: Turn,
        encoder: OutcomeEncoder,
        number: int,
    ) -> None:
        seconds = 0.0
        while not execution.ended:
            if lane.abandoned:
                frames = execution.close()
            elif lane.window.is_open:
                began = trio.current_time()
                interrupt = await self._last(lane, turn)
                lasted = trio.current_time() - began
                seconds += turn.seconds if interrupt is None else min(turn.seconds, lasted)
                if interrupt is None and lane.steps >= turn.chunks:
                    await self._not_stalled()
                    await self._die_as_planned(turn)
                if interrupt is None:
                    frames = execution.step()
                else:
                    execution.close()
                    frames = encoder.error(interrupt, number, seconds)
            else:
                await self._changed.park()
                continue
            await self._not_stalled()
            self._report(frames, seconds)

    async def _last(self, lane: SimLane, turn: Turn) -> BaseException | None:
        """Let an action take its time; return what interrupted it, or None."""
        if turn.stall:
            await trio.sleep(turn.stall)
        with trio.CancelScope() as lasting:
            if not turn.is_stubborn:
                lane.lasting = lasting
            if turn.is_stubborn or not lane.interrupted:
                await trio.sleep(turn.seconds)
        lane.lasting = None
        interrupt = lane.take_interrupt()
        return None if turn.is_stubborn else interrupt

    async def _die_as_planned(self, turn: Turn) -> None:
        if turn.exitcode is not None:
            self.die(turn.exitcode)
            await trio.sleep_forever()

    async def _not_stalled(self) -> None:
        while self.stalled is not None or self._held is not None:
            for stop in (self.stalled, self._held):
                if stop is not None:
                    await stop.wait()
        # It may have died after it was woken up and before it ran.
        await trio.lowlevel.checkpoint_if_cancelled()

    def _report(self, frames: Sequence[Segment], seconds: float = 0.0) -> None:
        for kind, number, _, _, body in read_frames(b"".join(frames)):
            load = read_whole(body).load_next
            if kind == wire.CHUNK:
                self._replies.append(Chunks(number, [(chunk(load), len(body))]))
            else:
                self._replies.append(reply(kind, number, seconds, load))
        self._changed.unpark_all()

    def _turn(self, target: bytes, pickled: bytes) -> Turn:
        call = self._call(target, pickled)
        if call is None:
            return Turn()
        return ask(self._plan, "turn", Turn, f"{call.action}() in {self._name}", call)

    @trio.lowlevel.enable_ki_protection
    def _call(self, target: bytes, pickled: bytes) -> Call | None:
        """Return the call as the plan sees it; None if it does not unpickle (see `answer`)."""
        # A copy: plans may keep calls, and actions may change their arguments.
        try:
            meant = pickle.loads(target)
            app, action = meant if isinstance(meant, tuple) else (None, meant.__qualname__)
            args, kwargs = pickle.loads(pickled)
        except BaseException:
            return None
        return Call(self._blueprint.slot, self._blueprint.worker, app, action, args, kwargs)
