"""From a call to an accepted request: its arguments pickled, its place in the order taken."""

from __future__ import annotations

import itertools
import pickle
from typing import TYPE_CHECKING, Any, TypeVar

import outcome
import trio

from .._common.errors import DirtyError, PoolBusyError
from .._common.pickling import QuickPickler
from .._common.pieces import SLOW_TYPES, dump_slowly, is_slow
from .._common.wire import PROTOCOL
from .._engines.threads import UNLIMITED, yield_lock
from .._rules.request import Request
from .._rules.targets import Targets

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._common.wire import Segment
    from .._engines.contract import Engine
    from .._rules.instruments import Outcome
    from .._rules.limits import Limits
    from .._rules.options import Options
    from .._rules.targets import Target
    from .slots import Slots

R = TypeVar("R", bound=Request)


class Call(Request):
    """A request for one value, and its caller, who waits in `trio.lowlevel.wait_task_rescheduled`.

    Its caller is cancelled through `abort`.

    Attributes:
        task: the caller's. Until that waits, nothing ends the request.
    """

    __slots__ = ("_raise_cancel", "task")
    _raise_cancel: Callable[[], Any]
    task: trio.lowlevel.Task

    def abort(self, raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
        """Let the cancelled caller leave: at once, unless it wants to wait for the end."""
        if self.cancelled:  # and waits: trio asks once more for each further scope
            return trio.lowlevel.Abort.FAILED
        self.cancelled = True
        waits = self.limits.on_cancel == "wait"
        self.awaited = False  # it must not be ended while it is withdrawn
        if self.place.withdraw(self) or not waits:
            self.frames = ()
            return trio.lowlevel.Abort.SUCCEEDED
        self.awaited = True
        self._raise_cancel = raise_cancel
        return trio.lowlevel.Abort.FAILED

    def succeed(self, value: Any) -> None:
        """End the caller's wait with a result."""
        if self.awaited:
            self.awaited = False
            trio.lowlevel.reschedule(self.task, outcome.Value(value))

    def fail(self, error: BaseException) -> None:
        """End the caller's wait with an exception."""
        self.frames = ()
        if self.awaited:
            self.awaited = False
            trio.lowlevel.reschedule(self.task, outcome.Error(error))

    def skip(self) -> None:
        """End the wait of a caller who has been cancelled, and waited for nothing."""
        self.frames = ()
        if self.awaited:
            self.awaited = False
            trio.lowlevel.reschedule(self.task, outcome.capture(self._raise_cancel))


class Intake:
    """Makes requests and puts them into a pool.

    Attributes:
        targets: finds what callers mean.
    """

    def __init__(self, options: Options, engine: Engine, slots: Slots) -> None:
        self.targets = Targets(options.apps)
        self._slots = slots
        self._dispatcher = slots.dispatcher
        self._instruments = options.instruments
        self._now = engine.now
        self._numbers = itertools.count()
        self._pickler = QuickPickler()

    def pickle_at_once(
        self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bytes | list[Segment] | None:
        """Pickle arguments, or return None where that would hold the loop for too long.

        Raises:
            trio.ClosedResourceError: the pool is closed.
            TypeError: one of them does not pickle.
        """
        if not self._slots.is_open:
            raise trio.ClosedResourceError("this pool is closed")
        for value in args:
            if type(value) in SLOW_TYPES and is_slow(value):
                return None
        if kwargs and any(map(is_slow, kwargs.values())):
            return None
        try:
            return self._pickler.dump((args, kwargs))
        except Exception as error:
            raise TypeError(_not_pickled(target, args, kwargs, error, _dump_at_once)) from error

    async def pickle(
        self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bytes | list[Segment]:
        """Pickle arguments: here if that does not take long, else in a thread."""
        pickled = self.pickle_at_once(target, args, kwargs)
        if pickled is not None:
            return pickled
        return await trio.to_thread.run_sync(
            _dump_slowly, target, args, kwargs, abandon_on_cancel=True, limiter=UNLIMITED
        )

    def accept(
        self,
        kind: Callable[..., R],
        target: Target,
        pickled: bytes | list[Segment],
        limits: Limits,
        key: object,
    ) -> R:
        """Make a request and give it to its slot, all at once.

        Raises:
            trio.ClosedResourceError: the pool was closed.
            NoWorkersAvailableError, PoolBusyError: see `Dispatcher.accept`.
        """
        request: R | None = None
        try:
            if not self._slots.is_open:
                raise trio.ClosedResourceError("this pool was closed")
            number = next(self._numbers)
            request = kind(target, number, pickled, self._now(), limits, key)
            self._instruments.request_accepted(number, target.app_name, target.action)
            self._dispatcher.accept(request)
        except BaseException as error:
            # The caller may want to resize its buffers while it handles the error, whose traceback
            # refers to both.
            let_go(pickled)
            if request is not None:
                request.frames = ()
                if isinstance(error, DirtyError):
                    outcome: Outcome = "busy" if isinstance(error, PoolBusyError) else "unavailable"
                    self._instruments.request_ended(request.number, outcome)
            raise
        return request

    def slots_for_broadcast(self, target: Target) -> list[int]:
        """Return the slots that carry what a target calls, none of which is full.

        Raises:
            NoWorkersAvailableError, PoolBusyError: see `Dispatcher.accept`.
        """
        return self._dispatcher.slots_for_broadcast(target)


def let_go(pickled: bytes | list[Segment]) -> None:
    """Let go of the buffers of arguments that are not going to be sent."""
    if isinstance(pickled, list):
        pickled.clear()


def _dump_slowly(target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Segment]:
    """Pickle large arguments, in a thread.

    Raises:
        TypeError: one of them does not pickle.
    """
    try:
        return dump_slowly(args, kwargs, yield_lock)
    except Exception as error:
        raise TypeError(_not_pickled(target, args, kwargs, error, _dump_in_thread)) from error


def _dump_at_once(value: object) -> None:
    pickle.dumps(value, PROTOCOL)


def _dump_in_thread(value: object) -> None:
    """Pickle a value, leaving the loop its share of the interpreter lock."""
    dump_slowly((value,), {}, yield_lock)


def _not_pickled(
    target: Target,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    error: Exception,
    dump: Callable[[object], object],
) -> str:
    """Say which argument it is, by pickling each once more."""
    for name, value in [*enumerate(args, 1), *kwargs.items()]:
        try:
            dump(value)
        except Exception as culprit:
            which = f"argument {name}, {type(value).__qualname__},"
            return f"{which} of {target} cannot be pickled: {culprit}"
    return f"the arguments of {target} cannot be pickled: {error}"
