"""Gives requests to slots: at acceptance, and again when a slot is lost or becomes ready.

Decisions only: nothing here waits.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from ._errors import NoWorkersAvailableError
from ._routing import Rotation, fair_share, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ._request import Request
    from ._targets import Target


class Place(Protocol):
    """Where an accepted request is: with the dispatcher, or with a slot."""

    def withdraw(self, request: Request) -> None:
        """Let go of a request whose caller has left."""


class Receiver(Place, Protocol):
    """What a dispatcher knows of a slot."""

    @property
    def index(self) -> int:
        """Its place in the rotation."""

    @property
    def carries(self) -> frozenset[int]:
        """The indices of its apps."""

    def give(self, request: Request) -> None:
        """Take a request on, behind those given before."""

    def unsent(self) -> Iterable[Request]:
        """Return the requests that it has not sent to its worker, in order."""

    def take_back(self, requests: Iterable[Request]) -> None:
        """Let go of some of the unsent ones."""


class Dispatcher:
    """Knows which slots are ready, and what waits because none is.

    Requests for which no ready slot carries the app wait here, as long as one that does
    will be ready. A request for a plain function has no app: every slot can take it.
    """

    def __init__(
        self, slots: Sequence[Receiver], apps: Iterable[int], left: Callable[[Request], object]
    ) -> None:
        """``left`` is called with each waiting request that has left."""
        self._left = left
        self._slots = tuple(slots)
        self._ready: set[int] = set()
        self._failed: dict[int, BaseException] = {}
        keys = (None, *apps)
        self._rotations: dict[int | None, Rotation] = {key: Rotation() for key in keys}
        self._waiting: dict[int | None, OrderedDict[Request, None]] = {
            key: OrderedDict() for key in keys
        }

    def accept(self, request: Request) -> None:
        """Give a request to the slot whose turn it is, or let it wait for one.

        Also called, in order of acceptance, for the requests of a lost slot
        that cannot have begun: they take the normal rotation, behind what the other slots
        have been given.

        Raises:
            NoWorkersAvailableError: no slot can take it, and none ever will.
        """
        app = request.target.app
        index = self._rotations[app].take()
        if index is not None:
            self._slots[index].give(request)
            return
        cause = self.last_cause(app)
        if cause is not None:
            raise no_workers(request.target, cause)
        request.place = self
        self._waiting[app][request] = None

    def withdraw(self, request: Request) -> None:
        """Let go of a waiting request."""
        del self._waiting[request.app][request]
        self._left(request)

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
        carriers = [s.index for s in self._slots if app is None or app in s.carries]
        if any(index not in self._failed for index in carriers):
            return None
        return [cause for index, cause in self._failed.items() if index in carriers][-1]

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
