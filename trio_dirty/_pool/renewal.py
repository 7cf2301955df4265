"""That a slot's worker is to be replaced, and whether it has been."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from .._rules.statistics import Cause
    from .._rules.targets import AppPaths


class Retirable(Protocol):
    """A worker that may be replaced."""

    @property
    def is_retired(self) -> bool:
        """Whether that has happened."""


class Renewal:
    """A replacement of a slot's worker that is wanted.

    Args:
        cause: why.
        apps: what the next worker is to carry; None: the same.
        overlaps: whether the old one serves until the new one is ready.
        worn: the one worker that is to be replaced; None: whichever there is.
    """

    def __init__(
        self,
        cause: Cause,
        apps: AppPaths | None = None,
        *,
        overlaps: bool = True,
        worn: Retirable | None = None,
    ) -> None:
        self.cause = cause
        self.apps = apps
        self.overlaps = overlaps
        self.worn = worn
        self._ended = trio.Event()
        self._error: Exception | None = None

    def end(self, error: Exception | None = None) -> None:
        """Take note that the worker has been replaced, or why it has not."""
        self._error = error
        self._ended.set()

    async def wait(self) -> None:
        """Wait until the next worker has taken over.

        Raises:
            AppLoadError: it could not boot.
            trio.ClosedResourceError: the pool is being closed, or the slot removed.
        """
        await self._ended.wait()
        if self._error is not None:
            raise self._error
