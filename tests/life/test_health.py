"""Workers that stand still or fall silent, and such as only seem to, with processes."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import psutil
import pytest
import trio
import trio.testing
from apps_lives import CloseForks, CloseHangs, CloseRaises, Gate, Lasting
from calling import Calling
from lives import PROMPT, numbers, pids, states, until_ready
from scripts.harness import PATIENCE, children, gone, killed_at_end, until

from trio_dirty import Pool, RequestTimeoutError, WorkerCrashedError, open_pool


def stop(pool: Pool) -> int:
    """Stop the worker of slot 0, as a job control would."""
    pid = pids(pool)[0]
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return pid


# Idle workers


async def test_an_idle_worker_that_is_stopped_is_replaced() -> None:
    before = children()
    async with open_pool([Lasting], workers=2) as pool:
        stopped = stop(pool)
        with trio.fail_after(PROMPT):
            await until(lambda: gone(stopped))
        await until(lambda: stopped not in pids(pool) and states(pool) == ["ready", "ready"])
        statistics = pool.statistics()
        assert statistics.workers[0].restarts_by_cause == {"unresponsive": 1}
        assert statistics.workers[1].restarts == 0
        assert statistics.failed == 0
    assert children() == before


async def test_what_a_stopped_worker_is_given_meanwhile_is_served() -> None:
    async with open_pool([Lasting], workers=1) as pool, trio.open_nursery() as nursery:
        # Given when the worker has been asked whether it lives, and before it is killed.
        stopped = stop(pool)
        (slot,) = pool._slots.all
        await until(lambda: slot.workers[0].health.is_pinged)
        calls = [Calling.begin(nursery, pool.run_sync, Lasting.who) for _ in range(20)]
        for call in calls:
            assert (await call.ended()).error is None
        assert {call.value for call in calls} == {1}
        assert gone(stopped)
        assert pool.statistics().failed == 0


async def test_a_worker_that_is_stopped_for_a_moment_lives() -> None:
    async with open_pool([Lasting], workers=1) as pool:
        pid = stop(pool)
        (slot,) = pool._slots.all
        await until(lambda: slot.workers[0].health.is_pinged)
        os.kill(pid, signal.SIGCONT)
        assert await pool.run_sync(Lasting.pid) == pid


@pytest.mark.parametrize("forks", [False, True])
async def test_an_idle_worker_that_loses_its_socket_is_replaced(forks: bool) -> None:
    async with open_pool([Lasting], workers=1) as pool:
        child = 0
        if forks:
            child = await pool.run_sync(Lasting.c_fork)
        async with killed_at_end(*filter(None, [child])):
            old = await pool.run_sync(Lasting.close_descriptors_later)
            with trio.fail_after(PROMPT):
                await until(lambda: gone(old))
            await until_ready(pool, after=0)
            assert await pool.run_sync(Lasting.who) == 1
            assert pool.statistics().failed == 0


async def test_who_has_lost_its_socket_in_the_middle_is_killed_for_it_and_says_so() -> None:
    async with open_pool([Lasting], workers=1) as pool:
        with pytest.raises(
            WorkerCrashedError, match="SIGKILL; the pool killed it since its socket"
        ):
            await pool.run_sync(Lasting.close_sockets_and_hang)
        assert await pool.run_sync(Lasting.who) == 1


# Busy ones


@pytest.mark.parametrize("action", ["sleep", "hold_lock"])
async def test_a_long_request_is_not_taken_for_a_hung_worker(action: str, tmp_path: Path) -> None:
    arguments = (6.0,) if action == "sleep" else (str(tmp_path / "begun"), 27)
    async with open_pool([Lasting], workers=2) as pool, trio.open_nursery() as nursery:
        workers = pids(pool)
        call = Calling.begin(nursery, pool.execute, Lasting, action, *arguments)
        while not call.has_ended:
            await pool.run_sync(Lasting.who)
        assert call.error is None
        assert pids(pool) == workers
        assert pool.statistics().restarts == 0


async def test_a_thread_that_holds_the_lock_of_an_idle_worker_is_no_hang(tmp_path: Path) -> None:
    async with open_pool([Lasting], workers=1) as pool:
        await pool.run_sync(Lasting.hold_lock_later, str(tmp_path / "begun"), 27)
        await until((tmp_path / "begun").exists)
        with trio.fail_after(PATIENCE):
            assert await pool.run_sync(Lasting.who) == 0
        assert pool.statistics().restarts == 0


@pytest.mark.parametrize("begins", [True, False])
async def test_a_stopped_worker_costs_what_it_may_have_begun_and_nothing_else(
    begins: bool, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    async with open_pool([Lasting], workers=1) as pool, trio.open_nursery() as nursery:
        calls = []
        if begins:
            calls.append(Calling.begin(nursery, pool.run_sync, Lasting.wait, gate, 1))
            await until(lambda: gate.has_come(1))
        stopped = stop(pool)
        calls += [Calling.begin(nursery, pool.run_sync, Lasting.who) for _ in range(5)]
        with trio.fail_after(PROMPT):
            (error,) = [e for call in calls if (e := (await call.ended()).error) is not None]
        assert isinstance(error, WorkerCrashedError)
        assert "stood still" in str(error)
        assert not begins or error is calls[0].error
        assert {call.value for call in calls if call.error is None} == {1}
        assert gone(stopped)
        statistics = pool.statistics()
        assert statistics.failed == 1
        assert statistics.workers[0].restarts_by_cause == {"unresponsive": 1}


async def test_a_look_that_finds_no_descriptor_left_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []

    def status(process: psutil.Process) -> str:
        looks.append(process.pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with open_pool([Lasting], workers=1) as pool, trio.open_nursery() as nursery:
        pid = stop(pool)
        monkeypatch.setattr(psutil.Process, "status", status)
        call = Calling.begin(nursery, pool.run_sync, Lasting.who)
        await until(lambda: len(looks) > 1)
        os.kill(pid, signal.SIGCONT)
        assert (await call.ended()).value == 0
        monkeypatch.undo()  # which is how the suite looks as well


# The end


async def test_a_worker_that_is_stopped_while_it_drains_is_killed_after_the_grace_period() -> None:
    before = children()
    async with open_pool([Lasting], workers=2, grace_period=1) as pool:
        stop(pool)
        left = trio.current_time()
    assert trio.current_time() - left < PROMPT
    assert children() == before


@pytest.mark.parametrize("way", ["reload", "resize"])
@pytest.mark.parametrize("app", [CloseRaises, CloseHangs, CloseForks])
async def test_a_close_that_misbehaves_while_the_pool_goes_on(
    app: type[Lasting], way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("BAD_LOG", str(log))
    before = children()
    async with open_pool([app], workers=2, grace_period=0.5) as pool:
        old = pids(pool)
        with trio.fail_after(PROMPT):
            if way == "reload":
                await pool.reload()
                await until(lambda: all(gone(pid or 0) for pid in old))
            else:
                await pool.resize(1)
                assert gone(old[1] or 0)
        assert set(states(pool)) == {"ready"}
        assert await pool.run_sync(app.who) in numbers(pool)
        assert pool.statistics().failed == 0
    assert children() == before
    forked = [int(line.split()[1]) for line in log.read_text().splitlines() if "forked" in line]
    assert bool(forked) is (app is CloseForks)
    async with killed_at_end(*forked):
        pass


async def test_a_worker_that_has_moved_house_is_managed_as_any_other(tmp_path: Path) -> None:
    before = children()
    async with open_pool([Lasting], workers=3, timeout=PATIENCE) as pool:
        moved = await pool.broadcast(Lasting.move_house, str(tmp_path))
        assert moved == pids(pool)
        await pool.resize(2)
        assert gone(moved[2])
        with pytest.raises(RequestTimeoutError):
            await pool.with_options(timeout=0.5).run_sync(Lasting.sleep, 600)
        await until_ready(pool)
        assert sum(map(gone, moved)) == 2
        with trio.fail_after(PROMPT):
            await pool.reload()
        await until(lambda: all(map(gone, moved)))
        await pool.broadcast(Lasting.move_house, str(tmp_path))
        left = trio.current_time()
    assert trio.current_time() - left < PROMPT
    assert children() == before


async def test_a_worker_that_has_moved_house_is_interrupted(tmp_path: Path) -> None:
    async with open_pool([Lasting], workers=1) as pool:
        await pool.run_sync(Lasting.move_house, str(tmp_path))
        with pytest.raises(RequestTimeoutError):
            await pool.with_options(soft_timeout=0.2).run_sync(Lasting.sleep, 600)
        assert await pool.run_sync(Lasting.who) == 0


async def test_a_worker_that_ignores_all_signals_is_killed_where_it_is_not_interrupted(
    tmp_path: Path,
) -> None:
    async with (
        open_pool([Lasting], workers=1, on_cancel="interrupt", cancel_grace=0.2) as pool,
        trio.open_nursery() as nursery,
    ):
        # What an action before it has ignored is heeded again.
        pid = await pool.run_sync(Lasting.ignore_signals)
        with pytest.raises(RequestTimeoutError):
            await pool.with_options(soft_timeout=0.2).run_sync(Lasting.sleep, 600)
        hang = Lasting.ignore_signals_and_hang
        call = Calling.begin(nursery, pool.run_sync, hang, str(tmp_path / "begun"))
        await until((tmp_path / "begun").exists)
        await call.cancel()
        await until(lambda: gone(pid))
        assert await pool.run_sync(Lasting.who) == 1
        assert pool.statistics().restarts_by_cause == {"killed": 1}


@pytest.mark.parametrize("overlap", [True, False])
async def test_a_worker_that_is_stopped_and_then_succeeded_is_not_left_behind(
    overlap: bool,
) -> None:
    async with open_pool([Lasting], workers=1) as pool:
        stopped = stop(pool)
        (slot,) = pool._slots.all
        await until(lambda: slot.workers[0].health.is_pinged)
        with trio.fail_after(PROMPT):
            await pool.reload(overlap=overlap)
            await until(lambda: gone(stopped))
        assert await pool.run_sync(Lasting.who) == 1
        assert pool.statistics().failed == 0


async def test_a_worker_that_is_stopped_while_its_slot_leaves_is_not_waited_for_for_ever() -> None:
    async with open_pool([Lasting], workers=2, grace_period=1) as pool:
        pid = pids(pool)[1]
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with trio.fail_after(PROMPT):
            await pool.resize(1)
        assert gone(pid)
