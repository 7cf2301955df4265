"""A nursery for tasks that serve a block."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ._errors import DirtyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def open_service_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery whose tasks serve the block and are cancelled at its end.

    An exception of the block leaves as itself and not in a group: those who wrote the
    block cannot know that it has a nursery around it.

    Raises:
        DirtyError: one of the tasks raised it; or anything else, which is a defect.
    """
    raised: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                raised = error
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        _, others = group.split(trio.Cancelled)
        defects, interrupts = others.split(Exception) if others else (None, None)
        if interrupts is not None:
            raise _leaf(interrupts) from None  # Ctrl-C, which trio adds when this waits
        if defects is not None:
            if defects.split(DirtyError)[1] is not None:
                text = f"the pool has a defect and broke down: {_leaf(defects)!r}"
                raise DirtyError(text) from defects
            raised = _leaf(defects)  # it says itself what is wrong
        elif raised is None:
            raise
    if raised is not None:
        # With its cycle through this frame, it would keep alive whatever it refers to.
        try:
            raise raised
        finally:
            del raised


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
