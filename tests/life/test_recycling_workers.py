"""Workers that are replaced because they are worn, with processes."""

from __future__ import annotations

import re
from functools import partial

import pytest
import trio
import trio.testing
from apps_lives import BootsHeld, Gate, Lasting
from calling import Calling
from lives import Broken, load, numbers, pids, states, until_ready
from scripts.harness import PATIENCE, children, gone, until

from trio_dirty import AppLoadError, Instrument, Pool, open_pool

MEGABYTE = 1 << 20


class Lives(Instrument):
    """Counts what each worker completes, and notes what each was retired for."""

    def __init__(self) -> None:
        self.worker_of: dict[int, int] = {}
        self.completed: dict[int, int] = {}
        self.causes: dict[int, str] = {}

    def request_begun(self, request: int, slot: int, worker: int) -> None:
        self.worker_of[request] = worker

    def request_ended(self, request: int, outcome: str) -> None:
        assert outcome == "returned"
        worker = self.worker_of[request]
        self.completed[worker] = self.completed.get(worker, 0) + 1

    def worker_retired(self, slot: int, worker: int, cause: str) -> None:
        self.causes[worker] = cause

    def of(self, cause: str) -> list[int]:
        """Return the workers that were retired for a cause."""
        return [worker for worker, each in self.causes.items() if each == cause]


@pytest.mark.parametrize("jitter", [0, 5])
async def test_a_worker_is_replaced_after_so_many_requests(jitter: int) -> None:
    before = children()
    lives = Lives()
    options = {"max_requests": 10, "max_requests_jitter": jitter}
    async with open_pool([Lasting], workers=2, instruments=[lives], **options) as pool:  # type: ignore[arg-type]
        async with load(partial(pool.run_sync, Lasting.who)) as put:
            await until(lambda: len(lives.of("max_requests")) >= 4)
            await put.more()
        statistics = pool.statistics()
        assert (statistics.completed, statistics.failed) == (len(put.results), 0)
        assert set(statistics.restarts_by_cause) == {"max_requests"}
        assert statistics.restarts >= 4
    for worker in lives.of("max_requests"):
        assert lives.completed[worker] >= 10
    assert set(put.results) <= set(lives.completed)
    assert children() == before


async def test_the_fresh_worker_has_a_fresh_instance() -> None:
    async with open_pool([Lasting], workers=1, max_requests=3) as pool:
        assert {await pool.run_sync(Lasting.hoard_memory, 1) for _ in range(3)} == {0}
        await until_ready(pool, after=0)
        assert await pool.run_sync(hoarded) == 0
        old = pids(pool)
        assert pool.statistics().restarts_by_cause == {"max_requests": 1}
        for _ in range(2):
            await pool.run_sync(Lasting.who)
        await until(lambda: gone(old[0] or 0))


def hoarded() -> int:
    """Return how much the app of the worker that executes this hoards."""
    import gc

    return sum(len(app.hoard) for app in gc.get_objects() if isinstance(app, Lasting))


async def resident(pool: Pool) -> int:
    import psutil

    (pid,) = pids(pool)
    assert pid is not None
    return int(psutil.Process(pid).memory_info().rss)


async def test_a_worker_is_replaced_when_it_has_too_much_memory() -> None:
    async with open_pool([Lasting], workers=1) as pool:
        limit = await resident(pool) + 48 * MEGABYTE
    async with open_pool([Lasting], workers=1, max_memory=limit) as pool:
        for _ in range(20):
            assert await pool.run_sync(Lasting.who) == 0
        assert await pool.run_sync(Lasting.hoard_memory, 64 * MEGABYTE) == 0
        async with load(partial(pool.run_sync, Lasting.who)) as put:
            await until_ready(pool, after=0)
            await put.more()
        assert await resident(pool) < limit
        statistics = pool.statistics()
        assert (statistics.restarts_by_cause, statistics.failed) == ({"max_memory": 1}, 0)


async def test_a_limit_below_what_a_worker_has_at_once_is_refused() -> None:
    before = children()
    with trio.fail_after(PATIENCE), pytest.raises(AppLoadError) as caught:
        async with open_pool([Lasting], workers=2, max_memory=MEGABYTE):
            pytest.fail("the pool has opened")
    assert isinstance(caught.value, ValueError)
    found = re.fullmatch(
        r"slot [01]: worker [01], process \d+, cannot be used: max_memory must be more than what "
        r"a worker has after init\(\), was 1048576 bytes, and the worker has (\d+)",
        str(caught.value),
    )
    assert found is not None
    assert int(found[1]) > MEGABYTE
    assert children() == before


async def test_a_worker_is_replaced_when_it_is_old() -> None:
    async with open_pool([Lasting], workers=1, max_lifetime=0.5) as pool:
        old = pids(pool)
        async with load(partial(pool.run_sync, Lasting.who)):
            await until_ready(pool, after=1)
        await until(lambda: gone(old[0] or 0))
        statistics = pool.statistics()
        assert set(statistics.restarts_by_cause) == {"max_lifetime"}
        assert statistics.failed == 0


async def test_an_old_worker_ends_what_it_executes() -> None:
    async with open_pool([Lasting], workers=1, max_lifetime=0.5) as pool:
        with trio.fail_after(PATIENCE):
            assert await pool.run_sync(Lasting.sleep, 1.5) == 0
        assert numbers(pool)[0] >= 1


async def test_a_worn_worker_serves_until_its_successor_boots(broken: Broken) -> None:
    async with open_pool([Lasting], workers=1, max_requests=3) as pool:
        old = pids(pool)
        broken.arise()
        async with load(partial(pool.run_sync, Lasting.who)) as put:
            await until(lambda: pool.statistics().restarts >= 2)  # it is tried again
            await put.more()
            assert (pids(pool), states(pool), numbers(pool)) == (old, ["ready"], [0])
            assert set(put.results) == {0}
            broken.mend()
            await until(lambda: numbers(pool)[0] > 0)
            await put.more()
        statistics = pool.statistics()
        assert (statistics.completed, statistics.failed) == (len(put.results), 0)
        assert set(statistics.restarts_by_cause) == {"max_requests"}


async def test_a_worker_that_has_been_succeeded_already_is_not_replaced_again(gate: Gate) -> None:
    async with (
        open_pool([Lasting], workers=1, max_requests=1) as pool,
        trio.open_nursery() as nursery,
    ):
        old = pids(pool)
        call = Calling.begin(nursery, pool.run_sync, Lasting.wait, gate, 0)
        await until(lambda: gate.has_come(0))
        await pool.reload()
        gate.open()
        assert (await call.ended()).value == 0
        await until(lambda: gone(old[0] or 0))
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert pool.statistics().restarts_by_cause == {"reload": 1}
        assert (numbers(pool), states(pool)) == ([1], ["ready"])


async def test_a_worker_that_is_worn_while_its_successor_boots_gets_no_second_one(
    broken: Broken,
) -> None:
    async with (
        open_pool([BootsHeld], workers=1, max_requests=2) as pool,
        trio.open_nursery() as nursery,
    ):
        broken.arise()
        reload = Calling.begin(nursery, pool.reload)
        await until(lambda: pool.statistics().restarts == 1)
        for _ in range(3):
            assert await pool.run_sync(BootsHeld.who) == 0
        await trio.testing.wait_all_tasks_blocked()
        broken.mend()
        assert (await reload.ended()).error is None
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert pool.statistics().restarts_by_cause == {"reload": 1}
        assert (numbers(pool), states(pool)) == ([1], ["ready"])
