"""Very many requests that wait: what becomes of them is decided some at a time."""

from collections import Counter as Tally, defaultdict

import pytest
import trio
import trio.testing
from apps import Counter

from trio_dirty import WorkerCrashedError, open_pool
from trio_dirty._pool import closing, slot, supervisor
from trio_dirty.testing import EventLog, Plan, SimEngine, Turn

ROUTED_AT_ONCE = CLOSED_AT_ONCE = 100
MANY = 2 * ROUTED_AT_ONCE + 50


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
    monkeypatch.setattr(slot, "ROUTED_AT_ONCE", ROUTED_AT_ONCE)
    monkeypatch.setattr(supervisor, "ROUTED_AT_ONCE", ROUTED_AT_ONCE)
    monkeypatch.setattr(closing, "CLOSED_AT_ONCE", CLOSED_AT_ONCE)


class Second(Plan):
    def turn(self, call):
        return Turn(1.0)


class GivenLog(EventLog):
    """Notes what each slot has been given, in order; of a request only the last time counts."""

    def __init__(self):
        super().__init__()
        self.given = defaultdict(dict)
        self.request_given = self.note_given

    def note_given(self, request, slot):
        for requests in self.given.values():
            requests.pop(request, None)
        self.given[slot][request] = None

    @property
    def begun(self):
        return [event.values[0] for event in self.of("request_begun")]


class Callers:
    """Calls that are made in order, each in a task, and what has become of them.

    Attributes:
        outcomes: how many ended how.
        scopes: those of the calls, in order.
    """

    def __init__(self, pool, nursery):
        self._pool = pool
        self._nursery = nursery
        self.outcomes = Tally()
        self.scopes = []
        self.when_closed = lambda: None

    async def make(self, count, key=None):
        """Make calls, and wait until all have been accepted."""
        for number in range(count):
            view = self._pool if key is None else self._pool.with_options(key=key(number))
            self.scopes.append(trio.CancelScope())
            self._nursery.start_soon(self._call, view, self.scopes[-1])
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked()

    async def _call(self, view, scope):
        with scope:
            try:
                await view.run_sync(Counter.nap, 0)
            except WorkerCrashedError:
                self.outcomes["crashed"] += 1
            except trio.ClosedResourceError:
                self.outcomes["closed"] += 1
                self.when_closed()
            else:
                self.outcomes["returned"] += 1
        self.outcomes["cancelled"] += scope.cancelled_caught

    def cancel(self):
        for scope in self.scopes:
            scope.cancel()


KEYS = {"none": None, "three": lambda number: number % 3, "each its own": lambda number: number}


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("how", ["crash", "leave"])
async def test_what_a_lost_slot_had_waiting_is_served_in_order(how, keys, autojump_clock):
    engine, log, key = SimEngine(Second()), GivenLog(), KEYS[keys]
    count = 3 * MANY
    async with open_pool([Counter], workers=3, engine=engine, instruments=[log]) as pool:
        async with trio.open_nursery() as nursery:
            callers = Callers(pool, nursery)
            await callers.make(count, key)
            if how == "crash":
                engine.crash(max(pool.statistics().workers, key=lambda each: each.queued).slot)
            else:
                nursery.start_soon(pool.resize, 2)
            await callers.make(5, key)
        assert callers.outcomes["crashed"] == (how == "crash")
        assert pool.statistics().queued == 0
    assert sorted(log.begun) == [*range(count + 5)]
    for given in log.given.values():
        assert [number for number in log.begun if number in given] == [*given]
    if keys == "three":
        for kind in range(3):
            of_key = [number for number in log.begun if number < count and number % 3 == kind]
            assert of_key == sorted(of_key)


@pytest.fixture
async def two_slots(autojump_clock):
    async with open_pool([Counter], workers=2, engine=SimEngine(Second())) as pool:
        yield pool


async def test_only_some_are_routed_in_one_step_and_those_that_wait_can_leave(
    two_slots, autojump_clock
):
    dispatcher = two_slots._slots.dispatcher
    slots = two_slots._slots.replacements
    async with trio.open_nursery() as nursery:
        callers = Callers(two_slots, nursery)
        await callers.make(2 * MANY)
        slots[1].leave()
        left = len(dispatcher)
        assert ROUTED_AT_ONCE < left < MANY - ROUTED_AT_ONCE + 1
        statistics = two_slots.statistics()
        assert statistics.queued + statistics.running == 2 * MANY
        await trio.testing.wait_all_tasks_blocked()
        assert len(dispatcher) == 0
        callers.cancel()
    assert callers.outcomes["cancelled"] == 2 * MANY


async def test_what_is_to_be_routed_can_leave(two_slots, autojump_clock):
    dispatcher = two_slots._slots.dispatcher
    async with trio.open_nursery() as nursery:
        callers = Callers(two_slots, nursery)
        await callers.make(2 * MANY, lambda number: number)
        two_slots._slots.replacements[1].leave()
        assert len(dispatcher) > 0
        callers.cancel()
        assert len(dispatcher) == 0
    assert callers.outcomes["cancelled"] == 2 * MANY


async def test_a_key_does_not_pass_what_is_to_be_routed_of_it(autojump_clock):
    """A call that comes between two steps goes behind those of its key."""
    log = GivenLog()
    engine = SimEngine(Second())
    async with (
        open_pool([Counter], workers=2, engine=engine, instruments=[log]) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = Callers(pool, nursery)
        await callers.make(2 * MANY, lambda number: number % 50)
        pool._slots.replacements[1].leave()
        assert len(pool._slots.dispatcher) > 0
        await callers.make(50, lambda number: number)
    for key in range(50):
        of_key = [number for number in log.begun if number % 50 == key]
        assert of_key == sorted(of_key)


async def close_with_many(count, log, when_closed=lambda callers: None):
    """Cancel the block of a pool in which many wait; return their callers."""
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as block:
            engine = SimEngine(Second())
            async with open_pool([Counter], workers=2, engine=engine, instruments=[log]) as pool:
                callers = Callers(pool, nursery)
                callers.when_closed = lambda: when_closed(callers)
                await callers.make(count)
                block.cancel()
    ended = [event.values[0] for event in log.of("request_ended")]
    assert sorted(ended) == [*range(count)], "each ends once"
    return callers


@pytest.mark.parametrize("count", [1, 2 * CLOSED_AT_ONCE, 6 * CLOSED_AT_ONCE + 1])
async def test_whoever_waits_when_a_pool_is_cancelled_is_told_so(count, autojump_clock):
    callers = await close_with_many(count, EventLog())
    assert callers.outcomes["closed"] == count


async def test_callers_can_leave_while_others_are_told_that_the_pool_is_closed(autojump_clock):
    callers = await close_with_many(6 * CLOSED_AT_ONCE, EventLog(), Callers.cancel)
    outcomes = callers.outcomes
    assert outcomes["closed"] > 0
    assert outcomes["cancelled"] > 0
    assert outcomes["closed"] + outcomes["cancelled"] == 6 * CLOSED_AT_ONCE


async def test_a_slot_that_comes_takes_its_share_of_very_many(autojump_clock):
    async with open_pool([Counter], workers=1, engine=SimEngine(Second())) as pool:
        async with trio.open_nursery() as nursery:
            callers = Callers(pool, nursery)
            await callers.make(MANY)
            await pool.resize(2)
            queued = [worker.queued for worker in pool.statistics().workers]
            assert abs(queued[0] - queued[1]) <= 2
        assert callers.outcomes["returned"] == MANY
