"""The instrument, and a task that only takes its turns."""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, TypeVar

import trio

import trio_dirty

from ..harness.polling import wait_steady, wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

T = TypeVar("T")

PACKAGE = f"{Path(trio_dirty.__file__).parent}/"

LOOK_SECONDS = 0.002
STEADY_LOOKS = 50
"""How often the same must be seen: for a tenth of a second."""

PATIENCE = 300
BETWEEN = "between steps"


class Watch(trio.abc.Instrument):
    """Measures one event.

    Attributes:
        step: the CPU seconds of the longest step.
        where: whose step it was.
        gap: the wall seconds of the longest pause between two turns of a task that is always
            ready to run.
    """

    def __init__(self) -> None:
        self.step = 0.0
        self.where = ""
        self.gap = 0.0
        # Since when CPU time is counted; None while it is not.
        self._since: float | None = None
        self._last_turn = 0.0

    # trio's hooks

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count what went on since the last step."""
        self._count(None)
        self._since = thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count the step."""
        if "SimWorker" not in task.name:
            self._count(task)
        self._since = thread_time()

    def _count(self, task: trio.lowlevel.Task | None) -> None:
        if self._since is None:
            return
        step = thread_time() - self._since
        if step > self.step:
            self.step = step
            self.where = BETWEEN if task is None else place(task)

    # Spans

    @asynccontextmanager
    async def span(self) -> AsyncIterator[None]:
        """Measure the block."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._take_turns)
            gc.collect()
            gc.disable()
            await trio.sleep(10 * LOOK_SECONDS)  # the pause for the collector is not counted
            trio.lowlevel.add_instrument(self)
            self.gap = 0.0
            self._since = thread_time()
            try:
                yield
                await trio.sleep(10 * LOOK_SECONDS)
                # A step that came before the last turn may be followed by this task's own.
                self._count_gap()
            finally:
                self._count(trio.lowlevel.current_task())
                self._since = None
                trio.lowlevel.remove_instrument(self)
                gc.enable()
                nursery.cancel_scope.cancel()

    async def _take_turns(self) -> None:
        self._last_turn = perf_counter()
        while True:
            await trio.lowlevel.checkpoint()
            self._count_gap()

    def _count_gap(self) -> None:
        now = perf_counter()
        self.gap = max(self.gap, now - self._last_turn)
        self._last_turn = now

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Exclude the block, which only the benchmark needs, from the step in which it runs."""
        if self._since is not None:
            self._count(trio.lowlevel.current_task())
        yield
        if self._since is not None:
            self._since = thread_time()

    async def settled(self, look: Callable[[], object]) -> None:
        """Wait until what is looked at has stopped changing.

        Raises:
            trio.TooSlowError: it never does.
        """
        await wait_steady(
            self._uncounted(look), every=LOOK_SECONDS, looks=STEADY_LOOKS, patience=PATIENCE
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition.

        Raises:
            trio.TooSlowError: it never holds.
        """
        await wait_until(self._uncounted(condition), every=LOOK_SECONDS, patience=PATIENCE)

    def _uncounted(self, look: Callable[[], T]) -> Callable[[], T]:
        def looking() -> T:
            with self.uncounted():
                return look()

        return looking


def place(task: trio.lowlevel.Task) -> str:
    """Return the function of a task, and the innermost of the library in which it waits now."""
    inner = ""
    coro: object = task.coro
    while coro is not None:
        code = getattr(coro, "cr_code", None) or getattr(coro, "ag_code", None)
        if code is not None and code.co_filename.startswith(PACKAGE):
            inner = code.co_qualname
        coro = getattr(coro, "cr_await", None) or getattr(coro, "ag_await", None)
    outer = "caller"
    if task.name.startswith("trio"):
        outer = ".".join(task.name.split(".")[-2:])
    return outer if outer == inner or not inner else f"{outer}, at {inner}"
