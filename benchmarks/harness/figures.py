"""Percentiles, and figures with their targets."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def percentile(values: Sequence[float], q: float) -> float:
    """Return the smallest value that at least ``q`` percent do not exceed; nan if none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * q / 100) - 1)]


def summary_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Return latencies as the seed's record has them, in milliseconds."""
    ms = [1000 * value for value in seconds] or [0.0]
    return {
        "min": min(ms),
        "max": max(ms),
        "mean": statistics.fmean(ms),
        "stddev": statistics.stdev(ms) if len(ms) > 1 else 0.0,
        "p50": percentile(ms, 50),
        "p95": percentile(ms, 95),
        "p99": percentile(ms, 99),
    }


def in_words(value: float, digits: int) -> str:
    """Return a number as tables have it: of so many digits, but whole from a thousand on."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number.

    Attributes:
        what: what was measured.
        value: the number, in ``unit``.
        unit: of the value and the limits.
        at_most: the target, if it is an upper limit.
        at_least: the target, if it is a lower limit.
        note: how it came about, in a few words.
    """

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None if there is none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        if self.at_least is not None:
            return self.value >= self.at_least
        return None

    @property
    def target(self) -> str:
        """The target in words."""
        if self.at_most is not None:
            return f"at most {in_words(self.at_most, 6)} {self.unit}"
        if self.at_least is not None:
            return f"at least {in_words(self.at_least, 6)} {self.unit}"
        return ""
