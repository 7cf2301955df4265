"""One call of one action, from acceptance to its outcome."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

from .._common import wire
from .._common.wire import HEADER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._common.wire import Segment
    from .limits import Limits
    from .targets import Target


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
        pinned: the only slot that may execute it, for a part of a broadcast; else None.
        frames: its bytes on the wire, until they are sent or it has ended. They keep buffers of the
            program from being resized.
        large: whether these are segments, to be sent only to an idle worker.
        size: how many bytes they are.
        awaited: whether anybody waits for its outcome.
        cancelled: whether its caller has been cancelled, or has left: then it must not begin.
        place: where it is: what has to let go of it when its caller leaves.
        accepted: when, on the engine's clock.
        began: when it counted as begun; before that, when it was accepted.
        streams: whether its results come one by one.
    """

    __slots__ = (
        "accepted",
        "app",
        "awaited",
        "began",
        "cancelled",
        "frames",
        "key",
        "large",
        "limits",
        "number",
        "place",
        "size",
        "target",
    )
    streams = False
    pinned: int | None = None
    _kind = wire.REQUEST

    def __init__(
        self,
        target: Target,
        number: int,
        pickled: bytes | list[Segment],
        accepted: float,
        limits: Limits,
        key: object,
    ) -> None:
        self.target = target
        self.app = target.app
        self.number = number
        self.accepted = accepted
        self.began = accepted
        self.limits = limits
        self.key = key
        self.awaited = True
        self.cancelled = False
        self.frames: Sequence[Segment]
        called = target.wire
        if isinstance(pickled, bytes):
            length = len(called) + len(pickled)
            flag = 1.0 if limits.is_interruptible else 0.0
            head = HEADER.pack(length, self._kind, len(called), flag, number)
            self.frames = (head + called + pickled,)
            self.large = False
            self.size = HEADER.size + length
        else:
            self.frames = wire.large_frame(
                self._kind, number, pickled, target=called, seconds=limits.is_interruptible
            )
            self.large = True
            self.size = sum(map(len, self.frames))
        self.place: Place

    def __repr__(self) -> str:
        state = "awaited" if self.awaited else "no longer awaited"
        return f"<{type(self).__name__} {self.number} of {self.target}, {state}>"

    @property
    def is_bounded(self) -> bool:
        """Whether a time-out will end it."""
        return self.limits.timeout < math.inf

    def executed(self, now: float) -> float:
        """Return for how many seconds it has been executed, if it has begun."""
        return now - self.began

    @abstractmethod
    def succeed(self, value: Any) -> None:
        """End it with a result."""

    @abstractmethod
    def fail(self, error: BaseException) -> None:
        """End it with an exception."""

    @abstractmethod
    def skip(self) -> None:
        """End one that was withdrawn in time: it has not begun."""


class Place(Protocol):
    """Where an accepted request is: with the dispatcher, a slot or a worker."""

    def withdraw(self, request: Request) -> bool:
        """Let go of a request whose caller leaves; return whether nothing of it is left."""
