"""A worker's frames as the replies that they report, and its failures as exceptions.

Nothing here waits or uses trio.
"""

from __future__ import annotations

import pickle
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._common import wire
from .._common.errors import RemoteError, RemoteTraceback, qualified
from .._common.segments import SegmentsCutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .contract import Reply


def reply(kind: int, number: int, seconds: float, load: Callable[..., Any], *source: Any) -> Reply:
    """Return the reply that a RESULT, ERROR or SKIPPED frame reports.

    ``load(*source)`` unpickles its body. Each exception that it raises becomes a `RemoteError`:
    unpickling runs code of the apps, and no signal handler raises in the tasks that call this,
    since they are protected from `KeyboardInterrupt`.

    Raises:
        SegmentsCutError: the worker ended in the middle of a large reply.
    """
    if kind == wire.SKIPPED:
        return number, None, None, None
    try:
        value = load(*source)
        if kind == wire.ERROR:
            return number, seconds, _raised(value, load), None
    except SegmentsCutError:
        raise
    except BaseException as error:
        return number, seconds, _not_unpickled("the result", error), None
    return number, seconds, None, value


def chunk(load: Callable[..., Any], *source: Any) -> object:
    """Return the value that a CHUNK frame carries; a `ChunkFailure` if it cannot be unpickled.

    Raises:
        SegmentsCutError: the worker ended in the middle of a large chunk.
    """
    try:
        return load(*source)
    except SegmentsCutError:
        raise
    except BaseException as error:
        return ChunkFailure(_not_unpickled("a chunk", error))


@dataclass(frozen=True, slots=True)
class ChunkFailure:
    """A chunk of a stream that cannot be unpickled."""

    error: RemoteError


def _raised(
    failure: tuple[str, str, str, bytes | bool | None], load_next: Callable[[], Any]
) -> BaseException:
    """Return the exception to raise for one that was raised in the worker."""
    text, kind, remote, pickled = failure
    cause = RemoteTraceback(remote)
    error: object = None
    if pickled is not None:
        try:
            error = pickle.loads(pickled) if isinstance(pickled, bytes) else load_next()
        except SegmentsCutError:
            raise
        except BaseException as second:
            text += f" (it cannot be unpickled: {qualified(type(second))}: {second})"
        else:
            if not isinstance(error, Exception):
                text += f" (it unpickles to a {qualified(type(error))})"
            elif isinstance(error, StopIteration):
                # Python would turn it into a RuntimeError raised in the library's coroutines.
                text += " (it cannot be raised by a coroutine)"
                error = None
    if not isinstance(error, Exception):
        error = RemoteError(text, type_name=kind, remote_traceback=remote)
    # Not by assignment: some exceptions refuse that for all attributes.
    vars(BaseException)["__cause__"].__set__(error, cause)
    return error


def _not_unpickled(what: str, error: BaseException) -> RemoteError:
    kind = qualified(type(error))
    failure = RemoteError(
        f"{what} cannot be unpickled: {kind}: {error}",
        type_name=kind,
        remote_traceback="".join(traceback.format_exception(error)),
    )
    failure.__cause__ = error if isinstance(error, Exception) else None
    return failure
