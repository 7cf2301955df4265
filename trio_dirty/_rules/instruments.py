"""What a pool tells of what happens in it, to objects that the program gives it.

In the manner of trio's own instruments: hooks are called synchronously, at the moment
of the event, in the order of the events.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from .._common.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .statistics import Cause

Outcome: TypeAlias = Literal[
    "returned",
    "raised",
    "withdrawn",
    "crashed",
    "timed_out",
    "killed",
    "unavailable",
    "busy",
    "closed",
]
"""How a request ended: its action returned, or raised (an interrupt of the pool included); it
was withdrawn and never began, because its caller had left; its worker died while it may have
been executing it; its worker was killed because it took longer than ``timeout``, or because its
caller was cancelled; no slot can take it, and none ever will; every slot that could had as many
waiting as it may have; the pool was closed before it was served."""


class Instrument:
    """The hooks of an instrument: inherit it, and override those that you want.

    Give instances to ``open_pool(..., instruments=[...])``. Any object that has some of
    the hooks will do. Numbers identify: a request by its place in the order of acceptance,
    a slot by its index, a worker by a number that no other worker of the pool has.

    A request is accepted; given to a slot, and perhaps given again (the worker of the slot died
    before it had begun, or the slot gave a share of what it had waiting to one that became
    ready); begun, at most once; ended, exactly once, which is the last that is heard of it. Between
    its acceptance and its end its caller may be cancelled.

    A slot is opened, has one worker after the other, and is closed; one that has failed is perhaps
    opened again. A worker is started, perhaps becomes ready, is perhaps retired, and exits. Of a
    slot's workers that are ready the latest that has not been retired is given its requests. Where
    one takes over from another, that is retired first. After `worker_ready` the requests
    follow that the slot takes over; after `worker_exited` the ends of those that may have begun,
    and then the others are given to slots again.

    Hooks are called in the middle of decisions. They must return at once, and must neither
    call the pool, `Pool.statistics` excepted, nor cancel anything; requests that are on their
    way from one slot to another are counted nowhere at that moment. One that raises is logged
    as an error, with its traceback, and its instrument is dropped; nothing else comes of it.
    """

    def request_accepted(self, request: int, app: str | None, action: str) -> None:
        """A call has been put into the pool. Called in the task of the caller.

        Args:
            request: its number from now on.
            app: ``"module:Class"``, or None for a plain function.
            action: the action's name, or the function's.
        """

    def request_given(self, request: int, slot: int) -> None:
        """A slot has been given the request, behind those given to it before."""

    def request_begun(self, request: int, slot: int, worker: int) -> None:
        """From now on the request counts as begun.

        The pool has sent it to an idle lane, or has read the answer of the request before it.
        A request that was sent ahead has then begun a little earlier in the worker; one that
        was withdrawn may yet turn out not to have begun. Of those that end as closed, one that
        was sent ahead may have begun without this being told.
        """

    def request_cancelled(self, request: int) -> None:
        """The caller has left. A request that has begun goes on, and ends later."""

    def request_ended(self, request: int, outcome: Outcome) -> None:
        """Nothing of the request is left in the pool or in a worker.

        Unless its caller was cancelled, it has the corresponding result or error.
        """

    def slot_opened(self, slot: int, apps: tuple[str, ...]) -> None:
        """A slot that carries these apps exists, and will start its first worker."""

    def slot_closed(self, slot: int, failure: BaseException | None) -> None:
        """The slot has no worker and will have none.

        Args:
            slot: its index.
            failure: what its last worker died of, if the slot has been given up.
        """

    def slot_carries(self, slot: int, apps: tuple[str, ...]) -> None:
        """The slot carries these apps from now on: the worker does that is about to be ready."""

    def slot_leaving(self, slot: int) -> None:
        """The slot leaves the pool, and is given nothing more.

        What it had waiting is given to other slots. Its worker ends what it has been sent.
        """

    def worker_started(self, slot: int, worker: int) -> None:
        """A worker is about to be started."""

    def worker_ready(self, slot: int, worker: int, pid: int | None) -> None:
        """The worker has booted its apps, and its slot takes part in the routing."""

    def worker_retired(self, slot: int, worker: int, cause: Cause) -> None:
        """The worker is given nothing more: it ends what it has been sent, and then closes.

        Its successor takes over at this moment; or its slot is about to leave the pool; or, with
        ``reload(overlap=False)``, the successor is started when it has gone.
        """

    def worker_exited(self, slot: int, worker: int, pid: int | None, exitcode: int | None) -> None:
        """The worker has ended, or is being ended; its slot takes part no more.

        Args:
            slot: its slot.
            worker: its number.
            pid: its process; None if it never got as far as to tell.
            exitcode: negative is a signal's number; None if it is not known: the pool itself
                is ending the worker (it has failed to boot, or the block is being left, and
                not in time), or something else in the program has collected the code.
        """


HOOKS = tuple(name for name in vars(Instrument) if not name.startswith("_"))


class Instruments(Instrument):
    """Tells several instruments, and drops those that raise.

    Attributes:
        are_there: whether there is any.
    """

    def __init__(self, instruments: Iterable[object]) -> None:
        self._hooks: dict[str, list[tuple[object, Callable[..., object]]]]
        self._hooks = {name: [] for name in HOOKS}
        self.are_there = False
        for instrument in instruments:
            self.are_there = True
            for name, own in _own_hooks(instrument).items():
                self._hooks[name].append((instrument, own))
        for name, hooks in self._hooks.items():
            if hooks:  # else the inherited one, that does nothing
                vars(self)[name] = partial(self._tell, name)

    @classmethod
    def checked(cls, instruments: Iterable[object]) -> Instruments:
        """Return what tells these.

        Raises:
            TypeError: it is no list of instruments.
        """
        try:
            present = list(instruments)
        except TypeError:
            raise TypeError(
                f"instruments must be a list of instruments, was {instruments!r}"
            ) from None
        for index, instrument in enumerate(present):
            if isinstance(instrument, type):
                raise TypeError(
                    f"instruments[{index}] must be an object, was the class "
                    f"{instrument.__qualname__}; write {instrument.__qualname__}()"
                )
            own = _own_hooks(instrument)
            for name, hook in own.items():
                if inspect.iscoroutinefunction(hook):
                    raise TypeError(
                        f"instruments[{index}].{name} must be a plain function, was async: "
                        "hooks are called synchronously"
                    )
            if not isinstance(instrument, Instrument) and not own:
                raise TypeError(
                    f"instruments[{index}] must have some of the hooks of "
                    f"trio_dirty.Instrument, was {instrument!r}"
                )
        return cls(present)

    def _tell(self, hook: str, *event: object) -> None:
        for instrument, tell in (*self._hooks[hook],):
            try:
                tell(*event)
            except BaseException:
                # Whatever it is: it was called in the middle of a decision, which goes on.
                self._drop(instrument)
                logger.exception(
                    "the instrument %r raised in %s, and has been dropped", instrument, hook
                )

    def _drop(self, dropped: object) -> None:
        for name, hooks in self._hooks.items():
            self._hooks[name] = [hook for hook in hooks if hook[0] is not dropped]


def _own_hooks(instrument: object) -> dict[str, Callable[..., object]]:
    """Return the hooks that an object has, but for those that it only inherits."""
    hooks = {name: getattr(instrument, name, None) for name in HOOKS}
    return {
        name: hook
        for name, hook in hooks.items()
        if callable(hook) and getattr(hook, "__func__", None) is not vars(Instrument)[name]
    }
