"""What a request calls: app paths, actions, and which action a function stands for."""

import functools
import math
import pickle
import sys

import pytest
from apps_bad import Bad, Duck, First, Parent, Second
from hypothesis import given, strategies as st
from messages import whole

from trio_dirty import App, AppNotFoundError
from trio_dirty._common.app import call
from trio_dirty._common.wire import PROTOCOL, TARGET_LIMIT
from trio_dirty._rules import targets
from trio_dirty._rules.targets import AppPath, Targets, one_by_one

HERE = __name__

identifiers = st.sampled_from(["a", "_", "Class1", "klasse", "größe"])
dotted = st.lists(identifiers, min_size=1, max_size=3).map(".".join)


class Outer:
    """A class that is no app, and the home of one that is."""

    class Inner(App):
        def act(self): ...

        @staticmethod
        def static(): ...

        class Nested:
            """A class in an app; calling it is nobody's action."""

        async def generate(self):
            yield 1

    def method(self):
        """A function of no app."""


class Aliased(App):
    def first(self): ...

    second = first


class Unhashable:
    __hash__ = None

    def __call__(self): ...


def function(): ...


def generator():
    yield 1


async def asynchronous(): ...


def targets_of(*apps):
    return Targets(map(AppPath.of, apps))


# App paths


@given(dotted, dotted)
def test_a_path_is_written_as_it_is_read(module, qualname):
    path = AppPath.of(f"{module}:{qualname}")
    assert path == AppPath(module, qualname)
    assert str(path) == f"{module}:{qualname}"


@pytest.mark.parametrize(
    "text",
    [
        *["", ":", "m", "m.C", "m:", ":C", "a b:C", "a..b:C", "m:C()", ".m:C", "m:C..D"],
        *["m:2", "m:C:", "m:C:x", "m:C:-1", "m:C:1.5", "m:C: 2", "m::2", ":C:2", "m:C:1:2", "::2"],
    ],
)
def test_what_does_not_read_as_a_path_is_refused(text):
    message = f"app path must read 'module:Class', was {text!r}"
    with pytest.raises(ValueError, match=whole(message)):
        AppPath.of(text)


@pytest.mark.parametrize("number", ["0", "1", "02", "17", "٣"])
@given(dotted, dotted)
def test_a_path_with_workers_is_refused_and_the_one_without_is_shown(number, module, qualname):
    message = (
        f"app path must read 'module:Class', was '{module}:{qualname}:{number}': how many workers "
        f"carry the app is for open_pool to know; write '{module}:{qualname}'"
    )
    with pytest.raises(ValueError, match=whole(message)):
        AppPath.of(f"{module}:{qualname}:{number}")


@pytest.mark.parametrize("app", [Bad, Duck, Outer.Inner])
def test_the_path_of_a_class_leads_to_it(app):
    path = AppPath.of(app)
    assert path == AppPath(app.__module__, app.__qualname__)
    assert path.loaded() is app


@pytest.mark.parametrize(
    "path", [f"{HERE}:Missing", f"{HERE}:Outer.Missing", f"{HERE}:function", f"{HERE}:HERE"]
)
def test_a_path_that_leads_to_no_class_has_none_loaded(path):
    assert AppPath.of(path).loaded() is None


def test_a_path_is_never_imported():
    assert AppPath.of("antigravity:App").loaded() is None
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("app", "hint"), [(Bad(), "; give the class Bad"), (Outer(), ""), (17, ""), (None, "")]
)
def test_what_is_neither_class_nor_path_is_refused(app, hint):
    message = f"an app is given as a class or as 'module:Class', not as {app!r}{hint}"
    with pytest.raises(TypeError, match=whole(message)):
        AppPath.of(app)


def test_a_class_without_an_apps_methods_is_refused():
    with pytest.raises(TypeError, match=rf"^app {HERE}:Outer has no method init and no __call__ "):
        AppPath.of(Outer)


def local_app():
    class Local(App):
        pass

    return Local


def namesake():
    class Local(App):
        pass

    Local.__qualname__ = "Bad"
    Local.__module__ = "apps_bad"
    return Local


@pytest.mark.parametrize("app", [local_app(), namesake()], ids=["local", "namesake"])
def test_a_class_to_which_its_name_does_not_lead_is_refused(app):
    message = (
        f"app {app.__module__}:{app.__qualname__} cannot be imported by a worker: no such name "
        "leads to it; define the class at the top level of a module"
    )
    with pytest.raises(ValueError, match=whole(message)):
        AppPath.of(app)


# By name


@pytest.mark.parametrize("app", [Duck, "apps_bad:Duck"])
def test_an_action_is_found_by_name(app):
    target = targets_of(Bad, Duck).named(app, "quack")
    assert (target.app, target.path, target.action) == (1, AppPath.of(Duck), "quack")
    assert target.wire == pickle.dumps((1, "quack"), PROTOCOL)
    assert target.owner is None
    assert str(target) == "apps_bad:Duck.quack"


@pytest.mark.parametrize(
    ("apps", "listed"),
    [((), "no apps"), ((Bad,), "apps_bad:Bad"), ((Bad, First), "apps_bad:Bad, apps_bad:First")],
)
def test_an_app_of_another_pool_is_refused_by_name(apps, listed):
    message = f"apps_bad:Duck is not an app of this pool, which has {listed}"
    with pytest.raises(AppNotFoundError, match=whole(message)):
        targets_of(*apps).named(Duck, "quack")


def test_how_many_workers_carry_an_app_is_no_part_of_a_call():
    message = (
        "app path must read 'module:Class', was 'apps_bad:Bad:2': how many workers carry the app "
        "is for open_pool to know; write 'apps_bad:Bad'"
    )
    with pytest.raises(ValueError, match=whole(message)):
        targets_of(Bad).named("apps_bad:Bad:2", "echo")
    with pytest.raises(ValueError, match=whole(message)):
        targets_of(Bad).of_call("apps_bad:Bad:2", ("echo", 1), "stream")


@pytest.mark.parametrize("app", [[], 17])
def test_what_is_no_app_is_refused_by_name(app):
    with pytest.raises(TypeError, match=r"^an app is given as a class"):
        targets_of(Bad).named(app, "echo")


@pytest.mark.parametrize("action", [None, 17, ["echo"]])
def test_an_action_that_is_no_name_is_refused(action):
    message = f"action must be the name of a method, was {action!r}"
    with pytest.raises(TypeError, match=whole(message)):
        targets_of(Bad).named(Bad, action)


@pytest.mark.parametrize("action", ["_", "_secret", "__init__"])
def test_a_leading_underscore_is_refused(action):
    message = (
        f"action {action!r} of apps_bad:Bad has a leading underscore: it is private to its app"
    )
    with pytest.raises(ValueError, match=whole(message)):
        targets_of(Duck, Bad).named(Bad, action)


def test_an_action_whose_name_is_no_name_is_refused():
    longest = "x" * (TARGET_LIMIT - len(pickle.dumps((0, "x" * 1000), PROTOCOL)) + 1000)
    target = targets_of(Bad).named(Bad, longest)
    assert len(target.wire) == TARGET_LIMIT
    message = f"action must be a name, was {len(longest) + 1} characters long"
    with pytest.raises(ValueError, match=whole(message)):
        targets_of(Bad).named(Bad, longest + "x")


def test_names_are_remembered_but_only_some(monkeypatch):
    monkeypatch.setattr(targets, "REMEMBERED_LIMIT", 2)
    found = targets_of(Bad, Duck)
    remembered = [found.named(app, "a") for app in (Bad, Duck)]
    assert found.named(Bad, "b") is not found.named(Bad, "b")
    # Targets are equal only to themselves.
    assert [found.named(app, "a") for app in (Bad, Duck)] == remembered


# By function


@pytest.mark.parametrize(
    ("function", "app", "name"),
    [
        (Bad.echo, 0, "echo"),
        (Duck.close, 1, "close"),
        (Outer.Inner.act, 2, "act"),
        (Outer.Inner.static, 2, "static"),
        (Parent.shared, 3, "shared"),
        (Aliased.second, 4, "first"),
    ],
)
def test_a_function_stands_for_the_action_of_the_app_that_has_it(function, app, name):
    apps = [Bad, Duck, Outer.Inner, Second, Aliased]
    target, arguments = targets_of(*apps).of_function(function)
    assert arguments == ()
    assert (target.app, target.path, target.action) == (app, AppPath.of(apps[app]), name)
    assert target.wire == pickle.dumps((app, name), PROTOCOL)
    assert target.owner is apps[app]


def test_an_app_that_is_not_imported_has_no_functions():
    target, _ = targets_of("antigravity:App", Bad).of_function(Bad.echo)
    assert str(target) == "apps_bad:Bad.echo"


def test_a_function_of_several_apps_is_refused_and_the_calls_are_shown():
    message = (
        "Parent.shared is an action of several apps: "
        'call execute(First, "shared", ...) or execute(Second, "shared", ...)'
    )
    with pytest.raises(ValueError, match=whole(message)):
        targets_of(First, Bad, Second).of_function(Parent.shared)


def test_a_private_function_of_an_app_is_refused():
    with pytest.raises(ValueError, match=r"^action '_secret' of apps_bad:Bad has a leading under"):
        targets_of(Bad).of_function(Bad._secret)


@pytest.mark.parametrize(
    ("function", "name", "app"),
    [(Duck.close, "Duck.close", Duck), (Outer.Inner.act, "Outer.Inner.act", Outer.Inner)],
)
@pytest.mark.parametrize(("pool", "listed"), [([], "no apps"), ([Bad], "apps_bad:Bad")])
def test_a_function_of_an_app_of_another_pool_is_refused(function, name, app, pool, listed):
    message = (
        f"{name} is an action of {AppPath.of(app)}, which is not an app of this pool; "
        f"it has {listed}"
    )
    with pytest.raises(AppNotFoundError, match=whole(message)):
        targets_of(*pool).of_function(function)


@pytest.mark.parametrize(
    "function",
    [function, math.factorial, "-".join, dict, Outer, Outer.method, Outer.Inner.Nested, call],
    ids=lambda function: function.__qualname__,
)
def test_any_other_function_stands_for_itself(function):
    target, arguments = targets_of(Bad).of_function(function)
    assert arguments == ()
    assert (target.app, target.path, target.owner) == (None, None, None)
    assert target.wire == pickle.dumps(function, PROTOCOL)
    assert target.action == str(target) == function.__qualname__


@pytest.mark.parametrize(
    "function",
    [functools.partial(function, 1), Outer().method, str.upper, Unhashable()],
    ids=lambda function: type(function).__name__,
)
def test_what_is_pickled_by_value_is_an_argument_of_a_function_that_calls_it(function):
    found = targets_of(Bad)
    target, arguments = found.of_function(function)
    assert target is found.of_function(function)[0] is found.of_function(call)[0]
    assert target.wire == pickle.dumps(call, PROTOCOL)
    assert arguments == (function,)


def test_functions_are_remembered_but_only_some(monkeypatch):
    monkeypatch.setattr(targets, "REMEMBERED_LIMIT", 2)
    found = targets_of(Bad, Duck)
    remembered = [found.of_function(f)[0] for f in (Bad.echo, function)]
    assert found.of_function(Duck.close)[0] is not found.of_function(Duck.close)[0]
    assert [found.of_function(f)[0] for f in (Bad.echo, function)] == remembered


@pytest.mark.parametrize("value", ["echo", None, 17, [], {}])
def test_what_cannot_be_called_is_refused(value):
    message = (
        f"the first argument must be a function, was {value!r}; "
        'to name an action, use execute(app, "action", ...)'
    )
    with pytest.raises(TypeError, match=whole(message)):
        targets_of(Bad).of_function(value)


@pytest.mark.parametrize(
    ("method", "name"), [(Bad().echo, "Bad.echo"), (Duck().close, "Duck.close")]
)
def test_a_method_bound_to_an_instance_of_an_app_is_refused(method, name):
    message = (
        f"{name} is bound to an instance in this process, but the pool has instances of its own "
        f"in its workers: call run_sync({name}, ...) with the function of the class"
    )
    with pytest.raises(TypeError, match=whole(message)):
        targets_of(Bad).of_function(method)


@pytest.mark.parametrize(
    "function", [asynchronous, Outer.Inner.generate, functools.partial(asynchronous)]
)
def test_an_async_function_is_refused(function):
    name = getattr(function, "__qualname__", repr(function))
    message = (
        f"{name} is an async function; workers run synchronous code: "
        "write it with def, or await it in this process"
    )
    with pytest.raises(TypeError, match=whole(message)):
        targets_of(Outer.Inner).of_function(function)


@pytest.mark.parametrize(
    ("function", "called"), [(generator, "generator"), (Bad.generator, "Bad.generator")]
)
def test_a_generator_function_is_known_as_one(function, called):
    target, _ = targets_of(Bad).of_function(function)
    assert target.is_generator
    assert one_by_one(target) == (
        f"{target} is a generator function, whose results come one by one: "
        f"use stream({called}, ...) instead of run_sync"
    )


@pytest.mark.parametrize("function", [math.factorial, functools.partial(generator)])
def test_what_is_no_generator_function_is_not(function):
    target, _ = targets_of(Bad).of_function(function)
    assert not target.is_generator


def test_a_function_that_no_worker_can_import_is_refused():
    def local(): ...

    with pytest.raises(Exception, match="local") as reason:
        pickle.dumps(local, PROTOCOL)
    message = (
        f"function {local.__qualname__} cannot be imported by a worker ({reason.value}); "
        "define it at the top level of a module"
    )
    with pytest.raises(TypeError, match=whole(message)) as caught:
        targets_of(Bad).of_function(local)
    assert type(caught.value.__cause__) is type(reason.value)


# Both forms of a call


@pytest.mark.parametrize("app", [Bad, "apps_bad:Bad"])
def test_an_app_is_followed_by_the_name_of_an_action(app):
    target, rest = targets_of(Bad).of_call(app, ("echo", 1, 2), "stream")
    assert (target.app, target.action, rest) == (0, "echo", (1, 2))


def test_a_function_is_followed_by_its_arguments():
    target, rest = targets_of(Bad).of_call(Bad.generator, (1,), "stream")
    assert (target.app, target.action, rest) == (0, "generator", (1,))
    target, rest = targets_of(Bad).of_call(range, (1, 2), "stream")
    assert (target.app, target.action, rest) == (None, "range", (1, 2))
    partial = functools.partial(math.factorial, 3)
    target, rest = targets_of(Bad).of_call(partial, (), "broadcast")
    assert (target.action, rest) == ("call", (partial,))


@pytest.mark.parametrize(("app", "name"), [(Bad, "Bad"), ("apps_bad:Bad", "apps_bad:Bad")])
def test_an_app_without_an_action_is_refused_and_both_calls_are_shown(app, name):
    message = (
        f"stream({name!r}) lacks the name of an action: "
        f'call stream({name!r}, "action", ...), or stream(App.action, ...)'
    )
    with pytest.raises(TypeError, match=whole(message)):
        targets_of(Bad).of_call(app, (), "stream")


def test_an_instance_for_self_is_refused_in_every_verb():
    message = (
        "apps_bad:Bad.generator is executed on the instance that lives in a worker: leave out the "
        "Bad given for self, and call stream(Bad.generator, ...) with the other arguments"
    )
    with pytest.raises(TypeError, match=whole(message)):
        targets_of(Bad).of_call(Bad.generator, (Bad(),), "stream")
