"""What a caller asks of one request besides its outcome: limits, and how to cancel it.

Decisions only: nothing here waits, and nothing here knows of trio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

OnCancel: TypeAlias = Literal["abandon", "interrupt", "kill", "wait"]
"""What becomes of a request that has begun when its caller is cancelled."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a request may be executed, and what becomes of it when its caller leaves.

    Attributes:
        timeout: seconds after which its worker is killed; infinity for none.
        soft_timeout: seconds after which `SoftTimeout` is raised in it; infinity for none.
        on_cancel: see `OnCancel`.
        is_timed: whether it has to be watched from the moment in which it begins.
        is_interruptible: whether its action may be interrupted.
    """

    timeout: float = math.inf
    soft_timeout: float = math.inf
    on_cancel: OnCancel = "abandon"
    is_timed: bool = False
    is_interruptible: bool = field(default=False, compare=False)  # follows from the others

    @classmethod
    def checked(cls, timeout: object, soft_timeout: object, on_cancel: object) -> Limits:
        """Return the limits, or raise `TypeError` or `ValueError` that names the bad one."""
        hard = seconds("timeout", timeout, zero=False)
        soft = seconds("soft_timeout", soft_timeout, zero=False)
        if soft >= hard and not math.isinf(soft):
            raise ValueError(
                f"soft_timeout must be less than timeout, was {soft_timeout} and timeout {timeout}"
            )
        if on_cancel not in get_args(OnCancel):
            names = ", ".join(map(repr, get_args(OnCancel)))
            kind = ValueError if isinstance(on_cancel, str) else TypeError
            raise kind(f"on_cancel must be one of {names}, was {on_cancel!r}")
        is_timed = not math.isinf(min(hard, soft))
        is_interruptible = not math.isinf(soft) or on_cancel == "interrupt"
        return cls(hard, soft, on_cancel, is_timed, is_interruptible)  # type: ignore[arg-type]


def seconds(name: str, value: object, *, zero: bool) -> float:
    """Return a number of seconds; None means no limit.

    Raises:
        TypeError, ValueError: it is none, or out of its range; zero is only where it says.
    """
    if value is None:
        return math.inf
    least = "at least 0" if zero else "more than 0"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds {least}, or None, was {value!r}")
    if not value >= 0 or (value == 0 and not zero):
        raise ValueError(f"{name} must be {least} seconds, was {value}")
    try:
        return float(value)
    except OverflowError:  # so many that no clock will ever count them
        return math.inf


def count(name: str, value: object, *, least: int) -> int:
    """Return a count.

    Raises:
        TypeError, ValueError: it is none, or less than it may be.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number of at least {least}, was {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, was {value}")
    return value
