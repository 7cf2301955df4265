"""Requests that wait, in order: in a slot's queue, or having lost their slot."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from .routing import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .request import Place, Request


class Queue(OrderedDict["Request", None]):
    """A slot's queue: requests that have been accepted and not been sent, in order.

    A dictionary, so that one whose caller leaves is taken out from the middle in constant time.
    """

    def put(self, requests: Iterable[Request]) -> None:
        """Put requests, in order, behind all that are there."""
        self.update(dict.fromkeys(requests))

    def put_first(self, requests: Iterable[Request]) -> None:
        """Put requests, in order, before all that are there."""
        there = [*self]
        self.clear()
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


class Displaced:
    """Requests that are in no slot, in order of acceptance.

    There may be very many of them at once, and they are seen to some at a time. So to put them
    here costs little for each: about 0.1 µs. Those that leave are left where they are, and passed
    over when it is their turn, which is soon.

    Args:
        place: who lets go of one whose caller leaves, and is to call `withdraw` then.

    Attributes:
        keyed: how many of them have a key.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._requests: deque[Request] = deque()
        self._withdrawn: set[Request] = set()
        self.keyed = 0

    def __len__(self) -> int:
        return len(self._requests) - len(self._withdrawn)

    def put(self, requests: Sequence[Request]) -> None:
        """Take on requests, which are in order."""
        if not requests:
            return
        place = self._place
        for request in requests:
            request.place = place
            if request.key is not None:
                self.keyed += 1
        present = self._requests
        if present and requests[0].number < present[-1].number:
            self._requests = deque(sorted([*present, *requests], key=number))
        else:
            present.extend(requests)

    def take(self, count: int) -> Iterable[Request]:
        """Let go of the first ones, at most so many of them, and yield each of them then."""
        while count and self._requests:
            request = self._requests.popleft()
            if request in self._withdrawn:
                self._withdrawn.remove(request)
                continue
            count -= 1
            self._forget(request)
            yield request

    def withdraw(self, request: Request) -> None:
        """Let go of one whose caller leaves."""
        self._withdrawn.add(request)
        self._forget(request)

    def _forget(self, request: Request) -> None:
        if request.key is not None:
            self.keyed -= 1
