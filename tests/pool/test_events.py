"""What the instruments of a pool are told, in which order, and what becomes of one that raises."""

import logging
import math
from functools import partial

import pytest
import trio
import trio.testing
from apps import Counter, FailsToBoot, record

from trio_dirty import (
    AppLoadError,
    Instrument,
    NoWorkersAvailableError,
    WorkerCrashedError,
    open_pool,
)
from trio_dirty._rules.instruments import HOOKS
from trio_dirty.testing import Boot, EventLog, Plan, SimEngine, Turn

COUNTER = "apps:Counter"


def told(log, *hooks):
    return [(event.hook, *event.values) for event in log.of(*hooks or HOOKS)]


async def test_the_life_of_a_request_that_returns(autojump_clock):
    log = EventLog()
    async with open_pool([Counter], workers=1, engine=SimEngine(), instruments=[log]) as pool:
        assert await pool.run_sync(Counter.add) == 1
        with pytest.raises(LookupError):
            await pool.run_sync(Counter.fail, "no")
        assert await pool.run_sync(record, 7, 0) == 7
    pid = log.of("worker_ready")[0].values[2]
    assert told(log) == [
        ("slot_opened", 0, (COUNTER,)),
        ("worker_started", 0, 0),
        ("worker_ready", 0, 0, pid),
        ("request_accepted", 0, COUNTER, "add"),
        ("request_given", 0, 0),
        ("request_begun", 0, 0, 0),
        ("request_ended", 0, "returned"),
        ("request_accepted", 1, COUNTER, "fail"),
        ("request_given", 1, 0),
        ("request_begun", 1, 0, 0),
        ("request_ended", 1, "raised"),
        ("request_accepted", 2, None, "record"),
        ("request_given", 2, 0),
        ("request_begun", 2, 0, 0),
        ("request_ended", 2, "returned"),
        ("worker_retired", 0, 0, "closing"),
        ("worker_exited", 0, 0, pid, 0),
        ("slot_closed", 0, None),
    ]


async def test_the_events_of_processes_are_those_of_simulated_workers():
    logs = [EventLog(), EventLog()]
    for log, engine in zip(logs, (None, SimEngine()), strict=True):
        async with open_pool([Counter], workers=1, engine=engine, instruments=[log]) as pool:
            await pool.run_sync(Counter.add)
            pid = pool.statistics().workers[0].pid
        assert told(log, "worker_ready", "worker_exited") == [
            ("worker_ready", 0, 0, pid),
            ("worker_exited", 0, 0, pid, 0),
        ]
    real, simulated = [[event.hook for event in log.events] for log in logs]
    assert real == simulated


class DiesOfIt(Plan):
    def turn(self, call):
        return Turn(1.0, exitcode=-11 if call.action == "nap" else None)


async def test_the_end_of_a_request_whose_worker_dies(autojump_clock):
    log = EventLog()
    async with (
        open_pool([Counter], workers=1, engine=SimEngine(DiesOfIt()), instruments=[log]) as pool,
        trio.open_nursery() as nursery,
    ):

        async def die():
            with pytest.raises(WorkerCrashedError):
                await pool.run_sync(Counter.nap, 0)

        nursery.start_soon(die)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(pool.run_sync, Counter.add)
    first, second = (event.values[2] for event in log.of("worker_ready"))
    assert told(log)[3:] == [
        ("request_accepted", 0, COUNTER, "nap"),
        ("request_given", 0, 0),
        ("request_begun", 0, 0, 0),
        ("request_accepted", 1, COUNTER, "add"),
        ("request_given", 1, 0),
        ("worker_exited", 0, 0, first, -11),
        ("request_ended", 0, "crashed"),
        ("worker_started", 0, 1),
        ("worker_ready", 0, 1, second),
        ("request_given", 1, 0),
        ("request_begun", 1, 0, 1),
        ("request_ended", 1, "returned"),
        ("worker_retired", 0, 1, "closing"),
        ("worker_exited", 0, 1, second, 0),
        ("slot_closed", 0, None),
    ]


async def test_a_cancelled_request_is_told_of_as_cancelled_and_then_as_ended(autojump_clock):
    class Slow(Plan):
        def turn(self, call):
            return Turn(10.0)

    log = EventLog()
    async with (
        open_pool([Counter], workers=1, engine=SimEngine(Slow()), instruments=[log]) as pool,
        trio.open_nursery() as nursery,
    ):
        for number in range(4):  # one executing, one ahead, two in the queue
            nursery.start_soon(pool.run_sync, Counter.add)
            await trio.testing.wait_all_tasks_blocked()
            assert log.events[-1].values[0] == number
        nursery.cancel_scope.cancel()
    of_each = {
        n: [e[0::2] for e in told(log) if e[0].startswith("request_") and e[1] == n][2:]
        for n in range(4)
    }
    assert of_each == {
        0: [("request_begun", 0), ("request_cancelled",), ("request_ended", "returned")],
        1: [("request_cancelled",), ("request_begun", 0), ("request_ended", "withdrawn")],
        2: [("request_cancelled",), ("request_ended", "withdrawn")],
        3: [("request_cancelled",), ("request_ended", "withdrawn")],
    }


async def test_requests_that_wait_for_a_slot_are_told_of(autojump_clock):
    class Mortal(Plan):
        def boot(self, slot, worker):
            return Boot(1.0, exitcode=None if worker == 0 else 7)

    log = EventLog()
    engine = SimEngine(Mortal())
    async with open_pool([Counter], workers=1, engine=engine, instruments=[log]) as pool:
        engine.crash(0)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.1):
            await pool.run_sync(Counter.add)
        for _ in range(2):  # the first waits until the slot has failed
            with pytest.raises(NoWorkersAvailableError):
                await pool.run_sync(Counter.add)
    assert [e for e in told(log) if e[0].startswith("request_")] == [
        ("request_accepted", 0, COUNTER, "add"),
        ("request_cancelled", 0),
        ("request_ended", 0, "withdrawn"),
        ("request_accepted", 1, COUNTER, "add"),
        ("request_ended", 1, "unavailable"),
        ("request_accepted", 2, COUNTER, "add"),
        ("request_ended", 2, "unavailable"),
    ]
    (closed,) = log.of("slot_closed")
    assert "exited with code 7 while it was loading its apps" in str(closed.values[1])


async def test_what_the_closing_leaves_unserved_is_told_of(autojump_clock):
    log = EventLog()
    engine = SimEngine()
    async with (
        trio.open_nursery() as outside,
        open_pool([Counter], workers=1, engine=engine, instruments=[log], grace_period=5) as pool,
    ):
        engine.stall(0)

        async def call():
            with pytest.raises(trio.ClosedResourceError):
                await pool.run_sync(Counter.add)

        outside.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
    assert told(log)[-3:] == [
        ("worker_exited", 0, 0, log.of("worker_ready")[0].values[2], None),
        ("slot_closed", 0, None),
        ("request_ended", 0, "closed"),
    ]


async def test_a_boot_that_fails_is_told_of(autojump_clock):
    log = EventLog()
    with pytest.raises(AppLoadError):
        async with open_pool([FailsToBoot], workers=1, engine=SimEngine(), instruments=[log]):
            pass
    assert [event.hook for event in log.events] == [
        "slot_opened",
        "worker_started",
        "worker_exited",
        "slot_closed",
    ]
    assert "no such model" in str(log.events[-1].values[1])


async def test_acceptance_is_told_in_the_task_of_the_caller():
    tasks = []

    class WhoCalls(Instrument):
        def request_accepted(self, request, app, action):
            tasks.append(trio.lowlevel.current_task())

    async with open_pool([], workers=1, engine=SimEngine(), instruments=[WhoCalls()]) as pool:
        await pool.run_sync(record, 1, 0)
    assert tasks == [trio.lowlevel.current_task()]


async def test_several_instruments_are_told_in_their_order():
    order = []

    class Named(Instrument):
        def __init__(self, name):
            self.name = name

        def request_begun(self, request, slot, worker):
            order.append(self.name)

    both = [Named("first"), Named("second")]
    async with open_pool([], workers=1, engine=SimEngine(), instruments=both) as pool:
        await pool.run_sync(record, 1, 0)
    assert order == ["first", "second"]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("hook", HOOKS)
async def test_an_instrument_that_raises_is_dropped_and_nothing_else_comes_of_it(
    hook, error, caplog
):
    calls = []

    def fail(*event):
        calls.append(event)
        raise error

    class Bad(Instrument):
        def __repr__(self):
            return "<Bad>"

    bad, log = Bad(), EventLog()
    setattr(bad, hook, fail)
    with caplog.at_level(logging.ERROR, "trio_dirty"):
        async with open_pool(
            [COUNTER], workers=1, engine=SimEngine(), instruments=[bad, log]
        ) as pool:
            for slots in (2, 1):
                await pool.resize(slots)
            for _ in range(2):
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await pool.run_sync(Counter.add)
            assert await pool.execute(COUNTER, "add") == 1
            assert await pool.execute(COUNTER, "add") == 2
    assert len(calls) == 1, "it was not told of anything more"
    (record,) = caplog.records
    assert record.getMessage() == f"the instrument <Bad> raised in {hook}, and has been dropped"
    assert record.exc_info[1] is error
    assert len(log.of("request_ended")) == 4, "the other instrument has missed nothing"


class Statistician(Instrument):
    """Asks for the statistics in every hook."""

    def __init__(self):
        self.pool = None
        self.seen = []
        for hook in HOOKS:
            setattr(self, hook, partial(self.ask, hook))

    def ask(self, hook, *event):
        if self.pool is not None:
            self.seen.append((hook, self.pool.statistics()))


async def test_statistics_are_true_in_every_hook(autojump_clock):
    statistician = Statistician()
    engine = SimEngine(DiesOfIt())
    async with open_pool([Counter], workers=2, engine=engine, instruments=[statistician]) as pool:
        statistician.pool = pool
        for slot in range(2):
            engine.crash(slot)
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(pool.run_sync, Counter.add)
            with pytest.raises(WorkerCrashedError):
                await pool.run_sync(Counter.nap, 0)
    hooks = {hook for hook, _ in statistician.seen}
    assert hooks == {*HOOKS} - {"slot_opened", "slot_carries", "slot_leaving", "request_cancelled"}
    for hook, statistics in statistician.seen:
        assert statistics.queued + statistics.running <= 7, "nothing is counted twice"
        for worker in statistics.workers:
            assert (worker.pid is not None) == (worker.state in ("ready", "draining")) or (
                worker.state == "draining"
            ), hook


async def test_after_closing_nothing_is_counted_as_waiting(autojump_clock):
    class Once(Plan):
        def boot(self, slot, worker):
            return Boot(math.inf if worker else 0.0)

    engine = SimEngine(Once())
    async with trio.open_nursery() as outside:
        async with open_pool([Counter], workers=1, engine=engine, grace_period=1) as pool:
            engine.crash(0)
            await trio.testing.wait_all_tasks_blocked()

            async def call():
                with pytest.raises(trio.ClosedResourceError):
                    await pool.run_sync(Counter.add)

            outside.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            assert pool.statistics().queued == 1
        assert pool.statistics().queued == 0


async def test_many_calls_at_once_leave_nothing_in_the_channel():
    async with (
        open_pool([Counter], workers=1, engine=SimEngine()) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(5000):
            nursery.start_soon(pool.run_sync, Counter.add)
        await trio.testing.wait_all_tasks_blocked()
        (slot,) = pool._slots.all
        assert slot._given.statistics().current_buffer_used == 0


async def test_any_object_with_some_of_the_hooks_will_do():
    class Duck:
        def __init__(self):
            self.ended = []

        def request_ended(self, request, outcome):
            self.ended.append((request, outcome))

    duck = Duck()
    async with open_pool([], workers=1, engine=SimEngine(), instruments=(duck,)) as pool:
        await pool.run_sync(record, 1, 0)
    assert duck.ended == [(0, "returned")]


async def test_the_channel_does_not_grow_while_requests_come_without_a_pause():
    held = []
    async with (
        open_pool([Counter], workers=1, engine=SimEngine()) as pool,
        trio.open_nursery() as nursery,
    ):
        (slot,) = pool._slots.all
        for _ in range(2000):  # more than are served: there is always one to be woken for
            for _ in range(2):
                nursery.start_soon(pool.run_sync, Counter.add)
            await trio.lowlevel.checkpoint()
            held.append(slot._given.statistics().current_buffer_used)
    # What arrived in the last moments, and wake-ups. It was 1,500 where these were not counted.
    assert max(held) <= 200


class Cancels(Instrument):
    """Cancels a caller from inside a hook, which it must not do: no caller may hang for that."""

    def __init__(self):
        self.scope = None

    def request_given(self, request, slot):
        self.cancel("given", request)

    def request_ended(self, request, outcome):
        self.cancel("ended", outcome)

    def cancel(self, *event):
        if self.scope is not None and event == self.when:
            scope, self.scope = self.scope, None
            scope.cancel()


async def test_a_caller_that_a_hook_cancels_while_its_request_is_given_leaves(autojump_clock):
    cancels, engine = Cancels(), SimEngine()
    cancels.when = ("given", 1)
    async with open_pool([Counter], workers=1, engine=engine, instruments=[cancels]) as pool:
        engine.crash(0)
        with pytest.raises(WorkerCrashedError):
            await pool.run_sync(Counter.add)
        with trio.fail_after(60), trio.CancelScope() as cancels.scope:
            scope = cancels.scope
            await pool.run_sync(Counter.add)
        assert scope.cancelled_caught
        assert await pool.run_sync(Counter.add) == 1


async def test_a_caller_that_a_hook_cancels_while_its_slot_is_settled_leaves(autojump_clock):
    cancels, engine = Cancels(), SimEngine(Lasts())
    scopes = {}

    async def call(number):
        with trio.fail_after(60), trio.CancelScope() as scopes[number]:
            await pool.run_sync(Counter.nap, 0)

    async with open_pool([Counter], workers=1, engine=engine, instruments=[cancels]) as pool:
        async with trio.open_nursery() as nursery:
            failing = nursery.start_soon
            failing(crashes, pool)
            for number in range(4):
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(call, number)
            await trio.testing.wait_all_tasks_blocked()
            scopes[0].cancel()  # it was sent ahead, and stays in the ledger
            await trio.testing.wait_all_tasks_blocked()
            cancels.when, cancels.scope = ("ended", "withdrawn"), scopes[3]
            engine.crash(0)
        assert [scopes[number].cancelled_caught for number in range(4)] == [
            True,
            False,
            False,
            True,
        ]
        assert pool.statistics().completed == 2


async def crashes(pool):
    with pytest.raises(WorkerCrashedError):
        await pool.run_sync(Counter.nap, 0)


class Lasts(Plan):
    def turn(self, call):
        return Turn(1.0)
