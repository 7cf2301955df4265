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
    """Open a pool of worker processes, for the time of a block.

    The block, ``async with open_pool([App], workers=4) as pool:``, begins when every worker
    has booted. When it is left, normally or by an exception (`SystemExit` included), the pool
    serves what was accepted and lets every worker run the ``close()`` of its apps; after
    ``grace_period`` it kills what is left. Left by cancellation or Ctrl-C, it kills all workers at
    once, without ``close()``. Requests that end unserved raise `trio.ClosedResourceError`. When
    the block has been left, no worker process exists. (The resource tracker of multiprocessing,
    which the first process that a program spawns starts, lives as long as the program.)

    Exceptions of the block leave it as they are, never in a group.

    Args:
        apps: classes with ``init()``, ``__call__`` and ``close()`` (inherit `App`), or
            ``"module:Class"``, or ``"module:Class:N"``. A class that is given as text is imported
            by the workers only. An app is carried by every worker, or by at most N; else by as
            many as its attribute ``workers`` says, see `App`. Those that may not be
            everywhere are spread over the slots. May be empty, for a pool that runs plain
            functions.
        workers: how many processes, at least 1. See `Pool.resize`.
        threads: lanes, at least 1: how many requests one worker executes at a time. With more
            than one they begin in order, in threads that share the apps: thread safety is the
            business of the apps.
        routing: which ready slot is given a request: ``"round_robin"``, each in its turn, or
            ``"least_loaded"``, the one with the fewest requests that have not ended, the turn
            deciding between equals.
        max_queue: how many requests that have not begun a slot may have, 0 or more; when every
            slot that could take a request has so many, it is refused (`PoolBusyError`). None
            for no limit. With 0, only what can begin at once is accepted. Requests that lost
            their worker are never refused.
        timeout: seconds that a request may be executed, from the moment in which it begins;
            more than 0; `math.inf` or None for no limit. Past it its worker is killed and
            replaced, and its caller gets `RequestTimeoutError`. No other request is hit. (Bound
            the waiting in the queue with `trio.fail_after`.)
        soft_timeout: seconds, less than ``timeout``, after which `SoftTimeout` is raised inside
            the action, which may clean up; the worker keeps its state. It interrupts Python code
            that sleeps or loops; C code gets it when it returns.
        on_cancel: what becomes of a request that has begun when its caller is cancelled.
            ``"abandon"``: the caller leaves at once, `check_cancelled` raises in the action,
            and its outcome is dropped; `Pool.statistics` counts what runs abandoned.
            ``"interrupt"``: the caller leaves at once, `RequestCancelled` is raised inside the
            action as a soft time-out is, and the worker is killed if it has not ended
            ``cancel_grace`` seconds later. ``"kill"``: the caller leaves at once and the worker
            is killed. ``"wait"``: the caller waits for the end, as with `trio.to_thread`; where
            the request was sent ahead, it waits until the worker has withdrawn it.
        cancel_grace: seconds, 0 or more; `math.inf` or None for no limit.
        boot_timeout: seconds that a worker may take from its start until its apps have
            booted; more than 0; `math.inf` or None for no limit.
        grace_period: seconds that leaving the block may take before what is left is killed;
            0 or more; `math.inf` or None for no limit. It bounds the ``close()`` of every
            worker, also of one that is replaced.
        max_requests: how many requests a worker may complete, at least 1; None or `math.inf`
            for no limit. Past it a replacement starts to boot, and takes over when it is ready;
            the old worker serves until then, ends what it has, and closes: no gap, and nothing is
            refused.
        max_requests_jitter: 0 or more; a number up to it is drawn for each worker and added, so
            that slots do not renew their workers all at once.
        max_memory: bytes that may be resident for a worker, measured after requests, at most
            ten times a second; past it the worker is replaced as by ``max_requests``. None or
            `math.inf` for no limit. Where a worker has as much as soon as it has booted, it is
            refused: that is an `AppLoadError`, and a `ValueError` too, that names both numbers.
        max_lifetime: seconds, more than 0, after which a worker is replaced in the same way;
            `math.inf` or None for no limit.
        instruments: objects that are told of each event in the pool, in their order: each an
            `Instrument`, or anything else that has some of its hooks. Without any they cost
            nothing.
        engine: what starts workers; None for processes of this machine.

    Raises:
        TypeError, ValueError: an option is out of its range, or an app cannot be one. At
            the call, before anything is started.
        DirtyError: this process is a worker itself, or otherwise daemonic.
        RuntimeError: the block is entered outside of trio, as under asyncio.
        AppLoadError: a worker could not boot, on entering the block. No process is left.
    """
    options = Options(locals())
    if engine is None:
        engine = ProcessEngine()
    elif not isinstance(engine, Engine):
        raise TypeError(f"engine must be an engine, such as testing.SimEngine(), was {engine!r}")
    supervisor = Supervisor(options, engine)
    intake = Intake(options, engine, supervisor)
    return PoolManager(supervisor, Pool._made(supervisor, intake, options.limits))


@final
class PoolManager(AbstractAsyncContextManager["Pool"]):
    """The block of one pool.

    A class, for the reason that `ServiceNurseryManager` names.
    """

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
        self._supervisor.is_open = False
        try:
            # Also where the program is being ended in an orderly way: what it has asked for before
            # sys.exit() it gets, as it would after an exception. Cancellation and Ctrl-C kill.
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
        """End the tasks of the pool, and then what they have not served."""
        self._supervisor.is_open = False
        try:
            await self._tasks.__aexit__(kind, error, traceback)
        finally:
            await self._supervisor.settle_rest()
