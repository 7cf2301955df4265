"""The pool that callers hold."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, final, overload

import trio

from .._rules.keys import OnlySlot, key_of
from .._rules.limits import Limits, count
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
    from .supervisor import Supervisor

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A", bound="AppLike")


class Unchanged:
    """The default of options that a view of a pool may change."""

    def __repr__(self) -> str:
        return "unchanged"


UNCHANGED = Unchanged()


def check_in_trio() -> None:
    """Refuse a caller that is no task of trio's, before anything else of it fails.

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
    """Let others run before a call is refused, so that a loop that tries again starves nobody.

    Only where nothing of the call is left in the pool: if the caller is cancelled, that is all
    that it is told.

    Raises:
        RuntimeError: it is called outside of trio, which is why it has failed.
    """
    check_in_trio()
    await trio.lowlevel.checkpoint()


@final
class Pool:
    """A pool of worker processes that hold the state of apps and execute their actions.

    Made by `open_pool`, and usable inside its block from any task of the same `trio.run`.

    Promises:
        **Order.** Requests given to a slot begin in the order in which they were given, and a
        worker executes at most ``threads`` of them at a time. (When a new worker takes over a
        slot, its first may begin while the old one ends its last.)

        **Fairness.** With round-robin routing, over any stretch in which the set of ready slots
        that carry an app does not change, the numbers of that app's requests given to them
        differ by at most one. (Requests with a key, and broadcasts, follow rules of their own
        and do not count; slots that are full, by ``max_queue``, are passed over.)

        **One outcome.** Every request ends in exactly one of: its result, the app's
        exception, an error of this library, its caller's cancellation, the pool's closing.

        **At most once.** No request's action is ever begun twice.

        **Nothing lost that never began.** When a worker dies, only what it may have begun fails: at
        most one request for each of its ``threads``. The others are served as if nothing had
        happened.

        **Isolation.** A crash or a hang of one worker is felt by no request of another.

        **No orphans.** No worker outlives the block, or the program, by two seconds.

        **Does not hold the loop.** No call holds the event loop for more than 20 ms.
    """

    _supervisor: Supervisor
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
        cls, supervisor: Supervisor, intake: Intake, limits: Limits, key: object = None
    ) -> Pool:
        pool = cls.__new__(cls)
        pool._supervisor = supervisor
        pool._intake = intake
        pool._limits = limits
        pool._key = key
        return pool

    def __repr__(self) -> str:
        states = ", ".join(slot.state for slot in self._supervisor.slots)
        state = "open" if self._supervisor.is_open else "closed"
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
        ``await pool.run_sync(Embedder.embed, texts)`` executes ``embed(texts)`` on the
        instance that lives in the worker whose turn it is. Any other function is called as
        it is, by whichever worker's turn it is.

        Arguments and results are pickled (protocol 5): arguments before the request is
        accepted. Those over 64 KiB are pickled in a thread, and must not be changed
        meanwhile. `bytes`, `bytearray` and buffers such as NumPy arrays and `array.array` of that
        size are then not copied: a later change of their content may reach the worker, or not,
        until the request has been sent. A `bytearray`, or what else can be resized, refuses that
        for as long, with a `BufferError`: until it has been sent, or has ended without that. All
        other changes have no effect after the request has been accepted.

        Some values are copied in one step, which holds the event loop. Measured, for each megabyte:
        a `str` inside of another argument 1.2 ms, non-ASCII 2.5 (one that is an argument itself
        is encoded piece by piece); inside of a result, chunk or exception 0.6 ms, non-ASCII 1.0;
        an `int` 2.5 ms; an `array.array` inside of another value 1.2 ms, as a result 0.4. So
        these keep within 20 ms up to 8 MB. Pass large text by itself, or encode it to
        `bytes`. Objects of 200 MB take 5 to 15 ms to be freed, wherever the program does so.

        Cancellation: a request that has not begun will not begin, and its caller leaves at
        once. One that has begun is dealt with as ``on_cancel`` says, see `open_pool`; by
        default its caller leaves at once, it is executed to its end, and its outcome dropped.

        Always a checkpoint, also where the call is refused at once: a loop that tries again
        lets other tasks run.

        Raises:
            Exception: what the action raised, with the worker's traceback as its cause.
            RemoteError: it raised, or returned, what cannot cross to this process.
            WorkerCrashedError: the worker died while it may have executed this request.
            RequestTimeoutError: it was executed for longer than ``timeout`` or
                ``soft_timeout``.
            PoolBusyError: every slot that could take it has ``max_queue`` that wait.
            NoWorkersAvailableError: every slot has failed.
            AppNotFoundError: the function is a method of an app that is not in the pool.
            TypeError: the function cannot run in a worker, or an argument does not pickle.
            ValueError: the action is private, or several apps share it.
            trio.ClosedResourceError: the pool is closed, or was closed before the request
                was served.
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
            action: the name that the app's ``__call__`` is called with.
            *args: what it is called with besides.
            **kwargs: the same, by name.

        In all else it is as `run_sync`. An action that does not exist is refused by the
        app, in the worker: with a `ValueError`, unless the app has a ``__call__`` of its own.

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
            pickled: bytes | list[Segment] | None = intake.pickle_small(target, args, kwargs)
            if pickled is None:
                pickled = await intake.pickle(target, args, kwargs)
            del args, kwargs  # of large ones the request alone keeps hold
            request = intake.accept(Call, target, pickled, self._limits, self._key)
        except Exception:
            await before_refusal()
            raise
        del pickled
        # The one checkpoint, unless there was a thread. A caller that is cancelled already
        # leaves here, before the request can begin.
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
        ``async for chunk in chunks:`` reads what the action yields; see `ChunkChannel`. It takes
        an action by its function, by app and name as in `execute`, or any importable function.
        What it calls must be a generator, or return an iterator.

        The generator runs ahead of its reader by at most 1,000 chunks or 1 MiB, or by one
        larger chunk; then it waits. Chunks are pickled like results. A stream holds its lane
        until it ends, and nothing is sent ahead behind it: what is queued in its slot waits. So
        a reader that calls the pool inside its loop can wait for itself.

        ``timeout`` and ``soft_timeout`` bound each step of the generator, from one ``yield`` to
        the next; the time that it waits for its reader does not count.

        Leaving the block, in whatever way, lets the caller go at once. A generator that has not
        ended is closed at its next ``yield``, in the worker, where its ``finally`` runs; the
        worker keeps its state and goes on to the next request. ``on_cancel`` says what becomes
        of one that computes on: with ``"abandon"`` nothing, with ``"interrupt"``
        `RequestCancelled` is raised inside it, with ``"kill"`` the worker is killed; only with
        ``"wait"`` does leaving wait for its end.

        Raises:
            TypeError, ValueError, AppNotFoundError: as of `run_sync` and `execute`; at the call.
            TypeError, NoWorkersAvailableError, PoolBusyError, trio.ClosedResourceError: on
                entering, where nothing is left of the request.
            RuntimeError: it is entered a second time.
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

        It takes an action by its function, by app and name, or any importable function, which
        every worker executes. A slot whose worker is booting is waited for. Slots that have
        failed, that come later, or that leave the pool before they have begun, are left out.
        Where a worker dies before it has begun, the next one of its slot executes it.

        Cancellation is that of each of the requests: see `run_sync`.

        Returns:
            The results, in the order of the slots.

        Raises:
            ExceptionGroup: the exceptions of the workers that failed, in the order of the
                slots, as `run_sync` would have raised them; the others have succeeded.
            NoWorkersAvailableError: every slot that carries the app has failed.
            PoolBusyError: one of the slots has ``max_queue`` that wait; none executes it.
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
                intake.accept(Part, target, pickled, self._limits, OnlySlot(slot)) for slot in slots
            ]
        except Exception:
            await before_refusal()
            raise
        del args, kwargs, pickled  # of large ones the parts alone keep hold
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

        It is the same pool, with the same verbs. What is not given stays as it is.

        Args:
            timeout: see `open_pool`.
            soft_timeout: see `open_pool`.
            on_cancel: see `open_pool`.
            key: requests with equal keys go to the same slot as long as it is there, and begin
                in the order of their acceptance, also over crashes and while slots come and go.
                Where their slot has no worker, they wait for the next one. Of n slots, one
                that comes or goes moves about 1/n of the keys. Anything that hashes; None for no
                key. Its hash is taken here, once; a key whose comparison raises is equal to itself
                alone. A broadcast disregards it.

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
        return Pool._made(self._supervisor, self._intake, limits, key)

    @trio.lowlevel.enable_ki_protection
    async def resize(self, n: int) -> None:
        """Open or remove slots until there are ``n``.

        A slot that is opened takes its share of what waits as soon as its worker has booted; it
        carries the apps that may have more carriers (see ``workers`` of `App`). A slot that is
        removed is given nothing more; what it had waiting goes to the others, its worker ends
        what it has been sent, and closes. Where it alone carries an app, another slot's worker is
        replaced first by one that carries it too. Slots that have failed are removed first. No
        request fails because of a resize.

        Returns when it is so: all new workers have booted, and all that were too many have
        closed. Of several resizes at a time the last one's number holds, and all return then.

        Cancellation: the caller leaves; the pool changes to ``n`` all the same.

        Args:
            n: how many slots, at least 1.

        Raises:
            TypeError, ValueError: it is no whole number, or less than 1.
            AppLoadError: a worker that it takes could not boot. The pool keeps the slots that
                have one, and serves on.
            trio.ClosedResourceError: the pool is closed, or is closed meanwhile.
        """
        check_in_trio()
        try:
            await self._supervisor.scaling.resize(count("n", n, least=1))
        except Exception:
            await before_refusal()
            raise

    @trio.lowlevel.enable_ki_protection
    async def reload(self, *, overlap: bool = True) -> None:
        """Replace every worker by one that imports the apps anew, slot after slot.

        The new worker boots while the old one serves, and takes over; then the old one ends what
        it has been sent, and closes. So no request fails or waits for it, and keys keep their
        slots. State that is nowhere but in the workers is lost, as at every end of a worker. A slot
        that has failed gets another chance. Returns when the last slot's new worker has taken
        over. One reload at a time: a second one begins when the first has ended.

        Cancellation: the caller leaves; the slot whose turn it is gets its new worker all the
        same, those behind it do not.

        Args:
            overlap: whether both are there for a moment. False: the old worker closes before
                the new one starts, for apps that fill the memory of the machine; the pool serves
                with one worker less meanwhile, and what only this slot can take waits.

        Raises:
            AppLoadError: a new worker could not boot. The old ones that have not been replaced
                stay; without ``overlap``, this one's slot tries again by itself.
            trio.ClosedResourceError: the pool is closed, or is closed meanwhile.
        """
        check_in_trio()
        try:
            if not isinstance(overlap, bool):
                raise TypeError(f"overlap must be True or False, was {overlap!r}")
            await self._supervisor.scaling.reload(overlap=overlap)
        except Exception:
            await before_refusal()
            raise

    def statistics(self) -> PoolStatistics:
        """Return what the pool does at this moment, in numbers that do not change any more.

        May be called at any time, after closing too. Takes constant memory, and about
        0.1 ms for each slot.
        """
        return self._supervisor.statistics()
