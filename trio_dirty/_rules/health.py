"""Whether a worker stands still, and what is done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from .._common import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .request import Request

STILL_LIMIT = 2
"""How many looks in a row have to find that a worker has stood still since the one before, and
has not answered, before it is killed."""


class Health:
    """Decides, at each look at a worker, whether it is asked for a sign of life, or killed.

    A worker that executes something is left alone unless it has been stopped: how long an action
    may take is for time-outs to bound.

    Attributes:
        ping: the number of the latest PING.
        is_pinged: whether it has not been answered.
        is_unresponsive: whether the worker was to be killed.
    """

    def __init__(self) -> None:
        self.ping = 0
        self.is_pinged = False
        self.is_unresponsive = False
        # What was unanswered at the last look, and how often in a row the worker has stood still
        # since.
        self._doubted: object = None
        self._still = 0

    def look(
        self,
        executing: Sequence[Request],
        stands_still: Callable[[], bool],
        *,
        is_closing: bool,
        is_idle: bool,
    ) -> Literal["ping", "kill"] | None:
        """Return what is to be done now.

        Args:
            executing: what it may be executing.
            stands_still: asks whether it has done nothing since the last look.
            is_closing: whether it was told to close.
            is_idle: whether it has nothing to do, and may be asked.
        """
        doubt = self._doubt(executing, is_closing=is_closing)
        decision: Literal["ping", "kill"] | None = None
        if doubt is None:
            if is_idle:
                self.ping += 1
                self.is_pinged = True
                decision = "ping"
        else:
            # At the first look of a doubt this is what the next one compares with.
            still = stands_still()
            self._still = self._still + 1 if still and doubt == self._doubted else 0
            if self._still == STILL_LIMIT:
                self.is_unresponsive = True
                decision = "kill"
        self._doubted = doubt
        return decision

    def _doubt(self, executing: Sequence[Request], *, is_closing: bool) -> tuple[int, int] | None:
        """Return what the worker has been sent, has not obeyed, and may never obey."""
        if self.is_pinged:
            return wire.PING, self.ping
        if is_closing:
            return wire.CLOSE, 0
        if not executing or any(request.is_bounded for request in executing):
            return None
        return wire.REQUEST, executing[0].number

    def ponged(self) -> None:
        """Take note that it has answered."""
        self.is_pinged = False
