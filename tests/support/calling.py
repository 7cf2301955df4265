"""Calls in tasks of their own, that a test cancels and looks at."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio
from scripts.harness import PATIENCE


class Calling:
    """A call, and what has become of it.

    Attributes:
        scope: cancels it.
        value: what it has returned.
        error: the exception that it has raised.
    """

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.value: Any = None
        self.error: Exception | None = None
        self._ended = trio.Event()

    @classmethod
    def begin(
        cls, nursery: trio.Nursery, call: Callable[..., Awaitable[Any]], *args: Any
    ) -> Calling:
        """Make a call in a nursery."""
        calling = cls()
        nursery.start_soon(calling._run, call, args)
        return calling

    async def _run(self, call: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        with self.scope:
            try:
                self.value = await call(*args)
            except Exception as error:
                self.error = error
        self._ended.set()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    async def ended(self) -> Calling:
        """Wait until it has ended, in whatever way."""
        with trio.fail_after(PATIENCE):
            await self._ended.wait()
        return self

    async def cancel(self) -> None:
        """Have its caller leave, and wait until it has left."""
        self.scope.cancel()
        await self.ended()
        assert self.scope.cancelled_caught
