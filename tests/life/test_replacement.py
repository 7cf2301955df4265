"""Workers that succeed each other in a slot, on simulated workers and trio's clock."""

import math
import re
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from apps import Counter

import trio_dirty
from trio_dirty import (
    AppLoadError,
    NoWorkersAvailableError,
    RequestTimeoutError,
    WorkerCrashedError,
    open_pool,
)
from trio_dirty.testing import Boot, EventLog, Plan, SimEngine, Turn

NAP = 10.0


class Naps(Plan):
    """Naps last, boots take a second; those of some workers fail."""

    def __init__(self, failing=(), memory=0):
        self.failing = failing
        self.memory = memory

    def boot(self, slot, worker):
        return Boot(1.0, error="no such model" if worker in self.failing else None)

    def turn(self, call):
        return Turn(call.args[0] if call.action == "nap" else 0.0, memory=self.memory)


def started(log):
    return [(event.time, *event.values) for event in log.of("worker_started")]


async def settle():
    await trio.testing.wait_all_tasks_blocked()


async def test_an_idle_worker_that_stands_still_is_replaced_and_nothing_is_lost(autojump_clock):
    engine = SimEngine(Naps(), look_seconds=1.0)
    log = EventLog()
    async with (
        open_pool([Counter], workers=1, engine=engine, instruments=[log]) as pool,
        trio.open_nursery() as nursery,
    ):
        engine.stall(0)
        await trio.sleep(1.5)  # so that the question for a sign of life is on its way
        nursery.start_soon(pool.run_sync, Counter.add)
        await trio.sleep(5)
        assert pool.statistics().restarts_by_cause == {"unresponsive": 1}
        assert await pool.run_sync(Counter.add) == 2
    assert {event.values[1] for event in log.of("request_ended")} == {"returned"}
    assert len(log.of("request_begun")) == 2, "it had not begun in the worker that stood still"


async def test_a_stopped_worker_that_goes_on_in_time_is_kept(autojump_clock):
    engine = SimEngine(Naps(), look_seconds=1.0)
    async with open_pool([Counter], workers=1, engine=engine) as pool:
        for _ in range(5):
            engine.stall(0)
            await trio.sleep(2.5)
            engine.resume(0)
            assert await pool.run_sync(Counter.add)
        assert pool.statistics().restarts == 0
        assert await pool.run_sync(Counter.add) == 6


async def test_a_long_request_is_never_taken_for_a_hung_worker(autojump_clock):
    engine = SimEngine(Naps(), look_seconds=1.0)
    async with open_pool([Counter], workers=1, engine=engine) as pool:
        assert await pool.run_sync(Counter.nap, 100_000) == 100_000
        assert pool.statistics().restarts == 0


@pytest.mark.parametrize("limits", [{}, {"soft_timeout": 100}])
async def test_a_worker_that_is_stopped_while_it_executes_is_replaced(autojump_clock, limits):
    engine = SimEngine(Naps(), look_seconds=1.0)
    async with (
        open_pool([Counter], workers=1, engine=engine) as pool,
        trio.open_nursery() as nursery,
    ):

        async def be_stopped():
            await trio.sleep(1)
            nursery.start_soon(pool.run_sync, Counter.add)
            engine.stall(0)

        nursery.start_soon(be_stopped)
        with pytest.raises(WorkerCrashedError, match="it stood still, as if stopped"):
            await pool.with_options(**limits).run_sync(Counter.nap, 3)
        assert trio.current_time() <= 5
        assert await pool.run_sync(Counter.add) == 2
        assert pool.statistics().restarts_by_cause == {"unresponsive": 1}
        assert pool.statistics().failed == 1


async def test_one_that_is_stopped_is_left_to_the_timeout_of_what_it_executes(autojump_clock):
    engine = SimEngine(Naps(), look_seconds=1.0)
    async with open_pool([Counter], workers=1, engine=engine) as pool:
        engine.stall(0)
        with pytest.raises(RequestTimeoutError):
            await pool.with_options(timeout=50).run_sync(Counter.add)
        assert trio.current_time() == pytest.approx(51)


async def test_a_worker_that_takes_over_begins_when_the_old_one_has_begun_its_last(autojump_clock):
    log = EventLog()
    engine = SimEngine(Naps())
    async with (
        open_pool([Counter], workers=1, engine=engine, instruments=[log]) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(4):
            nursery.start_soon(pool.run_sync, Counter.nap, NAP)
            await settle()
        await pool.reload()
        assert pool.statistics().running == 1
        assert pool.statistics().queued == 3
    begun = [(event.time, event.values[2]) for event in log.of("request_begun")]
    # One was sent ahead to the old one. From then on both of them execute.
    assert begun == [(1.0, 0), (11.0, 0), (11.0, 1), (21.0, 1)]


async def test_without_overlap_the_old_worker_goes_first(autojump_clock):
    log = EventLog()
    engine = SimEngine(Naps())
    async with (
        open_pool([Counter], workers=1, engine=engine, instruments=[log]) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pool.run_sync, Counter.nap, NAP)
        await settle()
        nursery.start_soon(partial(pool.reload, overlap=False))
        await settle()
        nursery.start_soon(pool.run_sync, Counter.add)
        await trio.sleep(1)
        assert pool.statistics().queued == 1
    assert started(log) == [(0.0, 0, 0), (11.0, 0, 1)]
    assert [event.values[2] for event in log.of("request_begun")] == [0, 1]


async def test_a_successor_that_cannot_boot_is_tried_again_and_the_old_one_serves(autojump_clock):
    log = EventLog()
    engine = SimEngine(Naps(failing=range(1, 9)))
    async with open_pool(
        [Counter], workers=1, engine=engine, instruments=[log], max_lifetime=100
    ) as pool:
        await trio.sleep(250)
        assert await pool.run_sync(Counter.add) == 1
        assert pool.statistics().workers[0].worker == 0
        assert pool.statistics().workers[0].state == "ready"
        await trio.sleep(300)
    pauses = [
        later - sooner - 1
        for (sooner, *_), (later, *_) in zip(started(log)[1:], started(log)[2:], strict=False)
    ]
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_a_worker_is_recycled_by_its_memory_and_not_below(autojump_clock):
    engine = SimEngine(Naps(memory=1 << 20))
    async with open_pool([Counter], workers=1, engine=engine, max_memory=4 << 20) as pool:
        for _ in range(3):
            await pool.run_sync(Counter.add)
            await trio.sleep(10)
        assert pool.statistics().restarts == 0
        await pool.run_sync(Counter.add)
        await trio.sleep(10)
        assert pool.statistics().restarts_by_cause == {"max_memory": 1}


async def test_a_limit_of_memory_below_the_baseline_is_refused(autojump_clock):
    message = "was 1048576 bytes, and the worker has 1048576"
    with pytest.raises(AppLoadError, match=message) as caught:
        async with open_pool([Counter], workers=1, engine=SimEngine(), max_memory=1 << 20):
            pass
    assert isinstance(caught.value, ValueError)


async def test_jitter_lets_workers_go_one_by_one(autojump_clock):
    async with open_pool(
        [Counter], workers=8, engine=SimEngine(), max_requests=100, max_requests_jitter=1000
    ) as pool:
        seen = set()
        for _ in range(1200):
            for _ in range(8):
                await pool.run_sync(Counter.add)
            seen.add(pool.statistics().restarts)
        assert pool.statistics().restarts >= 8
        assert len(seen) > 4


async def test_a_failed_slot_is_revived_by_a_reload(autojump_clock):
    engine = SimEngine(Naps(failing=range(2, 8)))
    log = EventLog()
    async with open_pool([Counter], workers=2, engine=engine, instruments=[log]) as pool:
        engine.crash(1)
        await trio.sleep(100)
        (_, failed) = pool.statistics().workers
        assert failed.state == "failed"
        assert "no such model" in failed.failure
        assert await pool.run_sync(Counter.add) == 1
        await pool.reload()
        assert [worker.state for worker in pool.statistics().workers] == ["ready", "ready"]
        assert [worker.failure for worker in pool.statistics().workers] == [None, None]
        assert {(await pool.run_sync(Counter.info))[0] for _ in range(4)} == {0, 1}


async def test_what_the_first_worker_declares_decides_who_carries_what(autojump_clock):
    class Slow(Plan):
        def boot(self, slot, worker):
            return Boot(math.inf if slot > 3 else 1.0)

    paths = ["apps:Counter:1", "apps:Recorder", "apps:OtherRecorder:2", "apps_bad:Declares"]
    async with open_pool(paths, workers=4, engine=SimEngine(Slow())) as pool:
        carriers = [app.slots for app in pool.statistics().apps]
        assert [len(slots) for slots in carriers] == [1, 4, 2, 2, 4]
        limited = [
            sum(slot in slots for slots in (*carriers[:1], *carriers[2:4])) for slot in range(4)
        ]
        assert max(limited) - min(limited) <= 1, "spread, and not stacked"


@pytest.mark.parametrize("name", ["DeclaresNothing", "DeclaresText"])
async def test_an_app_that_declares_nonsense_does_not_load(name, autojump_clock):
    with pytest.raises(AppLoadError, match=rf"apps_bad:{name}\.workers must be"):
        async with open_pool([f"apps_bad:{name}"], workers=2, engine=SimEngine()):
            pass


async def test_the_last_carrier_hands_its_app_over_before_it_leaves(autojump_clock):
    log = EventLog()
    engine = SimEngine(Naps())
    apps = ["apps:Recorder:1", "apps:Counter:1", "apps:OtherRecorder:1"]
    async with (
        open_pool(apps, workers=3, engine=engine, instruments=[log]) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(5):
            nursery.start_soon(pool.run_sync, Counter.nap, NAP)
            nursery.start_soon(pool.run_sync, Counter.add)
        await settle()
        await pool.resize(1)
        (worker,) = pool.statistics().workers
        assert sorted(worker.apps) == ["apps:Counter", "apps:OtherRecorder", "apps:Recorder"]
    assert {event.values[1] for event in log.of("request_ended")} == {"returned"}


async def test_leaving_the_block_does_not_wait_for_a_successor_that_boots(autojump_clock):
    class Stuck(Plan):
        def boot(self, slot, worker):
            return Boot(math.inf if worker else 0.0)

    async with trio.open_nursery() as nursery:
        async with open_pool([Counter], workers=1, engine=SimEngine(Stuck())) as pool:

            async def reload():
                with pytest.raises(trio.ClosedResourceError):
                    await pool.reload()

            nursery.start_soon(reload)
            await settle()
        assert trio.current_time() == 0
        with pytest.raises(trio.ClosedResourceError):
            await pool.reload()
        with pytest.raises(trio.ClosedResourceError):
            await pool.resize(2)
    assert trio_dirty.PoolStatistics is type(pool.statistics())


async def test_a_reload_does_not_wait_for_what_a_slot_that_leaves_still_executes(autojump_clock):
    engine = SimEngine(Naps())
    async with (
        open_pool([Counter], workers=2, engine=engine) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(2):
            nursery.start_soon(pool.run_sync, Counter.nap, 100)
        await settle()

        async def shrink():
            await trio.sleep(1.5)  # the new worker of slot 1 boots
            await pool.resize(1)

        nursery.start_soon(shrink)
        await pool.reload()
        assert trio.current_time() == 2.5
        assert [worker.state for worker in pool.statistics().workers] == ["ready", "draining"]


class Idle(trio_dirty.App):
    """An app of which nothing is wanted."""


class Whims(Naps):
    """Boots fail in some slots, as long as it is said so."""

    def __init__(self, seconds=1.0):
        super().__init__()
        self.seconds = {}
        self.default = seconds
        self.broken = set()

    def boot(self, slot, worker):
        seconds = self.seconds.get(slot, self.default)
        return Boot(seconds, error="no such model" if slot in self.broken else None)


COUNTER = f"{Counter.__module__}:{Counter.__qualname__}"
IDLE = f"{Idle.__module__}:{Idle.__qualname__}"


def carriers(pool):
    return {app.app.rpartition(":")[2]: app.slots for app in pool.statistics().apps if app.app}


@pytest.mark.parametrize("way", ["resize", "reload", "both"])
async def test_what_only_a_failed_slot_carried_is_carried_again(autojump_clock, way):
    engine = SimEngine(Naps(failing=range(2, 8)))
    async with open_pool([f"{COUNTER}:1", Idle], workers=2, engine=engine) as pool:
        assert carriers(pool) == {"Counter": (0,), "Idle": (0, 1)}
        engine.crash(0)
        await trio.sleep(60)
        assert pool.statistics().workers[0].state == "failed"
        assert carriers(pool) == {"Counter": (), "Idle": (1,)}
        with pytest.raises(NoWorkersAvailableError):
            await pool.run_sync(Counter.add)
        if way != "reload":
            await pool.resize(3)
            assert carriers(pool) == {"Counter": (2,), "Idle": (1, 2)}
            assert await pool.run_sync(Counter.add) == 1
        if way != "resize":
            await pool.reload()
            carrier = 0 if way == "reload" else 2
            others = (0, 1) if way == "reload" else (0, 1, 2)
            assert carriers(pool) == {"Counter": (carrier,), "Idle": others}
            assert await pool.run_sync(Counter.add) == 1


async def test_an_app_is_not_lost_where_no_new_slot_can_carry_it_either(autojump_clock):
    engine = SimEngine(Naps(failing=range(1, 8)))
    async with open_pool([f"{COUNTER}:1"], workers=1, engine=engine) as pool:
        engine.crash(0)
        await trio.sleep(60)
        assert pool.statistics().workers[0].state == "failed"
        with pytest.raises(AppLoadError):
            await pool.resize(2)
        await pool.reload()
        assert await pool.run_sync(Counter.add) == 1


async def test_a_slot_that_leaves_in_the_moment_in_which_its_worker_has_booted(autojump_clock):
    async with open_pool([Counter], workers=1, engine=SimEngine(Naps())) as pool:
        for _ in range(30):  # trio draws whose turn it is first
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pool.resize, 2)
                await trio.sleep(1)  # as long as a boot
                await pool.resize(1)
            for _ in range(2):
                await pool.run_sync(Counter.add)
            assert len(pool.statistics().workers) == 1
        assert await pool.run_sync(Counter.add) == 61


async def test_a_smaller_number_does_not_wait_for_boots_that_it_makes_needless(autojump_clock):
    async with (
        open_pool([Counter], workers=1, engine=SimEngine(Naps())) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pool.resize, 2)
        await trio.sleep(0.5)
        await pool.resize(1)
        assert trio.current_time() == 1.5


@pytest.mark.parametrize("leave", ["at once", "after a resize"])
async def test_a_pool_that_is_left_opens_no_slot(autojump_clock, leave):
    log = EventLog()
    with trio.move_on_after(100):
        async with open_pool(
            [Counter], workers=2, engine=SimEngine(Naps()), instruments=[log]
        ) as pool:
            if leave == "after a resize":
                await trio.sleep(1)
                with trio.move_on_after(0):
                    await pool.resize(3)
    count = 2 if leave == "at once" else 3
    assert len(log.of("worker_started")) <= len(log.of("slot_opened")) <= count
    assert len(log.of("slot_closed")) == len(log.of("slot_opened"))
    assert {worker.state for worker in pool.statistics().workers} <= {"draining"}


@pytest.mark.parametrize("overlap", [True, False])
async def test_a_worker_that_is_stopped_when_it_is_to_close_is_killed(autojump_clock, overlap):
    engine = SimEngine(Naps(), look_seconds=1.0)
    async with open_pool([Counter], workers=1, engine=engine, grace_period=None) as pool:
        engine.stall(0)
        await pool.reload(overlap=overlap)
        assert await pool.run_sync(Counter.add) == 1
        await trio.sleep(5)
        assert len(pool._slots.all[0].workers) == 1
        assert trio.current_time() < 20


async def test_failed_slots_come_back_with_an_app_each(autojump_clock):
    plan = Whims()
    engine = SimEngine(plan)
    async with open_pool([f"{COUNTER}:1", f"{IDLE}:1"], workers=2, engine=engine) as pool:
        assert carriers(pool) == {"Counter": (0,), "Idle": (1,)}
        plan.broken = {0, 1}
        for slot in (0, 1):
            engine.crash(slot)
        await trio.sleep(60)
        assert carriers(pool) == {"Counter": (), "Idle": ()}
        plan.broken = {1}
        with pytest.raises(AppLoadError):
            await pool.reload()
        assert carriers(pool) == {"Counter": (0,), "Idle": ()}
        plan.broken = set()
        await pool.reload()
        assert carriers(pool) == {"Counter": (0,), "Idle": (1,)}


async def test_a_reload_gives_an_app_without_carrier_to_somebody(autojump_clock):
    plan = Whims(0.0)
    engine = SimEngine(plan)

    async def grow():
        with pytest.raises(AppLoadError):
            await pool.resize(3)

    async with open_pool([f"{COUNTER}:1", Idle], workers=2, engine=engine) as pool:
        plan.broken = {0, 2}
        plan.seconds = {2: 10.0}
        engine.crash(0)
        await trio.sleep(60)
        plan.broken = {2}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(grow)
            await trio.sleep(1)
            nursery.start_soon(pool.reload)  # slot 0 comes back, and slot 2 is to carry the app
            await trio.sleep(1)
            assert carriers(pool)["Counter"] == (2,)
            plan.broken = {0, 1, 2}  # nor can anybody else
        assert carriers(pool)["Counter"] == ()
        plan.broken = set()
        await pool.reload()
        assert len(carriers(pool)["Counter"]) == 1
        assert await pool.run_sync(Counter.add) == 1


async def test_a_slot_of_an_earlier_number_that_cannot_boot_is_an_error_of_the_later_one(
    autojump_clock,
):
    plan = Whims(0.0)

    async def grow(count):
        with pytest.raises(AppLoadError):
            await pool.resize(count)

    async with open_pool([Counter], workers=2, engine=SimEngine(plan)) as pool:
        plan.broken = {2, 3}
        plan.seconds = {2: 10.0, 3: 10.0}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(grow, 4)
            await trio.sleep(1)
            nursery.start_soon(grow, 3)
        assert trio.current_time() == 10
        await pool.resize(2)


async def test_a_slot_that_boots_while_another_app_moves_is_kept(autojump_clock):
    plan = Whims(0.0)
    engine = SimEngine(plan)
    async with open_pool([f"{COUNTER}:1", Idle], workers=2, engine=engine) as pool:
        plan.broken = {0, 2}
        engine.crash(0)
        await trio.sleep(60)
        plan.broken = {2}
        plan.seconds = {1: 10.0, 2: 5.0, 3: 7.0}

        async def fail(change, *args):
            with pytest.raises(AppLoadError):
                await change(*args)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, pool.resize, 4)
            await trio.sleep(1)
            plan.seconds[1] = 0.0
            nursery.start_soon(fail, pool.reload)
            await trio.sleep(1)
            plan.seconds.update({0: 10.0, 1: 10.0})
        await settle()
        states = {worker.slot: worker.state for worker in pool.statistics().workers}
        assert states == {0: "ready", 1: "ready", 3: "ready"}
        assert len(carriers(pool)["Counter"]) == 1


@pytest.mark.parametrize("held", [True, False])
async def test_a_held_stream_leaves_no_stopped_worker_to_its_timeout(autojump_clock, held):
    engine = SimEngine(Naps(), look_seconds=1.0)
    async with (
        open_pool([Counter], workers=1, threads=2, engine=engine) as pool,
        trio.open_nursery() as nursery,
    ):

        async def hold():
            async with pool.with_options(timeout=1000).stream(Counter.numbers, 10**9) as chunks:
                async for _ in chunks:
                    await trio.sleep(10)
                    break

        if held:
            nursery.start_soon(hold)
            await trio.sleep(1)

        async def be_stopped():
            await trio.sleep(1)
            engine.stall(0)

        nursery.start_soon(be_stopped)
        with pytest.raises(WorkerCrashedError):
            await pool.run_sync(Counter.nap, 100_000)
        assert trio.current_time() < 10


# The wait for a turn to start


class TakesTurns(SimEngine):
    """Lets so many workers start as it is told to."""

    def __init__(self, plan=None, turns=0):
        super().__init__(plan)
        self.turns = trio.Semaphore(turns)

    @asynccontextmanager
    async def start(self, blueprint):
        await self.turns.acquire()
        async with super().start(blueprint) as worker:
            yield worker


async def test_boot_timeout_does_not_count_the_wait_for_a_turn_to_start(autojump_clock):
    engine = TakesTurns(Naps())

    async def give_turns():
        for _ in range(6):
            await trio.sleep(100)
            engine.turns.release()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_turns)
        async with open_pool([Counter], workers=3, boot_timeout=2, engine=engine) as pool:
            assert trio.current_time() == 301
            await pool.reload()
            assert trio.current_time() == 601


async def test_a_worker_that_waits_for_its_turn_holds_up_nobody_who_leaves(autojump_clock):
    engine, log = TakesTurns(Naps(), turns=2), EventLog()
    async with open_pool([Counter], workers=1, engine=engine, instruments=[log]) as pool:
        assert started(log) == [(0, 0, 0)]
        await pool.resize(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.resize, 4)
            await settle()
            await pool.resize(1)
            nursery.start_soon(pool.resize, 3)
            await settle()
            nursery.cancel_scope.cancel()
        engine.crash(0)
        await settle()
        assert [worker.state for worker in pool.statistics().workers].count("booting") >= 1
    assert trio.current_time() < 10
    assert len(started(log)) == len(log.of("worker_exited")) == 2


# The end of those that do not end


@pytest.mark.parametrize("attempt", range(20))
async def test_a_worker_that_does_not_close_is_told_of_once_when_the_pool_is_left(
    attempt, autojump_clock, caplog
):
    engine = SimEngine(Naps())
    async with open_pool([Counter], workers=3, grace_period=5, engine=engine):
        engine.stall(0)
        engine.stall(2)
    assert trio.current_time() == 6
    assert {record.levelname for record in caplog.records} == {"ERROR"}
    told = sorted(record.getMessage() for record in caplog.records)
    assert len(told) == 2
    for text, slot in zip(told, (0, 2), strict=True):
        end = "did not close within grace_period, and is killed"
        assert re.fullmatch(rf"slot {slot}: worker \d, process \d+, {end}", text)
