"""The protocol between a pool and a worker: what they send each other, as bytes.

It does no I/O. `frames` reads what is made here.

A frame is a header (see `HEADER`) and a body of at most `BODY_LIMIT` bytes, which begins with
the target of a request. In a frame that is marked `LARGE` the pickle follows behind the frame,
as segments, and the body ends with their length, in eight bytes.

========= ========================= =====================================================
to the worker
-----------------------------------------------------------------------------------------
kind      body                      meaning
========= ========================= =====================================================
REQUEST   target, pickled arguments execute it, in the order of arrival
STREAM    target, pickled arguments the same, and answer with its results one by one
WITHDRAW                            the caller has left: answer this request with SKIPPED
                                    if it has not begun; else tell its action, and close
                                    its generator at the next ``yield``
INTERRUPT reason, chunks            raise inside the request's action; a soft time-out only
                                    if its generator has yielded so many chunks
CREDIT    chunks, bytes             the stream's reader has taken so many
CLOSE                               call ``close()`` of every app, then exit
LOOK_UP   pickled app paths         import these apps, and answer with DECLARED
BOOT      pickled app paths         make and initialise these apps; answer with READY
PING                                answer with PONG as soon as this is read
========= ========================= =====================================================

========= ========================= =====================================================
to the pool
-----------------------------------------------------------------------------------------
READY                               every app has booted
FAILED    pickled text              an app could not be imported or booted; the worker exits
CHUNK     pickled value             what the generator yielded
RESULT    pickled value             what the action returned; of a stream, that it has ended
ERROR     pickled failure           what the action raised: see `OutcomeEncoder.error`
SKIPPED                             the request was withdrawn before it had begun
CLOSED    pickled texts             tracebacks of ``close()`` methods; the worker exits
DECLARED  pickled counts            the apps' ``workers`` attributes
PONG                                the PING of this number was read
========= ========================= =====================================================
"""

from __future__ import annotations

import signal
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    Segment: TypeAlias = bytes | bytearray | memoryview

HEADER = struct.Struct("<IBxHfQ")
"""Length of the body; kind; length of the target in it; seconds of execution; number.

In a REQUEST or STREAM the seconds are a flag: 1 if the action may be interrupted, else 0."""

PROTOCOL = 5
"""Older protocols hand over buffers only as copies."""

SMALL_LIMIT = 1 << 17
"""Longer pickles are large, even of one segment, such as that of a long ``int``. Most pickles of
one segment are not longer than two of pickle's own frames."""

TARGET_LIMIT = 1 << 15
"""Longer targets are sent with the arguments."""

BODY_LIMIT = 1 << 18
"""The most bytes of a body, which is a target and a small pickle. Both sides receive into buffers
of twice this size."""

_SIZE = struct.Struct("<Q")

REQUEST, STREAM, WITHDRAW, INTERRUPT, CREDIT, CLOSE, LOOK_UP, BOOT, PING = range(1, 10)
READY, FAILED, RESULT, ERROR, SKIPPED, CLOSED, CHUNK, DECLARED, PONG = range(16, 25)
# The readers of frames rely on it that REQUEST and STREAM are the smallest kinds.

LARGE = 128
"""Added to the kind of a large frame; greater than each kind."""

SOFT_TIMEOUT, CANCELLED = 1, 2
"""The reasons of an INTERRUPT frame; of two at once the greater is raised."""

INTERRUPT_SIGNAL = signal.SIGURG
"""It is ignored where no handler is installed: in a program that an action has started, and in a
worker that is still starting. (Go's runtime uses it for its threads, for the same reason.)"""

EXIT_CONNECTION_LOST = 74
"""The exit code of a worker that lost its socket (EX_IOERR of sysexits.h)."""

EXIT_BROKE_DOWN = 70
"""The exit code of a worker whose own code raised, for want of memory (EX_SOFTWARE)."""


def frame(
    kind: int, number: int = 0, body: bytes = b"", *, target: bytes = b"", seconds: float = 0.0
) -> bytes:
    """Return the bytes of a frame whose pickle is small.

    Raises:
        ValueError: it is large: the other side would have no room for it.
    """
    if len(target) + len(body) > BODY_LIMIT:
        raise ValueError(f"a body has at most {BODY_LIMIT} bytes, was {len(target) + len(body)}")
    return HEADER.pack(len(target) + len(body), kind, len(target), seconds, number) + target + body


def value_frames(
    kind: int, number: int, segments: Sequence[Segment], seconds: float = 0.0
) -> Sequence[Segment]:
    """Return the frames of a pickled value that a worker reports, small or large."""
    if len(segments) == 1:
        body = segments[0]
        length = len(body)
        if length <= SMALL_LIMIT:
            return (HEADER.pack(length, kind, 0, seconds, number) + body,)
    return large_frame(kind, number, segments, seconds=seconds)


def large_frame(
    kind: int,
    number: int,
    segments: Sequence[Segment],
    *,
    target: bytes = b"",
    seconds: float = 0.0,
) -> list[Segment]:
    """Return the frame and the segments that follow it."""
    size = sum(map(len, segments))
    head = frame(kind | LARGE, number, _SIZE.pack(size), target=target, seconds=seconds)
    return [head, *segments]


def check_length(length: int) -> None:
    """Refuse a frame that the buffer has no room for.

    A buffer without room would receive 0 bytes, which looks like the end of the socket.

    Raises:
        ValueError: the frame is too long. The connection cannot be used any more.
    """
    if length > BODY_LIMIT:
        raise ValueError(f"a frame of {length} bytes was announced, and {BODY_LIMIT} are the most")


_PAIR = struct.Struct("<QQ")


def pair_frame(kind: int, number: int, first: int, second: int) -> bytes:
    """Return an INTERRUPT or CREDIT frame."""
    return frame(kind, number, _PAIR.pack(first, second))


def pair(body: bytes | memoryview) -> tuple[int, int]:
    """Return the two numbers of such a frame's body."""
    first, second = _PAIR.unpack(body)
    return first, second


def large_size(body: bytes | memoryview) -> int:
    """Return how many bytes of segments follow a large frame with this body."""
    size: int = _SIZE.unpack_from(body, len(body) - _SIZE.size)[0]
    return size
