"""The options of a pool: what is accepted, and how the rest is refused."""

import math

import apps_bad
import pytest
from apps_bad import Bad, Duck
from hypothesis import given, strategies as st
from messages import whole

from trio_dirty._instruments import Instrument, Instruments
from trio_dirty._options import Options
from trio_dirty._targets import AppPath

TIMES = {"boot_timeout": "more than 0", "grace_period": "at least 0"}

times = st.sampled_from(sorted(TIMES))


def checked(apps=(Bad,), **others):
    defaults = {
        "workers": 1,
        "routing": "round_robin",
        "max_queue": None,
        "timeout": math.inf,
        "soft_timeout": math.inf,
        "on_cancel": "abandon",
        "cancel_grace": 5,
        "boot_timeout": 60,
        "grace_period": 30,
        "instruments": (),
    }
    return Options.checked(apps, **{**defaults, **others})


def test_options_are_kept():
    options = checked([Bad, "other:App.Inner"], workers=3, boot_timeout=4, grace_period=5)
    assert options.apps == (AppPath("apps_bad", "Bad"), AppPath("other", "App.Inner"))
    assert (options.workers, options.boot_timeout, options.grace_period) == (3, 4.0, 5.0)


def test_instruments_are_kept():
    assert checked(instruments=[]).instruments is None
    instrument = Instrument()
    assert isinstance(checked(instruments=[instrument]).instruments, Instruments)
    with pytest.raises(TypeError, match=whole("instruments must be a list of instruments, was 17")):
        checked(instruments=17)


@pytest.mark.parametrize("apps", [[], (), {Bad: 1}, iter([Bad])])
def test_apps_may_be_any_iterable(apps):
    assert set(checked(apps).apps) <= {AppPath("apps_bad", "Bad")}


@pytest.mark.parametrize(
    ("apps", "message"),
    [
        (Bad, f"apps must be a list of apps, was {Bad!r}; write [Bad]"),
        ("m:A", "apps must be a list of apps, was 'm:A'; write ['m:A']"),
        (17, "apps must be a list of apps, was 17"),
        (None, "apps must be a list of apps, was None"),
    ],
)
def test_what_is_no_list_of_apps_is_refused(apps, message):
    with pytest.raises(TypeError, match=whole(message)) as caught:
        checked(apps)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_what_is_no_app_is_refused_as_such():
    with pytest.raises(TypeError, match=r"^an app is given as a class .*, not as 17$"):
        checked([Bad, 17])
    with pytest.raises(TypeError, match=r"^app apps_bad:NoInit has no method init;"):
        checked([apps_bad.NoInit])
    with pytest.raises(ValueError, match=whole("app path must read 'module:Class', was 'x'")):
        checked(["x"])


@pytest.mark.parametrize("others", [1, 2])
def test_an_app_that_is_there_twice_is_refused(others):
    message = f"apps must differ, but apps_bad:Bad is there {others + 1} times"
    with pytest.raises(ValueError, match=whole(message)):
        checked([Duck, Bad, *["apps_bad:Bad"] * others])


@given(st.integers(1))
def test_a_count_of_at_least_1_is_accepted(workers):
    assert checked(workers=workers).workers == workers


@given(st.integers(max_value=0))
def test_a_count_below_1_is_refused(workers):
    with pytest.raises(ValueError, match=whole(f"workers must be at least 1, was {workers}")):
        checked(workers=workers)


@pytest.mark.parametrize("workers", [True, False, 1.0, math.inf, math.nan, "1", None, [1]])
def test_a_count_that_is_no_whole_number_is_refused(workers):
    message = f"workers must be a whole number of at least 1, was {workers!r}"
    with pytest.raises(TypeError, match=whole(message)):
        checked(workers=workers)


@given(times, st.one_of(st.integers(1, 10**6), st.floats(0, exclude_min=True)))
def test_seconds_are_accepted(name, seconds):
    found = getattr(checked(**{name: seconds}), name)
    assert found == seconds
    assert type(found) is float


@pytest.mark.parametrize("name", TIMES)
def test_no_limit_is_infinity_or_none(name):
    assert getattr(checked(**{name: math.inf}), name) == math.inf
    assert getattr(checked(**{name: None}), name) == math.inf


@pytest.mark.parametrize("zero", [0, 0.0, -0.0])
def test_0_seconds_are_accepted_where_they_have_a_meaning(zero):
    assert checked(grace_period=zero).grace_period == 0
    with pytest.raises(
        ValueError, match=whole(f"boot_timeout must be more than 0 seconds, was {zero}")
    ):
        checked(boot_timeout=zero)


@given(
    times,
    st.one_of(
        st.integers(max_value=-1), st.floats(max_value=0, exclude_max=True), st.just(math.nan)
    ),
)
def test_seconds_out_of_range_are_refused(name, seconds):
    with pytest.raises(
        ValueError, match=whole(f"{name} must be {TIMES[name]} seconds, was {seconds}")
    ):
        checked(**{name: seconds})


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("seconds", [True, False, "1", [1], 1j])
def test_what_is_no_number_of_seconds_is_refused(name, seconds):
    message = f"{name} must be a number of seconds {TIMES[name]}, or None, was {seconds!r}"
    with pytest.raises(TypeError, match=whole(message)):
        checked(**{name: seconds})
