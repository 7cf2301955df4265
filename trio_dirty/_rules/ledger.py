"""What a worker has been sent and has not answered, and how much that may be.

Decisions only: nothing here waits, and nothing here knows of trio.
"""

from __future__ import annotations

from itertools import islice
from typing import Generic, Protocol, TypeVar

from .routing import Routable


class Sendable(Routable, Protocol):
    """What is sent: it also has a size."""

    @property
    def size(self) -> int:
        """How many bytes it is on the wire."""

    @property
    def is_special(self) -> bool:
        """Whether it is a stream, or anything else than a plain call."""

    @property
    def streams(self) -> bool:
        """Whether its results come one by one."""


R = TypeVar("R", bound=Sendable)


AHEAD_SECONDS = 0.002
"""How much work is sent ahead: more than the pool ever needs to answer a reply
(it holds the loop for at most a fraction of that), and soon done when a slot is left."""

AHEAD_LIMIT = 64
"""Flooded with no-op requests, 64 ahead were as fast as any larger number."""

AHEAD_BYTES = 1 << 16
"""A quarter of a Unix socket's buffer: sending ahead never waits for the worker."""


class Window:
    """How many requests may be sent ahead of those that a worker executes.

    One is enough for requests that take long: a worker that has the next one never waits.
    Of tiny ones it needs as many as it may execute before the pool's loop comes round
    again. So the number is `AHEAD_SECONDS` of requests, by a moving average of how long
    they took that believes a longer one at once and shorter ones little by little.
    """

    __slots__ = ("_average", "ahead")

    def __init__(self) -> None:
        self._average = AHEAD_SECONDS
        self.ahead = 1

    def observe(self, seconds: float) -> None:
        """Take note of how long a request's execution took."""
        average = self._average
        if seconds >= average:
            self._average = seconds
        else:
            self._average = average + (seconds - average) / 8
        if self._average * AHEAD_LIMIT <= AHEAD_SECONDS:
            self.ahead = AHEAD_LIMIT
        else:
            self.ahead = max(1, int(AHEAD_SECONDS / self._average))


class Ledger(Generic[R]):
    """The unanswered requests of one worker, in the order in which they were sent.

    A worker takes requests up in that order, and each of its lanes answers one before it
    takes up another. Hence the rule on which at-most-once stands: of the entries, the
    first ``lanes`` may have begun, and none after them has.

    Attributes:
        entries: the requests by their numbers, in the order in which they were sent.
        lanes: how many requests the worker executes at a time.
        size: the bytes of all entries.
        streams: how many of the entries are streams.
        window: how many more may be sent ahead of those.
    """

    __slots__ = ("entries", "lanes", "size", "streams", "window")

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.size = 0
        self.streams = 0
        self.entries: dict[int, R] = {}
        self.window = Window()

    def sent(self, request: R) -> None:
        """Enter a request that is about to be sent: from now on it may have begun."""
        self.entries[request.number] = request
        self.size += request.size
        if request.is_special and request.streams:
            self.streams += 1

    def answered(self, number: int, seconds: float | None = None) -> R:
        """Strike out and return the request that the worker has answered.

        Args:
            number: the request's.
            seconds: how long it was executed; None if it was skipped.

        Raises:
            KeyError: the worker was sent no such request, or has answered it before.
        """
        request = self.entries.pop(number)
        self.size -= request.size
        if self.streams and request.streams:
            self.streams -= 1
        elif seconds is not None:
            self.window.observe(seconds)
        return request

    def may_have_begun(self) -> list[R]:
        """Return the entries that a lane may have taken up, at most one for each."""
        return list(islice(self.entries.values(), self.lanes))

    def latest_begun(self) -> R | None:
        """Return what a lane may have taken up since it answered: the last that may have begun."""
        return next(islice(self.entries.values(), self.lanes - 1, None), None)

    def settle(self) -> tuple[list[R], list[R]]:
        """Empty the ledger of a dead worker: what may have begun, and what cannot have."""
        entries = list(self.entries.values())
        self.entries.clear()
        self.size = 0
        self.streams = 0
        self.window = Window()
        return entries[: self.lanes], entries[self.lanes :]
