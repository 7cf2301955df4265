"""The engine whose workers are simulated, and one such worker."""

from __future__ import annotations

import pickle
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from .. import _wire
from .._engine import Blueprint, Engine, Exit, Reply, Worker
from .._errors import AppLoadError
from .._info import WorkerInfo, current_worker
from .._nursery import open_service_nursery
from .._processes import log_closing
from .._replies import reply
from .._wire import HEADER
from .._worker import Apps, Outbox, answer, traceback_text
from ._plans import Boot, Call, Plan, Turn, ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from .._pickling import Segment

FIRST_PID = 1 << 22
"""Larger than any process number of Linux, so that no test can signal a real process."""


class SimEngine(Engine):
    """Starts simulated workers, on trio's clock and in this process, for one pool at a time.

    An action is executed at the moment at which it begins, and its result arrives after the
    time that the plan gives it. Whatever it raises, `SystemExit` included, goes to its
    caller and not through the test. An action that ends its process ends the test's:
    plan a `Turn` with an exit code instead. A Ctrl-C that arrives in an app's code ends that
    code only, so that an action that hangs can be ended; its caller gets a `RemoteError`.

    Args:
        plan: how boots and executions go; None: smoothly and at once.

    Raises:
        TypeError: it is no plan.
    """

    def __init__(self, plan: Plan | None = None) -> None:
        if not isinstance(plan, Plan | None):
            raise TypeError(f"plan must be a Plan, such as RandomPlan(seed=1), was {plan!r}")
        self._plan = Plan() if plan is None else plan
        self._workers: dict[int, SimWorker] = {}

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
        """Have the slot's present worker make no progress, as SIGSTOP does.

        It neither boots nor begins, answers or closes, until `resume` or its death.

        Returns:
            Whether there was one alive.
        """
        worker = self._alive(slot)
        if worker is None:
            return False
        if worker.stalled is None:
            worker.stalled = trio.Event()
        return True

    def resume(self, slot: int) -> bool:
        """Let a stalled worker go on; return whether there was one alive."""
        worker = self._alive(slot)
        if worker is None or worker.stalled is None:
            return False
        worker.stalled.set()
        worker.stalled = None
        return True

    def _alive(self, slot: int) -> SimWorker | None:
        worker = self._workers.get(slot)
        return None if worker is None or worker.exit().exitcode is not None else worker

    @asynccontextmanager
    async def start(self, blueprint: Blueprint) -> AsyncIterator[Worker]:
        """Return a block in which a simulated worker lives."""
        async with open_service_nursery() as nursery:
            worker = SimWorker(blueprint, self._plan)
            self._workers[blueprint.slot] = worker
            nursery.start_soon(worker.run)
            try:
                yield worker
            finally:
                worker.kill()
                if self._workers.get(blueprint.slot) is worker:
                    del self._workers[blueprint.slot]


class SimWorker(Worker):
    """A simulated worker: one task, that boots and then executes request after request."""

    def __init__(self, blueprint: Blueprint, plan: Plan) -> None:
        self.pid: int | None = FIRST_PID + blueprint.worker
        self.stalled: trio.Event | None = None
        self._blueprint = blueprint
        self._plan = plan
        self._name = f"worker {blueprint.worker} of slot {blueprint.slot}"
        self._life = trio.CancelScope()
        self._exit: Exit | None = None
        self._boot_error: str | None = None
        self._ready = False
        self._closing = False
        self._inbox: deque[tuple[int, bytes | None, bytes]] = deque()
        self._replies: list[Reply] = []
        # The worker's task, and the one that receives, look again when something has changed.
        self._changed = trio.lowlevel.ParkingLot()

    # The pool's side

    async def wait_ready(self) -> None:
        """Wait until the plan's boot has ended."""
        while not self._ready:
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

    async def send(self, frames: Sequence[Segment]) -> None:
        """Put the frames into the worker's inbox."""
        await trio.lowlevel.checkpoint()
        data = memoryview(b"".join(frames))
        while data and self._exit is None:
            length, kind, target_length, _, number = HEADER.unpack_from(data)
            body, data = data[HEADER.size : HEADER.size + length], data[HEADER.size + length :]
            if kind == _wire.CLOSE:
                self._closing = True
            elif kind == _wire.WITHDRAW:
                self._inbox = deque(
                    (other, None if other == number else target, pickled)
                    for other, target, pickled in self._inbox
                )
            else:
                pickled = body[target_length:]
                if kind & _wire.LARGE:
                    size = _wire.large_size(body)
                    pickled, data = data[:size], data[size:]
                self._inbox.append((number, bytes(body[:target_length]), bytes(pickled)))
        self._changed.unpark_all()

    async def receive(self) -> Sequence[Reply]:
        """Wait for replies."""
        await trio.lowlevel.checkpoint()
        while not self._replies and self._exit is None:
            await self._changed.park()
        replies, self._replies = self._replies, []
        return replies

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

    # The worker's side

    async def run(self) -> None:
        """Boot, execute requests, close."""
        blueprint = self._blueprint
        current_worker.set(WorkerInfo(blueprint.slot, blueprint.worker, self.pid or 0))
        with self._life:
            boot = ask(self._plan, "boot", Boot, self._name, blueprint.slot, blueprint.worker)
            await trio.sleep(boot.seconds)
            await self._not_stalled()
            if boot.exitcode is not None:
                self.die(boot.exitcode)
                return
            self._boot_error = boot.error
            if boot.error is None:
                try:
                    apps = Apps(blueprint.importable())
                except BaseException as error:
                    self._boot_error = traceback_text(error)
                else:
                    self._ready = True
                    self._changed.unpark_all()
                    await self._execute_requests(apps)
                    for text in apps.close():
                        log_closing(blueprint, self.pid, text)
            self.die(0)

    async def _execute_requests(self, apps: Apps) -> None:
        outbox = Outbox()
        while True:
            await self._not_stalled()
            if not self._inbox:
                if self._closing:
                    return
                await self._changed.park()
                continue
            number, target, pickled = self._inbox.popleft()
            turn = Turn() if target is None else self._turn(target, pickled)
            frames = answer(apps, outbox, number, target, pickled)
            await trio.sleep(turn.seconds + turn.stall)
            await self._not_stalled()
            if turn.exitcode is not None:
                self.die(turn.exitcode)
                await trio.sleep_forever()
            self._replies.append(self._reply(frames, turn.seconds))
            self._changed.unpark_all()

    async def _not_stalled(self) -> None:
        while self.stalled is not None:
            await self.stalled.wait()
        # It may have died after it was woken up and before it ran.
        await trio.lowlevel.checkpoint_if_cancelled()

    def _turn(self, target: bytes, pickled: bytes) -> Turn:
        call = self._call(target, pickled)
        if call is None:
            return Turn()
        return ask(self._plan, "turn", Turn, f"{call.action}() in {self._name}", call)

    @trio.lowlevel.enable_ki_protection
    def _call(self, target: bytes, pickled: bytes) -> Call | None:
        """Return what the plan is shown; None if it does not unpickle: `answer` reports that."""
        # A copy of its own: plans keep calls, and actions change their arguments.
        try:
            meant = pickle.loads(target)
            app, action = meant if isinstance(meant, tuple) else (None, meant.__qualname__)
            args, kwargs = pickle.loads(pickled)
        except BaseException:
            return None
        return Call(self._blueprint.slot, self._blueprint.worker, app, action, args, kwargs)

    @staticmethod
    def _reply(frames: Sequence[Segment], seconds: float) -> Reply:
        data = memoryview(b"".join(frames))
        length, kind, _, _, number = HEADER.unpack_from(data)
        body = data[HEADER.size : HEADER.size + length]
        if kind & _wire.LARGE:
            body = data[HEADER.size + length :]
        return reply(kind & ~_wire.LARGE, number, seconds, pickle.loads, body)
