"""A nursery for tasks that serve a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from .._common.errors import DirtyError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType


@final
class open_service_nursery:  # noqa: N801 (it is called like trio.open_nursery)
    """A nursery whose tasks serve the block and are cancelled at its end.

    An exception of the block leaves as itself and not in a group: those who wrote the
    block cannot know that it has a nursery around it.

    A class, and not a generator with `contextlib.asynccontextmanager`: contextlib's own code is
    not protected from Ctrl-C, and one that is raised there leaves the nursery open.

    Raises:
        DirtyError: one of the tasks raised it; or anything else, which is a defect.
    """

    _manager: AbstractAsyncContextManager[trio.Nursery]
    _nursery: trio.Nursery

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> trio.Nursery:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self._nursery

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._nursery.cancel_scope.cancel()
        try:
            await self._manager.__aexit__(None, None, None)
        except BaseExceptionGroup as group:
            _, others = group.split(trio.Cancelled)
            defects, interrupts = others.split(Exception) if others else (None, None)
            if interrupts is not None:
                raise _leaf(interrupts) from None  # Ctrl-C, which trio adds when this waits
            if defects is not None:
                if defects.split(DirtyError)[1] is not None:
                    text = f"the pool has a defect and broke down: {_leaf(defects)!r}"
                    raise DirtyError(text) from defects
                raise _leaf(defects)  # noqa: B904 (it says itself what is wrong)
            if error is None:
                raise


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
