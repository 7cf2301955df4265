"""The options of a pool: what is accepted, and how the rest is refused."""

import inspect
import math

import apps_bad
import pytest
from apps_bad import Bad, Duck
from hypothesis import given, strategies as st
from messages import whole

from trio_dirty import App, Pool, open_pool
from trio_dirty._rules.instruments import Instrument, Instruments
from trio_dirty._rules.limits import Limits
from trio_dirty._rules.options import Options
from trio_dirty._rules.recycling import RecyclingLimits
from trio_dirty._rules.targets import AppPath

TIMES = {
    "boot_timeout": "more than 0",
    "cancel_grace": "at least 0",
    "grace_period": "at least 0",
}

times = st.sampled_from(sorted(TIMES))
counts = st.sampled_from(["threads", "workers"])


DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(open_pool).parameters.items()
    if parameter.default is not parameter.empty
}


def checked(apps=(Bad,), **others):
    return Options({**DEFAULTS, "apps": apps, "workers": 1, **others})


def test_every_option_of_a_pool_is_checked():
    read = set()

    class Given(dict):
        def __getitem__(self, name):
            read.add(name)
            return super().__getitem__(name)

    Options(Given(DEFAULTS, apps=[Bad], workers=1))
    assert read == {*inspect.signature(open_pool).parameters} - {"engine"}


def test_options_are_kept():
    options = checked([Bad, "other:App.Inner"], workers=3, boot_timeout=4, grace_period=5)
    assert options.apps == (AppPath("apps_bad", "Bad"), AppPath("other", "App.Inner"))
    assert (options.workers, options.boot_timeout, options.grace_period) == (3, 4.0, 5.0)


def test_instruments_are_kept():
    assert not checked(instruments=[]).instruments.are_there
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


# By how many workers an app is carried


Declared = None
"""Where the classes of `declare` are found."""


@pytest.fixture
def declare(monkeypatch):
    """Return what makes an app that declares so many workers."""

    def declare(workers):
        names = {"__module__": __name__, "workers": workers}
        monkeypatch.setitem(globals(), "Declared", type("Declared", (App,), names))
        return Declared

    return declare


@pytest.mark.parametrize(("workers", "limit"), [(None, math.inf), (1, 1), (3, 3), (10**9, 10**9)])
def test_a_class_says_by_how_many_workers_it_is_carried(declare, workers, limit):
    options = checked([Duck, declare(workers)])
    assert options.app_limits == (math.inf, limit)


def test_of_a_name_alone_only_a_worker_can_tell():
    assert checked(["apps_bad:Bad", Duck]).app_limits == (None, math.inf)
    assert checked([]).app_limits == ()


@given(st.integers(1, 10**6))
def test_a_number_behind_the_name_says_it(number):
    options = checked([Duck, f"m:C.D:{number}", f"n:C:00{number}"])
    assert options.apps[1:] == (AppPath("m", "C.D"), AppPath("n", "C"))
    assert options.app_limits == (math.inf, number, number)


def test_the_number_behind_the_name_is_heard_before_the_class(declare):
    declare(3)
    options = checked([f"{__name__}:Declared:2"])
    assert options.app_limits == (2,)


def test_it_may_be_more_than_there_are_workers(declare):
    assert checked([declare(9), "m:C:9"], workers=2).app_limits == (9, 9)


@pytest.mark.parametrize(
    "number", ["0", "000", "-1", "+1", "x", "1.5", "٣", "²", "1_0", " 2", "1e3"]
)
def test_what_is_no_number_of_workers_is_refused(number):
    message = (
        "an app's workers, as in 'module:Class:2', must be a whole number of at least 1, "
        f"was {number!r} in 'm:C:{number}'"
    )
    with pytest.raises(ValueError, match=whole(message)):
        checked([f"m:C:{number}"])


@pytest.mark.parametrize("text", ["m:C:1:2", "m:C:", "m:C:x:1", "::", ":::"])
def test_what_is_neither_path_nor_path_with_a_number_is_refused(text):
    with pytest.raises(ValueError, match=whole(f"app path must read 'module:Class', was {text!r}")):
        checked([text])


@pytest.mark.parametrize("path", ["m:", ":C", "a b:C", "m:2"])
def test_what_is_no_path_is_refused_with_a_number_too(path):
    with pytest.raises(ValueError, match=whole(f"app path must read 'module:Class', was {path!r}")):
        checked([f"{path}:2"])


@pytest.mark.parametrize(
    "apps",
    [
        ["apps_bad:Bad:1", "apps_bad:Bad:2"],
        ["apps_bad:Bad:1", "apps_bad:Bad"],
        [Bad, "apps_bad:Bad:1"],
    ],
)
def test_an_app_that_is_there_twice_is_refused_whatever_its_number(apps):
    message = "apps must differ, but apps_bad:Bad is there 2 times"
    with pytest.raises(ValueError, match=whole(message)):
        checked(apps)


@pytest.mark.parametrize("workers", [True, False, 1.5, 1.0, math.inf, "2", [1]])
def test_a_class_attribute_that_is_no_number_is_refused(declare, workers):
    message = (
        f"{__name__}:Declared.workers must be None or a whole number of at least 1, was "
        f"{workers!r}: it says by how many workers the app is carried at most"
    )
    with pytest.raises(TypeError, match=whole(message)):
        checked([declare(workers)])


@pytest.mark.parametrize("workers", [0, -1])
def test_a_class_attribute_below_1_is_refused(declare, workers):
    message = f"{__name__}:Declared.workers must be at least 1, was {workers}"
    with pytest.raises(ValueError, match=whole(message)):
        checked([declare(workers)])


# Counts and times


@given(counts, st.integers(1))
def test_a_count_of_at_least_1_is_accepted(name, value):
    assert getattr(checked(**{name: value}), name) == value


@given(counts, st.integers(max_value=0))
def test_a_count_below_1_is_refused(name, value):
    with pytest.raises(ValueError, match=whole(f"{name} must be at least 1, was {value}")):
        checked(**{name: value})


@pytest.mark.parametrize("name", ["threads", "workers"])
@pytest.mark.parametrize("value", [True, False, 1.0, math.inf, math.nan, "1", None, [1]])
def test_a_count_that_is_no_whole_number_is_refused(name, value):
    message = f"{name} must be a whole number of at least 1, was {value!r}"
    with pytest.raises(TypeError, match=whole(message)):
        checked(**{name: value})


@given(times, st.one_of(st.integers(1, 10**6), st.floats(0, exclude_min=True)))
def test_seconds_are_accepted(name, seconds):
    found = getattr(checked(**{name: seconds}), name)
    assert found == seconds
    assert type(found) is float


@pytest.mark.parametrize("name", TIMES)
def test_no_limit_is_infinity_or_none(name):
    assert getattr(checked(**{name: math.inf}), name) == math.inf
    assert getattr(checked(**{name: None}), name) == math.inf


@pytest.mark.parametrize("name", TIMES)
def test_more_seconds_than_a_float_holds_are_no_limit(name):
    assert getattr(checked(**{name: 10**400}), name) == math.inf


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
    return Pool._made(None, None, None, Limits()).with_options(**options)._limits


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
    pool = Pool._made(None, None, None, Limits(2.0, 1.0, "wait", is_timed=True))
    assert pool.with_options()._limits == Limits(2.0, 1.0, "wait", is_timed=True)
    view = pool.with_options(timeout=3, key="k")
    assert (view._limits, view._key) == (Limits(3.0, 1.0, "wait", is_timed=True), "k")
    assert view.with_options(on_cancel="kill")._key == "k"
    assert view.with_options(key=None)._key is None
    assert (pool._limits.timeout, pool._key) == (2.0, None)


def test_a_view_is_checked_together_with_what_it_keeps():
    pool = Pool._made(None, None, None, Limits(2.0, 1.0, "wait", is_timed=True))
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


BAD_RECYCLING = {
    "max_requests": (0, ValueError, "max_requests must be at least 1, was 0"),
    "max_requests_jitter": (
        -1,
        ValueError,
        "max_requests_jitter must be at least 0, was -1",
    ),
    "max_memory": ("1G", TypeError, "max_memory must be a whole number of at least 1, was '1G'"),
    "max_lifetime": (0, ValueError, "max_lifetime must be more than 0 seconds, was 0"),
}


@pytest.mark.parametrize("name", BAD_RECYCLING)
@pytest.mark.parametrize("ask", [checked_options, opened])
def test_a_bad_limit_of_workers_is_refused(ask, name):
    value, kind, message = BAD_RECYCLING[name]
    with pytest.raises(kind, match=whole(message)):
        ask(**{name: value})


def test_limits_of_workers_are_kept():
    assert checked().recycling == RecyclingLimits()
    options = checked(max_requests=5, max_requests_jitter=2, max_memory=9, max_lifetime=3)
    assert options.recycling == RecyclingLimits(5, 2, 9, 3.0)


def test_routing_and_max_queue_are_kept():
    for max_queue in (None, 0, 7):
        assert checked(max_queue=max_queue).max_queue == max_queue
    for routing in ("round_robin", "least_loaded"):
        assert checked(routing=routing).routing == routing


@pytest.mark.parametrize(
    ("soft_timeout", "on_cancel", "interruptible"),
    [
        (None, "abandon", False),
        (math.inf, "kill", False),
        (1.0, "abandon", True),
        (None, "interrupt", True),
    ],
)
def test_what_may_be_interrupted_is_known(soft_timeout, on_cancel, interruptible):
    for timeout in (None, 9.0):
        limits = checked_options(timeout=timeout, soft_timeout=soft_timeout, on_cancel=on_cancel)
        assert limits.is_interruptible is interruptible
    assert not Limits().is_interruptible
