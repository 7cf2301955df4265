"""A slot's queue, and the ledger of a worker: what it has been sent and has not answered."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice, repeat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .._common.wire import Segment
    from .request import Place, Request

AHEAD_SECONDS = 0.002
"""How much work is sent ahead: more than the pool ever needs to answer a reply
(it holds the loop for at most a fraction of that), and soon done when a slot is left."""

AHEAD_LIMIT = 64
"""Flooded with no-op requests, 64 ahead were as fast as any larger number."""

AHEAD_BYTES = 1 << 16
"""A quarter of a Unix socket's buffer: sending ahead never waits for the worker."""


class Queue(OrderedDict["Request", None]):
    """A slot's queue: requests that have been accepted and not been sent, in order.

    A dictionary, so that one whose caller leaves is taken out from the middle in constant time.
    """

    def put(self, requests: Iterable[Request]) -> None:
        """Put requests, in order, behind all that are there."""
        self.update(zip(requests, repeat(None)))  # half the time of `dict.fromkeys`, and no garbage

    def put_first(self, requests: Iterable[Request]) -> None:
        """Put requests, in order, before all that are there."""
        there = self.take_all()
        self.put(requests)
        self.put(there)

    def remove(self, requests: Iterable[Request]) -> None:
        """Take requests out."""
        for request in requests:
            del self[request]

    def take_all(self) -> list[Request]:
        """Take all requests out, in order."""
        requests = [*self]
        self.clear()
        return requests


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


class Ledger:
    """The unanswered requests of one worker, in the order in which they were sent.

    A worker takes requests up in that order, and each of its lanes answers one before it
    takes up another. Hence the rule on which at-most-once stands: of the entries, the
    first ``lanes`` may have begun, and none after them has.

    Args:
        lanes: how many requests the worker executes at a time.

    Attributes:
        entries: the requests by their numbers, in the order in which they were sent.
        lanes: how many requests the worker executes at a time.
        size: the bytes of all entries.
        streams: how many of the entries are streams.
        window: how many more may be sent ahead of those that are executed.
    """

    __slots__ = ("entries", "lanes", "size", "streams", "window")

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.size = 0
        self.streams = 0
        self.entries: dict[int, Request] = {}
        self.window = Window()

    def __repr__(self) -> str:
        return f"<Ledger: {len(self.entries)} sent>"

    # In

    def take(self, queue: Queue, frames: list[Segment], worker: Place) -> Sequence[Segment]:
        """Decide what is sent now, enter it, and return all frames to send.

        Args:
            queue: the slot's. What is sent is taken out of it.
            frames: what else is to be sent, before that.
            worker: whose ledger it is.
        """
        entries, lanes = self.entries, self.lanes
        # A stream holds its lane for as long as its reader likes: nothing is to wait behind it.
        limit = lanes + (0 if self.streams else self.window.ahead)
        # What a free lane takes up at once is not ahead, however large what the others execute.
        while queue and len(entries) < limit and (self.size < AHEAD_BYTES or len(entries) < lanes):
            request = next(iter(queue))
            # The worker reads it only when a lane takes it up: until then, what exceeds the
            # socket's buffer would block other frames.
            if request.large and (len(entries) >= lanes or frames):
                break
            del queue[request]
            request.place = worker
            entries[request.number] = request
            self.size += request.size
            if request.streams:
                self.streams += 1
                limit = lanes
            if request.large:
                # Never sent twice; whose buffers they are may resize them as soon as they are sent.
                large, request.frames = request.frames, ()
                return large
            frames += request.frames
        return frames

    # Out

    def answered(self, number: int, seconds: float | None = None) -> Request:
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

    def settle(self) -> tuple[list[Request], list[Request]]:
        """Empty the ledger of a dead worker: what may have begun, and what cannot have."""
        entries = list(self.entries.values())
        self.entries.clear()
        self.size = 0
        self.streams = 0
        return entries[: self.lanes], entries[self.lanes :]

    # What is in it

    def may_have_begun(self) -> list[Request]:
        """Return the entries that a lane may have taken up, at most one for each."""
        return list(islice(self.entries.values(), self.lanes))

    def begun_since(self, count: int) -> Iterable[Request]:
        """Return what may have begun since only so many had: what free lanes were sent."""
        return islice(self.entries.values(), count, self.lanes)

    def latest_sent(self) -> Request | None:
        """Return what was sent last, if it has not been answered."""
        return next(reversed(self.entries.values()), None)

    @property
    def waiting(self) -> int:
        """How many were sent ahead, cannot have begun, and are still wanted."""
        ahead = islice(self.entries.values(), self.lanes, None)
        return sum(not request.cancelled for request in ahead)
