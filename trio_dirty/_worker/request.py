"""What a worker has been sent and has not taken up. Imports nothing of trio."""

from __future__ import annotations

from .._common import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from .._common.segments import SegmentReader

    Pickled: TypeAlias = bytes | SegmentReader


class Request:
    """A request that waits to be taken up.

    Attributes:
        kind: `wire.REQUEST` or `wire.STREAM`.
        number: its number.
        target: what is to be called.
        pickled: its arguments, or what they are read from.
        is_interruptible: whether the pool may interrupt it.
        is_withdrawn: whether it is to be skipped.
        interrupt: the reason to interrupt it as soon as it has begun; 0: there is none.
    """

    __slots__ = (
        "interrupt",
        "is_interruptible",
        "is_withdrawn",
        "kind",
        "number",
        "pickled",
        "target",
    )

    def __init__(
        self, kind: int, number: int, target: bytes, pickled: Pickled, seconds: float
    ) -> None:
        self.kind = kind
        self.number = number
        self.target = target
        self.pickled = pickled
        self.is_interruptible = seconds != 0.0
        self.is_withdrawn = False
        self.interrupt = 0

    def obey(self, kind: int, body: bytes) -> None:
        """Apply a WITHDRAW, INTERRUPT or CREDIT frame about it."""
        if kind == wire.WITHDRAW:
            self.is_withdrawn = True
        elif kind == wire.INTERRUPT:
            self.interrupt, _ = wire.pair(body)
