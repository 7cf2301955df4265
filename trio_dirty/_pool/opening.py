"""The block that opens and closes a pool."""

from __future__ import annotations

import math
import sys
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, final

import trio

from .._engines.contract import Engine
from .._engines.nursery import open_service_nursery
from .._engines.processes import ProcessEngine
from .._rules.options import Options
from .calls import Intake
from .pool import Pool, check_in_trio
from .supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from .._common.app import AppLike
    from .._rules.limits import OnCancel
    from .._rules.options import Routing


def open_pool(
    apps: Iterable[type[AppLike] | str],
    *,
    workers: int,
    threads: int = 1,
    routing: Routing = "round_robin",
    max_queue: int | None = None,
    timeout: float | None = math.inf,
    soft_timeout: float | None = math.inf,
    on_cancel: OnCancel = "abandon",
    cancel_grace: float | None = 5,
    boot_timeout: float | None = 60,
    grace_period: float | None = 30,
    max_requests: float | None = None,
    max_requests_jitter: int = 0,
    max_memory: float | None = None,
    max_lifetime: float | None = math.inf,
    instruments: Iterable[object] = (),
    engine: Engine | None = None,
) -> AbstractAsyncContextManager[Pool]:
    """Open a pool of worker processes for the duration of a block.

    The block, ``async with open_pool([App], workers=4) as pool:``, begins when every worker has
    booted. When it is left normally or by an exception, `SystemExit` included, the pool serves
    the requests that it has accepted, and every worker calls ``close()`` of its apps; workers
    that are left after ``grace_period`` are killed. When it is left by cancellation or Ctrl-C, all
    workers are killed at once, without ``close()``. Requests that end unserved raise
    `trio.ClosedResourceError`. After the block no worker process exists. (The resource tracker of
    multiprocessing, which is started together with the first process that a program spawns, lives
    as long as the program.)

    Exceptions of the block leave it unchanged, never in a group.

    Args:
        apps: classes with ``init()``, ``__call__`` and ``close()`` (see `App`), or strings
            ``"module:Class"`` or ``"module:Class:N"``. Only workers import a class that is given
            as a string. Each app is carried by every worker, by at most N if a number is
            given, or by at most as many as its attribute ``workers`` says. Apps that not every
            worker may carry are spread over the slots. May be empty, for a pool that executes
            only plain functions.
        workers: the number of worker processes, at least 1. See `Pool.resize`.
        threads: how many requests one worker executes at a time, at least 1. If more than one,
            requests begin in order, in threads that share the apps, and the apps must be
            thread-safe.
        routing: how the slot of a request is chosen, among those that are ready:
            ``"round_robin"``, in turn, or ``"least_loaded"``, the slot with the fewest requests
            that have not ended, in turn among equals.
        max_queue: how many requests that have not begun a slot may have, 0 or more; None for no
            limit. A request is refused (`PoolBusyError`) if every slot that could take it has
            that many. With 0, only requests that can begin at once are accepted. Requests that
            were accepted, and whose worker died, are never refused.
        timeout: for how many seconds a request may be executed, counted from its beginning; more
            than 0; `math.inf` or None for no limit. When they have passed, the worker is killed
            and replaced, and the caller gets `RequestTimeoutError`. Other requests are not
            affected. (To bound the time in the queue, use `trio.fail_after`.)
        soft_timeout: seconds, less than ``timeout``, after which `SoftTimeout` is raised inside
            the action, which may clean up; the worker keeps its state. It interrupts Python code
            that sleeps or loops. In C code it is raised when that returns.
        on_cancel: what happens to a request that has begun when its caller is cancelled.
            ``"abandon"``: the caller leaves at once, `check_cancelled` raises in the action, and
            the outcome is dropped; `Pool.statistics` counts abandoned requests that still run.
            ``"interrupt"``: the caller leaves at once, `RequestCancelled` is raised inside the
            action like a soft time-out, and the worker is killed if the action has not ended
            after ``cancel_grace``. ``"kill"``: the caller leaves at once and the worker is killed.
            ``"wait"``: the caller waits for the end of the request, as with `trio.to_thread`, or,
            if it was sent to the worker but has not begun, until the worker has withdrawn it.
        cancel_grace: seconds, 0 or more; `math.inf` or None for no limit.
        boot_timeout: how many seconds a worker may take from its start until its apps have
            booted; more than 0; `math.inf` or None for no limit.
        grace_period: how many seconds leaving the block may take before the remaining workers
            are killed; 0 or more; `math.inf` or None for no limit. It also bounds the ``close()``
            of a worker that is replaced.
        max_requests: how many requests a worker may complete, at least 1; None or `math.inf` for
            no limit. When it has, a replacement boots and takes over; the old worker serves until
            then, finishes its requests, and closes. No request is refused because of this.
        max_requests_jitter: a random number from 0 to this one is added to ``max_requests`` of
            each worker, so that not all workers are replaced at the same time.
        max_memory: how many bytes of memory may be resident for a worker; None or `math.inf` for
            no limit. It is measured after requests, at most ten times a second; a worker that
            has more is replaced as by ``max_requests``. A worker that has that much as soon as it
            has booted fails to boot: that `AppLoadError` is also a `ValueError`, and contains
            both numbers.
        max_lifetime: seconds, more than 0, after which a worker is replaced in the same way;
            `math.inf` or None for no limit.
        instruments: objects that are notified of every event in the pool, in this order: each an
            `Instrument`, or any object that has some of its hooks.
        engine: what starts the workers, see `trio_dirty.abc.Engine`; None for processes on this
            machine.

    Raises:
        TypeError, ValueError: an option is out of its range, or an app cannot be one. Raised by
            the call, before anything is started.
        DirtyError: this process is itself a worker, or is daemonic for another reason.
        RuntimeError: the block is entered outside of trio, for example under asyncio.
        AppLoadError: a worker could not boot. Raised on entering the block; no process is left.
    """
    options = Options(locals())  # first, while the parameters are all that there is
    if engine is None:
        engine = ProcessEngine()
    elif not isinstance(engine, Engine):
        raise TypeError(f"engine must be an engine, such as testing.SimEngine(), was {engine!r}")
    supervisor = Supervisor(options, engine)
    slots = supervisor.slots
    intake = Intake(options, engine, slots)
    return PoolManager(supervisor, Pool._made(slots, supervisor.scaling, intake, options.limits))


@final
class PoolManager(AbstractAsyncContextManager["Pool"]):
    """The block of one pool. A class, for the reason given at `open_service_nursery`."""

    def __init__(self, supervisor: Supervisor, pool: Pool) -> None:
        self._supervisor = supervisor
        self._pool = pool
        self._tasks = open_service_nursery()
        self._was_entered = False

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Pool:
        if self._was_entered:
            raise RuntimeError(
                "this pool has been opened already: call open_pool(...) once for each block"
            )
        check_in_trio()
        self._was_entered = True
        nursery = await self._tasks.__aenter__()
        try:
            await self._supervisor.boot(nursery)
        except BaseException:
            await self._close(*sys.exc_info())
            raise
        return self._pool

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._supervisor.slots.is_open = False
        try:
            # sys.exit() is an orderly end: what was accepted before it is served, as it would be
            # after an exception. Cancellation and Ctrl-C kill.
            if error is None or isinstance(error, Exception | SystemExit):
                await self._supervisor.serve_rest()
        finally:
            await self._close(kind, error, traceback)

    async def _close(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the tasks of the pool, then the requests that they have not served."""
        self._supervisor.slots.is_open = False
        try:
            await self._tasks.__aexit__(kind, error, traceback)
        finally:
            await self._supervisor.settle_rest()
