"""Percentiles, and figures with their targets."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .words import number_in_words

if TYPE_CHECKING:
    from collections.abc import Sequence


def percentile(values: Sequence[float], q: float) -> float:
    """Return the smallest value that at least ``q`` percent do not exceed; nan if none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * q / 100) - 1)]


def summary_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Return latencies as gunicorn's record has them, in milliseconds."""
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
        """Whether the target is reached; None if there is no target."""
        if self.at_most is not None:
            return self.value <= self.at_most
        if self.at_least is not None:
            return self.value >= self.at_least
        return None

    @property
    def target(self) -> str:
        """The target in words."""
        if self.at_most is not None:
            return f"at most {number_in_words(self.at_most, 6)} {self.unit}"
        if self.at_least is not None:
            return f"at least {number_in_words(self.at_least, 6)} {self.unit}"
        return ""

    def record(self) -> dict[str, Any]:
        """Return it as the JSON has it."""
        return {**asdict(self), "reached": self.reached}


def longest(
    what: str, spans: Sequence[float], unit: str, *, at_most: float, decimals: int, note: str = ""
) -> Figure:
    """Return the longest of some spans as a figure, with their median beside it."""
    return Figure(
        what,
        max(spans),
        unit,
        at_most=at_most,
        note=f"the longest of {len(spans)}, median {statistics.median(spans):.{decimals}f}{note}",
    )
