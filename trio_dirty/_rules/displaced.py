"""Requests that have lost their slot, until each of them has been seen to."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic

from .routing import R, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Displaced(Generic[R]):
    """Requests that are in no slot, in order of acceptance.

    There may be very many of them at once, and they are seen to some at a time. So to put them
    here costs little for each: about 0.1 µs. Those that leave are left where they are, and passed
    over when it is their turn, which is soon.

    Attributes:
        keyed: how many of them have a key.
    """

    def __init__(self) -> None:
        self._requests: deque[R] = deque()
        self._withdrawn: set[R] = set()
        self.keyed = 0

    def __len__(self) -> int:
        return len(self._requests) - len(self._withdrawn)

    def put(self, requests: Sequence[R]) -> None:
        """Take on requests, which are in order."""
        if not requests:
            return
        self.keyed += sum(request.key is not None for request in requests)
        present = self._requests
        if present and requests[0].number < present[-1].number:
            self._requests = deque(sorted([*present, *requests], key=number))
        else:
            present.extend(requests)

    def take(self, count: int) -> Iterable[R]:
        """Let go of the first ones, at most so many of them, and yield each of them then."""
        while count and self._requests:
            request = self._requests.popleft()
            if request in self._withdrawn:
                self._withdrawn.remove(request)
                continue
            count -= 1
            self._forget(request)
            yield request

    def withdraw(self, request: R) -> None:
        """Let go of one whose caller leaves."""
        self._withdrawn.add(request)
        self._forget(request)

    def _forget(self, request: R) -> None:
        if request.key is not None:
            self.keyed -= 1
