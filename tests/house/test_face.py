"""What the package shows: its names, its errors, and what it says to those who use it wrongly."""

import ast
import asyncio
import copy
import importlib.metadata
import pickle
import re
import subprocess
import sys
from pathlib import Path

import apps_typed
import pytest
import trio
from apps import Counter

import trio_dirty
from trio_dirty import abc
from trio_dirty._common import errors
from trio_dirty.testing import SimEngine

HERE = Path(__file__).parent
PUBLIC = set(trio_dirty.__all__)

# Names


def test_every_list_of_the_public_names_has_all_of_them():
    tree = ast.parse(Path(trio_dirty.__file__).read_text())
    typed = {
        name.asname
        for block in tree.body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for name in statement.names
    }
    assert {*PUBLIC, "abc"} == typed == {*trio_dirty._HOMES, *trio_dirty._MODULES}
    assert sorted(trio_dirty.__all__) == sorted(PUBLIC)  # each once
    assert set(dir(trio_dirty)) == {*PUBLIC, "abc", "__version__"}


def test_a_star_imports_all_of_them():
    namespace = {}
    exec("from trio_dirty import *", namespace)
    del namespace["__builtins__"]
    assert set(namespace) == PUBLIC
    assert namespace == {name: getattr(trio_dirty, name) for name in PUBLIC}


def test_the_version_is_that_of_the_distribution():
    assert trio_dirty.__version__ == importlib.metadata.version("trio-dirty")


def test_other_names_are_not_found():
    with pytest.raises(AttributeError, match="module 'trio_dirty' has no attribute 'nothing'"):
        trio_dirty.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from trio_dirty import nothing  # noqa: F401


def test_public_things_say_where_they_are_found():
    for name in PUBLIC - {"testing", "Cause", "OnCancel", "Outcome", "Routing"}:
        assert getattr(trio_dirty, name).__module__ == "trio_dirty"


def test_a_star_import_does_not_hide_modules_of_the_standard_library():
    assert not PUBLIC & sys.stdlib_module_names


WITHOUT_TRIO = [
    """
import trio_dirty
trio_dirty.__version__, trio_dirty.__all__, dir(trio_dirty)
trio_dirty.App, trio_dirty.check_cancelled, trio_dirty.worker_info, trio_dirty.RequestTimeoutError
""",
    "import trio_dirty; trio_dirty.abc.AppLike",
    "from trio_dirty.abc import *",
]


@pytest.mark.parametrize("program", WITHOUT_TRIO)
def test_what_a_worker_asks_of_the_package_does_not_import_trio(program):
    program += """
import sys
sys.exit(any(name in sys.modules for name in ("trio", "trio_parallel", "asyncio")))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_an_app_may_import_what_an_app_is_like():
    async with trio_dirty.open_pool([apps_typed.Typed], workers=1) as pool:
        assert await pool.run_sync(apps_typed.Typed.imported_trio) is False


# Contracts

CONTRACTS = {"AppLike", "Engine", "Instrument", "Worker"}
NOT_OURS = {"AbstractAsyncContextManager", "None", "Sequence"}
ALIASES = {"AppPaths", "Segment"}  # for what an implementation may write out


def test_contracts_are_found_in_one_module():
    assert trio_dirty.abc is abc
    assert set(abc.__all__) >= CONTRACTS
    assert abc.Instrument is trio_dirty.Instrument
    for name in CONTRACTS - {"Instrument"}:
        assert getattr(abc, name).__module__ == "trio_dirty.abc"


@pytest.mark.parametrize("contract", [abc.Engine, abc.Worker])
def test_what_the_methods_of_an_engine_take_and_return_is_public_too(contract):
    for method in vars(contract).values():
        method = getattr(method, "fget", method)
        for annotation in getattr(method, "__annotations__", {}).values():
            own = set(re.findall(r"[A-Z]\w+", annotation)) - NOT_OURS
            assert own <= {*abc.__all__, *ALIASES}


async def test_an_engine_of_ones_own_is_used():
    class Recording(abc.Engine):
        def __init__(self):
            self.inner = SimEngine()
            self.started = []

        def start(self, blueprint):
            self.started.append(blueprint)
            return self.inner.start(blueprint)

        def now(self):
            return self.inner.now()

    engine = Recording()
    async with trio_dirty.open_pool([Counter], workers=2, engine=engine) as pool:
        assert await pool.run_sync(Counter.add) == 1
    assert {blueprint.slot for blueprint in engine.started} == {0, 1}
    assert {type(blueprint) for blueprint in engine.started} == {abc.Blueprint}


TYPED = """
from trio_dirty import *
from trio_dirty.abc import *
import trio_dirty
import trio_dirty.abc

{names}


class Duck:
    def init(self) -> None: ...
    def __call__(self, action: str, /, *args: object, **kwargs: object) -> object: ...
    def close(self) -> None: ...


app: type[AppLike] = Duck

version: str = trio_dirty.__version__
error: TimeoutError = RequestTimeoutError("text", seconds=1.0)


async def main(pool: Pool) -> None:
    try:
        number: int = await pool.run_sync(len, "text")
    except (PoolBusyError, RequestTimeoutError) as caught:
        base: DirtyError = caught
"""


@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_type_checkers_see_all_names(checker, tmp_path):
    pytest.importorskip(checker)
    program = tmp_path / "program.py"
    names = [f"print({name}, trio_dirty.{name})" for name in sorted(PUBLIC)]
    names += [f"print({name}, trio_dirty.abc.{name})" for name in abc.__all__]
    program.write_text(TYPED.format(names="\n".join(names)))
    options = {
        "mypy": ["--strict", "--no-incremental"],
        "basedpyright": ["--level", "error", "--pythonpath", sys.executable],
    }
    done = subprocess.run(
        [sys.executable, "-m", checker, *options[checker], str(program)],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# What only the library makes


@pytest.mark.parametrize("kind", ["Pool", "ChunkChannel", "StreamManager"])
@pytest.mark.parametrize(("args", "options"), [((), {}), ((1,), {"workers": 2})])
def test_what_only_the_library_makes_says_how(kind, args, options):
    way = "open_pool" if kind == "Pool" else r"pool\.stream"
    message = f"only the library makes a {kind}: async with .*{way}\\("
    with pytest.raises(TypeError, match=message):
        getattr(trio_dirty, kind)(*args, **options)


# Errors

ABOUT = {"app": "apps:Counter", "action": "add", "slot": 3, "pid": 4711}
ERRORS = [
    trio_dirty.DirtyError("text"),
    trio_dirty.AppNotFoundError("text"),
    trio_dirty.AppLoadError("text"),
    trio_dirty.PoolBusyError("text"),
    trio_dirty.NoWorkersAvailableError("text"),
    trio_dirty.WorkerCrashedError("text", exitcode=-9, **ABOUT),
    trio_dirty.RequestTimeoutError("text", soft=True, seconds=1.5, **ABOUT),
    trio_dirty.RemoteError("text", type_name="a.B", remote_traceback="lines"),
    trio_dirty.SoftTimeout("text"),
    trio_dirty.RequestCancelled("text"),
    errors.MemoryLimitError("text"),
    errors.RemoteTraceback("text"),
]


def test_every_error_is_among_them():
    defined = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, BaseException)
    }
    assert {type(error) for error in ERRORS} == defined


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [*range(pickle.HIGHEST_PROTOCOL + 1), "copy", "deepcopy"])
def test_errors_pickle_and_copy_with_all_that_they_say(error, way):
    # A notes list shared between the copies would otherwise grow from test to test.
    error = copy.deepcopy(error)
    error.add_note("a note")
    if isinstance(way, int):
        other = pickle.loads(pickle.dumps(error, way))
    else:
        other = getattr(copy, way)(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert repr(other) == repr(error)
    assert other.args == error.args
    assert vars(other) == vars(error)
    assert other.__notes__ == ["a note"]


def test_a_request_that_timed_out_is_a_timeout_error_and_a_busy_pool_is_not():
    assert issubclass(trio_dirty.RequestTimeoutError, trio_dirty.DirtyError)
    assert issubclass(trio_dirty.RequestTimeoutError, TimeoutError)
    assert trio_dirty.PoolBusyError.__bases__ == (trio_dirty.DirtyError,)
    error = trio_dirty.RequestTimeoutError("text")
    assert (error.errno, error.strerror, error.filename) == (None, None, None)


async def test_a_time_out_is_caught_as_a_timeout_error():
    async with trio_dirty.open_pool([Counter], workers=1) as pool:
        with pytest.raises(TimeoutError, match=r"Counter\.nap") as caught:
            await pool.with_options(timeout=0.05).run_sync(Counter.nap, 60)
    assert caught.value.seconds == 0.05


# Without trio

VERBS = {
    "run_sync": lambda pool: pool.run_sync(Counter.add),
    "run_sync, large": lambda pool: pool.run_sync(Counter.echo, bytes(1_000_000)),
    "run_sync, bad": lambda pool: pool.run_sync(Counter.echo, lambda: 0),
    "execute": lambda pool: pool.execute(Counter, "add"),
    "execute, bad": lambda pool: pool.execute(Counter, "_add"),
    "stream": lambda pool: pool.stream(Counter.numbers, 3).__aenter__(),
    "broadcast": lambda pool: pool.broadcast(Counter.add),
    "resize": lambda pool: pool.resize(2),
    "reload": lambda pool: pool.reload(),
}


def by_hand(coroutine):
    coroutine.send(None)


def under_asyncio(coroutine):
    async def main():
        await coroutine

    asyncio.run(main())


RUNS = [
    pytest.param(under_asyncio, "under asyncio", id="asyncio"),
    pytest.param(by_hand, r"outside of trio\.run\(\)", id="by hand"),
]


@pytest.mark.parametrize(("run", "where"), RUNS)
def test_a_pool_is_not_opened_without_trio(run, where):
    async def main():
        async with trio_dirty.open_pool([Counter], workers=1):
            raise AssertionError("it was opened")

    message = rf"tasks of trio only, and this is called {where}: run the program with trio\.run"
    with pytest.raises(RuntimeError, match=message):
        run(main())


@pytest.mark.parametrize(("run", "where"), RUNS)
@pytest.mark.parametrize("verb", VERBS)
async def test_a_pool_is_not_called_without_trio(verb, run, where):
    async with trio_dirty.open_pool([Counter], workers=1, engine=SimEngine()) as pool:

        def elsewhere():
            with pytest.raises(RuntimeError, match=f"tasks of trio only, .* {where}"):
                run(VERBS[verb](pool))

        await trio.to_thread.run_sync(elsewhere)
        now = pool.statistics()
        assert (len(now.workers), now.queued, now.running) == (1, 0, 0)
        assert await pool.run_sync(Counter.add) == 1
