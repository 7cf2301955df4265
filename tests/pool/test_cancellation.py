"""Callers of real workers that are cancelled, and what becomes of their requests."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from apps_control import Control
from calling import Calling
from messages import whole
from scripts.harness import PATIENCE, gone, killed_at_end, until

from trio_dirty import Pool, RequestTimeoutError, check_cancelled, open_pool
from trio_dirty._pool.calls import Call

MODES: list[Any] = ["abandon", "interrupt", "kill", "wait"]


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
    assert holds(pool) == (0, 0)


def holds(pool: Pool) -> tuple[int, int]:
    """Return how many requests the pool's only slot has queued, and has sent."""
    (slot,) = pool._slots.all
    assert slot.current is not None
    return len(slot.queue), len(slot.current.ledger.entries)


class Stuck:
    """A request that holds its worker until it is let go."""

    def __init__(self, directory: Path) -> None:
        self.begun, self.go = directory / "begun", directory / "go"
        self.calling: Calling

    async def begin(self, nursery: trio.Nursery, pool: Pool, how: str = "sleep") -> Calling:
        begun, go = str(self.begun), str(self.go)
        self.calling = Calling.begin(nursery, pool.run_sync, Control.last, how, begun, go)
        await until(self.begun.exists)
        return self.calling

    async def end(self) -> None:
        self.go.touch()
        assert (await self.calling.ended()).value == "lasted"


@pytest.fixture
def stuck(tmp_path: Path) -> Stuck:
    return Stuck(tmp_path)


# One that has begun


@pytest.mark.parametrize("how", ["sleep", "loop", "c"])
async def test_abandon_lets_the_caller_go_and_the_action_end(
    pool: Pool, stuck: Stuck, how: str
) -> None:
    async with trio.open_nursery() as nursery:
        calling = await stuck.begin(nursery, pool, how)
        await calling.cancel()
        assert calling.value is None
        statistics = pool.statistics()
        assert (statistics.running, statistics.abandoned) == (1, 1)
        stuck.go.touch()
    with trio.fail_after(PATIENCE):
        assert await pool.run_sync(Control.add) == 2
    statistics = pool.statistics()
    assert (statistics.completed, statistics.failed) == (3, 0)


@pytest.mark.parametrize("how", ["sleep", "loop", "match"])
async def test_interrupt_raises_inside_the_action(pool: Pool, tmp_path: Path, how: str) -> None:
    begun, cleaned = tmp_path / "begun", tmp_path / "cleaned"
    view = pool.with_options(on_cancel="interrupt")
    async with trio.open_nursery() as nursery:
        calling = Calling.begin(
            nursery, view.run_sync, Control.cleans_up, how, str(begun), str(cleaned)
        )
        await until(begun.exists)
        assert not cleaned.exists()
        await calling.cancel()
    await until(cleaned.exists)
    assert cleaned.read_text() == "RequestCancelled('the caller has left')"
    assert await pool.run_sync(Control.add) == 2


async def test_except_exception_does_not_swallow_an_interrupt(pool: Pool, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    view = pool.with_options(on_cancel="interrupt")
    async with trio.open_nursery() as nursery:
        calling = Calling.begin(nursery, view.run_sync, Control.swallows_exceptions, str(begun))
        await until(begun.exists)
        await calling.cancel()
    await check_serves(pool)


@pytest.mark.parametrize("how", ["sleep", "loop", "match", "c"])
async def test_kill_replaces_the_worker(mortal: Pool, tmp_path: Path, how: str) -> None:
    begun = tmp_path / "begun"
    view = mortal.with_options(on_cancel="kill")
    async with trio.open_nursery() as nursery:
        calling = Calling.begin(nursery, view.run_sync, Control.hang, how, str(begun))
        await until(begun.exists)
        behind = [Calling.begin(nursery, mortal.run_sync, Control.echo, n) for n in range(5)]
        await trio.testing.wait_all_tasks_blocked()
        assert not any(other.has_ended for other in behind)
        await calling.cancel()
        assert [(await other.ended()).value for other in behind] == [*range(5)]
    pid = int(begun.read_text())
    assert await mortal.run_sync(Control.pid) != pid
    assert gone(pid)
    statistics = mortal.statistics()
    assert (statistics.restarts, statistics.failed) == (1, 1)


@pytest.mark.parametrize("how", ["sleep", "loop", "c"])
async def test_wait_waits_for_the_result(pool: Pool, stuck: Stuck, how: str) -> None:
    async with trio.open_nursery() as nursery:
        calling = await stuck.begin(nursery, pool.with_options(on_cancel="wait"), how)
        calling.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not calling.has_ended
        statistics = pool.statistics()
        assert (statistics.running, statistics.abandoned) == (1, 0)
        await stuck.end()
    assert not calling.scope.cancelled_caught


async def test_wait_ends_in_cancellation_if_the_action_heeds_it(pool: Pool, tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    view = pool.with_options(on_cancel="wait")
    async with trio.open_nursery() as nursery:
        calling = Calling.begin(nursery, view.run_sync, Control.asks, str(begun), str(ended))
        await until(begun.exists)
        assert not calling.has_ended
        await calling.cancel()
        assert ended.read_text() == "the caller has left"


@pytest.mark.parametrize("outer_first", [False, True])
async def test_wait_waits_when_a_second_scope_is_cancelled(
    pool: Pool, stuck: Stuck, outer_first: bool
) -> None:
    view, inner = pool.with_options(on_cancel="wait"), trio.CancelScope()

    async def call() -> str:
        with inner:
            return await view.run_sync(Control.last, "sleep", str(stuck.begun), str(stuck.go))

    async with trio.open_nursery() as nursery:
        stuck.calling = calling = Calling.begin(nursery, call)
        await until(stuck.begun.exists)
        scopes = [inner, calling.scope]
        for scope in reversed(scopes) if outer_first else scopes:
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert not calling.has_ended
        await stuck.end()
    assert not inner.cancelled_caught
    assert not calling.scope.cancelled_caught


async def test_the_outer_of_two_scopes_catches_what_waiting_ended_in(
    pool: Pool, tmp_path: Path
) -> None:
    view, inner = pool.with_options(on_cancel="wait"), trio.CancelScope()
    begun, left, go = tmp_path / "begun", tmp_path / "left", tmp_path / "go"

    async def call() -> None:
        with inner:
            await view.run_sync(Control.asks_and_lasts, str(begun), str(left), str(go))

    async with trio.open_nursery() as nursery:
        calling = Calling.begin(nursery, call)
        await until(begun.exists)
        inner.cancel()
        await until(left.exists)
        calling.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not calling.has_ended
        go.touch()
        await calling.ended()
    assert calling.error is None
    assert not inner.cancelled_caught
    assert calling.scope.cancelled_caught


async def test_an_abandoned_action_can_ask_for_it_and_is_counted(
    pool: Pool, tmp_path: Path
) -> None:
    begun, left, go = tmp_path / "begun", tmp_path / "left", tmp_path / "go"
    async with trio.open_nursery() as nursery:
        calling = Calling.begin(
            nursery, pool.run_sync, Control.asks_and_lasts, str(begun), str(left), str(go)
        )
        await until(begun.exists)
        assert pool.statistics().abandoned == 0
        assert not left.exists()
        await calling.cancel()
        await until(left.exists)
        assert left.read_text() == "the caller has left"
        statistics = pool.statistics()
        assert (statistics.running, statistics.abandoned) == (1, 1)
        go.touch()
    with trio.fail_after(PATIENCE):
        assert await pool.run_sync(Control.echo, 1) == 1
    assert pool.statistics().abandoned == 0


async def test_one_that_is_awaited_asks_in_vain(pool: Pool) -> None:
    assert await pool.run_sync(Control.asks_once) == "awaited"


def test_who_is_no_worker_cannot_ask() -> None:
    with pytest.raises(
        RuntimeError, match=whole("check_cancelled() must be called in a worker of a pool")
    ):
        check_cancelled()


@pytest.mark.parametrize("how", ["sleep", "loop"])
async def test_one_that_ignores_its_interrupt_is_killed(tmp_path: Path, how: str) -> None:
    begun, ignored = tmp_path / "begun", tmp_path / "ignored"
    async with open_pool([Control], workers=1, on_cancel="interrupt", cancel_grace=2) as pool:
        async with trio.open_nursery() as nursery:
            calling = Calling.begin(
                nursery, pool.run_sync, Control.ignores, how, str(begun), str(ignored)
            )
            await until(begun.exists)
            behind = [Calling.begin(nursery, pool.run_sync, Control.pid) for _ in range(5)]
            await trio.testing.wait_all_tasks_blocked()
            await calling.cancel()
            pids = {(await other.ended()).value for other in behind}
        assert ignored.read_text() == "RequestCancelled('the caller has left')"
        assert len(pids) == 1
        assert pids != {int(begun.read_text())}
        assert pool.statistics().restarts == 1
        await check_serves(pool)


async def test_without_grace_it_is_killed_at_once(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    async with open_pool([Control], workers=1, on_cancel="interrupt", cancel_grace=0) as pool:
        async with trio.open_nursery() as nursery:
            calling = Calling.begin(nursery, pool.run_sync, Control.hang, "c", str(begun))
            await until(begun.exists)
            await calling.cancel()
        with trio.fail_after(PATIENCE):
            assert await pool.run_sync(Control.pid) != int(begun.read_text())
        assert pool.statistics().restarts == 1


async def test_a_late_result_reaches_nobody(pool: Pool, stuck: Stuck) -> None:
    """Not even the same task, which waits for another request by then."""
    scope = trio.CancelScope()

    async def both() -> str:
        with scope:
            await pool.run_sync(Control.last, "sleep", str(stuck.begun), str(stuck.go))
        return await pool.run_sync(Control.echo, "mine")

    async with trio.open_nursery() as nursery:
        calling = Calling.begin(nursery, both)
        await until(stuck.begun.exists)
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert scope.cancelled_caught
        others = [Calling.begin(nursery, pool.run_sync, Control.echo, n) for n in range(5)]
        await trio.testing.wait_all_tasks_blocked()
        assert not calling.has_ended
        stuck.go.touch()
        assert (await calling.ended()).value == "mine"
        assert [(await other.ended()).value for other in others] == [*range(5)]


# One that has not


@pytest.mark.parametrize("on_cancel", MODES)
async def test_one_that_is_queued_leaves_at_once(pool: Pool, stuck: Stuck, on_cancel: Any) -> None:
    view = pool.with_options(on_cancel=on_cancel)
    async with trio.open_nursery() as nursery:
        await stuck.begin(nursery, pool)
        ahead = Calling.begin(nursery, pool.run_sync, Control.echo, "ahead")
        await trio.testing.wait_all_tasks_blocked()
        callings = [Calling.begin(nursery, view.run_sync, Control.add) for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        assert holds(pool) == (3, 2)
        for calling in callings:
            await calling.cancel()
        assert holds(pool) == (0, 2)
        assert pool.statistics().queued == 1
        assert not stuck.calling.has_ended
        await stuck.end()
        assert (await ahead.ended()).value == "ahead"
    assert await pool.run_sync(Control.add) == 2, "one of them has run"


@pytest.mark.parametrize("on_cancel", MODES[:3])
async def test_one_that_was_sent_ahead_is_withdrawn(
    pool: Pool, stuck: Stuck, on_cancel: Any
) -> None:
    view = pool.with_options(on_cancel=on_cancel)
    async with trio.open_nursery() as nursery:
        await stuck.begin(nursery, pool)
        calling = Calling.begin(nursery, view.run_sync, Control.add)
        await trio.testing.wait_all_tasks_blocked()
        assert holds(pool) == (0, 2)
        await calling.cancel()
        statistics = pool.statistics()
        assert (statistics.queued, statistics.running, statistics.abandoned) == (0, 1, 0)
        assert not stuck.calling.has_ended
        await trio.testing.wait_all_tasks_blocked()  # the worker is told
        await stuck.end()
    assert await pool.run_sync(Control.add) == 2, "it has run"


async def test_one_that_waits_and_was_sent_ahead_is_withdrawn(pool: Pool, stuck: Stuck) -> None:
    view = pool.with_options(on_cancel="wait")
    async with trio.open_nursery() as nursery:
        await stuck.begin(nursery, pool)
        calling = Calling.begin(nursery, view.run_sync, Control.add)
        await trio.testing.wait_all_tasks_blocked()
        assert holds(pool) == (0, 2)
        calling.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await stuck.end()
        await calling.ended()
    assert calling.scope.cancelled_caught
    assert await pool.run_sync(Control.add) == 2, "it has run"


@pytest.mark.parametrize("on_cancel", MODES)
async def test_a_caller_who_is_cancelled_already_begins_nothing(pool: Pool, on_cancel: Any) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await pool.with_options(on_cancel=on_cancel).run_sync(Control.add)
    assert scope.cancelled_caught
    assert await pool.run_sync(Control.add) == 1


async def test_10_000_that_were_cancelled_leave_nothing(pool: Pool, stuck: Stuck) -> None:
    (slot,) = pool._slots.all
    async with trio.open_nursery() as nursery:
        await stuck.begin(nursery, pool)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as crowd:
                for number in range(10_000):
                    crowd.start_soon(pool.run_sync, Control.echo, number)
                await trio.testing.wait_all_tasks_blocked()
                assert holds(pool) == (9999, 2)
                crowd.cancel_scope.cancel()
        assert holds(pool) == (0, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert slot._given.statistics().current_buffer_used == 0
        gc.collect()
        left = [thing for thing in gc.get_objects() if type(thing) is Call]
        assert len(left) == 2, "more are left than the stuck one and the one sent ahead"
        del left
        assert not stuck.calling.has_ended
        await stuck.end()
    await check_serves(pool)
    await trio.testing.wait_all_tasks_blocked()
    assert slot._given.statistics().current_buffer_used == 0


# What an action leaves behind


async def test_a_forked_child_outlives_its_killed_worker_and_disturbs_nobody(
    tmp_path: Path,
) -> None:
    begun = tmp_path / "begun"
    async with open_pool([Control], workers=1) as pool:
        pid = await pool.run_sync(Control.pid)
        with trio.fail_after(PATIENCE), pytest.raises(RequestTimeoutError) as caught:
            await pool.with_options(timeout=2).run_sync(Control.fork_and_hang, str(begun))
        child = int(begun.read_text())
        async with killed_at_end(child):
            assert (caught.value.soft, caught.value.pid) == (False, pid)
            assert gone(pid)
            assert not gone(child)
            with trio.fail_after(PATIENCE):
                assert await pool.run_sync(Control.pid) not in (pid, child)
            await check_serves(pool)
            assert pool.statistics().restarts == 1
            assert not gone(child)
