"""Bad requests: each is refused at once by an error that says why, and the pool goes on."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing
from apps_bad import Bad, DoesNotPickle, DoesNotUnpickle, Duck, First, Parent, Second
from scripts.harness import PATIENCE

import trio_dirty
from trio_dirty import AppNotFoundError, Pool, open_pool


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """A pool of one worker, which must outlive whatever the test does."""
    async with open_pool([Bad], workers=1) as pool:
        pid = await pool.run_sync(Bad.pid)
        yield pool
        with trio.fail_after(PATIENCE):
            assert await pool.run_sync(Bad.echo, "still here") == "still here"
            assert await pool.run_sync(Bad.pid) == pid
        statistics = pool.statistics()
        assert (statistics.restarts, statistics.queued, statistics.running) == (0, 0, 0)


def whole(message: str) -> str:
    return f"^{re.escape(message)}$"


# Actions


async def test_an_unknown_action_is_refused_with_the_known_ones(pool: Pool) -> None:
    with pytest.raises(ValueError, match=r"^Bad has no action 'nothing'; its actions are: .*echo"):
        await pool.execute(Bad, "nothing")


@pytest.mark.parametrize("action", ["not_callable", "init", "close", "", "echo.x", "e" * 100_000])
async def test_what_is_no_action_is_refused(pool: Pool, action: str) -> None:
    with pytest.raises(ValueError, match=r"has no action|must be a name"):
        await pool.execute(Bad, action)


@pytest.mark.parametrize("action", ["_secret", "__init__", "__class__", "_"])
async def test_a_leading_underscore_is_refused_by_name(pool: Pool, action: str) -> None:
    with pytest.raises(
        ValueError,
        match=whole(
            f"action {action!r} of apps_bad:Bad has a leading underscore: it is private to its app"
        ),
    ):
        await pool.execute(Bad, action)


async def test_a_leading_underscore_is_refused_by_function(pool: Pool) -> None:
    with pytest.raises(ValueError, match="'_secret' of apps_bad:Bad has a leading underscore"):
        await pool.run_sync(Bad._secret)


async def test_an_action_that_is_no_name_is_refused(pool: Pool) -> None:
    with pytest.raises(TypeError, match=r"^action must be the name of a method, was <function"):
        await pool.execute(Bad, Bad.echo, 1)  # type: ignore[arg-type]


async def test_an_async_action_is_refused_by_function(pool: Pool) -> None:
    with pytest.raises(
        TypeError,
        match=whole(
            "Bad.asynchronous is an async function; workers run synchronous code: "
            "write it with def, or await it in this process"
        ),
    ):
        await pool.run_sync(Bad.asynchronous)
    with pytest.raises(TypeError, match=r"^Bad.async_generator is an async function"):
        await pool.run_sync(Bad.async_generator)


@pytest.mark.parametrize("action", ["asynchronous", "async_generator"])
async def test_an_async_action_is_refused_by_name(pool: Pool, action: str) -> None:
    message = f"Bad.{action} is async; workers run synchronous code: write it with def"
    with pytest.raises(TypeError, match=whole(message)):
        await pool.execute(Bad, action)


async def test_a_generator_is_refused_by_function_and_stream_is_named(pool: Pool) -> None:
    with pytest.raises(
        TypeError,
        match=whole(
            "apps_bad:Bad.generator is a generator function, whose results come one by one: "
            "use stream(Bad.generator, ...) instead of run_sync"
        ),
    ):
        await pool.run_sync(Bad.generator)


async def test_a_generator_is_refused_by_name_and_stream_is_named(pool: Pool) -> None:
    with pytest.raises(
        TypeError,
        match=whole(
            "Bad.generator is a generator, whose results come one by one: "
            "use stream(...) instead of run_sync or execute"
        ),
    ):
        await pool.execute(Bad, "generator")


async def test_wrong_arguments_are_the_apps_own_error(pool: Pool) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'value'"):
        await pool.execute(Bad, "echo")


# Which app


async def test_an_action_of_two_apps_is_refused_and_execute_is_shown() -> None:
    async with open_pool([First, Second], workers=1) as pool:
        for _ in range(2):
            with pytest.raises(
                ValueError,
                match=whole(
                    "Parent.shared is an action of several apps: "
                    'call execute(First, "shared", ...) or execute(Second, "shared", ...)'
                ),
            ):
                await pool.run_sync(Parent.shared)  # type: ignore[call-overload]
        assert await pool.execute(First, "shared") == "First"
        assert await pool.execute(Second, "shared") == "Second"


async def test_an_inherited_action_of_one_app_is_found() -> None:
    async with open_pool([Second, Bad], workers=1) as pool:
        assert await pool.run_sync(Parent.shared) == "Second"  # type: ignore[call-overload]


async def test_an_app_that_inherits_nothing_will_do() -> None:
    async with open_pool([Duck, "apps_bad:Bad"], workers=1) as pool:
        assert await pool.execute("apps_bad:Duck", "quack", 1) == ("quack", (1,))
        assert await pool.execute(Bad, "echo", 2) == 2


async def test_an_instance_for_self_is_refused_and_the_call_is_shown(pool: Pool) -> None:
    with pytest.raises(
        TypeError,
        match=whole(
            "apps_bad:Bad.echo is executed on the instance that lives in a worker: leave out the "
            "Bad given for self, and call run_sync(Bad.echo, ...) with the other arguments"
        ),
    ):
        await pool.run_sync(Bad.echo, Bad(), 1)  # type: ignore[call-arg]


@pytest.mark.parametrize("app", [Bad, First])
async def test_a_bound_method_is_refused_and_the_call_is_shown(pool: Pool, app: type[Any]) -> None:
    method = app().echo if app is Bad else app().shared
    name = method.__qualname__
    with pytest.raises(
        TypeError,
        match=whole(
            f"{name} is bound to an instance in this process, but the pool has instances of its "
            f"own in its workers: call run_sync({name}, ...) with the function of the class"
        ),
    ):
        await pool.run_sync(method, 1)


async def test_an_action_of_a_foreign_app_is_refused(pool: Pool) -> None:
    with pytest.raises(
        AppNotFoundError,
        match=whole(
            "Duck.init is an action of apps_bad:Duck, which is not an app of this pool; "
            "it has apps_bad:Bad"
        ),
    ):
        await pool.run_sync(Duck.init)  # type: ignore[call-overload]


@pytest.mark.parametrize("app", ["apps_bad:First", First, "no_such_module:App"])
async def test_an_app_that_the_pool_does_not_have_is_refused(pool: Pool, app: Any) -> None:
    with pytest.raises(
        AppNotFoundError, match=r"^\w+:\w+ is not an app of this pool, which has apps_bad:Bad$"
    ):
        await pool.execute(app, "shared")


async def test_a_path_that_does_not_parse_is_refused(pool: Pool) -> None:
    message = "app path must read 'module:Class', was 'apps_bad.Bad'"
    with pytest.raises(ValueError, match=whole(message)):
        await pool.execute("apps_bad.Bad", "echo", 1)


async def test_an_instance_for_the_app_is_refused(pool: Pool) -> None:
    with pytest.raises(TypeError, match=r"^an app is given as a class .*; give the class Bad$"):
        await pool.execute(Bad(), "echo", 1)  # type: ignore[arg-type]


# Functions


@pytest.mark.parametrize("value", ["echo", None, 17])
async def test_what_cannot_be_called_is_refused(pool: Pool, value: Any) -> None:
    with pytest.raises(
        TypeError,
        match=whole(
            f"the first argument must be a function, was {value!r}; "
            'to name an action, use execute(app, "action", ...)'
        ),
    ):
        await pool.run_sync(value)


async def test_a_function_that_no_worker_can_import_is_refused(pool: Pool) -> None:
    with pytest.raises(
        TypeError,
        match=r"^function \S*<lambda> cannot be imported by a worker \(.*\); "
        "define it at the top level of a module$",
    ):
        await pool.run_sync(lambda: 1)


async def test_a_function_of_a_module_that_only_the_program_has_is_refused(pool: Pool) -> None:
    # It pickles, by name; the worker finds no such name.
    def only_here() -> None: ...

    only_here.__qualname__ = only_here.__name__ = "made_later"
    globals()["made_later"] = only_here
    try:
        with pytest.raises(AttributeError, match="made_later"):
            await pool.run_sync(only_here)
    finally:
        del globals()["made_later"]


# Arguments


async def test_an_argument_that_does_not_pickle_is_named_by_its_place(pool: Pool) -> None:
    with pytest.raises(
        TypeError,
        match=whole(
            "argument 2, DoesNotPickle, of apps_bad:Bad.echo cannot be pickled: "
            "exploded while it was pickled"
        ),
    ):
        await pool.execute(Bad, "echo", 1, DoesNotPickle())


async def test_an_argument_that_does_not_pickle_is_named_by_its_keyword(pool: Pool) -> None:
    with pytest.raises(
        TypeError, match=r"^argument value, lock, of apps_bad:Bad.echo cannot be pickled: .*lock"
    ):
        await pool.run_sync(Bad.echo, value=threading.Lock())


async def test_an_argument_behind_a_large_one_that_does_not_pickle_is_named(pool: Pool) -> None:
    with pytest.raises(TypeError, match=r"^argument 2, function, of apps_bad:Bad.echo cannot be"):
        await pool.execute(Bad, "echo", bytes(1_000_000), lambda: 1)


async def test_an_argument_that_is_nested_too_deeply_is_named(pool: Pool) -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(
        TypeError, match=r"^argument 1, list, of apps_bad:Bad.echo cannot be .*recurs"
    ):
        await pool.run_sync(Bad.echo, nested)


@pytest.mark.parametrize("size", [1, 1_000_000])
async def test_an_argument_that_does_not_unpickle_fails_its_request_only(
    pool: Pool, size: int
) -> None:
    with pytest.raises(ValueError, match="exploded while it was unpickled"):
        await pool.execute(Bad, "echo", bytes(size), DoesNotUnpickle(), bytes(size))


async def test_200_megabytes_go_there_and_back(pool: Pool) -> None:
    data = bytes(range(256)) * (200_000_000 // 256)
    assert await pool.run_sync(Bad.echo, data) == data


async def test_a_result_of_200_megabytes_arrives_whole(pool: Pool) -> None:
    assert await pool.run_sync(Bad.ones, 200_000_000) == b"\1" * 200_000_000


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 300_000, 5_000_000])
async def test_bytes_and_buffers_of_every_size_come_back(pool: Pool, size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    numbers = np.arange(size, dtype=np.float32)
    result = await pool.run_sync(Bad.echo, [data, bytearray(data), numbers, data.hex(), data])
    assert type(result[1]) is bytearray
    assert result[:2] == [data, data]
    assert result[2].dtype == numbers.dtype
    assert np.array_equal(result[2], numbers)
    assert result[3:] == [data.hex(), data]
    result[2] += 1  # it can be written to, as what was sent can


@pytest.mark.parametrize("size", [10, 1000])
async def test_arrays_of_every_layout_come_back(pool: Pool, size: int) -> None:
    square = np.arange(size * size, dtype=np.int64).reshape(size, size)
    layouts = [square, np.asfortranarray(square), square[::2, ::-1], square[:0], square.astype("O")]
    for array in layouts:
        assert np.array_equal(await pool.run_sync(Bad.echo, array), array)


async def test_many_large_and_small_arguments_at_once_come_back(pool: Pool) -> None:
    async def check(number: int) -> None:
        data = bytes([number]) * (1_000_000 if number % 3 else 10)
        assert await pool.run_sync(Bad.echo, data) == data

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(check, number)


# Closed and several pools


async def test_use_after_closing_is_refused() -> None:
    async with open_pool([Bad], workers=1) as pool:
        assert await pool.run_sync(Bad.echo, 1) == 1
    with pytest.raises(trio.ClosedResourceError, match=whole("this pool is closed")):
        await pool.run_sync(Bad.echo, 1)
    with pytest.raises(trio.ClosedResourceError, match=whole("this pool is closed")):
        await pool.execute(Bad, "echo", 1)
    with pytest.raises(trio.ClosedResourceError, match=whole("this pool is closed")):
        await pool.run_sync(math.factorial, 20)
    assert pool.statistics().completed == 1


async def test_a_request_while_the_pool_closes_is_refused(tmp_path: Any) -> None:
    outcomes: list[object] = []

    async def late(pool: Pool) -> None:
        while "open" in repr(pool):  # noqa: ASYNC110
            await trio.sleep(0.01)
        with pytest.raises(trio.ClosedResourceError, match=whole("this pool is closed")):
            await pool.run_sync(Bad.echo, 1)
        outcomes.append("refused")
        pid = pool.statistics().workers[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    async def hang(pool: Pool) -> None:
        with pytest.raises(trio_dirty.WorkerCrashedError):
            await pool.run_sync(Bad.hang, str(tmp_path / "begun"))
        outcomes.append("crashed")

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as outside, open_pool([Bad], workers=1) as pool:
            outside.start_soon(late, pool)
            outside.start_soon(hang, pool)
            while not (tmp_path / "begun").exists():  # noqa: ASYNC110
                await trio.sleep(0.01)
    assert outcomes == ["refused", "crashed"]


async def test_requests_of_a_cancelled_pool_end_with_an_error(tmp_path: Any) -> None:
    ended: list[str] = []

    async def call(pool: Pool, action: str, *args: Any) -> None:
        with pytest.raises(trio.ClosedResourceError, match=whole("this pool was closed")):
            await pool.execute(Bad, action, *args)
        ended.append(action)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as outside:
            with trio.CancelScope() as scope:
                async with open_pool([Bad], workers=1) as pool:
                    outside.start_soon(call, pool, "hang", str(tmp_path / "begun"))
                    while not (tmp_path / "begun").exists():  # noqa: ASYNC110
                        await trio.sleep(0.01)
                    for _ in range(5):
                        outside.start_soon(call, pool, "echo", 1)
                    outside.start_soon(call, pool, "echo", bytes(1_000_000))
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
    assert sorted(ended) == ["echo"] * 6 + ["hang"]


async def test_two_pools_do_not_know_of_each_other(tmp_path: Any) -> None:
    with trio.fail_after(PATIENCE):
        async with open_pool([Bad], workers=1) as one:
            async with open_pool(["apps_bad:Bad", First], workers=2) as two:
                assert await one.run_sync(Bad.pid) != await two.run_sync(Bad.pid)
                with pytest.raises(trio_dirty.WorkerCrashedError):
                    await two.run_sync(Bad.die, 1)
                with pytest.raises(AppNotFoundError):
                    await one.execute(First, "shared")
            with pytest.raises(trio.ClosedResourceError):
                await two.run_sync(Bad.echo, 1)
            assert await one.run_sync(Bad.echo, "still here") == "still here"
            assert one.statistics().restarts == 0


async def test_a_pool_opened_in_a_worker_is_refused(pool: Pool) -> None:
    with pytest.raises(trio_dirty.DirtyError, match=r"^a pool cannot be opened here: .*daemonic"):
        await pool.run_sync(Bad.open_pool)
