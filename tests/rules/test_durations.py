"""Percentiles of durations: exact where they promise to be, and close elsewhere."""

import dataclasses
import math
import random
from itertools import pairwise

import pytest
from fastdigest import TDigest
from hypothesis import example, given, strategies as st

from trio_dirty._rules import statistics
from trio_dirty._rules.statistics import CENTROIDS, PENDING_LIMIT, Durations, Percentiles

seconds = st.integers(0, 10**12).map(lambda microseconds: microseconds / 1e6)


def summary_of(*parts):
    total = Durations()
    for part in parts:
        durations = Durations()
        for waiting, execution in part:
            durations.add(None, waiting, execution)
        total.absorb(durations)
    return total.summary()


@pytest.mark.parametrize("parts", [[], [[]], [[], []]])
def test_of_nothing_everything_is_nan_and_the_count_is_0(parts):
    for percentiles in summary_of(*parts):
        count, *others = dataclasses.astuple(percentiles)
        assert count == 0
        assert len(others) == 4
        assert all(map(math.isnan, others))


def test_of_one_request_every_percentile_is_its_duration():
    assert summary_of([(0.5, 2.0)]) == (
        Percentiles(1, 0.5, 0.5, 0.5, 0.5),
        Percentiles(1, 2.0, 2.0, 2.0, 2.0),
    )


def test_percentiles_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Percentiles().count = 1


def nearly_sorted(values):
    """Whether they ascend, but for the last bit: percentiles are interpolated."""
    return all(a <= b or math.isclose(a, b) for a, b in pairwise(values))


def test_no_percentile_is_above_the_longest():
    durations = Durations()
    for seconds in [0.0] * 6 + [817466.3948583604] * 2:
        durations.add(0, seconds, seconds)
    waiting, _ = durations.summary()
    assert max(waiting.p50, waiting.p95, waiting.p99) == waiting.max == 817466.3948583604


@given(st.lists(st.lists(st.tuples(seconds, seconds), max_size=20), max_size=3))
@example([[(1.0, 2.0)] * (PENDING_LIMIT - 1), [(3.0, 4.0)] * (2 * PENDING_LIMIT + 1)])
def test_count_and_max_are_exact_and_percentiles_ascend(parts):
    everything = [duration for part in parts for duration in part]
    for found, values in zip(summary_of(*parts), zip(*everything, strict=True), strict=False):
        assert found.count == len(values)
        assert found.max == max(values)
        assert nearly_sorted([min(values), found.p50, found.p95, found.p99, found.max])


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_percentiles_of_many_are_close(workers):
    values = list(range(10_000))
    random.Random(0).shuffle(values)
    waiting, execution = summary_of(
        *([(value, 2 * value) for value in values[start::workers]] for start in range(workers))
    )
    for factor, found in (1, waiting), (2, execution):
        assert found.count == found.max / factor + 1 == 10_000
        for rank, percentile in (5000, found.p50), (9500, found.p95), (9900, found.p99):
            assert abs(percentile / factor - rank) < 40


def test_a_summary_changes_nothing_and_may_be_repeated():
    durations = Durations()
    durations.add(0, 1.0, 2.0)
    first = durations.summary()
    assert durations.summary() == first
    durations.add(0, 1.0, 2.0)
    assert [found.count for found in durations.summary()] == [2, 2]


def test_durations_are_digested_by_the_hundreds(monkeypatch):
    digests = []

    class Digest:
        def __init__(self, centroids):
            self.centroids = centroids
            self.batches = []
            digests.append(self)

        def batch_update(self, seconds):
            self.batches.append(list(seconds))

    monkeypatch.setattr(statistics, "TDigest", Digest)
    taken = Durations()
    for number in range(3 * PENDING_LIMIT - 1):
        taken.add(7, number, -number)
    first, second = range(PENDING_LIMIT), range(PENDING_LIMIT, 2 * PENDING_LIMIT)
    assert [digest.centroids for digest in digests] == [CENTROIDS, CENTROIDS]
    assert digests[0].batches == [list(first), list(second)]
    assert digests[1].batches == [[-n for n in first], [-n for n in second]]


def test_a_summary_takes_constant_memory(monkeypatch):
    made = []

    def digest(centroids):
        made.append(centroids)
        return TDigest(centroids)

    monkeypatch.setattr(statistics, "TDigest", digest)
    summary_of([], [(1.0, 2.0)])
    assert set(made) == {CENTROIDS}


def test_over_several_apps_waiting_and_execution_are_told_apart():
    durations = Durations()
    durations.add(0, 1.0, 10.0)
    durations.add(1, 2.0, 20.0)
    waiting, execution = durations.summary()
    assert (waiting.count, waiting.max) == (2, 2.0)
    assert (execution.count, execution.max) == (2, 20.0)


def test_the_seconds_of_all_that_is_absorbed_add_up():
    total = Durations()
    for execution in (1.0, 2.0, 4.0):
        part = Durations()
        part.add(0, 0.0, execution)
        total.absorb(part)
    assert total.seconds == 7.0


apps = st.sampled_from([None, 0, 1])


@given(st.lists(st.tuples(apps, seconds, seconds)), st.lists(st.tuples(apps, seconds, seconds)))
def test_apps_are_told_apart_and_add_up(some, more):
    durations, others = Durations(), Durations()
    for request in some:
        durations.add(*request)
    for request in more:
        others.add(*request)
    durations.absorb(others)
    everything = some + more
    for app in (None, 0, 1):
        waiting, execution = durations.summary(app)
        assert waiting.count == execution.count == sum(of == app for of, _, _ in everything)
    assert durations.summary()[1].count == len(everything)
    assert math.isclose(durations.seconds, sum(seconds for _, _, seconds in everything))
    assert others.summary()[0].count == len(more), "what is absorbed is not taken away"


def test_what_did_not_end_counts_for_the_seconds_only():
    durations = Durations()
    durations.add(0, 1.0, 2.0)
    durations.add_unfinished(3.0)
    assert durations.seconds == 5.0
    assert durations.summary()[1].count == 1
