"""A slot's queue: requests that have been accepted and not been sent, in order."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .request import Request


class Queue(OrderedDict["Request", None]):
    """Requests in the order in which they are to be sent.

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
