"""One call of one action, from acceptance to its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

import outcome
import trio

from . import _wire
from ._wire import HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._dispatcher import Place
    from ._pickling import Segment
    from ._targets import Target


class Request:
    """A call that has been accepted and has not been answered.

    Exactly one of `succeed`, `fail` and `abort`, which trio calls when the caller is
    cancelled, ends the caller's wait; ``task`` is None from then on, and whatever still
    arrives for the request is dropped.

    Attributes:
        target: what it calls.
        number: its place in the order of acceptance.
        frames: its bytes on the wire.
        large: whether these are segments, to be sent only to an idle worker.
        size: how many bytes they are.
        task: the caller's, as long as it waits.
        place: who has to let go of it when the caller leaves.
        accepted: when, on the engine's clock.
    """

    __slots__ = ("accepted", "frames", "large", "number", "place", "size", "target", "task")

    def __init__(
        self, target: Target, number: int, pickled: bytes | list[Segment], accepted: float
    ) -> None:
        self.target = target
        self.number = number
        self.accepted = accepted
        self.frames: Sequence[Segment]
        wire = target.wire
        if isinstance(pickled, bytes):
            length = len(wire) + len(pickled)
            head = HEADER.pack(length, _wire.REQUEST, len(wire), 0.0, number)
            self.frames = (head + wire + pickled,)
            self.large = False
            self.size = HEADER.size + length
        else:
            self.frames = _wire.large_frame(_wire.REQUEST, number, pickled, target=wire)
            self.large = True
            self.size = sum(map(len, self.frames))
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        self.place: Place

    @property
    def app(self) -> int | None:
        """The index of the app that can serve it; None if every slot can."""
        return self.target.app

    def __repr__(self) -> str:
        state = "no longer awaited" if self.task is None else "awaited"
        return f"<Request {self.number} of {self.target}, {state}>"

    def abort(self, _: Callable[[], object]) -> trio.lowlevel.Abort:
        """Let the cancelled caller leave at once."""
        self.task = None
        self.place.withdraw(self)
        return trio.lowlevel.Abort.SUCCEEDED

    def succeed(self, value: object) -> None:
        """End the caller's wait with a result."""
        task = self.task
        if task is not None:
            self.task = None
            trio.lowlevel.reschedule(task, outcome.Value(value))

    def fail(self, error: BaseException) -> None:
        """End the caller's wait with an exception."""
        task = self.task
        if task is not None:
            self.task = None
            trio.lowlevel.reschedule(task, outcome.Error(error))
