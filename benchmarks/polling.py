"""Wait for what a pool tells only when it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable


async def wait_until(condition: Callable[[], bool]) -> None:
    """Ask every 5 ms until the answer is yes.

    Raises:
        trio.TooSlowError: it was not for two minutes, and never will be.
    """
    with trio.fail_after(120):
        while not condition():  # noqa: ASYNC110  statistics come with no event
            await trio.sleep(0.005)
