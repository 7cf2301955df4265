"""Slots that come and go, with processes: no request fails of it, and each caller is told."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from apps_bad import Bad
from apps_lives import Gate, Lasting, LastingToo
from calling import Calling
from lives import PROMPT, Broken, load, numbers, pids, states
from scripts.harness import PATIENCE, children, gone, until

from trio_dirty import AppLoadError, Pool, open_pool


async def resized(pool: Pool, n: int) -> None:
    """Resize, in the time that takes at most; nothing is left of what has gone."""
    with trio.fail_after(PATIENCE):
        await pool.resize(n)
    assert states(pool) == ["ready"] * n


# More


async def test_a_slot_that_is_opened_takes_its_share_of_what_waits(gate: Gate) -> None:
    async with open_pool([Lasting], workers=1) as pool, trio.open_nursery() as nursery:
        held = Calling.begin(nursery, pool.run_sync, Lasting.wait, gate, 0)
        await until(lambda: gate.has_come(0))
        waiting = [Calling.begin(nursery, pool.run_sync, Lasting.who) for _ in range(20)]
        await trio.testing.wait_all_tasks_blocked()
        assert pool.statistics().queued == 20
        await resized(pool, 2)
        # The old worker is held: what is served now is served by the new one. Of those that
        # have not been sent to the old one it gets every second.
        await until(lambda: sum(each.has_ended for each in waiting) >= 5)
        assert not held.has_ended
        assert {each.value for each in waiting if each.has_ended} == {1}
        gate.open()
        for each in waiting:
            assert (await each.ended()).error is None
        assert (await held.ended()).value == 0


async def test_a_slot_that_is_opened_takes_its_turn() -> None:
    async with open_pool([Lasting], workers=1) as pool:
        await resized(pool, 3)
        assert {await pool.run_sync(Lasting.who) for _ in range(6)} == {0, 1, 2}
        assert pool.statistics().restarts == 0


# Less


async def test_slots_that_leave_serve_what_they_have_and_are_told_of_until_then(
    gate: Gate,
) -> None:
    before = children()
    async with open_pool([Lasting], workers=3) as pool, trio.open_nursery() as nursery:
        workers = pids(pool)
        held = [Calling.begin(nursery, pool.run_sync, Lasting.wait, gate, i) for i in range(3)]
        await until(lambda: gate.has_come(0, 1, 2))
        waiting = [Calling.begin(nursery, pool.run_sync, Lasting.who) for _ in range(9)]
        await trio.testing.wait_all_tasks_blocked()
        resize = Calling.begin(nursery, pool.resize, 1)
        await until(lambda: states(pool) == ["ready", "draining", "draining"])
        assert pids(pool) == workers
        assert pool.statistics().running == 3
        await trio.testing.wait_all_tasks_blocked()
        assert not resize.has_ended
        gate.open()
        assert (await resize.ended()).error is None
        assert states(pool) == ["ready"]
        for each in [*held, *waiting]:
            assert (await each.ended()).error is None
        assert {each.value for each in held} == {0, 1, 2}
        statistics = pool.statistics()
        assert (statistics.completed, statistics.failed, statistics.queued) == (12, 0, 0)
        assert gone(workers[1] or 0)
        assert gone(workers[2] or 0)
    assert children() == before


async def test_to_one_and_back_under_load() -> None:
    async with open_pool([Lasting], workers=3) as pool:
        async with load(partial(pool.run_sync, Lasting.who)) as put:
            for n in (1, 3, 1, 2):
                await resized(pool, n)
                await put.more()
        statistics = pool.statistics()
        assert statistics.completed == len(put.results)
        assert (statistics.failed, statistics.restarts) == (0, 0)
        assert len(set(numbers(pool))) == 2


async def test_the_totals_survive_the_slots() -> None:
    async with open_pool([Lasting], workers=3) as pool:
        for _ in range(30):
            await pool.run_sync(Lasting.who)
        await resized(pool, 1)
        statistics = pool.statistics()
        assert statistics.completed == 30
        assert statistics.waiting.count == statistics.execution.count == 30
        assert statistics.apps[0].execution.count == 30
        assert statistics.workers[0].completed < 30


async def test_the_last_carrier_of_an_app_leaves_when_another_carries_it() -> None:
    apps = ["apps_lives:Lasting:1", "apps_lives:LastingToo:1"]
    async with open_pool(apps, workers=2) as pool:
        assert [worker.apps for worker in pool.statistics().workers] == [
            ("apps_lives:Lasting",),
            ("apps_lives:LastingToo",),
        ]
        async with load(
            partial(pool.execute, "apps_lives:Lasting", "who"),
            partial(pool.execute, "apps_lives:LastingToo", "who"),
        ) as put:
            await put.more()
            await resized(pool, 1)
            await put.more()
        (worker,) = pool.statistics().workers
        assert worker.apps == ("apps_lives:Lasting", "apps_lives:LastingToo")
        assert worker.restarts_by_cause == {"resize": 1}
        assert pool.statistics().failed == 0


async def test_a_limited_app_gets_its_carriers_again() -> None:
    async with open_pool([Bad, "apps_lives:Lasting:2"], workers=1) as pool:
        await resized(pool, 3)
        carriers = [worker for worker in pool.statistics().workers if len(worker.apps) == 2]
        assert len(carriers) == 2


# Several at a time


async def test_of_several_resizes_the_last_ones_number_holds_and_all_return() -> None:
    async with open_pool([Lasting], workers=2) as pool:
        async with load(partial(pool.run_sync, Lasting.who)) as put:
            async with trio.open_nursery() as nursery:
                resizes = []
                for n in (4, 1, 5, 3):
                    resizes.append(Calling.begin(nursery, pool.resize, n))
                    await put.more(2)
                for resize in resizes:
                    assert (await resize.ended()).error is None
            assert states(pool) == ["ready"] * 3
        assert pool.statistics().failed == 0


async def test_a_resize_whose_caller_leaves_is_done_all_the_same(gate: Gate) -> None:
    async with open_pool([Lasting], workers=1) as pool, trio.open_nursery() as nursery:
        resize = Calling.begin(nursery, pool.resize, 2)
        await until(lambda: states(pool) == ["ready", "booting"])
        await resize.cancel()
        await until(lambda: states(pool) == ["ready", "ready"])
        held = [Calling.begin(nursery, pool.run_sync, Lasting.wait, gate, i) for i in range(2)]
        await until(lambda: gate.has_come(0, 1))
        resize = Calling.begin(nursery, pool.resize, 1)
        await until(lambda: states(pool) == ["ready", "draining"])
        await resize.cancel()
        gate.open()
        await until(lambda: states(pool) == ["ready"])
        for each in held:
            assert (await each.ended()).error is None


async def test_a_resize_and_a_reload_at_a_time() -> None:
    async with open_pool([Lasting], workers=3) as pool:
        async with load(partial(pool.run_sync, Lasting.who)), trio.open_nursery() as nursery:
            reload = Calling.begin(nursery, pool.reload)
            for n in (1, 3):
                await resized(pool, n)
            assert (await reload.ended()).error is None
        assert pool.statistics().failed == 0


# What a resize cannot do


async def test_a_slot_that_cannot_boot_is_an_error_and_the_pool_serves_on(broken: Broken) -> None:
    before = children()
    async with open_pool([Lasting], workers=2) as pool:
        workers = pids(pool)
        broken.arise()
        async with load(partial(pool.run_sync, Lasting.who)) as put:
            with (
                trio.fail_after(PATIENCE),
                pytest.raises(AppLoadError, match="RuntimeError: broken by broken") as caught,
            ):
                await pool.resize(3)
            await put.more()
        assert "Traceback (most recent call last)" in str(caught.value)
        await until(lambda: states(pool) == ["ready", "ready"])
        assert pids(pool) == workers
        assert pool.statistics().failed == 0
        await resized(pool, 2)
        broken.mend()
        await resized(pool, 3)
    assert children() == before


async def test_several_slots_that_cannot_boot_leave_nothing_of_them(broken: Broken) -> None:
    async with open_pool([Lasting], workers=1) as pool:
        broken.arise()
        for _ in range(3):
            with trio.fail_after(PATIENCE), pytest.raises(AppLoadError):
                await pool.resize(4)
            await resized(pool, 1)


async def test_a_number_wanted_later_does_not_fail_with_the_one_before(broken: Broken) -> None:
    async with open_pool([Lasting], workers=2) as pool, trio.open_nursery() as nursery:
        broken.arise()
        more = Calling.begin(nursery, pool.resize, 3)
        await until(lambda: "booting" in states(pool))
        await resized(pool, 1)
        assert (await more.ended()).error is None


async def test_a_survivor_that_cannot_boot_with_another_app_is_an_error(broken: Broken) -> None:
    apps = ["apps_bad:Bad:1", "apps_lives:Lasting:1"]
    async with open_pool(apps, workers=2) as pool:
        workers = numbers(pool)
        broken.arise()
        with trio.fail_after(PATIENCE), pytest.raises(AppLoadError, match="broken by broken"):
            await pool.resize(1)
        assert states(pool) == ["ready", "ready"]
        assert await pool.execute("apps_bad:Bad", "echo", 1) == 1
        assert await pool.execute("apps_lives:Lasting", "who") == workers[1]


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (0, ValueError, "n must be at least 1, was 0"),
        (-1, ValueError, "n must be at least 1, was -1"),
        (1.5, TypeError, "n must be a whole number of at least 1, was 1.5"),
        (True, TypeError, "n must be a whole number of at least 1, was True"),
        ("2", TypeError, "n must be a whole number of at least 1, was '2'"),
        (None, TypeError, "n must be a whole number of at least 1, was None"),
    ],
)
async def test_a_number_out_of_its_range_is_refused_and_changes_nothing(
    n: Any, error: type[Exception], message: str, one: Pool
) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        await one.resize(n)
    assert states(one) == ["ready"]


@pytest.fixture
async def one() -> Any:
    async with open_pool([], workers=1) as pool:
        yield pool


async def test_a_closed_pool_is_not_resized(gate: Gate) -> None:
    async with trio.open_nursery() as outside:
        async with open_pool([Lasting], workers=2) as pool:
            held = [Calling.begin(outside, pool.run_sync, Lasting.wait, gate, i) for i in (0, 1)]
            await until(lambda: gate.has_come(0, 1))
            resize = Calling.begin(outside, pool.resize, 1)
            await until(lambda: states(pool) == ["ready", "draining"])
            outside.start_soon(open_when, gate, resize)
        error = (await resize.ended()).error
        assert isinstance(error, trio.ClosedResourceError)
        for each in held:
            assert (await each.ended()).error is None
    with pytest.raises(trio.ClosedResourceError, match=r"^this pool is closed$"):
        await pool.resize(2)
    with pytest.raises(trio.ClosedResourceError, match=r"^this pool is closed$"):
        await pool.reload()


async def open_when(gate: Gate, calling: Calling) -> None:
    """Open a gate when a call has ended."""
    await calling.ended()
    gate.open()


async def test_closing_during_a_resize_that_boots_is_prompt() -> None:
    before = children()
    async with trio.open_nursery() as outside:
        async with open_pool([Lasting], workers=1) as pool:
            resize = Calling.begin(outside, pool.resize, 3)
            await until(lambda: states(pool) == ["ready", "booting", "booting"])
            left = trio.current_time()
        assert trio.current_time() - left < PROMPT
        assert isinstance((await resize.ended()).error, trio.ClosedResourceError)
    assert children() == before


# What else goes on meanwhile


async def test_keys_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    monkeypatch.setenv("BAD_LOG", str(path))
    accepted: dict[str, list[int]] = defaultdict(list)
    count = iter(range(1_000_000))

    async def call(pool: Pool, key: str) -> None:
        accepted[key].append(number := next(count))
        await pool.with_options(key=key).run_sync(Lasting.note, key, number)

    async with open_pool([Lasting], workers=2) as pool:
        keys = [f"key{i}" for i in range(6)]
        async with load(*(partial(call, pool, key) for key in keys)) as put:
            for n in (4, 1, 3, 2):
                await resized(pool, n)
                await put.more()
        assert pool.statistics().failed == 0
    begun: dict[str, list[int]] = defaultdict(list)
    for line in path.read_text().splitlines():
        key, number = line.split()
        begun[key].append(int(number))
    assert begun == accepted


async def test_a_broadcast_is_executed_by_slots_that_leave_while_it_is(gate: Gate) -> None:
    async with open_pool([Lasting], workers=2) as pool, trio.open_nursery() as nursery:
        workers = numbers(pool)
        broadcast = Calling.begin(nursery, pool.broadcast, Lasting.wait_for_each, gate)
        await until(lambda: gate.has_come("slot 0", "slot 1"))
        resize = Calling.begin(nursery, pool.resize, 1)
        await until(lambda: states(pool) == ["ready", "draining"])
        gate.open()
        assert (await broadcast.ended()).value == workers
        assert (await resize.ended()).error is None


async def test_a_broadcast_does_without_slots_that_leave_before_they_begin(gate: Gate) -> None:
    other = gate.another()
    async with open_pool([Lasting], workers=2) as pool, trio.open_nursery() as nursery:
        workers = numbers(pool)
        for number in range(2):
            Calling.begin(nursery, pool.run_sync, Lasting.wait, gate, number)
        await until(lambda: gate.has_come(0, 1))
        for _ in range(20):  # so that the broadcast is not sent ahead
            Calling.begin(nursery, pool.run_sync, Lasting.who)
        await trio.testing.wait_all_tasks_blocked()
        other.open()
        broadcast = Calling.begin(nursery, pool.broadcast, Lasting.wait_for_each, other)
        await trio.testing.wait_all_tasks_blocked()
        resize = Calling.begin(nursery, pool.resize, 1)
        await until(lambda: states(pool) == ["ready", "draining"])
        gate.open()
        assert (await broadcast.ended()).error is None
        assert broadcast.value in (workers[:1], workers)
        assert (await resize.ended()).error is None


async def test_streams_of_slots_that_leave_end_properly(gate: Gate) -> None:
    async with open_pool([Lasting], workers=2) as pool, trio.open_nursery() as nursery:

        async def read(tag: int) -> list[int]:
            async with pool.stream(Lasting.count, gate, tag) as chunks:
                return [chunk async for chunk in chunks]

        streams = [Calling.begin(nursery, read, tag) for tag in range(2)]
        await until(lambda: gate.has_come(0, 1))
        resize = Calling.begin(nursery, pool.resize, 1)
        await until(lambda: states(pool) == ["ready", "draining"])
        await trio.testing.wait_all_tasks_blocked()
        assert not resize.has_ended
        gate.open()
        read_all = [(await stream.ended()).value for stream in streams]
        assert sorted(read_all) == [[0] * 10, [1] * 10]
        assert (await resize.ended()).error is None


async def test_slots_that_have_failed_leave_first(broken: Broken) -> None:
    async with open_pool([LastingToo], workers=2) as pool:
        broken.arise()
        with trio.fail_after(PATIENCE), pytest.raises(AppLoadError):
            await pool.reload(overlap=False)
        await until(lambda: states(pool)[0] in ("backing_off", "failed"))
        await until(lambda: states(pool) == ["failed", "ready"])
        await resized(pool, 1)
        assert [worker.slot for worker in pool.statistics().workers] == [1]
        broken.mend()
        await resized(pool, 2)
