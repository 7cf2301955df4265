"""Gives requests to slots: at acceptance, and again when a slot is lost or becomes ready."""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from .._common.errors import NoWorkersAvailableError, PoolBusyError
from .displaced import Displaced
from .request import Place, Request
from .routing import Keys, Loads, Rotation, fair_share, number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .options import Routing
    from .targets import Target


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
        """How many requests it has been given that have not ended.

        Whenever it has become another, except by `give` and by the dispatcher's own
        `take_back`, `Dispatcher.load_changed` is to be called.
        """

    def has_room(self, max_queue: int) -> bool:
        """Whether one more would leave at most so many that have not begun."""

    def give(self, request: Request) -> None:
        """Take a request on, behind those given before."""

    def give_all(self, requests: Sequence[Request]) -> None:
        """Take many on, in order."""

    def unsent(self) -> Iterable[Request]:
        """Return the requests that it has not sent to its worker, in order."""

    def take_back(self, requests: Iterable[Request]) -> None:
        """Let go of some of the unsent ones."""


class Dispatcher:
    """Knows which slots are ready, and what waits because none is.

    Requests for which no ready slot carries the app wait here, as long as one that does
    will be ready. A request for a plain function has no app: every slot can take it. A
    request with a key goes to the slot of its key, and waits there if that is not ready. One that
    is pinned to a slot goes there or fails.

    Args:
        slots: those that there are at first.
        apps: the indices of the pool's apps.
        left: called with each request that has left while it waited here.
        hopeless: to be called with each request that no slot can take any more, and the error.
        routing: which ready slot is given a request without a key.
        max_queue: how many may wait in a slot without having begun; None for no limit.
    """

    def __init__(
        self,
        slots: Iterable[Receiver],
        apps: Iterable[int],
        left: Callable[[Request], object],
        hopeless: Callable[[Request, NoWorkersAvailableError], object],
        routing: Routing = "round_robin",
        max_queue: int | None = None,
    ) -> None:
        self._left = left
        self.end_hopeless = hopeless
        self._slots = {slot.index: slot for slot in slots}
        # None where loads do not matter. Invariant: of ready slots, and those are right that are
        # not in _stale.
        self._loads = Loads() if routing == "least_loaded" else None
        self._stale: set[int] = set()
        self._max_queue = max_queue
        self._takes_turns = routing == "round_robin" and max_queue is None
        self._ready: set[int] = set()
        self._failed: set[int] = set()
        # By app, why the latest slot failed that carried it.
        self._causes: dict[int | None, BaseException] = {}
        self._carriers: dict[int | None, list[int]] = {}
        self._keys = Keys()
        # By app and key, what waits until nothing of the key is left in the slot that it leaves.
        self._moving: dict[tuple[int | None, object], OrderedDict[Request, None]] = {}
        self._displaced = Displaced[Request]()
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
        if request.key is None and request.pinned is None and self._takes_turns:  # the path of most
            index = self._rotations[request.app].take()
            if index is not None:
                self._slots[index].give(request)
                return
        self.route(request)

    def route(self, request: Request) -> None:
        """Give a request to its slot, or let it wait for one.

        Raises:
            NoWorkersAvailableError: no slot can take it, and none ever will.
        """
        if request.key is not None and self._displaced.keyed:
            self.displace([request])  # one of them may be of its key, and goes before it
        else:
            self._route(request)

    def _route(self, request: Request) -> None:
        if request.pinned is not None:
            self._route_pinned(request)
        elif request.key is None:
            self._route_in_turn(request)
        else:
            self._route_by_key(request)

    # What has lost its slot

    def displace(self, requests: Sequence[Request]) -> None:
        """Take on requests, in order, that have lost their slot and cannot have begun.

        They are to be routed again, by `route_displaced`: in order of acceptance, by the normal
        rotation, behind what the other slots have been given. None of them is refused.
        """
        for request in requests:
            request.place = self
        self._displaced.put(requests)

    def route_displaced(self, count: int) -> None:
        """Route some of them. Others, if there are more, are left for later."""
        for request in self._displaced.take(count):
            try:
                self._route(request)
            except NoWorkersAvailableError as error:
                self.end_hopeless(request, error)

    @property
    def has_displaced(self) -> bool:
        """Whether there are any."""
        return bool(self._displaced)

    # The slot of a request

    def _route_in_turn(self, request: Request) -> None:
        app = request.app
        rotation = self._rotations[app]
        index = rotation.take() if self._takes_turns else self._choose(rotation)
        if index is not None:
            self._give(index, request)
            return
        if not self.carriers(app):
            raise self._hopeless(request.target)
        request.place = self
        self._waiting[app][request] = None

    def _choose(self, rotation: Rotation) -> int | None:
        """Choose a ready slot, where it is not simply the next one's turn."""
        if not rotation:
            return None
        slots, max_queue = self._slots, self._max_queue
        bits = rotation.bits
        index = self._first_of(rotation, bits)
        if max_queue is not None and not slots[index].has_room(max_queue):
            roomy = [index for index in rotation.in_turn() if slots[index].has_room(max_queue)]
            if roomy:
                index = self._first_of(rotation, sum(1 << each for each in roomy))
        rotation.took(index)
        return index

    def _first_of(self, rotation: Rotation, bits: int) -> int:
        """Return the least loaded of some slots, or the one whose turn comes first."""
        loads = self._loads
        if loads is None:
            return rotation.first_of(bits)
        for index in self._stale:
            loads.put(index, self._slots[index].load)
        self._stale.clear()
        return rotation.first_of(loads.least(bits))

    @property
    def weighs(self) -> bool:
        """Whether it matters how much each slot has."""
        return self._loads is not None

    def load_changed(self, slot: Receiver) -> None:
        """Take note that a slot may have another load."""
        if self._loads is not None and slot.index in self._ready:
            self._stale.add(slot.index)

    def _give(self, index: int, request: Request) -> None:
        slot = self._slots[index]
        slot.give(request)
        self.load_changed(slot)

    def _route_pinned(self, request: Request) -> None:
        if request.pinned not in self.carriers(request.app):
            raise self._hopeless(request.target)
        self._give(request.pinned, request)

    def _route_by_key(self, request: Request) -> None:
        app, key = request.app, request.key
        slots = self.carriers(app)
        if not slots:
            raise self._hopeless(request.target)
        index = self._keys.choose(app, key, slots)
        if index not in slots or (app, key) in self._moving:
            self._wait_to_move(request)
            if index in slots:  # that has failed, and has been revived since
                self._move(app, key)
            return
        self._keys.begin(app, key, index)
        self._give(index, request)

    def _wait_to_move(self, request: Request) -> None:
        request.place = self
        way = request.app, request.key
        waiting = self._moving.setdefault(way, OrderedDict())
        is_last = not waiting or next(reversed(waiting)).number < request.number
        waiting[request] = None
        if not is_last:
            self._moving[way] = OrderedDict.fromkeys(sorted(waiting, key=number))

    def _move(self, app: int | None, key: object) -> None:
        for request in self._moving.pop((app, key)):
            self._route_by_key(request)

    def release(self, request: Request) -> None:
        """Take note that a request with a key has ended."""
        app, key = request.app, request.key
        self._keys.end(app, key)
        if self._moving and (app, key) in self._moving and not self._keys.has(app, key):
            self._move(app, key)

    def release_all(self, requests: Iterable[Request]) -> None:
        """Take note that requests with keys have ended, or are about to be routed again.

        What has waited for that is displaced: among it may be others that are to come before it.
        """
        end = self._keys.end
        ways = set()
        for request in requests:
            end(request.app, request.key)
            if self._moving:
                ways.add((request.app, request.key))
        freed: list[Request] = []
        for way in ways & self._moving.keys():
            if not self._keys.has(*way):
                freed += self._moving.pop(way)
        self.displace(sorted(freed, key=number))

    def _check_room(self, request: Request, max_queue: int) -> None:
        app, key = request.app, request.key
        if request.pinned is not None:
            return  # `slots_for_broadcast` has looked
        if key is not None:
            slots = self.carriers(app)
            if not slots:
                return  # which is another error
            index = self._keys.choose(app, key, slots)
            moving = len(self._moving.get((app, key), ()))
            if moving or index not in slots:
                if moving < max_queue:
                    return
                slots = []
            else:
                slots = [index]
        else:
            slots = self._rotations[app].in_turn()
            carriers = len(self.carriers(app))
            if not carriers:
                return  # which is another error
            if not slots and len(self._waiting[app]) < max_queue * carriers:
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
            raise self._hopeless(target)
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
        if app not in self._carriers:
            self._carriers[app] = [
                index
                for index, slot in sorted(self._slots.items())
                if index not in self._failed and (app is None or app in slot.carries)
            ]
        return self._carriers[app]

    def withdraw(self, request: Request) -> bool:
        """Let go of a waiting request."""
        queue = self._waiting[request.app]
        if request.key is not None:
            queue = self._moving.get((request.app, request.key), OrderedDict())
        if request in queue:
            del queue[request]
        else:
            self._displaced.withdraw(request)
        self._left(request)
        return True

    def __len__(self) -> int:
        queues = chain(self._waiting.values(), self._moving.values())
        return len(self._displaced) + sum(map(len, queues))

    def let_go(self) -> list[Request]:
        """Let go of the requests that wait here."""
        queues = [*self._waiting.values(), *self._moving.values()]
        waiting = [*self._displaced.take(len(self._displaced)), *chain.from_iterable(queues)]
        for queue in queues:
            queue.clear()
        return waiting

    # Slots come and go.

    def add(self, slot: Receiver) -> None:
        """Know of a slot that will be ready."""
        self._slots[slot.index] = slot
        self._carriers_changed()

    def remove(self, slot: Receiver) -> None:
        """Forget a slot: it is given nothing more.

        What no slot can take now is displaced, to be told so. There is nothing of that kind unless
        those that stay, and are to carry all its apps, have failed.
        """
        if slot.index in self._ready:
            self.lost(slot)
        del self._slots[slot.index]
        self._failed.discard(slot.index)
        self._abandoned_by(slot)

    def revive(self, slot: Receiver) -> None:
        """Take note that a slot that has failed will be ready after all."""
        self._failed.remove(slot.index)
        self._carriers_changed()

    def ready(self, slot: Receiver) -> None:
        """Let a slot take part, beginning with its share of what already waits.

        Without it a slot that comes up under load would only help those who come later.
        """
        self._carriers_changed()
        self._take_part(slot, self._apps_of(slot))
        self._ready.add(slot.index)
        self.load_changed(slot)

    def gained(self, slot: Receiver, apps: Iterable[int]) -> None:
        """Let a slot that is ready take part for apps that it carries from now on."""
        self._carriers_changed()
        self._take_part(slot, [*apps])

    def _take_part(self, slot: Receiver, apps: Sequence[int | None]) -> None:
        carriers = {app: len(self._rotations[app]) for app in apps}
        others = [self._slots[index] for index in sorted(self._ready - {slot.index})]
        taken: list[Request] = []
        for other in others:
            share = fair_share(other.unsent(), carriers)
            other.take_back(share)
            self.load_changed(other)
            taken += share
        for app in apps:
            taken += self._waiting[app]
            self._waiting[app].clear()
        slot.give_all(sorted(taken, key=number))
        self.load_changed(slot)
        for app in apps:
            self._rotations[app].add(slot.index)

    def lost(self, slot: Receiver) -> None:
        """Leave out a slot that is ready no more."""
        self._ready.discard(slot.index)
        self._stale.discard(slot.index)
        if self._loads is not None:
            self._loads.remove(slot.index)
        for app in self._apps_of(slot):
            self._rotations[app].remove(slot.index)

    def failed(self, slot: Receiver, cause: BaseException) -> None:
        """Give a lost slot up for good; what no slot can take now is displaced."""
        if self._slots.get(slot.index) is not slot:
            return  # it had been removed already: another may have its index
        self._failed.add(slot.index)
        self._causes.update(dict.fromkeys(self._apps_of(slot), cause))
        self._abandoned_by(slot)

    def _abandoned_by(self, slot: Receiver) -> None:
        self._carriers_changed()
        hopeless: list[Request] = []
        for app in self._apps_of(slot):
            if not self.carriers(app):
                hopeless += self._waiting[app]
                self._waiting[app].clear()
                for way in [way for way in self._moving if way[0] == app]:
                    hopeless += self._moving.pop(way)
        self.displace(sorted(hopeless, key=number))

    def _carriers_changed(self) -> None:
        self._carriers.clear()
        self._keys.forget_choices()

    def _hopeless(self, target: Target) -> NoWorkersAvailableError:
        return no_workers(target, self._causes.get(target.app))

    def _apps_of(self, slot: Receiver) -> list[int | None]:
        return [None, *sorted(slot.carries)]


def no_workers(target: Target, cause: BaseException | None) -> NoWorkersAvailableError:
    """Return the error for a request that no slot can take, now or later."""
    why = "the only slot that could take it leaves the pool"
    if cause is not None:
        why = f"every slot that could take it has failed; the last because: {cause}"
    error = NoWorkersAvailableError(f"no worker is available for {target}: {why}")
    error.__cause__ = cause
    return error
