"""Percentiles of durations, in constant memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from fastdigest import TDigest

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
    """Takes how long requests of each app waited and were executed, and summarises it.

    They are kept in a list and digested by the hundreds: one at a time would cost the path
    of each request a microsecond.
    """

    __slots__ = ("_digests", "_pending", "_seconds")

    def __init__(self) -> None:
        self._digests: dict[int | None, tuple[TDigest, TDigest]] = {}
        self._pending: list[tuple[int | None, float, float]] = []
        self._seconds = 0.0

    def add(self, app: int | None, waiting: float, execution: float) -> None:
        """Take the two durations of a request, in seconds."""
        self._pending.append((app, waiting, execution))
        if len(self._pending) == PENDING_LIMIT:
            self._digest_pending()

    def add_unfinished(self, seconds: float) -> None:
        """Take how long a request was executed whose worker died of it, or with it."""
        self._seconds += seconds

    @property
    def seconds(self) -> float:
        """The sum of the executions, unfinished ones included."""
        self._digest_pending()
        return self._seconds

    def absorb(self, other: Durations) -> None:
        """Take in all that another one has taken."""
        other._digest_pending()
        self._seconds += other._seconds
        for app, (waiting, execution) in other._digests.items():
            mine = self._of(app)
            self._digests[app] = mine[0].merge(waiting), mine[1].merge(execution)

    def _of(self, app: int | None) -> tuple[TDigest, TDigest]:
        return self._digests.get(app) or (TDigest(CENTROIDS), TDigest(CENTROIDS))

    def _digest_pending(self) -> None:
        by_app: dict[int | None, tuple[list[float], list[float]]] = {}
        for app, waiting, execution in self._pending:
            if app not in by_app:
                by_app[app] = [], []
            by_app[app][0].append(waiting)
            by_app[app][1].append(execution)
            self._seconds += execution
        self._pending.clear()
        for app, durations in by_app.items():
            digests = self._digests[app] = self._of(app)
            for digest, seconds in zip(digests, durations, strict=True):
                digest.batch_update(seconds)

    def summary(self, *apps: int | None) -> tuple[Percentiles, Percentiles]:
        """Return the percentiles of waiting and of execution, over some apps, or over all."""
        self._digest_pending()
        totals = TDigest(CENTROIDS), TDigest(CENTROIDS)
        for app in apps or self._digests:
            waiting, execution = self._of(app)
            totals = totals[0].merge(waiting), totals[1].merge(execution)
        return _percentiles(totals[0]), _percentiles(totals[1])


def _percentiles(digest: TDigest) -> Percentiles:
    if not digest.n_values:
        return Percentiles()
    largest = digest.max()
    # Interpolation may round to one bit above it.
    p50, p95, p99 = (min(digest.percentile(percent), largest) for percent in (50, 95, 99))
    return Percentiles(digest.n_values, p50, p95, p99, largest)
