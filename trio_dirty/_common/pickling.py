"""Objects to pickled segments and back, without copying what is large.

Both sides use it; it imports nothing of trio.

A pickle is a list of *segments*. CPython's C pickler, when it writes to a file object,
hands over frames of about 64 KiB, and hands over each larger ``bytes``, ``bytearray``
and buffer as the object itself. Sent one after the other they never are joined, and the
C unpickler, when its file has a ``readinto``, has them read to where they will stay.
So large data is copied by the kernel only, however deep in the arguments it lies.
"""

from __future__ import annotations

import pickle
from array import array

from .wire import SMALL_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .wire import Segment

PROTOCOL = 5
"""Older protocols hand over buffers only as copies."""


class SegmentPickler:
    """Pickles values of any size.

    One pickler is kept and reused: making one costs four times what a small pickle does
    (2.7 µs against 0.6 µs). It calls no Python code for a small one: in a worker that has
    just slept, each line of it is a cache miss. Not for use by two threads at once.
    """

    __slots__ = ("_dump", "_forget", "_segments", "write")

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._segments: list[Any] = []
        self.write = self._segments.append
        pickler = pickle.Pickler(self, PROTOCOL)
        self._dump, self._forget = pickler.dump, pickler.clear_memo

    def dump(self, value: object) -> list[Segment]:
        """Return the segments of the pickled value.

        Raises:
            BaseException: whatever pickling the value raises.
        """
        try:
            self._dump(value)
        except BaseException:
            self._renew()  # an interrupted pickler may hold on to half a frame
            raise
        self._forget()
        written = self._segments
        try:
            if len(written) == 1:
                return [*written]
            return [*map(_as_segment, [b"", *written], written)]
        finally:
            written.clear()


def _as_segment(before: Any, data: bytes | bytearray | pickle.PickleBuffer) -> Segment:
    """Return what the pickler has handed over, in a form whose length no longer changes.

    A ``bytearray`` belongs to the app or the program: as long as the segment is there, resizing it
    raises `BufferError` where that is tried. `before` is what was handed over before it.

    Raises:
        BufferError: it has been resized between the pickler's look at it and this one. What
            it has more would be read as further instructions of the pickle.
    """
    if type(data) is bytes:
        return data
    if isinstance(data, pickle.PickleBuffer):
        return data.raw()
    view = memoryview(data)
    if len(view) != int.from_bytes(before[-8:], "little"):
        raise BufferError("a bytearray was resized while it was being pickled")
    return view


PIECE = 20_000

_ATOMS = frozenset((str, bytes, int, float, bool, type(None)))


class _Pieces:
    """Stands for a long list of atoms, and pickles it piece by piece.

    The C pickler remembers each object that it has seen, and when the table of 350,000 of
    them grows it holds the interpreter lock for 25 ms, and once more when it goes. Atoms
    need not be remembered across pieces: nobody can tell equal ones apart.
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
        """Return the value, or what stands for it if it is a long list of atoms."""
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
"""Characters, or bytes of arrays, that are copied at a time: less than a millisecond's work."""


class _Text:
    """Stands for a long text, which the C pickler would encode in one go, and copy."""

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
    """How a text is put together.

    Attributes:
        join: joins new texts. A pool's process has one of its own, since this one copies all of
            them in one go.
    """

    join: Callable[[Iterable[str]], str] = staticmethod("".join)


class _Array:
    """Stands for a large `array.array`, which would be copied: its buffer is not."""

    def __init__(self, value: array[Any]) -> None:
        self._array = value

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        buffer = pickle.PickleBuffer(memoryview(self._array).cast("B"))
        return make_array, (self._array.typecode, buffer)


def make_array(typecode: str, content: bytearray) -> array[Any]:
    """Return an array of this content."""
    made: array[Any] = array(typecode)
    view = memoryview(content)
    for start in range(0, len(view), TEXT_PIECE):  # else it would be copied in one go
        made.frombytes(view[start : start + TEXT_PIECE])
    return made


SLOW_TYPES = frozenset((str, array))
"""What `is_slow` may be true of."""


def is_slow(value: object) -> bool:
    """Return whether this is a text or an array that the C pickler would take long to copy."""
    if type(value) is str:
        return len(value) > SMALL_LIMIT
    return (
        type(value) is array
        and value.typecode not in "uw"  # characters, which are not everywhere of one size
        and len(value) * value.itemsize > SMALL_LIMIT
    )


def instead_of(value: object, after_piece: Callable[[], None]) -> object:
    """Return the value, or what stands for it where it would keep the interpreter lock for long."""
    if not is_slow(value):
        return _Pieces.instead_of(value, after_piece)
    return _Text(value, after_piece) if isinstance(value, str) else _Array(value)  # type: ignore[arg-type]


class _Sink:
    """The file that a `pickle.Pickler` writes segments to.

    Not a class inside of the function that has the segments: a class is always part of a cycle,
    which would keep them, and so the buffers of the program, until the collector comes.
    """

    __slots__ = ("_after_segment", "_segments")

    def __init__(self, segments: list[Segment], after_segment: Callable[[], None]) -> None:
        self._segments = segments
        self._after_segment = after_segment

    def write(self, data: bytes | bytearray | pickle.PickleBuffer) -> None:
        """Take what the pickler hands over."""
        segments = self._segments
        segments.append(_as_segment(segments[-1] if segments else b"", data))
        self._after_segment()


def dump_slowly(
    args: tuple[Any, ...], kwargs: dict[str, Any], after_segment: Callable[[], None]
) -> list[Segment]:
    """Return the segments of pickled arguments, calling ``after_segment`` after each.

    That is at most every 64 KiB of pickled objects: the place for a thread to let others
    have the interpreter lock, which the C pickler never does.
    """
    segments: list[Segment] = []
    pieces = {id(value): instead_of(value, after_segment) for value in (*args, *kwargs.values())}
    args = tuple(pieces[id(value)] for value in args)
    kwargs = {name: pieces[id(value)] for name, value in kwargs.items()}
    try:
        pickle.Pickler(_Sink(segments, after_segment), PROTOCOL).dump((args, kwargs))
    except BaseException:
        segments.clear()  # the traceback keeps it, and nobody may resize what is in it
        raise
    return segments


class _TooLargeError(Exception):
    pass


class SmallPickler:
    """Pickles what is small, and gives up early on what is not.

    So it never takes longer than 128 KiB of pickled objects take, about a millisecond.
    """

    __slots__ = ("_dump", "_forget", "_written")

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._written: bytes | None = None
        pickler = pickle.Pickler(self, PROTOCOL)
        self._dump, self._forget = pickler.dump, pickler.clear_memo

    def write(self, data: bytes | bytearray | pickle.PickleBuffer) -> None:
        """Take the pickle's one segment, if it is small; refuse a second."""
        if self._written is not None or type(data) is not bytes or len(data) > SMALL_LIMIT:
            raise _TooLargeError
        self._written = data

    def dump(self, value: object) -> bytes | None:
        """Return the pickled value, or None where it is large.

        Raises:
            BaseException: whatever pickling the value raises.
        """
        try:
            self._dump(value)
        except BaseException as error:
            self._renew()
            if isinstance(error, _TooLargeError):
                return None
            raise
        written, self._written = self._written, None
        self._forget()
        return written


def read_whole(data: bytes) -> SegmentReader:
    """Return a reader of segments that have all been received."""
    return SegmentReader(data, len(data), _nothing_more)


def _nothing_more(_: memoryview) -> int:
    return 0


class SegmentsCutError(Exception):
    """The other side ended before the last byte of its segments."""


# Allocated in time: it is wanted when there is no more memory. Several threads may waste at once.
_WASTE = memoryview(bytearray(1 << 16))


class SegmentReader:
    """The file that an `pickle.Unpickler` reads segments from, ``size`` bytes in all.

    ``receive_into`` fills some of a non-empty buffer and returns how much, 0 at the end.
    ``head`` is what has been received already.
    """

    __slots__ = ("_head", "_left", "_receive_into")

    def __init__(self, head: bytes, size: int, receive_into: Callable[[memoryview], int]) -> None:
        self._head = memoryview(head)
        self._left = size
        self._receive_into = receive_into

    @property
    def left(self) -> int:
        """How many bytes have not been read."""
        return self._left

    def load(self) -> Any:
        """Unpickle the one value that the segments hold.

        Whether it succeeds or raises, all segments have been read afterwards: else they
        would be taken for frames.

        Raises:
            SegmentsCutError: the other side ended before the last byte, or the rest could not
                be read, for want of memory. The connection is of no more use.
        """
        try:
            return self.load_next()
        finally:
            self.drain()

    def load_next(self) -> Any:
        """Unpickle the next of several values that the segments hold one behind the other."""
        return pickle.Unpickler(self).load()

    def drain(self) -> None:
        """Read, and drop, all that has not been read.

        Raises:
            SegmentsCutError: see `load`.
        """
        try:
            while self._left:
                self.readinto(_WASTE[: self._left])
        except BaseException as error:
            raise SegmentsCutError from error

    def readinto(self, buffer: Any) -> int:
        """Fill the whole buffer."""
        target = memoryview(buffer).cast("B")
        size = len(target)
        if size > self._left:
            raise EOFError("the pickle is longer than was announced")
        at = min(size, len(self._head))
        target[:at] = self._head[:at]
        self._head = self._head[at:]
        self._left -= at
        while at < size:
            try:
                received = self._receive_into(target[at:])
            except BaseException:
                self._left = 0  # nothing more will come
                raise
            if not received:
                self._left = 0
                raise SegmentsCutError
            at += received
            self._left -= received
        return size

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes."""
        buffer = bytearray(size)
        self.readinto(buffer)
        return bytes(buffer)

    def readline(self) -> bytes:
        """Not part of protocol 5; the unpickler asks that it exists."""
        raise pickle.UnpicklingError("not a pickle of protocol 5")
