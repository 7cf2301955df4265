"""When a worker is worn: what limits are accepted, how they are spread, and what is said."""

import math
import random
from itertools import islice

import pytest
from hypothesis import given, strategies as st
from messages import whole

from trio_dirty._rules.recycling import RETRY_LIMIT, RecyclingLimits, Wear, retry_delays

COUNTS = {"max_requests": 1, "max_requests_jitter": 0, "max_memory": 1}

counts = st.integers(1, 10**15)


def checked(**options):
    defaults = {
        "max_requests": None,
        "max_requests_jitter": 0,
        "max_memory": None,
        "max_lifetime": math.inf,
    }
    return RecyclingLimits.checked({**defaults, **options})


@pytest.mark.parametrize("none", [None, math.inf])
def test_no_limit_is_infinity_or_none(none):
    limits = checked(max_requests=none, max_memory=none, max_lifetime=none)
    assert limits == RecyclingLimits(math.inf, 0, math.inf, math.inf) == RecyclingLimits()


@given(counts, st.integers(0, 10**15), counts, st.floats(0, 1e9, exclude_min=True))
def test_limits_are_kept(requests, jitter, memory, lifetime):
    limits = checked(
        max_requests=requests,
        max_requests_jitter=jitter,
        max_memory=memory,
        max_lifetime=lifetime,
    )
    assert limits == RecyclingLimits(requests, jitter, memory, lifetime)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [True, False, 1.0, -math.inf, math.nan, "1", [1]])
def test_what_is_no_whole_number_is_refused(name, value):
    message = f"{name} must be a whole number of at least {COUNTS[name]}, was {value!r}"
    with pytest.raises(TypeError, match=whole(message)):
        checked(**{name: value})


@pytest.mark.parametrize("value", [None, math.inf])
def test_a_jitter_that_has_no_end_is_refused(value):
    message = f"max_requests_jitter must be a whole number of at least 0, was {value!r}"
    with pytest.raises(TypeError, match=whole(message)):
        checked(max_requests=1, max_requests_jitter=value)


@given(st.sampled_from(sorted(COUNTS)), st.integers(max_value=-1))
def test_what_is_less_than_it_may_be_is_refused(name, value):
    message = f"{name} must be at least {COUNTS[name]}, was {value}"
    with pytest.raises(ValueError, match=whole(message)):
        checked(**{name: value})


@pytest.mark.parametrize("name", ["max_requests", "max_memory"])
def test_0_is_no_limit(name):
    with pytest.raises(ValueError, match=whole(f"{name} must be at least 1, was 0")):
        checked(**{name: 0})


@pytest.mark.parametrize("none", [None, math.inf])
@given(jitter=counts)
def test_a_jitter_of_nothing_is_refused(none, jitter):
    message = (
        "max_requests_jitter is added to max_requests, which must be given with it; "
        f"was {jitter}, without max_requests"
    )
    with pytest.raises(ValueError, match=whole(message)):
        checked(max_requests=none, max_requests_jitter=jitter)


@pytest.mark.parametrize("lifetime", [0, -0.0, -1, -math.inf, math.nan])
def test_a_lifetime_out_of_range_is_refused(lifetime):
    message = f"max_lifetime must be more than 0 seconds, was {lifetime}"
    with pytest.raises(ValueError, match=whole(message)):
        checked(max_lifetime=lifetime)


@pytest.mark.parametrize("lifetime", [True, "1", [1], 1j])
def test_a_lifetime_that_is_no_number_is_refused(lifetime):
    message = f"max_lifetime must be a number of seconds more than 0, or None, was {lifetime!r}"
    with pytest.raises(TypeError, match=whole(message)):
        checked(max_lifetime=lifetime)


# One worker


def drawn(limits):
    """How many requests one more worker may complete."""
    wear = Wear(limits)
    return next(n for n in range(10**6) if wear.cause(n, 0, is_old=False))


def test_without_limits_a_worker_is_never_worn():
    wear = Wear(RecyclingLimits())
    assert not wear.is_limited
    assert not wear.limits_memory
    assert wear.lifetime == math.inf
    assert wear.cause(10**30, 10**30, is_old=False) is None
    assert wear.refusal(10**30) is None


@pytest.mark.parametrize(
    ("limits", "limits_memory"),
    [
        (RecyclingLimits(max_requests=1), False),
        (RecyclingLimits(max_requests=1, jitter=1), False),
        (RecyclingLimits(max_memory=1), True),
        (RecyclingLimits(max_lifetime=1.0), False),
    ],
)
def test_any_limit_is_one(limits, limits_memory):
    wear = Wear(limits)
    assert wear.is_limited
    assert wear.limits_memory == limits_memory
    assert wear.lifetime == limits.max_lifetime


@given(counts, counts, st.integers(-2, 2), st.integers(-2, 2), st.booleans())
def test_the_first_limit_that_is_reached_is_the_cause(requests, memory, more, bytes_more, is_old):
    wear = Wear(RecyclingLimits(requests, 0, memory, 1.0))
    if more >= 0:
        expected = "max_requests"
    elif bytes_more > 0:
        expected = "max_memory"
    else:
        expected = "max_lifetime" if is_old else None
    assert wear.cause(requests + more, memory + bytes_more, is_old=is_old) == expected


def test_why_it_is_worn_is_said_with_the_limit_and_the_value():
    wear = Wear(RecyclingLimits(5, 0, 1000, 2.5))
    assert wear.why("max_requests", 6, 9) == "it has completed 6 requests, of 5 that it may"
    assert wear.why("max_memory", 6, 1001) == "it has 1001 bytes resident, and max_memory=1000"
    assert wear.why("max_lifetime", 6, 9) == "it has served for max_lifetime=2.5 seconds"


@given(counts, st.integers(-2, 2))
def test_a_worker_that_begins_with_all_it_may_have_is_refused(limit, more):
    refusal = Wear(RecyclingLimits(max_memory=limit)).refusal(limit + more)
    message = (
        "max_memory must be more than what a worker has after init(), was "
        f"{limit} bytes, and the worker has {limit + more}"
    )
    assert refusal == (None if more < 0 else message)


# The spread: a generator that is seeded, as the common one is here, would say nothing about it.


def test_the_jitter_is_from_0_to_its_value():
    assert {drawn(RecyclingLimits(7, 3)) for _ in range(400)} == {7, 8, 9, 10}
    assert {drawn(RecyclingLimits(7, 0)) for _ in range(20)} == {7}


def test_workers_draw_differently_though_the_program_seeds_the_common_generator():
    found = set()
    state = random.getstate()
    try:
        for _ in range(20):
            random.seed(0)
            found.add(drawn(RecyclingLimits(1, 1000)))
            assert random.getstate() == random.Random(0).getstate(), "nothing is drawn from it"
    finally:
        random.setstate(state)
    assert len(found) > 10


def test_what_a_worker_drew_is_said_with_the_cause():
    wear = Wear(RecyclingLimits(10, 50))
    limit = next(n for n in range(61) if wear.cause(n, 0, is_old=False))
    expected = f"it has completed {limit} requests, of {limit} that it may"
    assert wear.why("max_requests", limit, 0) == expected


# The next try


def test_tries_are_further_and_further_apart_up_to_a_minute_and_for_ever():
    delays = retry_delays()
    assert [*islice(delays, 7)] == [1, 2, 4, 8, 16, 32, 60]
    assert {*islice(delays, 2000)} == {RETRY_LIMIT} == {60}


def test_each_successor_begins_with_the_shortest():
    assert next(retry_delays()) == next(retry_delays()) == 1
