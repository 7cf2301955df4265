"""The simulation as its users know it: trio_dirty.testing in the tests of a program."""

import math
from contextlib import suppress

import pytest
import trio
import trio.testing
from apps import Counter, record
from hypothesis import given, settings, strategies as st

import trio_dirty
from trio_dirty import AppLoadError, RemoteError, WorkerCrashedError, open_pool
from trio_dirty.testing import Boot, Call, EventLog, Plan, RandomPlan, SimEngine, Turn


class Rude(trio_dirty.App):
    """Raises what is not meant to be caught."""

    def raise_it(self, kind):
        raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "base": BaseException}[kind](3)

    def close(self):
        raise SystemExit("from close")


class RudeAtBoot(trio_dirty.App):
    def init(self):
        raise KeyboardInterrupt("from init")


class Hours(Plan):
    """Every action takes an hour."""

    def turn(self, call):
        return Turn(3600.0)


async def test_hours_of_work_take_no_time(autojump_clock):
    async with open_pool([Counter], workers=2, engine=SimEngine(Hours())) as pool:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(pool.run_sync, Counter.add)
        assert trio.current_time() - began == 5 * 3600
        assert pool.statistics().execution.p50 == 3600


async def test_it_runs_on_the_real_clock_too():
    async with open_pool([Counter], workers=2, engine=SimEngine()) as pool:
        assert [await pool.run_sync(Counter.add) for _ in range(4)] == [1, 1, 2, 2]


async def test_a_plan_sees_the_call(autojump_clock):
    calls = []

    class Seeing(Plan):
        def turn(self, call):
            calls.append(call)
            return Turn()

    async with open_pool([Counter], workers=1, engine=SimEngine(Seeing())) as pool:
        await pool.run_sync(Counter.add, amount=2)
        await pool.run_sync(record, 5, 0)
    assert calls == [
        Call(slot=0, worker=0, app=0, action="add", args=(), kwargs={"amount": 2}),
        Call(slot=0, worker=0, app=None, action="record", args=(5, 0), kwargs={}),
    ]


async def test_a_crash_by_hand(autojump_clock):
    engine = SimEngine(Hours())
    async with (
        open_pool([Counter], workers=1, engine=engine) as pool,
        trio.open_nursery() as nursery,
    ):

        async def call():
            with pytest.raises(WorkerCrashedError, match="was killed by SIGSEGV"):
                await pool.run_sync(Counter.add)

        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        assert engine.crash(0, exitcode=-11) is True


async def test_a_stall_by_hand_lasts_until_it_is_ended(autojump_clock):
    engine = SimEngine(Hours())
    async with open_pool([Counter], workers=1, engine=engine) as pool:
        assert engine.stall(0) is True
        assert engine.stall(0) is True, "twice is once"
        with trio.move_on_after(1e6) as scope:
            await pool.run_sync(Counter.add)
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()  # until it is withdrawn
        assert engine.resume(0) is True
        assert engine.resume(0) is False, "it goes on already"
        assert await pool.run_sync(Counter.add) == 1


async def test_a_planned_stall_is_no_execution_time(autojump_clock):
    class Stopped(Plan):
        def turn(self, call):
            return Turn(1.0, stall=10.0)

    async with open_pool([Counter], workers=1, engine=SimEngine(Stopped())) as pool:
        began = trio.current_time()
        await pool.run_sync(Counter.add)
        assert trio.current_time() - began == 11
        assert pool.statistics().execution.p50 == 1


async def test_operations_on_slots_that_are_gone_do_nothing(autojump_clock):
    engine = SimEngine()
    assert not engine.crash(0)
    async with open_pool([Counter], workers=1, engine=engine) as pool:
        assert not engine.crash(7)
        assert not engine.stall(-1)
        assert not engine.resume(1)
        assert await pool.run_sync(Counter.add) == 1
    assert not engine.stall(0)


@pytest.mark.parametrize(
    ("boot", "message"),
    [
        (Boot(error="no such model"), "no such model"),
        (Boot(exitcode=7), "exited with code 7 while it was loading its apps"),
        (Boot(seconds=math.inf), "did not boot within boot_timeout=60"),
    ],
)
async def test_boots_that_fail(boot, message, autojump_clock):
    class Failing(Plan):
        def boot(self, slot, worker):
            return boot

    with pytest.raises(AppLoadError, match=message):
        async with open_pool([Counter], workers=2, engine=SimEngine(Failing())):
            pass


@pytest.mark.parametrize("kind", ["exit", "interrupt", "base"])
async def test_an_app_that_raises_a_base_exception_does_not_end_the_test(kind, autojump_clock):
    async with open_pool([Rude], workers=1, engine=SimEngine()) as pool:
        with pytest.raises(RemoteError):
            await pool.run_sync(Rude.raise_it, kind)
        assert pool.statistics().restarts == 0


async def test_a_boot_that_raises_a_base_exception_does_not_end_the_test(autojump_clock):
    with pytest.raises(AppLoadError, match="KeyboardInterrupt: from init"):
        async with open_pool([RudeAtBoot], workers=1, engine=SimEngine()):
            pass


FAULTS = {
    "seconds": (0.0, 3.0),
    "crash": 0.1,
    "stall": 0.1,
    "boot_seconds": (0.0, 2.0),
    "boot_failure": 0.3,
    "first_workers": 2,
}


def run_planned(seed, plan_seed=None):
    """A program that uses a pool, under a plan; return what happened."""
    log = EventLog()

    async def call(pool, number):
        await trio.sleep(number % 7)
        # All different: those that expire in the same moment trio takes by their address.
        with trio.move_on_after(20 + number / 1024):
            with suppress(trio_dirty.DirtyError):
                await pool.run_sync(Counter.add, number)

    async def main():
        plan = RandomPlan(seed if plan_seed is None else plan_seed, **FAULTS)
        async with (
            open_pool([Counter], workers=2, engine=SimEngine(plan), instruments=[log]) as pool,
            trio.open_nursery() as nursery,
        ):
            for number in range(40):
                nursery.start_soon(call, pool, number)

    trio._core._run._r.seed(seed)  # as Hypothesis and pytest-trio do it
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return [*map(str, log.events)]


@given(st.integers(0, 1 << 30))
@settings(max_examples=30, deadline=None)
def test_the_same_seed_gives_the_same_run(seed):
    assert run_planned(seed) == run_planned(seed)


def test_another_seed_gives_another_run():
    assert run_planned(1, plan_seed=1) != run_planned(1, plan_seed=2)


def test_a_random_plan_reaches_every_fault():
    events = " ".join(event for seed in range(30) for event in run_planned(seed))
    for outcome in ("returned", "crashed", "withdrawn"):
        assert f"'{outcome}'" in events
    assert "at random, with seed" in " ".join(
        str(RandomPlan(seed, **FAULTS).boot(0, 5).error) for seed in range(30)
    )


def test_a_random_plan_depends_on_nothing_but_its_seed():
    call = Call(0, 3, 0, "add", (), {})
    one, other = RandomPlan(5, **FAULTS), RandomPlan(5, **FAULTS)
    other.turn(Call(1, 4, 0, "add", (), {}))  # of another worker
    assert [one.turn(call) for _ in range(9)] == [other.turn(call) for _ in range(9)]
    assert one.boot(0, 9) == other.boot(1, 9)
    assert RandomPlan(5, boot_failure=1.0, first_workers=3).boot(0, 2).exitcode is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crash": 1.5}, "crash must be from 0 to 1, was 1.5"),
        ({"stall": -0.1}, "stall must be from 0 to 1, was -0.1"),
        ({"boot_failure": math.nan}, "boot_failure must be from 0 to 1, was nan"),
        (
            {"seconds": (2, 1)},
            "seconds must be (shortest, longest), at least 0 and finite, was (2, 1)",
        ),
        (
            {"boot_seconds": (0, math.inf)},
            "boot_seconds must be (shortest, longest), at least 0 and finite, was (0, inf)",
        ),
    ],
)
def test_plans_that_cannot_be(options, message):
    with pytest.raises(ValueError, match="must be") as caught:
        RandomPlan(1, **options)
    assert str(caught.value) == message


def test_names_show_their_public_place():
    assert repr(SimEngine).startswith("<class 'trio_dirty.testing.SimEngine'")
    assert EventLog.__module__ == "trio_dirty.testing"
    assert trio_dirty.Instrument.__module__ == "trio_dirty"
