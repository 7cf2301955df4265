"""The pool that callers hold, and the block that opens and closes it."""

from __future__ import annotations

import itertools
import pickle
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, final, overload

import trio

from ._dispatcher import Dispatcher
from ._durations import Durations
from ._engine import Engine
from ._errors import NoWorkersAvailableError
from ._nursery import open_service_nursery
from ._options import Options
from ._pickling import PROTOCOL, SmallPickler, dump_slowly
from ._processes import ProcessEngine
from ._request import Request
from ._slot import Slot
from ._statistics import PoolStatistics
from ._targets import Targets
from ._threads import UNLIMITED, yield_lock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from ._app import AppLike
    from ._instruments import Instruments
    from ._pickling import Segment
    from ._targets import Target

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A", bound="AppLike")


@final
class Pool:
    """A pool of worker processes that hold the state of apps and execute their actions.

    Made by `open_pool`, and usable inside its block from any task of the same `trio.run`.

    Promises:
        **Order.** Requests given to a slot begin in the order in which they were given,
        and a worker executes one at a time.

        **Fairness.** Over any stretch in which the set of ready slots that carry an app does
        not change, the numbers of that app's requests given to them differ by at most one.

        **One outcome.** Every request ends in exactly one of: its result, the app's
        exception, an error of this library, its caller's cancellation, the pool's closing.

        **At most once.** No request's action is ever begun twice.

        **Nothing lost that never began.** When a worker dies, at most the one request that
        it may have begun fails. The others are served as if nothing had happened.

        **Isolation.** A crash or a hang of one worker is felt by no request of another.

        **No orphans.** No worker outlives the block, or the program, by two seconds.

        **Does not hold the loop.** No call holds the event loop for more than 20 ms.
    """

    def __init__(self, options: Options, engine: Engine) -> None:
        self._options = options
        self._engine = engine
        self._now = engine.now
        self._instruments = options.instruments
        self._targets = Targets(options.apps)
        self._numbers = itertools.count()
        self._pickler = SmallPickler()
        self._open = False
        # Whoever waits for the pool to become quiet is parked here, and looks again
        # whenever something has ended.
        self._progress = trio.lowlevel.ParkingLot()
        workers = itertools.count()
        apps = tuple(enumerate(options.apps))
        self._slots = tuple(
            Slot(
                index,
                apps,
                engine=engine,
                numbers=workers,
                lanes=1,
                boot_timeout=options.boot_timeout,
                progress=self._progress,
                instruments=options.instruments,
            )
            for index in range(options.workers)
        )
        self._dispatcher = Dispatcher(self._slots, range(len(apps)), self._left)

    def __repr__(self) -> str:
        states = ", ".join(slot.state for slot in self._slots)
        return f"<trio_dirty.Pool {'open' if self._open else 'closed'}, slots: {states}>"

    @overload
    async def run_sync(
        self, action: Callable[Concatenate[A, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @overload
    async def run_sync(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...

    @trio.lowlevel.enable_ki_protection
    async def run_sync(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Execute an app's action, or any importable function, in a worker.

        A function that is a method of one of the pool's apps stands for that action:
        ``await pool.run_sync(Embedder.embed, texts)`` executes ``embed(texts)`` on the
        instance that lives in the worker whose turn it is. Any other function is called as
        it is, by whichever worker's turn it is.

        Arguments and results are pickled (protocol 5). Those over 64 KiB are pickled in a
        thread, and must not be changed meanwhile; `bytes`, `bytearray` and buffers such as
        NumPy arrays are then not copied. Arguments are pickled before the request is
        accepted: later changes of them have no effect.

        Cancellation: the caller leaves at once. A request that has not begun will not begin;
        one that has begun is executed to its end, and its outcome dropped.

        Raises:
            Exception: what the action raised, with the worker's traceback as its cause.
            RemoteError: it raised, or returned, what cannot cross to this process.
            WorkerCrashedError: the worker died while it may have executed this request.
            NoWorkersAvailableError: every slot has failed.
            AppNotFoundError: the function is a method of an app that is not in the pool.
            TypeError: the function cannot run in a worker, or an argument does not pickle.
            ValueError: the action is private, or several apps share it.
            trio.ClosedResourceError: the pool is closed, or was closed before the request
                was served.
        """
        target, first = self._targets.of_function(function)
        if args and type(args[0]) is target.owner:
            raise TypeError(
                f"{target} is executed on the instance that lives in a worker: leave out "
                f"the {type(args[0]).__qualname__} given for self, and call "
                f"run_sync({type(args[0]).__qualname__}.{target.action}, ...) with the other "
                "arguments"
            )
        return await self._request(target, first + args, kwargs)

    @trio.lowlevel.enable_ki_protection
    async def execute(
        self, app: type[AppLike] | str, action: str, /, *args: Any, **kwargs: Any
    ) -> Any:
        """Execute an action by name.

        Args:
            app: the app's class, or ``"module:Class"``.
            action: the name that the app's ``__call__`` is called with.
            *args: what it is called with besides.
            **kwargs: the same, by name.

        In all else it is as `run_sync`. An action that does not exist is refused by the
        app, in the worker: with a `ValueError`, unless the app has a ``__call__`` of its own.

        Raises:
            AppNotFoundError: the app is not in the pool.
            ValueError: the action's name has a leading underscore.
        """
        return await self._request(self._targets.named(app, action), args, kwargs)

    async def _request(self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._open:
            raise trio.ClosedResourceError("this pool is closed")
        try:
            pickled: bytes | list[Segment] | None = self._pickler.dump((args, kwargs))
            if pickled is None:
                pickled = await self._pickled_in_thread(args, kwargs)
        except Exception as error:
            raise TypeError(_not_pickled(target, args, kwargs, error)) from error
        del args, kwargs  # of large ones the request alone keeps hold, until it is sent
        if not self._open:
            raise trio.ClosedResourceError("this pool was closed")
        request = Request(target, next(self._numbers), pickled, self._now())
        if self._instruments is None:
            self._dispatcher.accept(request)
        else:
            self._accept_and_tell(request, self._instruments)
        # The one checkpoint, unless there was a thread. A caller that is cancelled already
        # leaves here, before the request can begin.
        return await trio.lowlevel.wait_task_rescheduled(request.abort)

    def _accept_and_tell(self, request: Request, instruments: Instruments) -> None:
        path = request.target.path
        app = None if path is None else str(path)
        instruments.request_accepted(request.number, app, request.target.action)
        try:
            self._dispatcher.accept(request)
        except NoWorkersAvailableError:
            instruments.request_ended(request.number, "unavailable")
            raise

    def _left(self, request: Request) -> None:
        """Take note of a request whose caller has left while it waited for a slot."""
        self._progress.unpark_all()
        if self._instruments is not None:
            self._instruments.request_cancelled(request.number)
            self._instruments.request_ended(request.number, "withdrawn")

    async def _pickled_in_thread(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[Segment]:
        return await trio.to_thread.run_sync(
            dump_slowly, args, kwargs, yield_lock, abandon_on_cancel=True, limiter=UNLIMITED
        )

    def statistics(self) -> PoolStatistics:
        """Return what the pool does at this moment, in numbers that do not change any more.

        May be called at any time, after closing too. Takes constant memory, and about
        0.1 ms for each slot.
        """
        workers = tuple(slot.statistics() for slot in self._slots)
        waiting, execution = Durations.summarise(slot.durations for slot in self._slots)
        return PoolStatistics(
            workers=workers,
            queued=len(self._dispatcher) + sum(worker.queued for worker in workers),
            running=sum(worker.running for worker in workers),
            abandoned=sum(worker.abandoned for worker in workers),
            completed=sum(worker.completed for worker in workers),
            failed=sum(worker.failed for worker in workers),
            restarts=sum(worker.restarts for worker in workers),
            waiting=waiting,
            execution=execution,
        )

    # Opening and closing, for open_pool

    async def _boot(self, nursery: trio.Nursery) -> None:
        """Start every slot, and wait until each has a worker that has booted.

        Raises:
            AppLoadError: one could not boot. The others are being killed.
        """
        for slot in self._slots:
            nursery.start_soon(slot.consume)
            nursery.start_soon(slot.supervise, self._dispatcher)
        while not all(slot.has_booted for slot in self._slots):
            await self._progress.park()
            for slot in self._slots:
                if slot.failure is not None:
                    raise slot.failure
        self._open = True

    async def _serve_rest(self) -> None:
        """Wait until all that was accepted has ended, then until every worker has closed."""
        with trio.move_on_after(self._options.grace_period):
            while self._dispatcher or any(slot.busy for slot in self._slots):
                await self._progress.park()
            for slot in self._slots:
                slot.close()
            for slot in self._slots:
                await slot.closed.wait()

    @trio.lowlevel.enable_ki_protection
    def _settle_rest(self) -> None:
        """End, when no task is left to serve them, the requests that still wait."""
        waiting = self._dispatcher.let_go()
        for slot in self._slots:
            begun, unbegun = slot.let_go()
            waiting += begun + unbegun
        for request in waiting:
            if self._instruments is not None:
                self._instruments.request_ended(request.number, "closed")
            request.fail(trio.ClosedResourceError("this pool was closed"))


def _not_pickled(
    target: Target, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception
) -> str:
    """Say which argument it is."""
    for name, value in [*enumerate(args, 1), *kwargs.items()]:
        try:
            pickle.dumps(value, PROTOCOL)
        except Exception as culprit:
            which = f"argument {name}, {type(value).__qualname__},"
            return f"{which} of {target} cannot be pickled: {culprit}"
    return f"the arguments of {target} cannot be pickled: {error}"


def open_pool(
    apps: Iterable[type[AppLike] | str],
    *,
    workers: int,
    boot_timeout: float | None = 60,
    grace_period: float | None = 30,
    instruments: Iterable[object] = (),
    engine: Engine | None = None,
) -> AbstractAsyncContextManager[Pool]:
    """Open a pool of worker processes, for the time of a block.

    The block, ``async with open_pool([App], workers=4) as pool:``, begins when every worker
    has booted. When it is left, normally or by an exception, the pool serves what was
    accepted and lets every worker run the ``close()`` of its apps; after ``grace_period`` it
    kills what is left. Left by cancellation or Ctrl-C, it kills all workers at once, without
    ``close()``. Requests that end unserved raise `trio.ClosedResourceError`. When the block
    has been left, no process of it exists.

    Exceptions of the block leave it as they are, never in a group.

    Args:
        apps: classes with ``init()``, ``__call__`` and ``close()`` (inherit `App`), or
            ``"module:Class"``. A class that is given as text is imported by the workers
            only. May be empty, for a pool that runs plain functions.
        workers: how many processes, at least 1.
        boot_timeout: seconds that a worker may take from its start until its apps have
            booted; more than 0; `math.inf` or None for no limit.
        grace_period: seconds that leaving the block may take before what is left is killed;
            0 or more; `math.inf` or None for no limit.
        instruments: objects that are told of each event in the pool, in their order: each an
            `Instrument`, or anything else that has some of its hooks. Without any they cost
            nothing.
        engine: what starts workers; None for processes of this machine.

    Raises:
        TypeError, ValueError: an option is out of its range, or an app cannot be one. At
            the call, before anything is started.
        DirtyError: this process is a worker itself, or otherwise daemonic.
        AppLoadError: a worker could not boot, on entering the block. No process is left.
    """
    options = Options.checked(
        apps,
        workers=workers,
        boot_timeout=boot_timeout,
        grace_period=grace_period,
        instruments=instruments,
    )
    if engine is None:
        engine = ProcessEngine()
    elif not isinstance(engine, Engine):
        raise TypeError(f"engine must be an engine, such as testing.SimEngine(), was {engine!r}")
    return _opened(Pool(options, engine))


@asynccontextmanager
async def _opened(pool: Pool) -> AsyncIterator[Pool]:
    try:
        async with open_service_nursery() as nursery:
            await pool._boot(nursery)
            try:
                yield pool
            except Exception:
                pool._open = False
                await pool._serve_rest()
                raise
            else:
                pool._open = False
                await pool._serve_rest()
    finally:
        pool._open = False
        pool._settle_rest()
