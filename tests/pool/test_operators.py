"""What an operator is told, with processes: the log, and the statistics."""

from __future__ import annotations

import logging
import re
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from apps_lives import DiesWhileBroken, Gate, Lasting, LastingToo
from calling import Calling
from lives import Broken, load, numbers, pids, states, until_ready
from scripts.harness import PATIENCE, run_script, until

from trio_dirty import AppLoadError, Pool, PoolStatistics, WorkerCrashedError, open_pool
from trio_dirty._rules.instruments import HOOKS

# The log


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.INFO, logger="trio_dirty"):
        yield caplog


def lines(logged: pytest.LogCaptureFixture) -> list[str]:
    """Return what has been logged: the level, and the first line of the message."""
    return [
        f"{record.levelname} {record.getMessage().splitlines()[0]}"
        for record in logged.records
        if record.name == "trio_dirty"
    ]


async def test_a_quiet_life_is_told_of(logged: pytest.LogCaptureFixture) -> None:
    async with open_pool([Lasting], workers=1) as pool:
        (first,) = pids(pool)
        await pool.reload()
        (second,) = pids(pool)
        await until(lambda: any("worker 0, retired" in line for line in lines(logged)))
    assert lines(logged) == [
        "INFO slot 0: worker 0 starts (the first)",
        f"INFO slot 0: worker 0, process {first}, is ready",
        "INFO slot 0: worker 1 starts (reload)",
        f"INFO slot 0: worker 1, process {second}, is ready",
        f"INFO slot 0: worker 0, retired (reload): process {first} exited with code 0",
        f"INFO slot 0: worker 1, retired (closing): process {second} exited with code 0",
    ]


async def test_a_crash_is_told_of_with_what_it_was_executing(
    logged: pytest.LogCaptureFixture,
) -> None:
    async with open_pool([Lasting], workers=1) as pool:
        (pid,) = pids(pool)
        with pytest.raises(WorkerCrashedError):
            await pool.run_sync(Lasting.die_by, 11)
        await until_ready(pool, after=0)
    assert (
        "ERROR worker 0 of slot 0 died while executing apps_lives:Lasting.die_by: "
        f"process {pid} was killed by SIGSEGV"
    ) in lines(logged)
    assert "INFO slot 0: worker 1 starts (crashed)" in lines(logged)


async def test_back_off_and_a_failed_slot_are_told_of(
    broken: Broken, logged: pytest.LogCaptureFixture
) -> None:
    async with open_pool([DiesWhileBroken], workers=1) as pool:
        broken.arise()
        with pytest.raises(WorkerCrashedError):
            await pool.run_sync(DiesWhileBroken.die, 3)
        await until(lambda: states(pool) == ["failed"])
    died = r"the worker of slot 0 could not boot: process \d+ exited with code 7 while it was .*"
    told = "\n".join(lines(logged))
    assert re.search(rf"^ERROR slot 0: worker 1, process \d+, has not booted: {died}$", told, re.M)
    assert re.search(r"^WARNING slot 0: the next worker starts in 0.1 seconds$", told, re.M)
    assert re.search(r"^WARNING slot 0: the next worker starts in 1.6 seconds$", told, re.M)
    assert re.search(rf"^ERROR slot 0 has failed, and gets no further worker: {died}$", told, re.M)
    assert told.count("has not booted") == 6


async def test_recycling_is_told_of(broken: Broken, logged: pytest.LogCaptureFixture) -> None:
    async with open_pool([Lasting], workers=1, max_requests=2) as pool:
        (pid,) = pids(pool)
        broken.arise()
        for _ in range(2):
            await pool.run_sync(Lasting.who)
        await until(lambda: pool.statistics().restarts >= 2)
        broken.mend()
        await until_ready(pool, after=0)
        await until(lambda: any("worker 0, retired" in line for line in lines(logged)))
    where = f"slot 0: worker 0, process {pid},"
    told = lines(logged)
    assert f"INFO {where} is to be replaced: it has completed 2 requests, of 2 that it may" in told
    assert (
        f"WARNING {where} is to be replaced, and its successor could not boot: next try in 1 s"
        in told
    )
    assert (
        f"INFO slot 0: worker 0, retired (max_requests): process {pid} exited with code 0" in told
    )


async def test_a_program_that_configures_no_logging_is_told_nothing(tmp_path: Path) -> None:
    done = await run_script("silent.py", str(tmp_path / "broken"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# The statistics


async def test_restarts_are_told_apart_by_their_cause() -> None:
    async with open_pool([Lasting], workers=1, cancel_grace=0) as pool:
        with pytest.raises(WorkerCrashedError):
            await pool.run_sync(Lasting.die, 3)
        await until_ready(pool, after=0)
        with trio.move_on_after(0.1):
            await pool.with_options(on_cancel="kill").run_sync(Lasting.sleep, 600)
        await until_ready(pool, after=1)
        await pool.reload()
        statistics = pool.statistics()
        assert statistics.restarts_by_cause == {"crashed": 1, "killed": 1, "reload": 1}
        assert statistics.restarts == sum(statistics.restarts_by_cause.values())
        assert statistics.workers[0].restarts_by_cause == statistics.restarts_by_cause


async def test_utilisation_is_near_one_for_a_busy_worker_and_zero_for_an_idle_one(
    gate: Gate,
) -> None:
    async with open_pool([Lasting], workers=2) as pool, trio.open_nursery() as nursery:
        assert all(worker.utilisation == 0 for worker in pool.statistics().workers)
        Calling.begin(nursery, pool.run_sync, Lasting.wait, gate, 0)
        await until(lambda: gate.has_come(0))
        # The boot, too, counts for the time of the slot: the longer it lasts, the nearer to 1.
        await until(lambda: max(each.utilisation for each in pool.statistics().workers) > 0.9)
        statistics = pool.statistics()
        idle, busy = sorted(worker.utilisation for worker in statistics.workers)
        assert idle == 0
        assert busy <= 1
        assert statistics.utilisation == pytest.approx((idle + busy) / 2)
        gate.open()


async def test_utilisation_stays_within_one_over_a_reload() -> None:
    async with (
        open_pool([Lasting], workers=1) as pool,
        load(partial(pool.run_sync, Lasting.sleep, 0.01)) as put,
    ):
        await put.more()
        assert 0 < pool.statistics().utilisation <= 1
        await pool.reload()
        await put.more()
        assert 0 < pool.statistics().utilisation <= 1


async def test_durations_are_told_by_app_and_by_slot() -> None:
    async with open_pool([Lasting, "apps_lives:LastingToo"], workers=2) as pool:
        for _ in range(4):
            await pool.execute(Lasting, "sleep", 0.05)
        for _ in range(6):
            await pool.execute(LastingToo, "who")
        await pool.run_sync(len, "plain")
        statistics = pool.statistics()
        lasting, too, plain = statistics.apps
        assert [each.app for each in statistics.apps] == [
            "apps_lives:Lasting",
            "apps_lives:LastingToo",
            None,
        ]
        assert [each.execution.count for each in statistics.apps] == [4, 6, 1]
        assert all(each.slots == (0, 1) for each in statistics.apps)
        assert lasting.execution.p50 >= 0.05 > too.execution.p50
        assert plain.execution.max < 0.05
        assert sum(worker.execution.count for worker in statistics.workers) == 11
        assert statistics.execution.count == 11
        assert statistics.execution.max == lasting.execution.max


async def test_a_failed_slot_says_why(broken: Broken) -> None:
    async with open_pool([Lasting], workers=2) as pool:
        broken.arise()
        with trio.fail_after(PATIENCE), pytest.raises(AppLoadError):
            await pool.reload(overlap=False)
        await until(lambda: states(pool) == ["failed", "ready"])
        failed, ready = pool.statistics().workers
        assert "RuntimeError: broken by broken" in (failed.failure or "")
        assert (failed.pid, ready.failure) == (None, None)
        assert pool.statistics().apps[0].slots == (1,)


class Statistician:
    """Asks for statistics in every hook."""

    def __init__(self) -> None:
        self.pool: Pool | None = None
        self.seen: list[tuple[str, PoolStatistics]] = []

    def ask(self, hook: str, *event: object) -> None:
        if self.pool is not None:
            self.seen.append((hook, self.pool.statistics()))


async def test_statistics_can_be_asked_for_at_every_moment(broken: Broken, gate: Gate) -> None:
    statistician = Statistician()
    for hook in HOOKS:
        setattr(statistician, hook, partial(statistician.ask, hook))
    apps = ["apps_lives:Lasting:1", "apps_lives:DiesWhileBroken:1"]
    async with (
        open_pool(apps, workers=2, instruments=[statistician], max_requests=5) as pool,
        trio.open_nursery() as nursery,
    ):
        statistician.pool = pool
        for _ in range(10):
            await pool.execute(apps[0][:-2], "who")
        with pytest.raises(WorkerCrashedError):
            await pool.execute(apps[1][:-2], "die", 3)
        await pool.execute(apps[1][:-2], "who")
        call = Calling.begin(nursery, pool.execute, apps[0][:-2], "wait", gate, 0)
        await until(lambda: gate.has_come(0))
        await call.cancel()
        gate.open()
        await pool.reload(overlap=False)
        await pool.resize(1)
        await pool.resize(3)
    assert {hook for hook, _ in statistician.seen} == {*HOOKS}
    for hook, statistics in statistician.seen:
        assert all(0 <= worker.utilisation <= 1 for worker in statistics.workers), hook
        assert all(worker.queued >= 0 and worker.running >= 0 for worker in statistics.workers)
        assert statistics.running == sum(worker.running for worker in statistics.workers)
        assert statistics.restarts == sum(statistics.restarts_by_cause.values())
        indices = [worker.slot for worker in statistics.workers]
        assert indices == sorted(set(indices)), hook
    counts = [statistics.completed for _, statistics in statistician.seen]
    assert counts == sorted(counts)


async def test_statistics_take_constant_memory() -> None:
    async with open_pool([Lasting], workers=1) as pool:

        async def serve(count: int) -> None:
            for _ in range(count):
                await pool.run_sync(Lasting.who)
            pool.statistics()

        await serve(3000)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            await serve(6000)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 100_000  # 16 bytes for each of them would be as much
        assert numbers(pool) == [0]
