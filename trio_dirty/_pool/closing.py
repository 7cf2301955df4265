"""What becomes of requests that a pool has not served when it is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .._rules.displaced import Displaced
from .._rules.request import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._rules.instruments import Instruments

CLOSED_AT_ONCE = 1_000
"""How many requests end in one step when a pool is closed: about 5 ms."""


class Rest:
    """Requests that nothing will serve, until each of their callers has been told so."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self._requests = Displaced[Request]()

    def take(self, requests: Sequence[Request]) -> None:
        """Take requests over from where they were."""
        for request in requests:
            request.place = self
        self._requests.put(requests)

    async def close(self) -> None:
        """End all of them, and let other tasks run in between."""
        while self._requests:
            await trio.lowlevel.checkpoint()
            for request in self._requests.take(CLOSED_AT_ONCE):
                if request.cancelled:
                    request.skip()
                else:
                    request.fail(trio.ClosedResourceError("this pool was closed"))
                self._instruments.request_ended(request.number, "closed")

    def withdraw(self, request: Request) -> bool:
        """Let go of a request whose caller leaves."""
        self._requests.withdraw(request)
        self._instruments.request_cancelled(request.number)
        self._instruments.request_ended(request.number, "closed")
        return True
