"""Wait for what a pool tells only when it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_SECONDS = 0.005
STEADY_LOOKS = 20
"""So often the same, and it is steady: a tenth of a second."""


async def wait_until(condition: Callable[[], bool]) -> None:
    """Ask every 5 ms until the answer is yes.

    Raises:
        trio.TooSlowError: it was not for two minutes, and never will be.
    """
    with trio.fail_after(120):
        while not condition():  # noqa: ASYNC110  statistics come with no event
            await trio.sleep(LOOK_SECONDS)


async def wait_steady(look: Callable[[], float]) -> float:
    """Look every 5 ms until a number has stopped changing; return it.

    Raises:
        trio.TooSlowError: it has not for two minutes, and never will.
    """
    last, looks = look(), 0
    with trio.fail_after(120):
        while looks < STEADY_LOOKS:
            await trio.sleep(LOOK_SECONDS)
            number = look()
            looks = looks + 1 if number == last else 0
            last = number
    return last
