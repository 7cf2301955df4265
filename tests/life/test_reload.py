"""Workers that are replaced by fresh ones, with processes, while the pool serves."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from apps_bad import BootsOnce
from apps_lives import DiesWhileBroken, Gate, Lasting
from calling import Calling
from lives import PROMPT, Broken, load, numbers, pids, states
from scripts.harness import PATIENCE, children, gone, run_script, until

from trio_dirty import (
    AppLoadError,
    Instrument,
    NoWorkersAvailableError,
    Pool,
    WorkerCrashedError,
    open_pool,
)


async def reloaded(pool: Pool, *, overlap: bool = True) -> None:
    """Reload, and see that each worker is another one."""
    before = numbers(pool)
    with trio.fail_after(PATIENCE):
        await pool.reload(overlap=overlap)
    assert states(pool) == ["ready"] * len(before)
    assert min(numbers(pool)) > max(before)


class Capacity(Instrument):
    """Notes how many slots have a worker that takes requests, whenever that changes.

    Attributes:
        seen: the numbers since it was last emptied.
    """

    def __init__(self) -> None:
        self.taking: dict[int, int] = {}
        self.seen: set[int] = set()

    def worker_ready(self, slot: int, worker: int, pid: int | None) -> None:
        self.taking[slot] = worker
        self.seen.add(len(self.taking))

    def worker_retired(self, slot: int, worker: int, cause: str) -> None:
        self._lost(slot, worker)

    def worker_exited(self, slot: int, worker: int, pid: int | None, exitcode: object) -> None:
        self._lost(slot, worker)

    def _lost(self, slot: int, worker: int) -> None:
        if self.taking.get(slot) == worker:
            del self.taking[slot]
            self.seen.add(len(self.taking))


async def test_the_new_workers_execute_the_new_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    done = await run_script("reloading.py", str(tmp_path), "5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["1", "2", "3", "4", "5", "5"]


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("workers", [1, 3])
async def test_no_request_fails_under_load(workers: int, overlap: bool) -> None:
    before = children()
    async with open_pool([Lasting], workers=workers) as pool:
        old = pids(pool)
        async with load(partial(pool.run_sync, Lasting.who)) as put:
            await put.more()
            await reloaded(pool, overlap=overlap)
            await put.more()
        await until(lambda: all(gone(pid or 0) for pid in old))
        statistics = pool.statistics()
        assert (statistics.completed, statistics.failed) == (len(put.results), 0)
        assert statistics.restarts_by_cause == {"reload": workers}
    assert children() == before


@pytest.mark.parametrize(("overlap", "least"), [(True, 3), (False, 2)])
async def test_how_many_serve_meanwhile(overlap: bool, least: int) -> None:
    capacity = Capacity()
    state: set[int] = set()
    async with open_pool([Lasting], workers=3, instruments=[capacity]) as pool:

        async def watch() -> None:
            while True:
                state.add(states(pool).count("ready"))
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            capacity.seen.clear()
            await reloaded(pool, overlap=overlap)
            nursery.cancel_scope.cancel()
        assert min(state) == least
        # A worker is retired, and its successor ready, in one go.
        assert min(capacity.seen) == 2


# Code that does not boot


async def test_a_worker_that_does_not_boot_is_an_error_and_the_old_ones_stay(
    broken: Broken,
) -> None:
    async with open_pool([Lasting], workers=2) as pool:
        old = pids(pool)
        async with load(partial(pool.run_sync, Lasting.who)) as put:
            broken.arise()
            with (
                trio.fail_after(PATIENCE),
                pytest.raises(AppLoadError, match="RuntimeError: broken by broken") as caught,
            ):
                await pool.reload()
            await put.more()
        assert "Traceback (most recent call last)" in str(caught.value)
        assert (pids(pool), states(pool)) == (old, ["ready", "ready"])
        assert pool.statistics().failed == 0
        broken.mend()
        await reloaded(pool)


async def test_an_init_that_works_only_once_is_an_error_and_the_old_worker_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAD_LOG", str(tmp_path / "once"))
    async with open_pool([BootsOnce], workers=1) as pool:
        old = pids(pool)
        with trio.fail_after(PATIENCE), pytest.raises(AppLoadError, match="FileExistsError"):
            await pool.reload()
        assert await pool.run_sync(BootsOnce.pid) == old[0]


async def test_without_overlap_a_slot_whose_worker_does_not_boot_tries_again(
    broken: Broken,
) -> None:
    async with open_pool([Lasting], workers=2) as pool:
        broken.arise()
        with trio.fail_after(PATIENCE), pytest.raises(AppLoadError):
            await pool.reload(overlap=False)
        broken.mend()
        await until(lambda: states(pool) == ["ready", "ready"])
        assert pool.statistics().restarts_by_cause["boot_failed"] >= 1


async def test_a_failed_slot_is_revived(broken: Broken) -> None:
    async with open_pool([DiesWhileBroken], workers=1) as pool:
        broken.arise()
        with pytest.raises(WorkerCrashedError):
            await pool.run_sync(DiesWhileBroken.die, 3)
        await until(lambda: states(pool) == ["failed"])
        (worker,) = pool.statistics().workers
        assert worker.failure is not None
        assert "exited with code 7 while it was loading its apps" in worker.failure
        with pytest.raises(NoWorkersAvailableError, match="exited with code 7"):
            await pool.run_sync(DiesWhileBroken.who)
        with trio.fail_after(PATIENCE), pytest.raises(AppLoadError, match="exited with code 7"):
            await pool.reload()
        assert states(pool) == ["failed"]
        broken.mend()
        await reloaded(pool)
        assert pool.statistics().workers[0].failure is None
        assert await pool.run_sync(DiesWhileBroken.who) == numbers(pool)[0]


# Several at a time, and the end


async def test_a_second_reload_begins_when_the_first_has_ended() -> None:
    async with open_pool([Lasting], workers=2) as pool:
        async with load(partial(pool.run_sync, Lasting.who)), trio.open_nursery() as nursery:
            reloads = [Calling.begin(nursery, pool.reload) for _ in range(2)]
            for reload in reloads:
                assert (await reload.ended()).error is None
        statistics = pool.statistics()
        assert statistics.restarts_by_cause == {"reload": 4}
        assert statistics.failed == 0


async def test_a_reload_whose_caller_leaves_replaces_the_slot_whose_turn_it_is() -> None:
    async with open_pool([Lasting], workers=2) as pool, trio.open_nursery() as nursery:
        old = numbers(pool)
        reload = Calling.begin(nursery, pool.reload)
        await until(lambda: pool.statistics().restarts == 1)
        await reload.cancel()
        await until(lambda: numbers(pool)[0] > max(old))
        await reloaded(pool)
        assert pool.statistics().restarts == 3


async def test_closing_during_a_reload_is_prompt() -> None:
    before = children()
    async with trio.open_nursery() as outside:
        async with open_pool([Lasting], workers=2) as pool:
            reload = Calling.begin(outside, pool.reload)
            await until(lambda: pool.statistics().restarts == 1)
            left = trio.current_time()
        assert trio.current_time() - left < PROMPT
        assert isinstance((await reload.ended()).error, trio.ClosedResourceError)
    assert children() == before


# What goes on meanwhile


@pytest.mark.parametrize("overlap", [True, False])
async def test_keys_keep_their_slots_and_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlap: bool
) -> None:
    path = tmp_path / "log"
    monkeypatch.setenv("BAD_LOG", str(path))
    accepted: dict[str, list[int]] = defaultdict(list)
    workers: dict[str, set[int]] = defaultdict(set)
    served_by: dict[int, int] = {}
    count = iter(range(1_000_000))

    async def call(pool: Pool, key: str) -> None:
        accepted[key].append(number := next(count))
        worker = await pool.with_options(key=key).run_sync(Lasting.note, key, number)
        workers[key].add(worker)
        served_by[number] = worker

    async with open_pool([Lasting], workers=3) as pool:
        old = numbers(pool)
        keys = [f"key{i}" for i in range(6)]
        async with load(*(partial(call, pool, key) for key in keys)) as put:
            await put.more(200)
            await reloaded(pool, overlap=overlap)
            await put.more(200)
        successions = [{*pair} for pair in zip(old, numbers(pool), strict=True)]
        assert all(served in successions for served in workers.values())
    begun: dict[str, list[int]] = defaultdict(list)
    last: dict[int, int] = {}
    for line in path.read_text().splitlines():
        key, number = line.split()
        begun[key].append(int(number))
        last[served_by[int(number)]] = int(number)
    # The last that an old worker takes up may write this down while the new one has begun.
    for of_key in *begun.values(), *accepted.values():
        of_key[:] = [number for number in of_key if last[served_by[number]] != number]
    assert begun == accepted


async def test_a_stream_in_progress_is_ended_by_the_old_worker(gate: Gate) -> None:
    async with open_pool([Lasting], workers=1) as pool, trio.open_nursery() as nursery:

        async def read() -> list[int]:
            async with pool.stream(Lasting.count, gate, 0) as chunks:
                return [chunk async for chunk in chunks]

        old = pids(pool)
        stream = Calling.begin(nursery, read)
        await until(lambda: gate.has_come(0))
        await reloaded(pool)
        assert not gone(old[0] or 0)
        assert not stream.has_ended
        gate.open()
        assert (await stream.ended()).value == [0] * 10
        await until(lambda: gone(old[0] or 0))
        assert await pool.run_sync(Lasting.who) == numbers(pool)[0]


async def test_only_the_two_words_of_truth_are_taken() -> None:
    async with open_pool([], workers=1) as pool:
        with pytest.raises(TypeError, match=r"^overlap must be True or False, was 1$"):
            await pool.reload(overlap=1)  # type: ignore[arg-type]
