"""Gives requests to slots: at acceptance, and again when a slot is lost or becomes ready.

Decisions only: nothing here waits.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from ._errors import NoWorkersAvailableError, PoolBusyError
from ._keys import Keys, OnlySlot
from ._routing import Rotation, fair_share, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ._options import Routing
    from ._pickling import Segment
    from ._request import Request
    from ._stream import StreamRequest
    from ._targets import Target


class Place(Protocol):
    """Where an accepted request is: with the dispatcher, or with a slot."""

    def withdraw(self, request: Request) -> bool:
        """Let go of a request whose caller leaves; return whether nothing of it is left."""

    def tell(self, request: StreamRequest, frame: Segment) -> None:
        """Send a frame to the worker that executes the stream."""


class Receiver(Place, Protocol):
    """What a dispatcher knows of a slot."""

    @property
    def index(self) -> int:
        """Its place in the rotation."""

    @property
    def carries(self) -> frozenset[int]:
        """The indices of its apps."""

    @property
    def load(self) -> int:
        """How many requests it has been given that have not ended."""

    def has_room(self, max_queue: int) -> bool:
        """Whether one more would leave at most so many that have not begun."""

    def give(self, request: Request) -> None:
        """Take a request on, behind those given before."""

    def unsent(self) -> Iterable[Request]:
        """Return the requests that it has not sent to its worker, in order."""

    def take_back(self, requests: Iterable[Request]) -> None:
        """Let go of some of the unsent ones."""


class Dispatcher:
    """Knows which slots are ready, and what waits because none is.

    Requests for which no ready slot carries the app wait here, as long as one that does
    will be ready. A request for a plain function has no app: every slot can take it. A
    request with a key goes to the slot of its key, and waits there if that is not ready.

    Args:
        slots: all of them.
        apps: the indices of the pool's apps.
        left: called with each request that has left while it waited here.
        routing: which ready slot is given a request without a key.
        max_queue: how many may wait in a slot without having begun; None for no limit.
    """

    def __init__(
        self,
        slots: Sequence[Receiver],
        apps: Iterable[int],
        left: Callable[[Request], object],
        routing: Routing = "round_robin",
        max_queue: int | None = None,
    ) -> None:
        self._left = left
        self._slots = tuple(slots)
        self._routing = routing
        self._max_queue = max_queue
        self._takes_turns = routing == "round_robin" and max_queue is None
        self._ready: set[int] = set()
        self._failed: dict[int, BaseException] = {}
        self._keys = Keys()
        keys = (None, *apps)
        self._rotations: dict[int | None, Rotation] = {key: Rotation() for key in keys}
        self._waiting: dict[int | None, OrderedDict[Request, None]] = {
            key: OrderedDict() for key in keys
        }

    def accept(self, request: Request) -> None:
        """Give a new request to its slot, or let it wait for one.

        Raises:
            NoWorkersAvailableError: no slot can take it, and none ever will.
            PoolBusyError: every slot that could take it has enough.
        """
        if self._max_queue is not None:
            self._check_room(request, self._max_queue)
        if request.key is None and self._takes_turns:  # the path of most
            index = self._rotations[request.target.app].take()
            if index is not None:
                self._slots[index].give(request)
                return
        self.route(request)

    def route(self, request: Request) -> None:
        """Give a request to its slot, or let it wait for one.

        Also called, in order of acceptance, for the requests of a lost slot
        that cannot have begun: they take the normal rotation, behind what the other slots
        have been given; nobody refuses them.

        Raises:
            NoWorkersAvailableError: no slot can take it, and none ever will.
        """
        app = request.target.app
        if request.key is not None:
            self._route_by_key(request)
            return
        rotation = self._rotations[app]
        index = rotation.take() if self._takes_turns else self._choose(rotation)
        if index is not None:
            self._slots[index].give(request)
            return
        cause = self.last_cause(app)
        if cause is not None:
            raise no_workers(request.target, cause)
        request.place = self
        self._waiting[app][request] = None

    def _choose(self, rotation: Rotation) -> int | None:
        """Choose a ready slot, where it is not simply the next one's turn."""
        candidates = rotation.in_turn()
        if not candidates:
            return None
        slots = self._slots
        if self._max_queue is not None:
            roomy = [index for index in candidates if slots[index].has_room(self._max_queue)]
            candidates = roomy or candidates
        if self._routing == "least_loaded":
            index = min(candidates, key=lambda index: slots[index].load)
        else:
            index = candidates[0]
        rotation.took(index)
        return index

    def _route_by_key(self, request: Request) -> None:
        app, key = request.target.app, request.key
        slots = self.carriers(app)
        if isinstance(key, OnlySlot):
            slots = [index for index in slots if index == key.index]
        if not slots:
            raise no_workers(request.target, self._latest_failure(app))
        if isinstance(key, OnlySlot):
            index = key.index
        else:
            index = self._keys.choose(app, key, slots)
            self._keys.begin(app, key, index)
        self._slots[index].give(request)

    def release(self, request: Request) -> None:
        """Take note that a request with a key has ended, or is about to be routed again."""
        if not isinstance(request.key, OnlySlot):
            self._keys.end(request.target.app, request.key)

    def _check_room(self, request: Request, max_queue: int) -> None:
        app, key = request.target.app, request.key
        if key is not None:
            slots = self.carriers(app)
            if not slots:
                return  # which is another error
            slots = [key.index if isinstance(key, OnlySlot) else self._keys.choose(app, key, slots)]
        else:
            slots = self._rotations[app].in_turn()
            if not slots and len(self._waiting[app]) < max_queue * len(self.carriers(app)):
                return
        if not any(self._slots[index].has_room(max_queue) for index in slots):
            raise PoolBusyError(
                f"the pool is busy: every slot that could take {request.target} has "
                f"max_queue={max_queue} requests that have not begun"
            )

    def slots_for_broadcast(self, target: Target) -> list[int]:
        """Return the slots that are to execute a broadcast.

        Raises:
            NoWorkersAvailableError: none ever will.
            PoolBusyError: one of them has enough.
        """
        slots = self.carriers(target.app)
        if not slots:
            raise no_workers(target, self._latest_failure(target.app))
        max_queue = self._max_queue
        if max_queue is not None:
            for index in slots:
                if not self._slots[index].has_room(max_queue):
                    raise PoolBusyError(
                        f"the pool is busy: slot {index}, which is to take part in a broadcast of "
                        f"{target}, has max_queue={max_queue} requests that have not begun"
                    )
        return slots

    def carriers(self, app: int | None) -> list[int]:
        """Return the slots that carry an app and have not failed."""
        return [
            slot.index
            for slot in self._slots
            if slot.index not in self._failed and (app is None or app in slot.carries)
        ]

    def withdraw(self, request: Request) -> bool:
        """Let go of a waiting request."""
        del self._waiting[request.app][request]
        self._left(request)
        return True

    def tell(self, request: StreamRequest, frame: Segment) -> None:
        """Nobody executes what waits here."""

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def let_go(self) -> list[Request]:
        """Let go of the requests that wait here."""
        waiting = [*chain.from_iterable(self._waiting.values())]
        for queue in self._waiting.values():
            queue.clear()
        return waiting

    def ready(self, slot: Receiver) -> None:
        """Let a slot take part, beginning with its share of what already waits.

        Without it a slot that comes up under load would only help those who come later.
        """
        apps = self._apps_of(slot)
        carriers = {app: len(self._rotations[app]) for app in apps}
        others = [self._slots[index] for index in sorted(self._ready)]
        share = fair_share([other.unsent() for other in others], carriers)
        for other in others:
            other.take_back([request for request in share if request.place is other])
        for app in apps:
            share += self._waiting[app]
            self._waiting[app].clear()
        for request in sorted(share, key=number):
            slot.give(request)
        for app in apps:
            self._rotations[app].add(slot.index)
        self._ready.add(slot.index)

    def lost(self, slot: Receiver) -> None:
        """Leave out a slot that is ready no more."""
        self._ready.discard(slot.index)
        for app in self._apps_of(slot):
            self._rotations[app].remove(slot.index)

    def failed(self, slot: Receiver, cause: BaseException) -> list[Request]:
        """Give a lost slot up for good; return the requests that no slot can take now."""
        self._failed[slot.index] = cause
        hopeless: list[Request] = []
        for app in self._apps_of(slot):
            if self.last_cause(app) is not None:
                hopeless += self._waiting[app]
                self._waiting[app].clear()
        return hopeless

    def last_cause(self, app: int | None) -> BaseException | None:
        """Return why no slot will ever take the app's requests, or None if one may."""
        return None if self.carriers(app) else self._latest_failure(app)

    def _latest_failure(self, app: int | None) -> BaseException:
        return [
            cause
            for index, cause in self._failed.items()
            if app is None or app in self._slots[index].carries
        ][-1]

    def _apps_of(self, slot: Receiver) -> list[int | None]:
        return [None, *sorted(slot.carries)]


def no_workers(target: Target, cause: BaseException) -> NoWorkersAvailableError:
    """Return the error for a request that no slot can take, now or later."""
    error = NoWorkersAvailableError(
        f"no worker is available for {target}: every slot that could take it has failed; "
        f"the last because: {cause}"
    )
    error.__cause__ = cause
    return error
