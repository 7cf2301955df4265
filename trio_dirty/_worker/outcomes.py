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
"""In place of the exception in a failure: the exception is pickled behind the failure."""


class OutcomeEncoder:
    """Makes the frames that report outcomes. Not thread-safe."""

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
                # So that the pool can unpickle it piece by piece.
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

        They hold its text, its type's name, its traceback, and the exception itself, pickled, if
        it can be pickled and may be raised in the caller's program. A `SystemExit` would end that.
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
            # Behind the failure and not in it, so that large data in it is not copied.
            segments = [*self.dump((*failure, FOLLOWS)), *pickled]
            return wire.large_frame(wire.ERROR, number, segments, seconds=seconds)
        alone = pickled[0] if pickled else None
        return self.report(wire.ERROR, (*failure, alone), number, seconds)


def _not_needed() -> None:
    """For pickling in a worker, where other threads may wait for the interpreter lock."""


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]}..."
