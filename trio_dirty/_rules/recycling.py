"""When a worker is worn, and to be replaced by a fresh one."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .limits import count, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WearCause: TypeAlias = Literal["max_requests", "max_memory", "max_lifetime"]

RETRY_LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class RecyclingLimits:
    """How much a worker may do before it is replaced; infinity for no limit.

    Attributes:
        max_requests: how many requests it may complete.
        jitter: by how many more at most, drawn for each worker.
        max_memory: bytes that may be resident for it.
        max_lifetime: seconds since it was ready.
    """

    max_requests: float = math.inf
    jitter: int = 0
    max_memory: float = math.inf
    max_lifetime: float = math.inf

    @classmethod
    def checked(cls, given: Mapping[str, Any]) -> RecyclingLimits:
        """Return the limits that are among some options.

        Raises:
            TypeError, ValueError: one is out of its range; the text names it.
        """
        max_requests = _limit("max_requests", given["max_requests"])
        jitter = count("max_requests_jitter", given["max_requests_jitter"], least=0)
        if jitter and max_requests == math.inf:
            raise ValueError(
                f"max_requests_jitter is added to max_requests, which must be given with it; "
                f"was {jitter}, without max_requests"
            )
        return cls(
            max_requests=max_requests,
            jitter=jitter,
            max_memory=_limit("max_memory", given["max_memory"]),
            max_lifetime=seconds("max_lifetime", given["max_lifetime"]),
        )


def _limit(name: str, value: object) -> float:
    if value is None or value == math.inf:
        return math.inf
    return count(name, value, least=1)


class Wear:
    """What one worker may do.

    Attributes:
        is_limited: whether there is a limit at all.
        limits_memory: whether its memory is to be measured.
        lifetime: seconds for which it may serve.
    """

    def __init__(self, limits: RecyclingLimits) -> None:
        self._max_memory = limits.max_memory
        self._requests = limits.max_requests
        if limits.jitter:
            # For spreading only. Of a generator of its own: a program that seeds the common one
            # would have all its pools recycle in step.
            self._requests += random.SystemRandom().randint(0, limits.jitter)
        self.lifetime = limits.max_lifetime
        self.limits_memory = limits.max_memory < math.inf
        self.is_limited = min(self._requests, self._max_memory, self.lifetime) < math.inf

    def cause(self, completed: int, memory: int, *, is_old: bool) -> WearCause | None:
        """Return why it is worn, or None if it is not.

        Args:
            completed: how many requests it has answered.
            memory: bytes that are resident for it.
            is_old: whether it has served for its lifetime.
        """
        if completed >= self._requests:
            return "max_requests"
        if memory > self._max_memory:
            return "max_memory"
        if is_old:
            return "max_lifetime"
        return None

    def why(self, cause: WearCause, completed: int, memory: int) -> str:
        """Say why it is worn."""
        if cause == "max_requests":
            return f"it has completed {completed} requests, of {self._requests} that it may"
        if cause == "max_memory":
            return f"it has {memory} bytes resident, and max_memory={self._max_memory}"
        return f"it has served for max_lifetime={self.lifetime} seconds"

    def refusal(self, memory: int) -> str | None:
        """Return why a worker that has just booted cannot be used, or None if it can.

        One that has as much as it may would be replaced after each request.
        """
        if memory < self._max_memory:
            return None
        return (
            f"max_memory must be more than what a worker has after init(), was "
            f"{self._max_memory} bytes, and the worker has {memory}"
        )


def retry_delays() -> Iterator[float]:
    """Yield the seconds to wait before the next try, where a successor does not boot.

    For ever: the worn worker serves as long as it takes.
    """
    delay = 1.0
    while True:  # no power of the number of tries: a thousand of them, in 17 hours, overflow
        yield delay
        delay = min(RETRY_LIMIT, 2 * delay)
