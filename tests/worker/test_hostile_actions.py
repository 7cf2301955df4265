"""Hostile actions: whatever one does to its worker, its caller is told and the pool goes on."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from apps_bad import (
    Bad,
    DiesWhenPickled,
    DoesNotPickle,
    DoesNotUnpickle,
    EndsEverythingError,
    ExitsWhenUnpickled,
    FrozenError,
    HoldsALockError,
    KeywordOnlyError,
    NoTextError,
    ReduceIsNonsenseError,
    ReduceRaisesError,
    ReducesToTextError,
    RefusesAttributesError,
    TwoArgumentsError,
)
from messages import whole
from scripts.harness import PATIENCE, gone, killed_at_end, run_script, until

from trio_dirty import Pool, RemoteError, WorkerCrashedError, open_pool

PROMPT = 15.0
"""Seconds that count as prompt, where a hang would take minutes."""


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """A pool of one worker, which must still serve after whatever the test does."""
    async with open_pool([Bad], workers=1) as pool:
        yield pool
        with trio.fail_after(PATIENCE):
            assert await pool.run_sync(Bad.echo, "still here") == "still here"
        statistics = pool.statistics()
        assert (statistics.queued, statistics.running) == (0, 0)
    assert gone_or_none(statistics.workers[0].pid)


@pytest.fixture
async def same_worker(pool: Pool) -> AsyncIterator[Pool]:
    """The same pool, which must need no other worker."""
    yield pool
    with trio.fail_after(PATIENCE):
        await pool.run_sync(Bad.pid)
    assert pool.statistics().restarts == 0


def gone_or_none(pid: int | None) -> bool:
    return pid is None or gone(pid)


# Results that cannot cross


@pytest.mark.parametrize("action", ["return_made", "return_large"])
async def test_a_result_that_does_not_pickle_is_a_remote_error(
    same_worker: Pool, action: str
) -> None:
    with pytest.raises(
        RemoteError,
        match=r"^a result of type [\w.]+ cannot be pickled: "
        r"ValueError\('exploded while it was pickled'\)$",
    ) as caught:
        await same_worker.execute(Bad, action, DoesNotPickle)
    kind = "apps_bad.DoesNotPickle" if action == "return_made" else "tuple"
    assert caught.value.type_name == kind
    assert "in __reduce__" in caught.value.remote_traceback


@pytest.mark.parametrize("action", ["return_made", "return_large"])
async def test_a_result_that_does_not_unpickle_is_a_remote_error(
    same_worker: Pool, action: str
) -> None:
    with pytest.raises(
        RemoteError,
        match=r"^the result cannot be unpickled: ValueError: exploded while it was unpickled$",
    ) as caught:
        await same_worker.execute(Bad, action, DoesNotUnpickle)
    assert "in explode" in caught.value.remote_traceback


async def test_a_result_that_exits_when_unpickled_does_not_end_the_program(
    same_worker: Pool,
) -> None:
    with pytest.raises(RemoteError, match=r"^the result cannot be unpickled: SystemExit: 5$"):
        await same_worker.run_sync(Bad.return_made, ExitsWhenUnpickled)


async def test_a_result_that_is_nested_too_deeply_is_a_remote_error(same_worker: Pool) -> None:
    with pytest.raises(RemoteError, match=r"^a result of type list cannot be pickled: Recursion"):
        await same_worker.run_sync(Bad.nested_list)


async def test_a_result_that_ends_the_worker_when_pickled_is_a_crash(pool: Pool) -> None:
    with pytest.raises(WorkerCrashedError, match=r"exited with code 6$"):
        await pool.run_sync(Bad.return_made, DiesWhenPickled)


# Exceptions that cannot cross


@pytest.mark.parametrize(
    ("kind", "args", "kwargs", "message"),
    [
        (ReduceRaisesError, ("text",), {}, r"text \(it cannot be pickled: ValueError\)"),
        (ReduceIsNonsenseError, ("text",), {}, r"text \(it cannot be pickled: PicklingError\)"),
        (ReducesToTextError, ("text",), {}, r"text \(it unpickles to a str\)"),
        (
            TwoArgumentsError,
            (404, "gone"),
            {},
            r"404: gone \(it cannot be unpickled: TypeError: .*missing 1 required .*'reason'\)",
        ),
        (
            KeywordOnlyError,
            (),
            {"code": 7},
            r"code 7 \(it cannot be unpickled: TypeError: .*\)",
        ),
        (
            FrozenError,  # unpickling sets its attributes, which it refuses
            (404,),
            {},
            r"404 \(it cannot be unpickled: dataclasses.FrozenInstanceError: .*'code'\)",
        ),
        (HoldsALockError, (), {}, r"locked \(it cannot be pickled: TypeError\)"),
    ],
)
async def test_an_exception_that_cannot_cross_is_a_remote_error(
    same_worker: Pool, kind: type[Any], args: tuple[Any, ...], kwargs: Any, message: str
) -> None:
    with pytest.raises(RemoteError, match=rf"^apps_bad.{kind.__name__}: {message}$") as caught:
        await same_worker.execute(Bad, "raise_made", kind, *args, **kwargs)
    assert caught.value.type_name == f"apps_bad.{kind.__name__}"
    assert "in raise_made" in caught.value.remote_traceback


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit, EndsEverythingError])
async def test_an_exception_that_would_end_the_program_is_a_remote_error(
    same_worker: Pool, kind: type[BaseException]
) -> None:
    with pytest.raises(RemoteError, match=rf"{kind.__name__}: enough$"):
        await same_worker.run_sync(Bad.raise_made, kind, "enough")


class StopsError(StopIteration):
    pass


@pytest.mark.parametrize("kind", [StopIteration, StopsError])
async def test_an_action_that_raises_stop_iteration_is_a_remote_error(
    same_worker: Pool, kind: type[StopIteration]
) -> None:
    name = "StopIteration" if kind is StopIteration else "test_hostile_actions.StopsError"
    message = f"{name}: early (it cannot be raised by a coroutine)"
    with pytest.raises(RemoteError, match=whole(message)) as caught:
        await same_worker.run_sync(Bad.raise_made, kind, "early")
    assert caught.value.type_name == name
    assert "in raise_made" in caught.value.remote_traceback
    with pytest.raises(RemoteError, match=whole(message)):
        await same_worker.execute(Bad, "raise_made", kind, "early")
    with pytest.raises(ExceptionGroup) as group:
        await same_worker.broadcast(Bad.raise_made, kind, "early")
    [error] = group.value.exceptions
    assert isinstance(error, RemoteError)
    assert error.type_name == name


async def test_what_may_leave_a_coroutine_arrives_as_itself(same_worker: Pool) -> None:
    with pytest.raises(StopAsyncIteration, match="early"):
        await same_worker.run_sync(Bad.raise_made, StopAsyncIteration, "early")
    with pytest.raises(RemoteError, match="GeneratorExit: early"):
        await same_worker.run_sync(Bad.raise_made, GeneratorExit, "early")


async def test_an_exception_without_a_text_arrives(same_worker: Pool) -> None:
    with pytest.raises(NoTextError) as caught:
        await same_worker.run_sync(Bad.raise_made, NoTextError)
    assert "in raise_made" in str(caught.value.__cause__)


async def test_an_exception_that_refuses_attributes_arrives(same_worker: Pool) -> None:
    # `__cause__` is one that the library sets.
    with pytest.raises(RefusesAttributesError, match="text") as caught:
        await same_worker.run_sync(Bad.raise_made, RefusesAttributesError, "text")
    assert "in raise_made" in str(caught.value.__cause__)


async def test_an_exception_with_a_megabyte_arrives(same_worker: Pool) -> None:
    with pytest.raises(ValueError, match=r"^x{1000000}$"):
        await same_worker.run_sync(Bad.raise_made, ValueError, "x" * 1_000_000)


async def test_an_ordinary_exception_arrives_with_the_workers_traceback(same_worker: Pool) -> None:
    with pytest.raises(KeyError, match=r"^'key'$") as caught:
        await same_worker.run_sync(Bad.raise_made, KeyError, "key")
    assert "in raise_made" in str(caught.value.__cause__)


# Ends


@pytest.mark.parametrize("code", [0, 3, "a text", (1, 2)])
async def test_sys_exit_is_a_remote_error_and_ends_nothing(same_worker: Pool, code: object) -> None:
    with pytest.raises(RemoteError, match=rf"^SystemExit: {re.escape(str(code))}$") as caught:
        await same_worker.run_sync(Bad.exit, code)
    assert caught.value.type_name == "SystemExit"
    assert "in exit" in caught.value.remote_traceback


@pytest.mark.parametrize("code", [0, 3, 255])
async def test_os_exit_is_a_crash_with_its_code(pool: Pool, code: int) -> None:
    pid = await pool.run_sync(Bad.pid)
    with pytest.raises(
        WorkerCrashedError,
        match=rf"^worker 0 of slot 0 died while executing apps_bad:Bad.die: process {pid} "
        rf"exited with code {code}$",
    ) as caught:
        await pool.run_sync(Bad.die, code)
    assert caught.value.exitcode == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT])
async def test_death_by_a_signal_is_a_crash_that_names_it(
    pool: Pool, number: signal.Signals
) -> None:
    with pytest.raises(WorkerCrashedError, match=f"was killed by {number.name}$") as caught:
        await pool.run_sync(Bad.die_by, number)
    assert caught.value.exitcode == -number


async def test_sigint_does_nothing_to_a_worker(same_worker: Pool) -> None:
    await same_worker.run_sync(Bad.die_by, signal.SIGINT)


# Resources


async def test_an_argument_that_memory_does_not_suffice_for_is_an_error(pool: Pool) -> None:
    await pool.run_sync(Bad.run_out_of_memory, "argument")
    with pytest.raises(MemoryError):
        await pool.run_sync(Bad.echo, b"\xff" * 300_000)
    assert await pool.run_sync(Bad.echo, b"abc") == b"abc"
    assert pool.statistics().restarts == 0


async def test_an_argument_that_cannot_even_be_read_away_is_a_crash(pool: Pool) -> None:
    # Else its rest would be taken for frames, and the worker would wait for ever.
    await pool.run_sync(Bad.run_out_of_memory, "rest of the argument")
    with pytest.raises(WorkerCrashedError, match=r"code 74, having lost its socket to the pool$"):
        await pool.run_sync(Bad.echo, b"\xff" * 300_000)


async def test_a_worker_whose_own_code_fails_says_so(pool: Pool, capfd: Any) -> None:
    await pool.run_sync(Bad.run_out_of_memory, "answer")
    with pytest.raises(
        WorkerCrashedError, match=r"code 70, having broken down: its standard error tells more$"
    ):
        await pool.run_sync(Bad.echo)  # type: ignore[call-arg]
    assert capfd.readouterr().err.endswith("MemoryError: answer\n")


async def test_closing_all_descriptors_is_a_crash(pool: Pool) -> None:
    # Either it notices, or it is killed before.
    with (
        trio.fail_after(PROMPT),
        pytest.raises(
            WorkerCrashedError,
            match=r"exited with code 74, having lost its socket to the pool$|killed by SIGKILL$",
        ),
    ):
        await pool.run_sync(Bad.close_descriptors)


async def test_closing_all_descriptors_and_hanging_is_a_crash() -> None:
    # In a program of its own: a loop that is held could not even end the test.
    done = await run_script("descriptors.py", seconds=PROMPT)
    assert done.stdout == "crashed with -9\nstill here\n"
    assert (done.returncode, done.stderr) == (0, "")


async def test_endless_recursion_arrives_as_its_error(same_worker: Pool) -> None:
    with pytest.raises(RecursionError, match=r"maximum recursion depth exceeded") as caught:
        await same_worker.run_sync(Bad.recurse)
    assert "in recurse" in str(caught.value.__cause__)


async def test_the_end_of_memory_arrives_as_its_error(pool: Pool) -> None:
    with trio.fail_after(PATIENCE), pytest.raises(MemoryError):
        await pool.run_sync(Bad.use_memory, 1 << 20)


async def test_the_end_of_the_last_byte_of_memory_is_an_error(pool: Pool) -> None:
    # Not even the report of the error fits any more, in some cases.
    with trio.fail_after(PATIENCE), pytest.raises((MemoryError, RemoteError, WorkerCrashedError)):
        await pool.run_sync(Bad.use_memory, 100)


async def test_megabytes_on_standard_output_disturb_nothing(
    same_worker: Pool, capfd: pytest.CaptureFixture[str]
) -> None:
    assert await same_worker.run_sync(Bad.print_megabyte) == 1000
    out, err = capfd.readouterr()
    assert len(out) == (1 << 20) + 1000
    assert len(err) == 1 << 20


async def test_standard_input_is_empty(same_worker: Pool) -> None:
    with trio.fail_after(PROMPT):
        assert await same_worker.run_sync(Bad.read_stdin) == ""


# Children and threads


@pytest.mark.parametrize("action", ["fork", "c_fork"])
async def test_a_crash_is_told_while_a_forked_child_lives(pool: Pool, action: str) -> None:
    child = await pool.execute(Bad, action)
    async with killed_at_end(child):
        with trio.fail_after(PROMPT), pytest.raises(WorkerCrashedError) as caught:
            await pool.run_sync(Bad.die, 3)
        assert caught.value.exitcode == 3
        assert not gone(child)


async def test_a_kill_is_told_while_a_forked_child_holds_the_socket(
    pool: Pool, tmp_path: Path
) -> None:
    pid = await pool.run_sync(Bad.pid)
    begun = tmp_path / "begun"
    children: list[int] = []

    async def kill() -> None:
        await until(begun.exists)
        children.append(int(begun.read_text()))
        os.kill(pid, signal.SIGKILL)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        with trio.fail_after(PATIENCE), pytest.raises(WorkerCrashedError) as caught:
            await pool.run_sync(Bad.c_fork_and_hang, str(begun))
    async with killed_at_end(*children):
        assert (caught.value.pid, caught.value.exitcode) == (pid, -signal.SIGKILL)
        assert not gone(children[0])


@pytest.mark.parametrize("action", ["fork", "c_fork"])
async def test_replies_written_before_a_crash_arrive_while_a_forked_child_lives(
    pool: Pool, action: str
) -> None:
    child = await pool.execute(Bad, action)
    outcomes: list[object] = []

    async def call(action: str, *args: Any) -> None:
        try:
            outcomes.append(await pool.execute(Bad, action, *args))
        except WorkerCrashedError:
            outcomes.append("crash")

    async with killed_at_end(child):
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(call, *(("die", 3) if number == 25 else ("echo", 1)))
    assert sorted(map(str, outcomes)) == ["1"] * 49 + ["crash"]


@pytest.mark.parametrize("action", ["fork", "c_fork"])
async def test_leaving_the_pool_does_not_wait_for_a_forked_child(action: str) -> None:
    async with open_pool([Bad], workers=1) as pool:
        worker = await pool.run_sync(Bad.pid)
        child = await pool.execute(Bad, action)
        left = trio.current_time()
    async with killed_at_end(child):
        assert trio.current_time() - left < PROMPT
        assert not gone(child)
        assert gone(worker)


@pytest.mark.parametrize("how", ["return", "raise", "exit", "large"])
async def test_a_forked_child_that_leaves_the_action_is_not_heard(
    same_worker: Pool, how: str
) -> None:
    with trio.fail_after(PROMPT):
        child, is_parent = await same_worker.run_sync(Bad.fork_twice, how)
        assert is_parent
        assert gone(child)
        assert [await same_worker.run_sync(Bad.echo, n) for n in range(20)] == [*range(20)]


async def test_a_child_of_multiprocessing_is_refused_by_python(same_worker: Pool) -> None:
    with pytest.raises(AssertionError, match=r"^daemonic processes are not allowed to have childr"):
        await same_worker.run_sync(Bad.start_multiprocessing)


async def test_an_action_may_run_a_program(same_worker: Pool) -> None:
    assert await same_worker.run_sync(Bad.run_program) == "a program\n"


async def test_threads_left_behind_disturb_nothing() -> None:
    # Its end waits for them as long as it may.
    async with open_pool([Bad], workers=1, grace_period=0.5) as pool:
        pid = await pool.run_sync(Bad.pid)
        assert await pool.run_sync(Bad.leave_threads) >= 6
        assert await pool.run_sync(Bad.pid) == pid


async def test_leaving_the_pool_waits_for_threads_within_grace_period() -> None:
    async with open_pool([Bad], workers=1, grace_period=0.5) as pool:
        pid = await pool.run_sync(Bad.pid)
        await pool.run_sync(Bad.leave_threads)
        left = trio.current_time()
    assert trio.current_time() - left < PROMPT
    assert gone(pid)


async def test_a_worker_dies_with_its_threads(pool: Pool) -> None:
    await pool.run_sync(Bad.leave_threads)
    with trio.fail_after(PROMPT), pytest.raises(WorkerCrashedError):
        await pool.run_sync(Bad.die, 3)


async def test_a_crash_leaves_no_zombie(pool: Pool) -> None:
    pid = await pool.run_sync(Bad.pid)
    with pytest.raises(WorkerCrashedError):
        await pool.run_sync(Bad.die, 3)
    await pool.run_sync(Bad.echo, 1)
    assert not psutil.pid_exists(pid)
