"""Wait for what a pool tells only when it is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

LOOK_SECONDS = 0.005
STEADY_LOOKS = 20
"""How often the same must be seen: for a tenth of a second."""

PATIENCE = 120.0


async def wait_until(
    condition: Callable[[], bool], *, every: float = LOOK_SECONDS, patience: float = PATIENCE
) -> None:
    """Ask again and again until the answer is yes.

    Raises:
        trio.TooSlowError: the answer was no for all of ``patience``.
    """
    with trio.fail_after(patience):
        while not condition():  # noqa: ASYNC110  statistics come with no event
            await trio.sleep(every)


async def wait_steady(
    look: Callable[[], T],
    *,
    every: float = LOOK_SECONDS,
    looks: int = STEADY_LOOKS,
    patience: float = PATIENCE,
) -> T:
    """Look until the same has been seen so many times in a row; return it.

    Raises:
        trio.TooSlowError: it has not for all of ``patience``.
    """
    last, same = look(), 0
    with trio.fail_after(patience):
        while same < looks:
            await trio.sleep(every)
            now = look()
            same = same + 1 if now == last else 0
            last = now
    return last
