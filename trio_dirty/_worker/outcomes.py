"""Outcomes as the frames that report them. Imports nothing of trio."""

from __future__ import annotations

from .._common import wire
from .._common.errors import TEXT_LIMIT, qualified, traceback_text
from .._common.pickling import SegmentPickler
from .._common.pieces import SLOW_TYPES, instead_of, is_slow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._common.wire import Segment

FOLLOWS = True
"""Stands in a failure for the exception, which is pickled behind it."""


class OutcomeEncoder:
    """Turns outcomes into the frames that report them."""

    def __init__(self) -> None:
        self.dump = SegmentPickler().dump

    def report(
        self, kind: int, value: object, number: int = 0, seconds: float = 0.0
    ) -> Sequence[Segment]:
        """Return the frames of one reply.

        Raises:
            BaseException: whatever pickling the value raises.
        """
        return wire.value_frames(kind, number, self.dump(value), seconds)

    def result(self, value: object, number: int, seconds: float) -> Sequence[Segment]:
        """Return the frames of a result, or of the failure to pickle it."""
        try:
            if type(value) in SLOW_TYPES and is_slow(value):
                # So that the pool can take it in piece by piece.
                return self.report(wire.RESULT, instead_of(value, _not_needed), number, seconds)
            return wire.value_frames(wire.RESULT, number, self.dump(value), seconds)
        except BaseException as error:
            return self.not_pickled("a result", value, error, number, seconds)

    def not_pickled(
        self, what: str, value: object, error: BaseException, number: int, seconds: float
    ) -> Sequence[Segment]:
        """Return the frames of the failure to pickle a result or a chunk."""
        kind = qualified(type(value))
        text = _cut(f"{what} of type {kind} cannot be pickled: {error!r}")
        return self.report(wire.ERROR, (text, kind, traceback_text(error), None), number, seconds)

    def error(self, error: BaseException, number: int, seconds: float) -> Sequence[Segment]:
        """Return the frames of an exception that an action raised.

        They say its text, its type's name, its traceback, and, pickled, the exception itself: that
        travels only if it pickles, and if raising it in the caller's program is harmless. A
        `SystemExit` would end it.
        """
        kind = qualified(type(error))
        try:
            text = _cut(f"{kind}: {error}")
        except BaseException:
            text = kind
        pickled: Sequence[Segment] = ()
        if isinstance(error, Exception):
            try:
                pickled = self.dump(error)
            except BaseException as cause:
                text += f" (it cannot be pickled: {type(cause).__name__})"
        failure = text, kind, traceback_text(error)
        if len(pickled) > 1:
            # Behind the failure and not inside, so that what is large in it is not copied.
            segments = [*self.dump((*failure, FOLLOWS)), *pickled]
            return wire.large_frame(wire.ERROR, number, segments, seconds=seconds)
        alone = pickled[0] if pickled else None
        return self.report(wire.ERROR, (*failure, alone), number, seconds)


def _not_needed() -> None:
    """For what is pickled where nothing else wants the interpreter lock, or can wait for it."""


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]}..."
