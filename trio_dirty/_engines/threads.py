"""Threads that pickle what is large, and how they leave the loop its share of the lock."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

import trio

from .._common.pieces import Joining

if TYPE_CHECKING:
    from collections.abc import Iterable

UNLIMITED = trio.CapacityLimiter(math.inf)
"""The threads are bounded by the requests that are large; sharing trio's own limiter would
let another part of the program hold up the pool, and the other way round."""

YIELD_SECONDS = 20e-6


def yield_lock() -> None:
    """Let the event loop's thread have the interpreter lock, in the middle of pickling.

    The C pickler keeps it, and a thread that only asks waits 5 ms each time. A sleep leaves
    it to the thread that asks; with the kernel's timer slack this one takes about 80 µs, after each
    64 KiB of pickled objects, which take 500 µs and more.
    """
    time.sleep(YIELD_SECONDS)


_python = ctypes.PyDLL(None)  # not ctypes.pythonapi, whose prototypes are everybody's
_new_text = _python.PyUnicode_New
_new_text.argtypes, _new_text.restype = (ctypes.c_ssize_t, ctypes.c_uint32), ctypes.c_void_p
_copy_characters = _python.PyUnicode_CopyCharacters
_copy_characters.argtypes = (
    *(ctypes.c_void_p, ctypes.c_ssize_t, ctypes.py_object, ctypes.c_ssize_t, ctypes.c_ssize_t),
)
_copy_characters.restype = ctypes.c_ssize_t
_release = _python.Py_DecRef
_release.argtypes, _release.restype = (ctypes.c_void_p,), None


def join_slowly(texts: Iterable[str]) -> str:
    """Join texts that are new, and leave the loop its share of the interpreter lock.

    ``"".join`` copies everything in one go, half a millisecond for each megabyte. What CPython has
    for copying into a text is for one that no other code has seen: so no object of it is made
    before.
    """
    pieces = deque(texts)
    widest = max(map(_widest, pieces), default=0)
    address = _new_text(sum(map(len, pieces)), widest)
    try:
        start = 0
        while pieces:
            piece = pieces.popleft()
            _copy_characters(address, start, piece, 0, len(piece))
            start += len(piece)
            del piece
            yield_lock()
        text: str = ctypes.cast(address, ctypes.py_object).value
    finally:
        _release(address)
    return text


_OVERHEAD = sys.getsizeof(b"\xc3\xa9\xc3\xa9".decode()) - 3


def _widest(text: str) -> int:
    """Return the largest character that a text which takes as many bytes for each may have."""
    if len(text) < 2:  # these are not new
        return max(map(ord, text), default=0)
    if text.isascii():
        return 0x7F
    width = (sys.getsizeof(text) - _OVERHEAD) // (len(text) + 1)
    return {1: 0xFF, 2: 0xFFFF, 4: 0x10FFFF}[width]


Joining.join = staticmethod(join_slowly)
