"""The options of one request, checked: its time-outs, and what its cancellation does.

The checks of single values are used for the options of the pool, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

OnCancel: TypeAlias = Literal["abandon", "interrupt", "kill", "wait"]
"""What happens to a request that has begun when its caller is cancelled."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a request may be executed, and what happens to it when its caller is cancelled.

    Attributes:
        timeout: seconds after which its worker is killed; infinity for no limit.
        soft_timeout: seconds after which `SoftTimeout` is raised in it; infinity for no limit.
        on_cancel: see `OnCancel`.
        is_timed: whether it has a time-out.
        is_interruptible: whether its action may be interrupted.
    """

    timeout: float = math.inf
    soft_timeout: float = math.inf
    on_cancel: OnCancel = "abandon"
    is_timed: bool = False
    is_interruptible: bool = field(default=False, compare=False)  # follows from the others

    @classmethod
    def checked(cls, given: Mapping[str, Any]) -> Limits:
        """Return the limits that are among some options.

        Raises:
            TypeError, ValueError: one is out of its range; the text names it.
        """
        timeout = seconds("timeout", given["timeout"])
        soft_timeout = seconds("soft_timeout", given["soft_timeout"])
        if soft_timeout >= timeout and not math.isinf(soft_timeout):
            raise ValueError(
                f"soft_timeout must be less than timeout, was {given['soft_timeout']} and "
                f"timeout {given['timeout']}"
            )
        on_cancel: OnCancel = choice("on_cancel", given["on_cancel"], get_args(OnCancel))
        is_timed = not math.isinf(min(timeout, soft_timeout))
        is_interruptible = not math.isinf(soft_timeout) or on_cancel == "interrupt"
        return cls(timeout, soft_timeout, on_cancel, is_timed, is_interruptible)


def seconds(name: str, value: object, *, zero: bool = False) -> float:
    """Return a number of seconds; infinity for None, which means no limit.

    Raises:
        TypeError, ValueError: it is no such number, or negative, or 0 where ``zero`` is False.
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
    except OverflowError:  # an integer that is too large for a float
        return math.inf


def count(name: str, value: object, *, least: int) -> int:
    """Return a whole number.

    Raises:
        TypeError, ValueError: it is no whole number, or less than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number of at least {least}, was {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, was {value}")
    return value


def choice(name: str, value: object, names: tuple[T, ...]) -> T:
    """Return the one of some names that a value is equal to.

    Raises:
        TypeError, ValueError: it is equal to none of them.
    """
    for known in names:
        if value == known:
            return known
    kind = ValueError if isinstance(value, str) else TypeError
    raise kind(f"{name} must be one of {', '.join(map(repr, names))}, was {value!r}")
