"""What holds for the whole suite: it leaves nothing behind."""

import inspect
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from apps_lives import Gate
from hypothesis import settings
from lives import Broken
from scripts.harness import children
from seeds import seed_of_sources

# How long an example takes says nothing on a machine that others use too.
settings.register_profile("suite", settings(), deadline=None)
settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)  # before Hypothesis looks at its option
def pytest_configure(config):
    """Search elsewhere with each change, and the same for the same sources."""
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(seed_of_sources())


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory):
    """Give the session a temporary directory of its own; check that all is gone at its end."""
    directory = tmp_path_factory.mktemp("t")
    processes = children()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(directory))
        patch.setattr(tempfile, "tempdir", None)
        yield
    assert children() == processes
    assert os.listdir(directory) == []


@pytest.fixture
def gate(tmp_path):
    """What holds actions of `apps_lives.Lasting` until it is opened."""
    directory = tmp_path / "gate"
    directory.mkdir()
    return Gate(directory)


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """What keeps the workers of `apps_lives` from booting, once it has arisen."""
    path = tmp_path / "broken"
    monkeypatch.setenv("LIVES_BROKEN", str(path))
    return Broken(path)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run each synchronous test of interrupts in a thread of its own.

    What a trace function raises can leave an exception behind that the interpreter takes to be
    handled for ever: it would be the context of every later one of the same thread.
    """
    test = pyfuncitem.obj
    is_async = pyfuncitem.get_closest_marker("trio") is not None
    if pyfuncitem.module.__name__ != "test_interrupts" or is_async:
        return None
    names = inspect.signature(test).parameters
    with ThreadPoolExecutor(1) as thread:
        thread.submit(test, **{name: pyfuncitem.funcargs[name] for name in names}).result()
    return True
