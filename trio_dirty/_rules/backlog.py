"""What a worker and its slot have been given and have not ended, and what of it is sent when.

Decisions only: nothing here waits, and nothing here knows of trio.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

from .._common import wire
from .ledger import AHEAD_BYTES, Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .._common.wire import Segment
    from .request import Request


class Backlog:
    """The requests of one worker, in the order in which its slot was given them.

    A request *arrives*, when it is put into the slot's channel; is then *queued*; then *sent*, in
    the ledger of the worker; then answered. Each is in one of these places, and moves on only
    in this order; from the queue it can also leave. What has not been sent is the slot's more
    than the worker's: it is handed over to the next one.

    Args:
        lanes: how many requests a worker executes at a time.
        begun: called with requests that may have begun from now on.
        tells_all: whether with each of them; else only with those that are special, and with
            others while there are such.

    Attributes:
        arrive: to be called with each request that is put into the channel.
        answered: see `Ledger.answered`.
        attentive: whether anything is to be told of what is sent now, when it begins.
    """

    def __init__(
        self, lanes: int, begun: Callable[[Request], object], *, tells_all: bool = True
    ) -> None:
        self._begun = begun
        self._tells_all = self.attentive = tells_all
        self._arrived: list[Request] = []
        self.arrive = self._arrived.append
        self._queue: OrderedDict[Request, None] = OrderedDict()
        self._ledger: Ledger[Request] = Ledger(lanes)
        self.answered = self._ledger.answered
        self._notices: list[Segment] = []

    def __repr__(self) -> str:
        return (
            f"<Backlog: {len(self._arrived)} arrived, {len(self._queue)} queued, "
            f"{len(self._ledger.entries)} sent>"
        )

    @property
    def arrived(self) -> int:
        """How many have arrived and are not queued."""
        return len(self._arrived)

    @property
    def busy(self) -> bool:
        """Whether anything has not ended."""
        return bool(self._ledger.entries or self._queue or self._arrived)

    @property
    def load(self) -> int:
        """How many have not ended."""
        return len(self._arrived) + len(self._queue) + len(self._ledger.entries)

    def has_room(self, max_queue: int) -> bool:
        """Whether one more would leave at most so many that have not begun."""
        lanes = self._ledger.lanes
        if self.load < lanes + max_queue:
            return True
        executing = len(self._ledger.entries)
        return self.queued + (executing >= lanes) <= max_queue

    @property
    def queued(self) -> int:
        """How many have not begun, and whose callers are still there."""
        ahead = islice(self._ledger.entries.values(), self._ledger.lanes, None)
        wanted = sum(not request.cancelled for request in ahead)
        return len(self._arrived) + len(self._queue) + wanted

    def sent(self, number: int) -> Request | None:
        """Return a request that is with the worker, or None if it has been answered."""
        return self._ledger.entries.get(number)

    def latest_sent(self) -> Request | None:
        """Return what was sent last, if it has not been answered."""
        return next(reversed(self._ledger.entries.values()), None)

    def executing(self) -> list[Request]:
        """Return what may have begun: at most one for each lane."""
        return self._ledger.may_have_begun()

    def unsent(self) -> Iterable[Request]:
        """Return the queue: what has not been sent to the worker, in order."""
        return self._queue

    # In

    def take_in(self) -> None:
        """Queue what has arrived, in order.

        The channel alone could not be relied on for that: what it has handed to the consumer,
        which has not run since, is in neither of the two.
        """
        queue = self._queue
        for request in self._arrived:
            queue[request] = None
        self._arrived.clear()

    def put_last(self, requests: Iterable[Request]) -> None:
        """Queue requests, in order, behind all that are queued."""
        self._queue.update(dict.fromkeys(requests))

    def put_first(self, requests: Iterable[Request]) -> None:
        """Queue requests again, in order, before all that are queued."""
        self._queue = OrderedDict.fromkeys([*requests, *self._queue])

    def hand_over(self, begun: Callable[[Request], object]) -> Backlog:
        """Return the backlog of the next worker, which takes over what has not been sent.

        Args:
            begun: see `Backlog`.
        """
        heir = Backlog(self._ledger.lanes, begun, tells_all=self._tells_all)
        heir._arrived, self._arrived = self._arrived, heir._arrived
        heir._queue, self._queue = self._queue, heir._queue
        heir.arrive, self.arrive = heir._arrived.append, self._arrived.append
        return heir

    # On

    def next_frames(self) -> Sequence[Segment]:
        """Decide what to send now, and enter it into the ledger."""
        frames = self._notices
        self._notices = []
        queue, ledger = self._queue, self._ledger
        entries = ledger.entries
        if not entries:
            self.attentive = self._tells_all
        # A stream holds its lane for as long as its reader likes: nothing is to wait behind it.
        limit = ledger.lanes + (0 if ledger.streams else ledger.window.ahead)
        # What a free lane takes up at once is not ahead, however large what the others execute.
        while (
            queue
            and len(entries) < limit
            and (ledger.size < AHEAD_BYTES or len(entries) < ledger.lanes)
        ):
            request = next(iter(queue))
            # Until a lane takes it up nobody reads it: what exceeds the socket's buffer would
            # block the way for notices.
            if request.large and (len(entries) >= ledger.lanes or frames):
                break
            del queue[request]
            ledger.sent(request)
            if request.is_special:
                if request.streams:
                    limit = ledger.lanes
                self.attentive = True
            if self.attentive and len(entries) <= ledger.lanes:
                self._begun(request)
            if request.large:
                # Never sent twice; whose buffers they are may resize them as soon as they are sent.
                large, request.frames = request.frames, ()
                return large
            frames += request.frames
        return frames

    def next_notices(self) -> Sequence[Segment]:
        """Decide what to send to a worker that is sent no request now."""
        frames, self._notices = self._notices, []
        return frames

    def notify(self, frame: Segment) -> None:
        """Have a frame sent that is no request, before any further request."""
        self._notices.append(frame)

    def begin_next(self) -> None:
        """Tell of the request that may have begun since one was answered."""
        latest = self._ledger.latest_begun()
        if latest is not None:
            self._begun(latest)

    # Out

    def take_back(self, requests: Iterable[Request]) -> None:
        """Let go of some of the queue."""
        for request in requests:
            del self._queue[request]

    def take_back_all(self) -> Iterable[Request]:
        """Let go of the queue, and return it."""
        queue, self._queue = self._queue, OrderedDict()
        return queue

    def withdraw(self, request: Request) -> bool:
        """Let go of a request whose caller has left, so that it does not begin any more.

        Returns:
            Whether nothing of it is left. One that was sent stays in the ledger, since it
            may have begun, until the worker has answered; the worker is to be told.
        """
        if request.number in self._ledger.entries:
            self.notify(wire.frame(wire.WITHDRAW, request.number))
            self.attentive = True
            return False
        del self._queue[request]
        return True

    def tell_nobody(self) -> None:
        """Be of no more use.

        In a cycle with who is told, a dead worker's buffer of half a megabyte would wait for the
        collector.
        """
        self._begun = _nobody

    def let_go(self) -> tuple[list[Request], list[Request]]:
        """Let go of everything, with the worker: of what may have begun, and of the rest."""
        begun, unbegun = self._ledger.settle()
        unbegun += self._queue
        self._queue.clear()
        self._notices.clear()
        return begun, unbegun


def _nobody(request: Request) -> None:
    """For a backlog whose worker has ended."""
