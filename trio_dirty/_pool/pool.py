"""The pool that callers hold."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, final, overload

import trio

from .._rules.limits import Limits, count
from .._rules.routing import key_of
from .._rules.targets import given_for_self, one_by_one
from .broadcast import Broadcast, Part
from .calls import Call, let_go
from .streams import StreamManager, StreamRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from .._common.app import AppLike
    from .._common.wire import Segment
    from .._rules.limits import OnCancel
    from .._rules.statistics import PoolStatistics
    from .._rules.targets import Target
    from .calls import Intake
    from .scaling import Scaling
    from .slots import Slots

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A", bound="AppLike")


class Unchanged:
    """The type of the default of options that stay as they are."""

    def __repr__(self) -> str:
        return "unchanged"


UNCHANGED = Unchanged()


def check_in_trio() -> None:
    """Check that the caller is a task of trio.

    Raises:
        RuntimeError: it runs under asyncio, or outside of any event loop.
    """
    if trio.lowlevel.in_trio_task():
        return
    where = "outside of trio.run()"
    if "asyncio" in sys.modules:
        with suppress(RuntimeError):
            sys.modules["asyncio"].get_running_loop()
            where = "under asyncio"
    raise RuntimeError(
        f"a pool works in tasks of trio only, and this is called {where}: run the program with "
        'trio.run(main), or with anyio.run(main, backend="trio")'
    ) from None


async def before_refusal() -> None:
    """Let other tasks run before a call is refused, so that a loop of retries does not starve them.

    To be called only when nothing of the call is left in the pool: if the caller is cancelled,
    it gets `trio.Cancelled` instead of the refusal.

    Raises:
        RuntimeError: it is called outside of trio, which is why the call has failed.
    """
    check_in_trio()
    await trio.lowlevel.checkpoint()


@final
class Pool:
    """A pool of worker processes that keep the state of apps and execute their actions.

    Created by `open_pool`. It may be used inside that block, from any task of the same `trio.run`.

    Promises:
        **Order.** Requests given to a slot begin in the order in which they were given, and a
        worker executes at most ``threads`` of them at a time. (When a new worker takes over a
        slot, its first request may begin while the old one finishes its last.)

        **Fairness.** With round-robin routing, as long as the same slots that carry an app are
        ready, none of them gets two requests of that app ahead of another. (Requests with a key
        and broadcasts have rules of their own and do not count; slots that are full, by
        ``max_queue``, are skipped.)

        **One outcome.** Every request ends in exactly one of: its result, the app's exception,
        an error of this library, the cancellation of its caller, the closing of the pool.

        **At most once.** No request's action is ever begun twice.

        **Nothing lost that never began.** When a worker dies, only requests that it may have begun
        fail: at most one for each of its ``threads``. All others are served as if nothing had
        happened.

        **Isolation.** A crash or a hang of one worker does not affect requests of another.

        **No orphans.** Within two seconds of the end of the block, or of the program, every
        worker process is gone.

        **Does not hold the loop.** No call holds the event loop for more than 20 ms.
    """

    _slots: Slots
    _scaling: Scaling
    _intake: Intake
    _limits: Limits
    _key: object

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise TypeError(
            "only the library makes a Pool: "
            "async with trio_dirty.open_pool([App], workers=4) as pool: ..."
        )

    @classmethod
    def _made(
        cls,
        slots: Slots,
        scaling: Scaling,
        intake: Intake,
        limits: Limits,
        key: object = None,
    ) -> Pool:
        pool = cls.__new__(cls)
        pool._slots = slots
        pool._scaling = scaling
        pool._intake = intake
        pool._limits = limits
        pool._key = key
        return pool

    def __repr__(self) -> str:
        slots = self._slots
        states = ", ".join(slot.life.shown for slot in slots.all)
        state = "open" if slots.is_open else "closed"
        return f"<trio_dirty.Pool {state}, slots: {states}>"

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
        ``await pool.run_sync(Embedder.embed, texts)`` executes ``embed(texts)`` on the instance in
        one of the workers. Any other function is called as it is.

        Arguments and results are pickled (protocol 5), arguments before the request is accepted.
        Arguments with more than 128 KiB of small objects, or 4 MiB in all, are pickled in a thread,
        and must not be changed until it has finished. `bytes`, `bytearray` and buffers such as
        NumPy arrays and `array.array` over 64 KiB are not copied: until the request has been sent,
        a change of their content may or may not reach the worker, and resizing, for example of a
        `bytearray`, raises `BufferError`. Other changes have no effect once the request has been
        accepted.

        Some values are copied in one step, which holds the event loop. Measured for each megabyte:
        a `str` inside another argument 1.2 ms, non-ASCII 2.5 (a `str` that is itself an argument
        is encoded piece by piece); inside a result, chunk or exception 0.6 ms, non-ASCII 1.0;
        an `int` 2.5 ms; an `array.array` inside another value 1.2 ms, as a result 0.4. Up to 8 MB
        of these stay below 20 ms. Pass large text as an argument of its own, or encode it to
        `bytes`. Freeing an object of 200 MB takes 5 to 15 ms.

        Cancellation: a request that has not begun will not begin, and its caller leaves at
        once. What happens to one that has begun depends on ``on_cancel``, see `open_pool`; by
        default its caller leaves at once, it is executed to its end, and its outcome is dropped.

        This is always a checkpoint, even if the call is refused at once, so that a loop of retries
        lets other tasks run.

        Raises:
            Exception: what the action raised, with the worker's traceback as its cause.
            RemoteError: the action raised or returned something that cannot be sent.
            WorkerCrashedError: the worker died while it may have been executing this request.
            RequestTimeoutError: it was executed for longer than ``timeout`` or ``soft_timeout``.
            PoolBusyError: every slot that could take it has ``max_queue`` requests waiting.
            NoWorkersAvailableError: every slot that could take it has failed.
            AppNotFoundError: the function is a method of an app that is not in the pool.
            TypeError: the function cannot run in a worker, or an argument cannot be pickled.
            ValueError: the action is private, or several apps share it.
            trio.ClosedResourceError: the pool is closed, or was closed before the request was
                served.
        """
        try:
            target, first = self._intake.targets.of_function(function)
            if target.is_generator:
                raise TypeError(one_by_one(target))
            if args and type(args[0]) is target.owner:
                raise TypeError(given_for_self(target, args[0], "run_sync"))
        except Exception:
            await before_refusal()
            raise
        return await self._call(target, first + args, kwargs)

    @trio.lowlevel.enable_ki_protection
    async def execute(
        self, app: type[AppLike] | str, action: str, /, *args: Any, **kwargs: Any
    ) -> Any:
        """Execute an action by name.

        Args:
            app: the app's class, or ``"module:Class"``.
            action: the name of the action, the first argument of the app's ``__call__``.
            *args: its other arguments.
            **kwargs: its keyword arguments.

        In all other respects this is like `run_sync`. An action that does not exist is refused in
        the worker by the app, with a `ValueError` unless the app overrides ``__call__``.

        Raises:
            AppNotFoundError: the app is not in the pool.
            ValueError: the action's name has a leading underscore.
        """
        try:
            target = self._intake.targets.named(app, action)
        except Exception:
            await before_refusal()
            raise
        return await self._call(target, args, kwargs)

    async def _call(self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        intake = self._intake
        try:
            pickled: bytes | list[Segment] | None = intake.pickle_at_once(target, args, kwargs)
            if pickled is None:
                pickled = await intake.pickle(target, args, kwargs)
            del args, kwargs  # so that only the request keeps large ones alive
            request = intake.accept(Call, target, pickled, self._limits, self._key)
        except Exception:
            await before_refusal()
            raise
        del pickled
        request.task = trio.lowlevel.current_task()
        # The only checkpoint, unless a thread was used. A caller that is already cancelled leaves
        # here, before the request can begin.
        return await trio.lowlevel.wait_task_rescheduled(request.abort)

    @overload
    def stream(
        self,
        action: Callable[Concatenate[A, P], Iterator[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> StreamManager[T]: ...

    @overload
    def stream(
        self, function: Callable[P, Iterator[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> StreamManager[T]: ...

    @overload
    def stream(
        self, app: type[AppLike] | str, action: str, /, *args: Any, **kwargs: Any
    ) -> StreamManager[Any]: ...

    def stream(self, function: Any, /, *args: Any, **kwargs: Any) -> StreamManager[Any]:
        """Return a block in which the results of a generator are read one by one.

        ``async with pool.stream(Embedder.tokens, "Once") as chunks:`` makes the request, and
        ``async for chunk in chunks:`` reads what the action yields; see `ChunkChannel`. The
        action is given as a function, as app and name like in `execute`, or as any importable
        function. It must be a generator, or return an iterator.

        The generator runs ahead of its reader by at most 1,000 chunks or 1 MiB, or by one larger
        chunk, and then waits. Chunks are pickled like results. A stream holds its lane until it
        ends; requests that are queued in its slot wait. Therefore a reader that calls the pool
        inside its loop can wait for itself.

        ``timeout`` and ``soft_timeout`` bound each step of the generator, from one ``yield`` to
        the next. The time in which it waits for its reader does not count.

        Leaving the block, in whatever way, does not wait for the generator. A generator that has
        not ended is closed in the worker at its next ``yield``, where its ``finally`` runs; the
        worker keeps its state and continues with the next request. For a generator that is
        computing, ``on_cancel`` decides: with ``"abandon"`` it continues to its next ``yield``,
        with ``"interrupt"`` `RequestCancelled` is raised inside it, with ``"kill"`` its worker is
        killed. Only with ``"wait"`` does leaving the block wait for its end.

        Raises:
            TypeError, ValueError, AppNotFoundError: like `run_sync` and `execute`. By the call.
            TypeError, NoWorkersAvailableError, PoolBusyError, trio.ClosedResourceError: the
                request was not accepted. On entering the block.
            RuntimeError: the block is entered a second time.
        """
        target, args = self._intake.targets.of_call(function, args, "stream")

        @trio.lowlevel.enable_ki_protection
        async def accept() -> StreamRequest:
            check_in_trio()
            await trio.lowlevel.checkpoint()
            pickled = await self._intake.pickle(target, args, kwargs)
            return self._intake.accept(StreamRequest, target, pickled, self._limits, self._key)

        return StreamManager._made(accept)

    @overload
    async def broadcast(
        self, action: Callable[Concatenate[A, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[T]: ...

    @overload
    async def broadcast(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[T]: ...

    @overload
    async def broadcast(
        self, app: type[AppLike] | str, action: str, /, *args: Any, **kwargs: Any
    ) -> list[Any]: ...

    @trio.lowlevel.enable_ki_protection
    async def broadcast(self, function: Any, /, *args: Any, **kwargs: Any) -> list[Any]:
        """Execute an action once on every worker that carries its app.

        The action is given as a function, as app and name, or as any importable function, which
        every worker executes. Slots whose worker is booting are waited for. Slots that have
        failed, that are opened later, or that leave the pool before they have begun are left out.
        If a worker dies before it has begun, the next worker of its slot executes the action.

        Cancellation applies to each of the requests as described for `run_sync`.

        Returns:
            The results, in the order of the slots.

        Raises:
            ExceptionGroup: the exceptions of the workers that failed, in the order of the
                slots, as `run_sync` would have raised them. The other workers have succeeded.
            NoWorkersAvailableError: every slot that carries the app has failed.
            PoolBusyError: one of the slots has ``max_queue`` requests waiting. No worker executes
                the action.
        """
        intake = self._intake
        try:
            target, args = intake.targets.of_call(function, args, "broadcast")
            if target.is_generator:
                raise TypeError(one_by_one(target))
            pickled = await intake.pickle(target, args, kwargs)
            try:
                slots = intake.slots_for_broadcast(target)
            except BaseException:
                let_go(pickled)
                raise
            parts = [
                intake.accept(partial(Part, pinned=slot), target, pickled, self._limits, None)
                for slot in slots
            ]
        except Exception:
            await before_refusal()
            raise
        del args, kwargs, pickled  # so that only the parts keep large ones alive
        return await Broadcast(target, parts).results()

    def with_options(
        self,
        *,
        timeout: float | Unchanged | None = UNCHANGED,
        soft_timeout: float | Unchanged | None = UNCHANGED,
        on_cancel: OnCancel | Unchanged = UNCHANGED,
        key: Hashable | Unchanged = UNCHANGED,
    ) -> Pool:
        """Return a view of the pool whose calls have other options.

        The view has the same methods and workers. Options that are not given keep their values.

        Args:
            timeout: see `open_pool`.
            soft_timeout: see `open_pool`.
            on_cancel: see `open_pool`.
            key: any hashable object; None for no key. Requests with equal keys go to the same
                slot, and begin in the order in which they were accepted, even if workers crash and
                slots are opened or removed. If their slot has no worker, they wait for its next
                one. Opening or removing one of n slots moves about 1/n of the keys, each when no
                request of it is left in the slot that it leaves. The hash is taken once, by this
                call; a key whose comparison raises is equal only to itself. Broadcasts ignore
                keys.

        Raises:
            TypeError, ValueError: an option is out of its range.
        """
        limits = self._limits
        if not (timeout is soft_timeout is on_cancel is UNCHANGED):
            limits = Limits.checked(
                {
                    "timeout": limits.timeout if timeout is UNCHANGED else timeout,
                    "soft_timeout": (
                        limits.soft_timeout if soft_timeout is UNCHANGED else soft_timeout
                    ),
                    "on_cancel": limits.on_cancel if on_cancel is UNCHANGED else on_cancel,
                }
            )
        key = self._key if key is UNCHANGED else key_of(key)
        return Pool._made(self._slots, self._scaling, self._intake, limits, key)

    @trio.lowlevel.enable_ki_protection
    async def resize(self, n: int) -> None:
        """Open or remove slots until there are ``n``.

        A new slot takes its share of the waiting requests as soon as its worker has booted. It
        carries the apps that more workers may carry (see ``workers`` of `App`). A slot that is
        removed gets no more requests; those that wait in it go to other slots, and its worker
        finishes those that it has been sent, and closes. If it is the only slot that carries an
        app, the worker of another slot is first replaced by one that carries it as well. Slots
        that have failed are removed first. No request fails because of a resize.

        Returns when all new workers have booted and all surplus ones have closed. Of several
        concurrent calls the latest number is used, and all return when it has been reached.

        Cancellation: the caller leaves; the pool still changes to ``n``.

        Args:
            n: the number of slots, at least 1.

        Raises:
            TypeError, ValueError: ``n`` is not a whole number, or is less than 1.
            AppLoadError: a new worker could not boot. The pool keeps the slots that have a
                worker, and continues to serve.
            trio.ClosedResourceError: the pool is closed, or was closed during the call.
        """
        check_in_trio()
        try:
            await self._scaling.resize(count("n", n, least=1))
        except Exception:
            await before_refusal()
            raise

    @trio.lowlevel.enable_ki_protection
    async def reload(self, *, overlap: bool = True) -> None:
        """Replace every worker by one that imports the apps anew, one slot after the other.

        The new worker boots while the old one serves, and takes over; then the old one finishes
        the requests that it has been sent, and closes. No request fails or is delayed, and keys
        keep their slots. State that exists only in the workers is lost. A slot that has failed is
        started again. Returns when the new worker of the last slot has taken over. A second
        reload begins when the first has ended.

        Cancellation: the caller leaves; the slot that is being reloaded still gets its new worker,
        the remaining ones do not.

        Args:
            overlap: whether the old worker serves while the new one boots. False: the old worker
                closes before the new one starts, for apps of which the machine's memory cannot
                hold one more. The pool then has one worker less for that time, and requests
                that only this slot can take wait.

        Raises:
            AppLoadError: a new worker could not boot. Workers that have not been replaced stay;
                without ``overlap``, this slot starts another worker by itself.
            trio.ClosedResourceError: the pool is closed, or was closed during the call.
        """
        check_in_trio()
        try:
            if not isinstance(overlap, bool):
                raise TypeError(f"overlap must be True or False, was {overlap!r}")
            await self._scaling.reload(overlap=overlap)
        except Exception:
            await before_refusal()
            raise

    def statistics(self) -> PoolStatistics:
        """Return a snapshot of what the pool is doing and has done, in numbers.

        May be called at any time, even after the pool has been closed. It takes about 0.1 ms for
        each slot. What the pool keeps for it does not grow with the number of requests.
        """
        return self._slots.statistics()
