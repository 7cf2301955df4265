"""What a slot's next worker is wanted for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._rules.statistics import Cause
    from .._rules.targets import AppPaths
    from .worker import Incarnation


class Wish:
    """That a slot's worker be replaced.

    Args:
        cause: why.
        apps: what the next one is to carry; None: the same.
        overlaps: whether the old one serves until the new one is ready.
        worn: the one worker that is to be replaced; None: whichever there is.
    """

    def __init__(
        self,
        cause: Cause,
        apps: AppPaths | None = None,
        *,
        overlaps: bool = True,
        worn: Incarnation | None = None,
    ) -> None:
        self.cause = cause
        self.apps = apps
        self.overlaps = overlaps
        self.worn = worn
        self._decided = trio.Event()
        self._error: Exception | None = None

    def decide(self, error: Exception | None = None) -> None:
        """Take note that it has been granted, or why it has not."""
        self._error = error
        self._decided.set()

    async def granted(self) -> None:
        """Wait until the next worker has taken over.

        Raises:
            AppLoadError: it could not boot.
            trio.ClosedResourceError: the pool is being closed, or the slot removed.
        """
        await self._decided.wait()
        if self._error is not None:
            raise self._error


class Inquiry:
    """What the first worker of a pool is asked before anything is booted.

    Args:
        apps: those of which only a worker can tell how many slots are to carry them.
        answered: called with what it says of each.
    """

    def __init__(self, apps: AppPaths, answered: Callable[[Sequence[int | None]], object]) -> None:
        self.apps = apps
        self.answered = answered
