"""The options of a pool: what is accepted, and how the rest is refused."""

import math

import apps_bad
import pytest
from apps_bad import Bad, Duck
from hypothesis import given, strategies as st
from messages import whole

from trio_dirty import Pool, open_pool
from trio_dirty._instruments import Instrument, Instruments
from trio_dirty._limits import Limits
from trio_dirty._options import Options
from trio_dirty._targets import AppPath

TIMES = {
    "boot_timeout": "more than 0",
    "cancel_grace": "at least 0",
    "grace_period": "at least 0",
}

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
    assert checked(cancel_grace=zero).cancel_grace == 0
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


# Limits of calls, wherever they are given


def checked_options(**options):
    return checked(**options).limits


def opened(**options):
    """Open a pool, but for entering its block: nothing is started."""
    open_pool([Bad], workers=1, **options)


def viewed(**options):
    """Look at a pool that has no slot."""
    return Pool._made(None, None, Limits()).with_options(**options)._limits


@pytest.fixture(params=[checked_options, opened, viewed])
def given_to(request):
    return request.param


@pytest.mark.parametrize("name", ["timeout", "soft_timeout"])
@pytest.mark.parametrize("seconds", [0, 0.0, -0.0, -1, -0.5, -math.inf, math.nan])
def test_a_time_out_out_of_range_is_refused(given_to, name, seconds):
    message = f"{name} must be more than 0 seconds, was {seconds}"
    with pytest.raises(ValueError, match=whole(message)):
        given_to(**{name: seconds})


@pytest.mark.parametrize("name", ["timeout", "soft_timeout"])
@pytest.mark.parametrize("seconds", [True, False, "1", [1], 1j])
def test_a_time_out_that_is_no_number_is_refused(given_to, name, seconds):
    message = f"{name} must be a number of seconds more than 0, or None, was {seconds!r}"
    with pytest.raises(TypeError, match=whole(message)):
        given_to(**{name: seconds})


@pytest.mark.parametrize(("soft", "hard"), [(1, 1), (1.5, 1), (2, 1.5), (1e9, 1e-9)])
def test_a_soft_time_out_that_is_not_the_shorter_is_refused(given_to, soft, hard):
    message = f"soft_timeout must be less than timeout, was {soft} and timeout {hard}"
    with pytest.raises(ValueError, match=whole(message)):
        given_to(soft_timeout=soft, timeout=hard)


@pytest.mark.parametrize(
    ("on_cancel", "kind"),
    [("ignore", ValueError), ("", ValueError), (None, TypeError), (1, TypeError)],
)
def test_what_is_no_way_to_cancel_is_refused(given_to, on_cancel, kind):
    message = f"on_cancel must be one of 'abandon', 'interrupt', 'kill', 'wait', was {on_cancel!r}"
    with pytest.raises(kind, match=whole(message)):
        given_to(on_cancel=on_cancel)


@pytest.mark.parametrize("ask", [checked_options, viewed])
def test_limits_are_kept(ask):
    limits = ask(timeout=2, soft_timeout=1, on_cancel="kill")
    assert limits == Limits(2.0, 1.0, "kill", is_timed=True)
    assert type(limits.timeout) is type(limits.soft_timeout) is float


@pytest.mark.parametrize("ask", [checked_options, viewed])
@pytest.mark.parametrize("none", [None, math.inf])
def test_no_time_out_is_infinity_or_none(ask, none):
    assert ask(timeout=none, soft_timeout=none) == Limits()
    assert ask(timeout=none, soft_timeout=3) == Limits(soft_timeout=3.0, is_timed=True)
    assert ask(timeout=3, soft_timeout=none) == Limits(timeout=3.0, is_timed=True)


def test_a_view_keeps_what_it_is_not_given():
    pool = Pool._made(None, None, Limits(2.0, 1.0, "wait", is_timed=True))
    assert pool.with_options()._limits == Limits(2.0, 1.0, "wait", is_timed=True)
    view = pool.with_options(timeout=3, key="k")
    assert (view._limits, view._key) == (Limits(3.0, 1.0, "wait", is_timed=True), "k")
    assert view.with_options(on_cancel="kill")._key == "k"
    assert view.with_options(key=None)._key is None
    assert (pool._limits.timeout, pool._key) == (2.0, None)


def test_a_view_is_checked_together_with_what_it_keeps():
    pool = Pool._made(None, None, Limits(2.0, 1.0, "wait", is_timed=True))
    message = "soft_timeout must be less than timeout, was 1.0 and timeout 1"
    with pytest.raises(ValueError, match=whole(message)):
        pool.with_options(timeout=1)
    message = "soft_timeout must be less than timeout, was 2 and timeout 2.0"
    with pytest.raises(ValueError, match=whole(message)):
        pool.with_options(soft_timeout=2)


@pytest.mark.parametrize("key", [[1], {}, (1, [2])])
def test_a_key_that_does_not_hash_is_refused(key):
    kind = "dict" if key == {} else "list"
    message = f"key must hash, was {key!r}: unhashable type: '{kind}'"
    with pytest.raises(TypeError, match=whole(message)) as caught:
        viewed(key=key)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# Options of the pool alone


@pytest.mark.parametrize(
    ("routing", "kind"),
    [("random", ValueError), ("", ValueError), (None, TypeError), (1, TypeError)],
)
@pytest.mark.parametrize("ask", [checked_options, opened])
def test_what_is_no_routing_is_refused(ask, routing, kind):
    message = f"routing must be one of 'round_robin', 'least_loaded', was {routing!r}"
    with pytest.raises(kind, match=whole(message)):
        ask(routing=routing)


@pytest.mark.parametrize("max_queue", [True, False, 1.0, math.inf, math.nan, "1", [1]])
@pytest.mark.parametrize("ask", [checked_options, opened])
def test_a_max_queue_that_is_no_whole_number_is_refused(ask, max_queue):
    message = f"max_queue must be a whole number of at least 0, was {max_queue!r}"
    with pytest.raises(TypeError, match=whole(message)):
        ask(max_queue=max_queue)


@given(st.integers(max_value=-1))
def test_a_max_queue_below_0_is_refused(max_queue):
    with pytest.raises(ValueError, match=whole(f"max_queue must be at least 0, was {max_queue}")):
        checked(max_queue=max_queue)


def test_routing_and_max_queue_are_kept():
    for max_queue in (None, 0, 7):
        assert checked(max_queue=max_queue).max_queue == max_queue
    for routing in ("round_robin", "least_loaded"):
        assert checked(routing=routing).routing == routing
