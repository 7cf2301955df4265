"""The task that has a worker replaced when it is worn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from .._common.errors import AppLoadError
from .._common.log import logger
from .._rules.recycling import retry_delays
from .renewal import Renewal

if TYPE_CHECKING:
    from .._rules.recycling import Wear, WearCause
    from .waiting import Waiters

MEASURE_SECONDS = 0.1
"""How often memory is measured at most: it costs 30 µs, which would be a third of a request."""


class Wearing(Protocol):
    """A worker that wears."""

    @property
    def completed(self) -> int:
        """How many requests it has answered."""

    @property
    def has_answered(self) -> Waiters:
        """Waits for that to change."""

    @property
    def is_retired(self) -> bool:
        """Whether it has been replaced."""

    def memory(self) -> int:
        """Return how many bytes are resident for it."""


class Renewing(Protocol):
    """What replaces the worker of a slot."""

    def want(self, renewal: Renewal) -> Renewal:
        """Have the worker replaced."""

    def withdraw(self, renewal: Renewal) -> None:
        """Want it no more."""


async def watch_wear(slot: Renewing, worker: Wearing, wear: Wear) -> None:
    """Have a worker replaced when it is worn, again and again until that succeeds."""
    cause = await _until_worn(worker, wear)
    for delay in retry_delays():
        if worker.is_retired:
            return  # it has been replaced for something else
        renewal = slot.want(Renewal(cause, worn=worker))
        try:
            await renewal.wait()
        except AppLoadError:
            logger.warning(
                "%s is to be replaced, and its successor could not boot: next try in %g s",
                worker,
                delay,
            )
            await trio.sleep(delay)
        except trio.ClosedResourceError:
            return
        else:
            return
        finally:
            slot.withdraw(renewal)  # it may have ended by itself


async def _until_worn(worker: Wearing, wear: Wear) -> WearCause:
    # Not a comparison of ages: a wait until a moment may end one rounding before them.
    end = trio.current_time() + wear.lifetime
    while True:
        completed = worker.completed
        memory = worker.memory() if wear.limits_memory else 0
        cause = wear.cause(completed, memory, is_old=trio.current_time() >= end)
        if cause is not None:
            break
        with trio.move_on_at(end):
            if wear.limits_memory:
                await trio.sleep(MEASURE_SECONDS)
            await worker.has_answered.until(lambda: worker.completed != completed)  # noqa: B023
    if not worker.is_retired:
        logger.info("%s is to be replaced: %s", worker, wear.why(cause, completed, memory))
    return cause
