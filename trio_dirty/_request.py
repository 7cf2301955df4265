"""One call of one action, from acceptance to its outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import outcome
import trio

from . import _wire
from ._wire import HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._dispatcher import Place
    from ._limits import Limits
    from ._pickling import Segment
    from ._targets import Target


class Request(ABC):
    """A call that has been accepted and has not been answered.

    Exactly one of `succeed`, `fail`, `skip` and its caller's leaving ends it; ``awaited`` is
    false from then on, and whatever still arrives for it is dropped.

    Attributes:
        target: what it calls.
        app: the index of the app that can serve it; None if every slot can.
        number: its place in the order of acceptance.
        limits: how long it may be executed, and how it is cancelled.
        key: what decides on its slot; None for the rotation.
        frames: its bytes on the wire, until they are sent or it has ended. They keep buffers of the
            program from being resized.
        large: whether these are segments, to be sent only to an idle worker.
        size: how many bytes they are.
        awaited: whether anybody waits for its outcome.
        cancelled: whether its caller has been cancelled, or has left: then it must not begin.
        place: who has to let go of it when the caller leaves.
        accepted: when, on the engine's clock.
        began: when it counted as begun; None as long as it has not, and where that was not noted.
        task: whose call it is.
        is_special: whether more is to be done about it than to send it and to end it.
        streams: whether its results come one by one.
    """

    __slots__ = (
        "accepted",
        "app",
        "awaited",
        "began",
        "cancelled",
        "frames",
        "is_special",
        "key",
        "large",
        "limits",
        "number",
        "place",
        "size",
        "target",
        "task",
    )
    streams = False
    _kind = _wire.REQUEST

    def __init__(
        self,
        target: Target,
        number: int,
        pickled: bytes | list[Segment],
        accepted: float,
        limits: Limits,
        key: object,
    ) -> None:
        self.task = trio.lowlevel.current_task()
        self.target = target
        self.app = target.app
        self.number = number
        self.accepted = accepted
        self.began: float | None = None
        self.limits = limits
        self.key = key
        self.awaited = True
        self.cancelled = False
        self.frames: Sequence[Segment]
        wire = target.wire
        if isinstance(pickled, bytes):
            length = len(wire) + len(pickled)
            flag = 1.0 if limits.is_interruptible else 0.0
            head = HEADER.pack(length, self._kind, len(wire), flag, number)
            self.frames = (head + wire + pickled,)
            self.large = False
            self.size = HEADER.size + length
        else:
            self.frames = _wire.large_frame(
                self._kind, number, pickled, target=wire, seconds=limits.is_interruptible
            )
            self.large = True
            self.size = sum(map(len, self.frames))
        self.is_special = self.large or self.streams or limits.is_timed
        self.place: Place

    def __repr__(self) -> str:
        state = "awaited" if self.awaited else "no longer awaited"
        return f"<{type(self).__name__} {self.number} of {self.target}, {state}>"

    @abstractmethod
    def succeed(self, value: Any) -> None:
        """End it with a result."""

    @abstractmethod
    def fail(self, error: BaseException) -> None:
        """End it with an exception."""

    @abstractmethod
    def skip(self) -> None:
        """End one that was withdrawn in time: it has not begun."""


class Call(Request):
    """A request for one value, and its caller, who waits in `trio.lowlevel.wait_task_rescheduled`.

    Its caller is cancelled through `abort`.
    """

    __slots__ = ("_raise_cancel",)
    _raise_cancel: Callable[[], Any]

    def abort(self, raise_cancel: Callable[[], Any]) -> trio.lowlevel.Abort:
        """Let the cancelled caller leave: at once, unless it wants to wait for the end."""
        if self.cancelled:  # and waits: trio asks once more for each further scope
            return trio.lowlevel.Abort.FAILED
        self.cancelled = True
        waits = self.limits.on_cancel == "wait"
        self.awaited = False  # nobody is to end it while it is withdrawn
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
