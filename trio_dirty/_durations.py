"""Percentiles of durations, in constant memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

from fastdigest import TDigest

if TYPE_CHECKING:
    from collections.abc import Iterable

CENTROIDS = 100
"""Dunning, *Computing Extremely Accurate Quantiles Using t-Digests* (2019): the error of
a percentile q is then about q (1 - q) / 25, smallest in the tails."""

PENDING_LIMIT = 512


@dataclass(frozen=True, slots=True)
class Percentiles:
    """How long something took, in seconds; all nan while ``count`` is 0.

    Percentiles are estimates of a t-digest; ``count`` and ``max`` are exact.
    """

    count: int = 0
    p50: float = nan
    p95: float = nan
    p99: float = nan
    max: float = nan


class Durations:
    """Takes how long requests waited and were executed, and summarises it.

    They are kept in a list and digested by the hundreds: one at a time would cost the path
    of each request a microsecond.
    """

    __slots__ = ("_digests", "_pending")

    def __init__(self) -> None:
        self._digests = TDigest(CENTROIDS), TDigest(CENTROIDS)
        self._pending: list[tuple[float, float]] = []

    def add(self, waiting: float, execution: float) -> None:
        """Take the two durations of a request, in seconds."""
        self._pending.append((waiting, execution))
        if len(self._pending) == PENDING_LIMIT:
            self._digest_pending()

    def _digest_pending(self) -> None:
        for digest, seconds in zip(self._digests, zip(*self._pending, strict=True), strict=False):
            digest.batch_update(seconds)
        self._pending.clear()

    @staticmethod
    def summarise(parts: Iterable[Durations]) -> tuple[Percentiles, Percentiles]:
        """Return the percentiles of waiting and of execution over all parts."""
        totals = TDigest(CENTROIDS), TDigest(CENTROIDS)
        for part in parts:
            part._digest_pending()
            totals = totals[0].merge(part._digests[0]), totals[1].merge(part._digests[1])
        return _percentiles(totals[0]), _percentiles(totals[1])


def _percentiles(digest: TDigest) -> Percentiles:
    if not digest.n_values:
        return Percentiles()
    largest = digest.max()
    # Interpolation may round to one bit above it.
    p50, p95, p99 = (min(digest.percentile(percent), largest) for percent in (50, 95, 99))
    return Percentiles(digest.n_values, p50, p95, p99, largest)
