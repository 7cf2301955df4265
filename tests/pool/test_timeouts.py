"""Requests of real workers that take longer than they may."""

from __future__ import annotations

import math
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing
from apps_control import Control
from calling import Calling
from messages import whole
from scripts.harness import PATIENCE, gone, until

from trio_dirty import Pool, RequestTimeoutError, open_pool
from trio_dirty._engines.processes import ProcessEngine


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """A pool of one worker, which must outlive whatever the test does."""
    async with open_pool([Control], workers=1) as pool:
        pid = await pool.run_sync(Control.pid)
        yield pool
        await check_serves(pool)
        assert await pool.run_sync(Control.pid) == pid
        assert pool.statistics().restarts == 0


@pytest.fixture
async def mortal() -> AsyncIterator[Pool]:
    """A pool of one worker, which may die and must be replaced."""
    async with open_pool([Control], workers=1) as pool:
        yield pool
        await check_serves(pool)


async def check_serves(pool: Pool) -> None:
    """Check that a call is served, and that nothing else is left."""
    with trio.fail_after(PATIENCE):
        assert await pool.run_sync(Control.echo, "still here") == "still here"
    statistics = pool.statistics()
    assert (statistics.queued, statistics.running, statistics.abandoned) == (0, 0, 0)


def check_hard(error: object, *, seconds: float, pid: int, action: str = "hang") -> None:
    """Check all that a hard time-out tells, of the first worker of a pool."""
    assert isinstance(error, RequestTimeoutError)
    assert str(error) == (
        f"apps_control:Control.{action}: it took longer than timeout={seconds} seconds, and its "
        "worker 0 of slot 0 was killed"
    )
    assert (error.soft, error.seconds, error.slot, error.pid) == (False, seconds, 0, pid)
    assert (error.app, error.action) == ("apps_control:Control", action)


def check_soft(error: object, *, seconds: float, pid: int, action: str) -> None:
    """Check all that a soft time-out tells."""
    assert isinstance(error, RequestTimeoutError)
    assert str(error) == (
        f"apps_control:Control.{action}: it took longer than soft_timeout={seconds} seconds, and "
        "was interrupted"
    )
    assert (error.soft, error.seconds, error.slot, error.pid) == (True, seconds, 0, pid)
    assert (error.app, error.action) == ("apps_control:Control", action)
    assert f"in {action}" in str(error.__cause__)


# The hard one


@pytest.mark.parametrize("how", ["sleep", "loop", "match", "c", "stop"])
async def test_timeout_kills(mortal: Pool, tmp_path: Path, how: str) -> None:
    pid = await mortal.run_sync(Control.pid)
    with trio.fail_after(PATIENCE), pytest.raises(RequestTimeoutError) as caught:
        await mortal.with_options(timeout=0.5).run_sync(Control.hang, how, str(tmp_path / "begun"))
    check_hard(caught.value, seconds=0.5, pid=pid)
    assert gone(pid)
    with trio.fail_after(PATIENCE):
        assert await mortal.run_sync(Control.pid) != pid
    statistics = mortal.statistics()
    assert (statistics.restarts, statistics.failed) == (1, 1)


async def test_timeout_kills_a_worker_that_stands_still_before_it_begins(mortal: Pool) -> None:
    pid = await mortal.run_sync(Control.pid)
    os.kill(pid, signal.SIGSTOP)
    with trio.fail_after(PATIENCE), pytest.raises(RequestTimeoutError) as caught:
        await mortal.with_options(timeout=0.5).run_sync(Control.add)
    check_hard(caught.value, seconds=0.5, pid=pid, action="add")
    assert gone(pid)
    with trio.fail_after(PATIENCE):
        assert await mortal.run_sync(Control.add) == 1


async def test_a_function_that_is_no_action_times_out_as_such(mortal: Pool) -> None:
    message = (
        "sleep: it took longer than timeout=0.5 seconds, and its worker 0 of slot 0 was killed"
    )
    with pytest.raises(RequestTimeoutError, match=whole(message)) as caught:
        await mortal.with_options(timeout=0.5).run_sync(time.sleep, 600)
    assert (caught.value.app, caught.value.action) == (None, "sleep")


async def test_timeout_of_the_whole_pool_holds_for_each_call() -> None:
    async with open_pool([Control], workers=1, timeout=0.5) as pool:
        for _ in range(2):
            with trio.fail_after(PATIENCE), pytest.raises(RequestTimeoutError) as caught:
                await pool.run_sync(time.sleep, 600)
            assert caught.value.seconds == 0.5
        unlimited = pool.with_options(timeout=None)
        assert await unlimited.run_sync(Control.nap, 0.7) == 0.7
        assert pool.statistics().restarts == 2


@pytest.mark.parametrize("how", ["sleep", "c"])
async def test_all_that_wait_behind_are_served(mortal: Pool, tmp_path: Path, how: str) -> None:
    """Those that were sent to the worker, and those that were not."""
    pid = await mortal.run_sync(Control.pid)
    for _ in range(200):  # short ones: many are sent ahead
        await mortal.run_sync(Control.add)
    view = mortal.with_options(timeout=1)
    async with trio.open_nursery() as nursery:
        hanging = Calling.begin(nursery, view.run_sync, Control.hang, how, str(tmp_path / "begun"))
        await trio.testing.wait_all_tasks_blocked()
        behind = [Calling.begin(nursery, mortal.run_sync, Control.pid) for _ in range(100)]
        await trio.testing.wait_all_tasks_blocked()
        pids = {(await other.ended()).value for other in behind}
        check_hard((await hanging.ended()).error, seconds=1.0, pid=pid)
    assert len(pids) == 1
    assert pid not in pids
    assert await mortal.run_sync(Control.add) == 1


class LateEngine(ProcessEngine):
    """One whose clock can be put forward; that is not taken for a time in which nothing ran."""

    look_seconds = math.inf

    def __init__(self) -> None:
        super().__init__()
        self.forward = 0.0

    def now(self) -> float:
        return super().now() + self.forward


async def test_the_time_in_the_queue_does_not_count(tmp_path: Path) -> None:
    begun, go, engine = tmp_path / "begun", tmp_path / "go", LateEngine()
    async with open_pool([Control], workers=1, engine=engine) as pool:
        view = pool.with_options(timeout=1_000, soft_timeout=900)
        async with trio.open_nursery() as nursery:
            Calling.begin(nursery, pool.run_sync, Control.last, "sleep", str(begun), str(go))
            await until(begun.exists)
            # The first of them is sent ahead, the others are queued. They take a while: a worker
            # that has answered in time is not killed.
            waiting = [Calling.begin(nursery, view.run_sync, Control.nap, 0.2) for _ in range(3)]
            await trio.testing.wait_all_tasks_blocked()
            engine.forward = 5_000.0
            go.touch()
            found = [await calling.ended() for calling in waiting]
        assert [(calling.value, calling.error) for calling in found] == [(0.2, None)] * 3
        assert await pool.run_sync(Control.pid) == int(begun.read_text())
        assert pool.statistics().waiting.max > 4_000


async def test_the_time_in_which_it_is_executed_counts(tmp_path: Path) -> None:
    """The other way round, on the same clock."""
    begun, engine = tmp_path / "begun", LateEngine()
    async with open_pool([Control], workers=1, engine=engine) as pool:
        view = pool.with_options(timeout=1_000)
        async with trio.open_nursery() as nursery:
            hanging = Calling.begin(nursery, view.run_sync, Control.hang, "sleep", str(begun))
            await until(begun.exists)
            engine.forward = 5_000.0
            # Have it look at its clock again; its sleep goes by another one.
            pool._slots.all[0].current.due_changed.wake()
            pid = int(begun.read_text())
            check_hard((await hanging.ended()).error, seconds=1_000.0, pid=pid)
        await check_serves(pool)


async def test_200_that_end_around_their_timeout_crash_nobody(mortal: Pool) -> None:
    """Each is answered or timed out; what was sent ahead behind it is always served."""
    hairs, timeout = random.Random(11), 0.02
    view = mortal.with_options(timeout=timeout)
    timed_out = 0
    for number in range(200):
        seconds = timeout + hairs.uniform(-0.0012, 0.0002)
        async with trio.open_nursery() as nursery:
            calling = Calling.begin(nursery, view.run_sync, Control.nap, seconds)
            await trio.testing.wait_all_tasks_blocked()
            behind = Calling.begin(nursery, mortal.run_sync, Control.echo, number)
            await calling.ended()
            await behind.ended()
        assert (behind.value, behind.error) == (number, None)
        if calling.error is None:
            assert calling.value == seconds
        else:
            timed_out += 1
            assert isinstance(calling.error, RequestTimeoutError)
            assert (calling.error.soft, calling.error.seconds) == (False, timeout)
    statistics = mortal.statistics()
    assert (statistics.failed, statistics.restarts) == (timed_out, timed_out)
    assert statistics.completed == 400 - timed_out


async def test_a_slot_survives_any_number_of_kills(mortal: Pool, tmp_path: Path) -> None:
    """Also in a row, of workers that complete nothing: it is not they who have failed."""
    view, pids = mortal.with_options(timeout=0.05), set()
    for number in range(10):
        with trio.fail_after(PATIENCE), pytest.raises(RequestTimeoutError) as caught:
            await view.run_sync(Control.hang, "sleep", str(tmp_path / f"begun{number}"))
        pids.add(caught.value.pid)
    assert len(pids) == 10
    with trio.fail_after(PATIENCE):
        assert await mortal.run_sync(Control.pid) not in pids
    statistics = mortal.statistics()
    assert (statistics.completed, statistics.failed, statistics.restarts) == (1, 10, 10)
    assert statistics.workers[0].state == "ready"


# The soft one


@pytest.mark.parametrize("how", ["sleep", "loop", "match"])
async def test_soft_timeout_lets_an_action_clean_up(pool: Pool, tmp_path: Path, how: str) -> None:
    pid, begun, cleaned = await pool.run_sync(Control.pid), tmp_path / "begun", tmp_path / "cleaned"
    view = pool.with_options(soft_timeout=1)
    with trio.fail_after(PATIENCE), pytest.raises(RequestTimeoutError) as caught:
        await view.run_sync(Control.cleans_up, how, str(begun), str(cleaned))
    check_soft(caught.value, seconds=1.0, pid=pid, action="cleans_up")
    assert cleaned.read_text() == "SoftTimeout('soft_timeout has passed')"
    assert await pool.run_sync(Control.add) == 2
    statistics = pool.statistics()
    assert (statistics.completed, statistics.failed) == (4, 0)


async def test_soft_timeout_has_nobody_behind_it_wait_or_fail(pool: Pool, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    view = pool.with_options(soft_timeout=1)
    async with trio.open_nursery() as nursery:
        calling = Calling.begin(nursery, view.run_sync, Control.swallows_exceptions, str(begun))
        await trio.testing.wait_all_tasks_blocked()
        behind = [Calling.begin(nursery, view.run_sync, Control.echo, n) for n in range(20)]
        assert isinstance((await calling.ended()).error, RequestTimeoutError)
        assert [(await other.ended()).value for other in behind] == [*range(20)]


@pytest.mark.parametrize("how", ["sleep", "loop", "match"])
async def test_what_is_returned_instead_arrives(pool: Pool, how: str) -> None:
    with trio.fail_after(PATIENCE):
        found = await pool.with_options(soft_timeout=1).run_sync(Control.returns_instead, how)
    assert found == "in time: soft_timeout has passed"


async def test_what_is_raised_instead_arrives(pool: Pool) -> None:
    view = pool.with_options(soft_timeout=1)
    with pytest.raises(LookupError, match=whole("not found in time")) as caught:
        await view.run_sync(Control.raises_instead, "sleep")
    assert "trio_dirty.SoftTimeout: soft_timeout has passed" in str(caught.value.__cause__)


@pytest.mark.parametrize("how", ["sleep", "loop"])
async def test_timeout_kills_what_ignores_its_soft_timeout(
    mortal: Pool, tmp_path: Path, how: str
) -> None:
    pid, begun, ignored = await mortal.run_sync(Control.pid), tmp_path / "b", tmp_path / "i"
    view = mortal.with_options(soft_timeout=1, timeout=2.5)
    with trio.fail_after(PATIENCE), pytest.raises(RequestTimeoutError) as caught:
        await view.run_sync(Control.ignores, how, str(begun), str(ignored))
    check_hard(caught.value, seconds=2.5, pid=pid, action="ignores")
    assert ignored.read_text() == "SoftTimeout('soft_timeout has passed')"
    assert gone(pid)


async def test_timeout_kills_c_code_that_cannot_be_interrupted(
    mortal: Pool, tmp_path: Path
) -> None:
    pid = await mortal.run_sync(Control.pid)
    view = mortal.with_options(soft_timeout=0.3, timeout=0.6)
    with trio.fail_after(PATIENCE), pytest.raises(RequestTimeoutError) as caught:
        await view.run_sync(Control.hang, "c", str(tmp_path / "begun"))
    check_hard(caught.value, seconds=0.6, pid=pid)


async def test_300_that_end_around_their_soft_timeout_keep_the_state(pool: Pool) -> None:
    """All given at once: each is answered or interrupted, and nobody else is hit."""
    hairs, seconds = random.Random(12), 0.003
    callings, others = [], []
    async with trio.open_nursery() as nursery:
        for number in range(300):
            soft_timeout = seconds + hairs.uniform(-0.0002, 0.0006)
            view = pool.with_options(soft_timeout=soft_timeout)
            callings.append(Calling.begin(nursery, view.run_sync, Control.straddle, seconds))
            if number % 3 == 0:
                others.append(Calling.begin(nursery, pool.run_sync, Control.echo, number))
    assert [(other.value, other.error) for other in others] == [(n, None) for n in range(0, 300, 3)]
    errors = [calling.error for calling in callings if calling.error is not None]
    assert all(isinstance(error, RequestTimeoutError) and error.soft for error in errors)
    counts = [calling.value for calling in callings if calling.error is None]
    assert len(set(counts)) == len(counts) == 300 - len(errors)
    # What was interrupted may have been counted, and what was not has been.
    total = await pool.run_sync(Control.add) - 1
    assert len(counts) <= total <= 300
    assert max(counts, default=0) <= total
    statistics = pool.statistics()
    assert (statistics.completed, statistics.failed) == (402, 0)
