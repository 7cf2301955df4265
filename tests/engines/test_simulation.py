"""The simulation as its users know it: trio_dirty.testing in the tests of a program."""

import heapq
import math
import signal
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing
from apps import Counter, record
from apps_bad import Bad, DoesNotUnpickle
from hypothesis import given, settings, strategies as st

import trio_dirty
from trio_dirty import (
    AppLoadError,
    DirtyError,
    RemoteError,
    RequestTimeoutError,
    WorkerCrashedError,
    open_pool,
)
from trio_dirty.testing import Boot, Call, EventLog, Plan, RandomPlan, SimEngine, Turn


class Rude(trio_dirty.App):
    """Raises what is not meant to be caught."""

    def ctrl_c(self):
        signal.raise_signal(signal.SIGINT)

    def raise_it(self, kind):
        raise {"exit": SystemExit, "interrupt": KeyboardInterrupt, "base": BaseException}[kind](3)

    def close(self):
        raise SystemExit("from close")


class RudeAtBoot(trio_dirty.App):
    def init(self):
        raise KeyboardInterrupt("from init")


CLOSED = []
"""The slots in whose workers `Closes` has closed."""


class Closes(trio_dirty.App):
    def nap(self):
        pass

    def close(self):
        CLOSED.append(trio_dirty.worker_info().slot)


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

    task = partial(record, 6, 0)
    async with open_pool([Counter], workers=1, engine=SimEngine(Seeing())) as pool:
        await pool.run_sync(Counter.add, amount=2)
        await pool.run_sync(record, 5, 0)
        await pool.run_sync(task)
    partial_call = calls.pop()
    assert (partial_call.app, partial_call.action) == (None, "call")
    (called,) = partial_call.args
    assert (called.func, called.args) == (record, (6, 0))
    assert calls == [
        Call(slot=0, worker=0, app=0, action="add", args=(), kwargs={"amount": 2}),
        Call(slot=0, worker=0, app=None, action="record", args=(5, 0), kwargs={}),
    ]


async def test_a_plan_and_an_action_do_not_see_what_the_other_does_to_arguments(autojump_clock):
    calls = []

    class Changing(Plan):
        def turn(self, call):
            calls.append(call.args[0])
            call.args[0].append("by the plan")
            return Turn()

    async with open_pool([], workers=1, engine=SimEngine(Changing())) as pool:
        await pool.run_sync(heapq.heapify, [2, 1])  # in place
        assert await pool.run_sync(heapq.heappop, [1]) == 1
    assert calls == [[2, 1, "by the plan"], [1, "by the plan"]]


async def test_a_plan_is_not_asked_about_arguments_that_do_not_unpickle(autojump_clock):
    async with open_pool([Counter], workers=1, engine=SimEngine(Hours())) as pool:
        with pytest.raises(ValueError, match="exploded while it was unpickled"):
            await pool.run_sync(Counter.echo, DoesNotUnpickle())
        assert trio.current_time() == 0
        assert await pool.run_sync(Counter.add) == 1
        assert pool.statistics().restarts == 0


class Wrong(Plan):
    """Has a method of its own, which is not as it should be."""

    def __init__(self, method, function):
        vars(self)[method] = function


NEGATIVE = "seconds must be 0 or more, was -1"
RETURN_A_TURN = "must return a Turn, such as `return Turn(seconds=1.0)`, was"
RETURN_A_BOOT = "must return a Boot, such as `return Boot(seconds=1.0)`, was"


@pytest.mark.parametrize(
    ("method", "function", "message", "cause"),
    [
        ("turn", lambda call: None, f"{RETURN_A_TURN} None", None),
        ("turn", lambda call: 1.5, f"{RETURN_A_TURN} 1.5", None),
        ("turn", lambda call: Turn(-1), f"raised {ValueError(NEGATIVE)!r}", ValueError),
        ("turn", lambda call: {}[call.action], "raised KeyError('add')", KeyError),
        ("boot", lambda slot, worker: None, f"{RETURN_A_BOOT} None", None),
        ("boot", lambda slot, worker: {}[slot], "raised KeyError(0)", KeyError),
    ],
)
async def test_a_plan_that_fails_ends_the_block_with_one_clear_error(
    method, function, message, cause, autojump_clock
):
    async def use():
        plan = Wrong(method, function)
        async with open_pool([Counter], workers=1, engine=SimEngine(plan)) as pool:
            await pool.run_sync(Counter.add)

    with pytest.raises(DirtyError) as caught:
        await use()
    doing = {"turn": "add() in worker 0 of slot 0", "boot": "worker 0 of slot 0"}[method]
    assert type(caught.value) is DirtyError
    assert str(caught.value) == f"the plan failed for {doing}: Wrong.{method}() {message}"
    assert type(caught.value.__cause__) is (cause or type(None))


async def test_a_plan_that_fails_for_two_workers_is_one_error_too(autojump_clock):
    plan = Wrong("boot", lambda slot, worker: None)
    with pytest.raises(DirtyError, match=r"^the plan failed for worker [01] of slot [01]: "):
        async with open_pool([], workers=2, engine=SimEngine(plan)):
            pass


@pytest.mark.parametrize("plan", [Hours, 17])
def test_what_is_no_plan_is_refused(plan):
    with pytest.raises(TypeError) as caught:
        SimEngine(plan)
    assert str(caught.value) == (f"plan must be a Plan, such as RandomPlan(seed=1), was {plan!r}")


@pytest.mark.parametrize(
    ("kind", "times", "message"),
    [
        (Turn, {"seconds": -1}, NEGATIVE),
        (Turn, {"stall": math.nan}, "stall must be 0 or more, was nan"),
        (Boot, {"seconds": -0.5}, "seconds must be 0 or more, was -0.5"),
    ],
)
def test_times_that_cannot_be(kind, times, message):
    with pytest.raises(ValueError, match="must be") as caught:
        kind(**times)
    assert str(caught.value) == message


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


async def test_a_stalled_worker_does_not_close_and_is_killed_in_the_end(autojump_clock):
    engine = SimEngine()
    CLOSED.clear()
    async with open_pool([Closes], workers=2, grace_period=10, engine=engine):
        assert engine.stall(1)
        left = trio.current_time()
    assert trio.current_time() - left == 10
    assert CLOSED == [0]


async def test_a_stalled_worker_that_goes_on_closes(autojump_clock):
    engine = SimEngine()
    CLOSED.clear()
    async with trio.open_nursery() as nursery:
        async with open_pool([Closes], workers=1, grace_period=10, engine=engine):
            assert engine.stall(0)

            async def resume_later():
                await trio.sleep(4)
                assert engine.resume(0)

            nursery.start_soon(resume_later)
        assert trio.current_time() == 4
    assert CLOSED == [0]


class SlowBoot(Plan):
    def boot(self, slot, worker):
        return Boot(5.0)


@pytest.mark.parametrize(("stop", "go_on", "ready"), [(1, 20, 20), (1, 3, 5)])
async def test_a_worker_stalled_in_its_boot_is_not_ready_until_it_goes_on(
    stop, go_on, ready, autojump_clock
):
    engine = SimEngine(SlowBoot())

    async def stall():
        await trio.sleep(stop)
        assert engine.stall(0)
        await trio.sleep(go_on - stop)
        assert engine.resume(0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stall)
        async with open_pool([Counter], workers=1, engine=engine) as pool:
            assert trio.current_time() == ready
            assert await pool.run_sync(Counter.add) == 1


async def test_a_boot_that_is_stalled_for_ever_takes_boot_timeout(autojump_clock):
    class Stalling(SlowBoot):
        def boot(self, slot, worker):
            assert engine.stall(slot)
            return super().boot(slot, worker)

    engine = SimEngine(Stalling())
    with pytest.raises(AppLoadError, match="did not boot within boot_timeout=60"):
        async with open_pool([Counter], workers=1, engine=engine):
            pass
    assert trio.current_time() == 60


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


async def test_operations_on_the_dead_do_nothing(autojump_clock):
    engine = SimEngine()
    async with open_pool([Counter], workers=1, engine=engine) as pool:
        pid = pool.statistics().workers[0].pid
        assert engine.stall(0)
        assert engine.crash(0, exitcode=-11)
        assert pool.statistics().workers[0].pid == pid, "the pool has not heard of it yet"
        assert not engine.crash(0)
        assert not engine.stall(0)
        assert not engine.resume(0)
        await trio.testing.wait_all_tasks_blocked()  # else the dead one may be sent the request
        assert await pool.run_sync(Counter.add) == 1
        assert pool.statistics().restarts == 1


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


async def test_ctrl_c_in_an_action_ends_that_action_only(autojump_clock):
    async with open_pool([Rude], workers=1, engine=SimEngine()) as pool:
        with pytest.raises(RemoteError, match="KeyboardInterrupt"):
            await pool.run_sync(Rude.ctrl_c)


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


def run_planned(seed, plan):
    """A program that uses a pool, under a plan; return what happened."""
    log = EventLog()

    async def call(pool, number):
        await trio.sleep(number % 7)
        # All different: those that expire in the same moment trio takes by their address.
        with trio.move_on_after(20 + number / 1024):
            with suppress(trio_dirty.DirtyError):
                await pool.run_sync(Counter.add, number)

    async def main():
        async with (
            open_pool([Counter], workers=2, engine=SimEngine(plan), instruments=[log]) as pool,
            trio.open_nursery() as nursery,
        ):
            for number in range(40):
                nursery.start_soon(call, pool, number)

    trio._core._run._r.seed(seed)  # as Hypothesis and pytest-trio do it
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return log


def texts(log):
    return [*map(str, log.events)]


@given(st.integers(0, 1 << 30))
@settings(max_examples=30, deadline=None)
def test_the_same_seed_gives_the_same_run(seed):
    one, other = RandomPlan(seed, **FAULTS), RandomPlan(seed, **FAULTS)
    assert texts(run_planned(seed, one)) == texts(run_planned(seed, other))


def test_a_plan_says_the_same_to_one_pool_after_the_other():
    plan = RandomPlan(5, **FAULTS)
    assert texts(run_planned(5, plan)) == texts(run_planned(5, plan))


def test_another_seed_gives_another_run():
    one, other = RandomPlan(1, **FAULTS), RandomPlan(2, **FAULTS)
    assert texts(run_planned(1, one)) != texts(run_planned(1, other))


def test_a_random_plan_reaches_every_fault():
    outcomes, executions = set(), []
    for seed in range(30):
        begun = {}
        for event in run_planned(seed, RandomPlan(seed, **FAULTS)).events:
            if event.hook == "request_begun":
                begun[event.values[0]] = event.time
            elif event.hook == "request_ended":
                number, outcome = event.values
                outcomes.add(outcome)
                if outcome == "returned":
                    executions.append(event.time - begun[number])
    assert outcomes == {"returned", "crashed", "withdrawn"}
    stalled = [seconds for seconds in executions if seconds > FAULTS["seconds"][1]]
    assert 0.01 < len(stalled) / len(executions) < 0.1, "a stop of some seconds shows"
    assert max(stalled) <= 3 + 10 + 1e-6
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


@pytest.mark.parametrize(
    "error", [SystemExit(3), ValueError("mine"), ExceptionGroup("", [ValueError()])]
)
async def test_whoever_has_been_accepted_is_served_when_an_error_leaves_the_block(
    error, autojump_clock
):
    """Also where that ends the program: sys.exit() is an orderly end."""
    CLOSED.clear()
    results = []

    async def call(pool):
        results.append(await pool.run_sync(Closes.nap))

    with pytest.RaisesGroup(type(error)):
        async with (
            trio.open_nursery() as nursery,
            open_pool([Closes], workers=2, engine=SimEngine(Hours()), grace_period=None) as pool,
        ):
            for _ in range(6):
                nursery.start_soon(call, pool)
            await trio.testing.wait_all_tasks_blocked()
            raise error
    assert results == [None] * 6
    assert sorted(CLOSED) == [0, 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit()])
async def test_workers_are_killed_at_once_when_the_program_is_interrupted(error, autojump_clock):
    CLOSED.clear()
    outcomes = []

    async def call(pool):
        with pytest.raises(trio.ClosedResourceError):
            await pool.run_sync(Closes.nap)
        outcomes.append("closed")

    with pytest.RaisesGroup(type(error)):
        async with (
            trio.open_nursery() as nursery,
            open_pool([Closes], workers=2, engine=SimEngine(Hours()), grace_period=None) as pool,
        ):
            for _ in range(6):
                nursery.start_soon(call, pool)
            await trio.testing.wait_all_tasks_blocked()
            raise error
    assert outcomes == ["closed"] * 6
    assert CLOSED == []


def test_large_values_cross_to_simulated_workers_and_back() -> None:
    async def main() -> None:
        value = ["a" * 300_000, bytes(300_000), 1 << 8 * 600_000]
        async with open_pool([Bad], workers=1, engine=SimEngine()) as pool:
            assert await pool.run_sync(Bad.echo, value) == value
            assert await pool.execute(Bad, "echo", value[0]) == value[0]
            with pytest.raises(ValueError) as caught:  # noqa: PT011
                await pool.run_sync(Bad.raise_made, ValueError, *value)
            assert caught.value.args == tuple(value)

    trio.run(main)


class Lasting(Plan):
    def turn(self, call):
        return Turn(10.0)


async def test_what_is_interrupted_was_executed_for_as_long_as_it_lasted(autojump_clock):
    async with open_pool(
        [Counter], workers=1, soft_timeout=1.5, engine=SimEngine(Lasting())
    ) as pool:
        with pytest.raises(RequestTimeoutError):
            await pool.run_sync(Counter.add)
        async with pool.stream(Counter.numbers, 2) as numbers:
            with pytest.raises(RequestTimeoutError):
                await numbers.receive()
        assert pool.statistics().execution.max == 1.5
