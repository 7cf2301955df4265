"""Threads that pickle what is large, and how they leave the loop its share of the lock."""

from __future__ import annotations

import math
import time

import trio

UNLIMITED = trio.CapacityLimiter(math.inf)
"""The threads are bounded by the requests that are large; sharing trio's own limiter would
let another part of the program hold up the pool, and the other way round."""

YIELD_SECONDS = 20e-6


def yield_lock() -> None:
    """Let the event loop's thread have the interpreter lock, in the middle of pickling.

    The C pickler keeps it, and a thread that only asks waits 5 ms each time. A sleep leaves
    it to whoever asks; with the kernel's timer slack this one takes about 80 µs, after each
    64 KiB of pickled objects, which take 500 µs and more.
    """
    time.sleep(YIELD_SECONDS)
