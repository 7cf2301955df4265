"""Which slot a request is given to, and what a slot that becomes ready takes over.

Decisions only: nothing here waits, and nothing here knows of trio.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Rotation:
    """Round-robin over the ready slots that carry one app.

    The rule: a request goes to the first ready slot behind the one that was given the
    app's last request, counting upwards and around. So as long as the set of ready slots
    stays the same, the numbers of requests given to them differ by at most one; and
    when it changes, nobody's turn is skipped or repeated.
    """

    __slots__ = ("_last", "_next", "_ready")

    def __init__(self) -> None:
        self._ready: list[int] = []
        self._last = -1
        # Invariant: _ready is sorted, and _ready[_next:] are the slots behind _last.
        self._next = 0

    def __len__(self) -> int:
        return len(self._ready)

    def __repr__(self) -> str:
        return f"<Rotation over {self._ready}, last {self._last}>"

    def take(self) -> int | None:
        """Return the slot whose turn it is, and move on; None if no slot is ready."""
        ready = self._ready
        if not ready:
            return None
        at = self._next
        if at == len(ready):
            at = 0
        self._next = at + 1
        slot = self._last = ready[at]
        return slot

    def add(self, slot: int) -> None:
        """Let a slot that has become ready take part."""
        insort(self._ready, slot)
        self._next = bisect_right(self._ready, self._last)

    def remove(self, slot: int) -> None:
        """Leave out a slot that is ready no more."""
        self._ready.remove(slot)
        self._next = bisect_right(self._ready, self._last)


class Routable(Protocol):
    """What is routed: it has a place in the order of acceptance, and an app."""

    @property
    def number(self) -> int:
        """The place, counted from 0."""

    @property
    def app(self) -> int | None:
        """The index of the app that can serve it; None if every slot can."""


R = TypeVar("R", bound=Routable)


def number(request: Routable) -> int:
    """Return the request's place in the order of acceptance, to sort by."""
    return request.number


def fair_share(queues: Iterable[Iterable[R]], carriers: Mapping[int | None, int]) -> list[R]:
    """Choose what a slot that has become ready takes from the queues of the others.

    Of an app that n others carry it takes one request of each n + 1, evenly spread over
    each queue: so every slot keeps as much as the new one gets, and neither the oldest
    requests nor the youngest are preferred.

    Args:
        queues: for each other ready slot its requests that have not been sent, in order.
        carriers: for each app of the new slot, how many other ready slots carry it.

    Returns:
        The requests to move, in order of acceptance.
    """
    share = []
    for queue in queues:
        passed = dict.fromkeys(carriers, 0)
        for request in queue:
            app = request.app
            if app in passed:
                passed[app] += 1
                if passed[app] > carriers[app]:
                    passed[app] = 0
                    share.append(request)
    return sorted(share, key=number)
