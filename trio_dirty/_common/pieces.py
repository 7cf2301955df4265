"""Long values pickled piece by piece, so that no piece holds the interpreter lock for long.

The C pickler never releases it. A long text, list or array is replaced by an object that is
pickled as several pieces; and between any two pieces a function is called, in which a thread
can let others have the lock.
"""

from __future__ import annotations

import pickle
from array import array

from .pickling import as_segment
from .wire import PROTOCOL, SMALL_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .wire import Segment

PIECE = 20_000
"""Values of a list that are pickled at a time."""

_ATOMS = frozenset((str, bytes, int, float, bool, type(None)))


class _List:
    """Replaces a long list of atoms.

    The C pickler remembers each object that it has seen. When the table of 350,000 of them
    grows, it holds the interpreter lock for 25 ms, and once more when it is freed. Atoms need
    not be remembered across pieces, since their identity does not matter.
    """

    def __init__(self, values: list[Any], after_piece: Callable[[], None]) -> None:
        self._values = values
        self._after_piece = after_piece

    def __reduce__(self) -> tuple[Callable[..., list[Any]], tuple[bytes, ...]]:
        pieces = []
        for start in range(0, len(self._values), PIECE):
            pieces.append(pickle.dumps(self._values[start : start + PIECE], PROTOCOL))
            self._after_piece()
        return join_pieces, tuple(pieces)

    @classmethod
    def instead_of(cls, value: object, after_piece: Callable[[], None]) -> object:
        """Return the value, or its replacement if it is a long list of atoms."""
        if type(value) is not list or len(value) <= PIECE:
            return value
        for start in range(0, len(value), PIECE):
            if not _ATOMS.issuperset(map(type, value[start : start + PIECE])):
                return value
            after_piece()
        return cls(value, after_piece)


def join_pieces(*pieces: bytes) -> list[Any]:
    """Return the list that was pickled piece by piece."""
    values: list[Any] = []
    for piece in pieces:
        values += pickle.loads(piece)
    return values


TEXT_PIECE = 1 << 20
"""Characters, or bytes of an array, that are copied at a time: that takes less than 1 ms."""


class _Text:
    """Replaces a long text, which the C pickler would encode at once, and copy."""

    def __init__(self, text: str, after_piece: Callable[[], None]) -> None:
        self._text = text
        self._after_piece = after_piece

    def __reduce__(self) -> tuple[Callable[..., str], tuple[bytes, ...]]:
        pieces = []
        for start in range(0, len(self._text), TEXT_PIECE):
            piece = self._text[start : start + TEXT_PIECE]
            pieces.append(piece.encode("utf-8", "surrogatepass"))
            self._after_piece()
        return join_text, tuple(pieces)


def join_text(*pieces: bytes) -> str:
    """Return the text that was pickled piece by piece."""
    return Joining.join(map(decode_piece, pieces))


def decode_piece(piece: bytes) -> str:
    """Return the text of one piece."""
    return piece.decode("utf-8", "surrogatepass")


class Joining:
    """How the pieces of a text are joined.

    Attributes:
        join: replaced in a pool's process, since this one copies all pieces at once.
    """

    join: Callable[[Iterable[str]], str] = staticmethod("".join)


class _Array:
    """Replaces a large `array.array`, which would be copied; its buffer is not."""

    def __init__(self, value: array[Any]) -> None:
        self._array = value

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        buffer = pickle.PickleBuffer(memoryview(self._array).cast("B"))
        return make_array, (self._array.typecode, buffer)


def make_array(typecode: str, content: bytearray) -> array[Any]:
    """Return an array of this content."""
    made: array[Any] = array(typecode)
    view = memoryview(content)
    for start in range(0, len(view), TEXT_PIECE):  # all at once takes too long
        made.frombytes(view[start : start + TEXT_PIECE])
    return made


SLOW_TYPES = frozenset((str, array))
"""The types of which `is_slow` may be true."""


def is_slow(value: object) -> bool:
    """Return whether this is a text or an array that the C pickler takes long to copy."""
    if type(value) is str:
        return len(value) > SMALL_LIMIT
    return (
        type(value) is array
        and value.typecode not in "uw"  # characters, whose size differs between platforms
        and len(value) * value.itemsize > SMALL_LIMIT
    )


def instead_of(value: object, after_piece: Callable[[], None]) -> object:
    """Return the value, or its replacement if pickling it would hold the interpreter lock."""
    if not is_slow(value):
        return _List.instead_of(value, after_piece)
    return _Text(value, after_piece) if isinstance(value, str) else _Array(value)  # type: ignore[arg-type]


class _Sink:
    """The file that a `pickle.Pickler` writes segments to.

    Not a class inside the function that has the segments: a class is always part of a reference
    cycle, which would keep the program's buffers until the garbage collector runs.
    """

    __slots__ = ("_after_segment", "_segments")

    def __init__(self, segments: list[Segment], after_segment: Callable[[], None]) -> None:
        self._segments = segments
        self._after_segment = after_segment

    def write(self, data: bytes | bytearray | pickle.PickleBuffer) -> None:
        """Add a segment; called by the pickler."""
        segments = self._segments
        segments.append(as_segment(segments[-1] if segments else b"", data))
        self._after_segment()


def dump_slowly(
    args: tuple[Any, ...], kwargs: dict[str, Any], after_segment: Callable[[], None]
) -> list[Segment]:
    """Return the segments of pickled arguments; call ``after_segment`` after each.

    It is called at least once for every 64 KiB of pickled objects.
    """
    segments: list[Segment] = []
    pieces = {id(value): instead_of(value, after_segment) for value in (*args, *kwargs.values())}
    args = tuple(pieces[id(value)] for value in args)
    kwargs = {name: pieces[id(value)] for name, value in kwargs.items()}
    try:
        pickle.Pickler(_Sink(segments, after_segment), PROTOCOL).dump((args, kwargs))
    except BaseException:
        segments.clear()  # the traceback keeps them, and buffers in them could not be resized
        raise
    return segments
