"""Frames: what a pool and a worker say to each other, as bytes.

Both sides use it; it imports nothing of trio and does no I/O.

Each frame is a header and a body of at most `BODY_LIMIT` bytes. A frame that is marked
`LARGE` is followed by pickled segments, outside of any frame, as many bytes as its
body's last eight say.

========= ========================= =====================================================
to the worker
-----------------------------------------------------------------------------------------
kind      body                      meaning
========= ========================= =====================================================
REQUEST   target, pickled arguments execute it, in the order of arrival
STREAM    target, pickled arguments the same, and answer with its results one by one
WITHDRAW                            the caller has left: answer this request with SKIPPED
                                    if it has not begun; else let it know, and close its
                                    generator at the next ``yield``
INTERRUPT reason, chunks            raise inside the request's action; a soft time-out only
                                    if its generator has yielded so many chunks
CREDIT    chunks, bytes             so much has been taken by the stream's reader
CLOSE                               call ``close()`` of every app, then exit
LOOK_UP   pickled app paths         import these apps, and say what they declare
BOOT      pickled app paths         make and initialise these apps
PING                                answer with PONG as soon as this is read
========= ========================= =====================================================

========= ========================= =====================================================
to the pool
-----------------------------------------------------------------------------------------
READY                               every app has booted
FAILED    pickled text              an app could not boot; the worker exits
CHUNK     pickled value             what the generator yielded
RESULT    pickled value             what the action returned; of a stream, that it has ended
ERROR     pickled failure           what the action raised: see `OutcomeEncoder.error`
SKIPPED                             the request was withdrawn before it had begun
CLOSED    pickled texts             tracebacks of ``close()`` methods; the worker exits
DECLARED  pickled counts            what the apps say of their ``workers``
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

Of a request, which has taken no time, the seconds are 1 where its action may be interrupted."""

SMALL_LIMIT = 1 << 17
"""Longer pickles are large, in however few pieces the pickler hands them over: an ``int`` of any
size is one. Most pickles of one piece are not longer than two of pickle's own frames."""

TARGET_LIMIT = 1 << 15
"""Longer targets travel with the arguments."""

BODY_LIMIT = 1 << 18
"""Both sides receive into buffers of twice this size. A body is a target and a small pickle."""

_SIZE = struct.Struct("<Q")

REQUEST, STREAM, WITHDRAW, INTERRUPT, CREDIT, CLOSE, LOOK_UP, BOOT, PING = range(1, 10)
READY, FAILED, RESULT, ERROR, SKIPPED, CLOSED, CHUNK, DECLARED, PONG = range(16, 25)
LARGE = 128

SOFT_TIMEOUT, CANCELLED = 1, 2
"""What an interrupt frame asks for; of two at once the larger is raised."""

INTERRUPT_SIGNAL = signal.SIGURG
"""Ignored where no handler is installed: in a program that an action has started, and in a
worker that has not come so far. (Go's runtime interrupts its threads by it for that reason.)"""

EXIT_CONNECTION_LOST = 74
"""The exit code of a worker that lost its socket (EX_IOERR of sysexits.h)."""

EXIT_BROKE_DOWN = 70
"""The exit code of a worker whose own code raised, for want of memory (EX_SOFTWARE)."""


def frame(
    kind: int, number: int = 0, body: bytes = b"", *, target: bytes = b"", seconds: float = 0.0
) -> bytes:
    """Return the bytes of a frame whose pickle is small.

    Raises:
        ValueError: it is not: the other side would have no room for it.
    """
    if len(target) + len(body) > BODY_LIMIT:
        raise ValueError(f"a body has at most {BODY_LIMIT} bytes, was {len(target) + len(body)}")
    return HEADER.pack(len(target) + len(body), kind, len(target), seconds, number) + target + body


def value_frames(
    kind: int, number: int, segments: Sequence[Segment], seconds: float = 0.0
) -> Sequence[Segment]:
    """Return the frames of a pickled value that a worker reports: small or large, by its length."""
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

    Receiving into no room looks like the end of the socket.

    Raises:
        ValueError: so much was announced. The connection is of no more use.
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
    """Return how many bytes of segments follow this body of a large frame."""
    size: int = _SIZE.unpack_from(body, len(body) - _SIZE.size)[0]
    return size
