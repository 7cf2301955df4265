"""Outcomes as the frames that report them. Imports nothing of trio."""

from __future__ import annotations

import pickle

from . import _wire
from ._pickling import PROTOCOL, SegmentPickler
from ._wire import HEADER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._pickling import Segment

TEXT_LIMIT = 20_000
"""Characters of a traceback: its end tells most."""


class Outbox:
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
        segments = self.dump(value)
        if len(segments) == 1:
            body = segments[0]
            return (HEADER.pack(len(body), kind, 0, seconds, number) + body,)
        return _wire.large_frame(kind, number, segments, seconds=seconds)

    def result(self, value: object, number: int, seconds: float) -> Sequence[Segment]:
        """Return the frames of a result, or of the failure to pickle it."""
        try:
            return self.report(_wire.RESULT, value, number, seconds)
        except BaseException as error:
            return self.not_pickled("a result", value, error, number, seconds)

    def not_pickled(
        self, what: str, value: object, error: BaseException, number: int, seconds: float
    ) -> Sequence[Segment]:
        """Return the frames of the failure to pickle a result or a chunk."""
        kind = qualified(type(value))
        text = f"{what} of type {kind} cannot be pickled: {error!r}"
        return self.report(_wire.ERROR, (text, kind, traceback_text(error), None), number, seconds)

    def error(self, error: BaseException, number: int, seconds: float) -> Sequence[Segment]:
        """Return the frames of an exception that an action raised.

        The exception itself travels only if it pickles, and if raising it in the caller's
        program is harmless: a `SystemExit` would end it.
        """
        kind = qualified(type(error))
        try:
            text = f"{kind}: {error}"
        except BaseException:
            text = kind
        pickled = None
        if isinstance(error, Exception):
            try:
                pickled = pickle.dumps(error, PROTOCOL)
            except BaseException as cause:
                text += f" (it cannot be pickled: {type(cause).__name__})"
        failure = (text, kind, traceback_text(error), pickled)
        return self.report(_wire.ERROR, failure, number, seconds)


def qualified(kind: type) -> str:
    """Return the name by which a traceback calls a type."""
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an exception and of its causes, as Python prints it."""
    import traceback  # only wanted when something has failed

    try:
        return "".join(traceback.format_exception(error))[-TEXT_LIMIT:]
    except BaseException as second:
        return f"{qualified(type(error))} (its traceback cannot be printed: {second!r})\n"
