"""Bad options, and apps that do not boot: an error at once, and no process left behind."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import apps_bad
import pytest
import trio
from apps_bad import Bad, BootsOnce
from scripts.harness import PATIENCE, children

from trio_dirty import (
    App,
    AppLoadError,
    NoWorkersAvailableError,
    WorkerCrashedError,
    open_pool,
)


def local_app() -> type[App]:
    class Local(App):
        pass

    return Local


# Options: refused by the call itself


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"workers": 0}, ValueError, "workers must be at least 1, was 0"),
        ({"workers": -1}, ValueError, "workers must be at least 1, was -1"),
        ({"workers": 1.5}, TypeError, "workers must be a whole number of at least 1, was 1.5"),
        ({"workers": True}, TypeError, "workers must be a whole number of at least 1, was True"),
        ({"workers": "2"}, TypeError, "workers must be a whole number of at least 1, was '2'"),
        ({"workers": None}, TypeError, "workers must be a whole number of at least 1, was None"),
        (
            {"workers": math.inf},
            TypeError,
            "workers must be a whole number of at least 1, was inf",
        ),
        ({"boot_timeout": 0}, ValueError, "boot_timeout must be more than 0 seconds, was 0"),
        ({"boot_timeout": -1}, ValueError, "boot_timeout must be more than 0 seconds, was -1"),
        (
            {"boot_timeout": math.nan},
            ValueError,
            "boot_timeout must be more than 0 seconds, was nan",
        ),
        (
            {"boot_timeout": "x"},
            TypeError,
            "boot_timeout must be a number of seconds more than 0, or None, was 'x'",
        ),
        (
            {"boot_timeout": True},
            TypeError,
            "boot_timeout must be a number of seconds more than 0, or None, was True",
        ),
        ({"grace_period": -1}, ValueError, "grace_period must be at least 0 seconds, was -1"),
        (
            {"grace_period": math.nan},
            ValueError,
            "grace_period must be at least 0 seconds, was nan",
        ),
        (
            {"grace_period": "x"},
            TypeError,
            "grace_period must be a number of seconds at least 0, or None, was 'x'",
        ),
        (
            {"apps": "apps_bad:Bad"},
            TypeError,
            "apps must be a list of apps, was 'apps_bad:Bad'; write ['apps_bad:Bad']",
        ),
        (
            {"apps": Bad},
            TypeError,
            "apps must be a list of apps, was <class 'apps_bad.Bad'>; write [Bad]",
        ),
        ({"apps": 5}, TypeError, "apps must be a list of apps, was 5"),
        ({"apps": None}, TypeError, "apps must be a list of apps, was None"),
        (
            {"apps": [5]},
            TypeError,
            "an app is given as a class or as 'module:Class', not as 5",
        ),
        (
            {"apps": [Bad, Bad]},
            ValueError,
            "apps must differ, but apps_bad:Bad is there 2 times",
        ),
        (
            {"apps": [Bad, "apps_bad:Bad"]},
            ValueError,
            "apps must differ, but apps_bad:Bad is there 2 times",
        ),
    ],
)
def test_an_option_out_of_its_range_is_refused_by_name(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = children()
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        open_pool(**{"apps": [Bad], "workers": 1, **options})
    assert children() == before


@pytest.mark.parametrize(
    "path",
    ["", ":", "apps_bad", "apps_bad.Bad", "apps_bad:", ":Bad", "apps bad:Bad", "a..b:C",
     "apps_bad/x:Bad", "apps_bad:Bad:", "apps_bad:Bad()", ".apps_bad:Bad"],
)  # fmt: skip
def test_an_app_path_that_does_not_parse_is_refused(path: str) -> None:
    message = f"app path must read 'module:Class', was {path!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        open_pool([path], workers=1)


def test_an_instance_is_refused_as_an_app() -> None:
    with pytest.raises(TypeError, match=r"^an app is given as a class .*; give the class Bad$"):
        open_pool([Bad()], workers=1)  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("NoMethods", "init and no __call__ and no close"),
        ("NoInit", "init"),
        ("NoCall", "__call__"),
        ("NoClose", "close"),
    ],
)
def test_a_class_without_the_three_methods_is_refused(name: str, missing: str) -> None:
    with pytest.raises(
        TypeError,
        match=re.escape(
            f"app apps_bad:{name} has no method {missing}; an app has init(), __call__() and "
            "close(), which it may inherit from trio_dirty.App"
        ),
    ):
        open_pool([getattr(apps_bad, name)], workers=1)


def test_a_class_that_no_worker_can_import_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"<locals>.Local cannot be imported by a worker: no such name leads to it; "
        "define the class at the top level of a module$",
    ):
        open_pool([local_app()], workers=1)


# Apps that do not boot


async def refused(*apps: Any, workers: int = 2, **options: Any) -> str:
    """Return the text of the `AppLoadError` that opening a pool raises, and leave nothing."""
    before = children()
    with trio.fail_after(PATIENCE), pytest.raises(AppLoadError) as caught:
        async with open_pool(apps, workers=workers, **options):
            pytest.fail("the pool has opened")
    assert children() == before
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("no_such_module:App", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("apps_bad.inner:App", "No module named 'apps_bad.inner'; 'apps_bad' is not a package"),
        ("apps_bad:Missing", "AttributeError: module 'apps_bad' has no attribute 'Missing'"),
        ("apps_bad:Bad.Missing", "AttributeError: type object 'Bad' has no attribute 'Missing'"),
        ("apps_bad:log", "TypeError: "),
        ("apps_bad:NoMethods", "TypeError: app apps_bad:NoMethods has no method init"),
        ("apps_bad:NoInit", "TypeError: app apps_bad:NoInit has no method init"),
        ("apps_bad:NoCall", "TypeError: app apps_bad:NoCall has no method __call__"),
        ("apps_bad:NoClose", "TypeError: app apps_bad:NoClose has no method close"),
        ("apps_bad:ConstructorRaises", "ZeroDivisionError: the constructor is broken"),
        ("apps_bad:ConstructorNeedsArgument", "missing 1 required positional argument: 'model'"),
        ("apps_bad:ConstructorExits", "SystemExit: the constructor has had enough"),
        ("apps_bad:InitRaises", "ZeroDivisionError: the model is broken"),
        ("apps_bad:InitExits", "SystemExit: init has had enough"),
    ],
)
async def test_an_app_that_fails_to_boot_is_an_error_with_the_workers_traceback(
    path: str, cause: str
) -> None:
    text = await refused("apps_bad:Bad", path)
    assert re.match(r"the apps of slot [01] could not boot:\n\nTraceback \(most recent", text)
    assert cause in text.splitlines()[-1]


@pytest.mark.parametrize("name", ["ConstructorRaises", "InitRaises", "InitExits"])
async def test_an_app_given_as_a_class_that_fails_to_boot_is_the_same_error(name: str) -> None:
    text = await refused(getattr(apps_bad, name), workers=1)
    assert text.startswith("the apps of slot 0 could not boot:\n\nTraceback")
    assert f"in {'__init__' if 'Constructor' in name else 'init'}\n" in text


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("ConstructorDies", "exited with code 7"),
        ("InitDies", "exited with code 8"),
        ("InitIsKilled", "was killed by SIGKILL"),
    ],
)
async def test_an_app_that_ends_its_worker_at_boot_is_an_error(name: str, end: str) -> None:
    text = await refused(f"apps_bad:{name}", workers=1)
    assert re.fullmatch(
        rf"the worker of slot 0 could not boot: process \d+ {end} while it was loading its apps",
        text,
    )


@pytest.mark.parametrize("name", ["ConstructorHangs", "InitHangs", "InitHoldsLock"])
async def test_an_app_that_never_boots_is_bounded_by_boot_timeout(name: str) -> None:
    text = await refused(f"apps_bad:{name}", workers=1, boot_timeout=1)
    assert re.fullmatch(
        r"slot 0: worker 0, process \d+, did not boot within boot_timeout=1(\.0)? seconds", text
    )


async def test_one_worker_that_fails_to_boot_stops_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAD_LOG", str(tmp_path / "lock"))
    assert "FileExistsError" in await refused(BootsOnce, workers=3)


async def test_a_pool_whose_only_slot_cannot_boot_again_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAD_LOG", str(tmp_path / "lock"))
    async with open_pool([BootsOnce], workers=1) as pool:
        with pytest.raises(WorkerCrashedError):
            await pool.run_sync(BootsOnce.die, 3)
        with (
            trio.fail_after(PATIENCE),
            pytest.raises(NoWorkersAvailableError, match="FileExistsError"),
        ):
            await pool.run_sync(BootsOnce.echo, 1)


async def test_a_pool_can_be_opened_after_one_that_could_not() -> None:
    await refused("apps_bad:InitRaises", workers=1)
    async with open_pool([Bad], workers=1) as pool:
        assert await pool.run_sync(Bad.echo, 1) == 1
