"""Scripts of operations, and the play of a script on a pool.

A script is a list of plain operations, so that Hypothesis can shrink it: each sublist of a
script is a script, and an operation on what is gone does nothing. A play writes down what
happened: the pool's own events, and what began, by the workers' own log.
"""

from __future__ import annotations

import math
import os
import signal
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import apps
import trio
import trio.testing
from hypothesis import strategies as st
from scripts.harness import children

import trio_dirty
from trio_dirty.testing import Boot, EventLog, Plan, SimEngine, Turn

SLOTS = 3
APPS = [apps.Recorder, apps.OtherRecorder]

GRACE = 100.0
"""Seconds, where a script leaves the block before all is served."""

BOOT_TIMEOUT = 20.0

requests = st.tuples(
    st.just("submit"),
    st.integers(1, 8),  # how many clients at once
    st.integers(0, 2),  # an app, or a plain function
    st.integers(0, 4),  # how long it takes
    st.sampled_from([False] * 9 + [True]),  # whether the worker dies of it
)
targets = st.integers(0, 5)
bad_boots = st.sampled_from(
    [Boot(0.5, exitcode=7), Boot(0.5, error="no such model"), Boot(5.0), Boot(math.inf)]
)
ruin = [Boot(0.5, exitcode=7)] * 7
"""As many as fail a slot."""

on_every_engine = (
    requests,
    requests,
    st.tuples(st.just("advance"), st.integers(0, 5)),
    st.tuples(st.just("crash"), targets),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("stall"), targets),
    st.tuples(st.just("resume"), targets),
)
operations = st.one_of(
    *on_every_engine,
    st.tuples(
        st.just("boot badly"),
        targets,
        st.lists(bad_boots, min_size=1, max_size=8),
    )
    | st.tuples(st.just("ruin"), targets),
)
leaving = st.sampled_from(["serve", "serve", "raise", "grace", "cancel"])


@dataclass(frozen=True)
class Script:
    """What to do, and how to leave the block then."""

    operations: list[Any]
    leave: str = "serve"


scripts = st.builds(Script, st.lists(operations, min_size=10, max_size=40), leaving)
real_scripts = st.builds(
    Script, st.lists(st.one_of(*on_every_engine), min_size=10, max_size=25), leaving
)


@dataclass
class Log(EventLog):
    """What happened in a play.

    Attributes:
        begun: what the workers say: slot, worker, tag, in the order in which each began.
        deadly: tags of requests that their worker dies of.
        hit: workers that the script has killed, or has had boot badly.
        unsent: at each `worker_ready`, by its position, what each other slot had not sent.
        began_at: in simulation: when a tag began.
        spans: in simulation: by worker when it was executing which tag.
        stalled: workers that have been stopped.
        ahead: in simulation: at each beginning the worker, the seconds of the request,
            and how many had been sent ahead of it.
        outcomes: what each call ended with, by tag.
        left, left_at, grace: how the block was left, when, and how long that may take.
        ended_at: when the block had been left.
        left_over: workers that were still there then.
        late: tags of calls that came after the block had been left.
    """

    begun: list[tuple[int, int, int]] = field(default_factory=list)
    deadly: set[int] = field(default_factory=set)
    hit: set[int] = field(default_factory=set)
    unsent: dict[int, dict[int, list[int]]] = field(default_factory=dict)
    began_at: dict[int, float] = field(default_factory=dict)
    spans: dict[int, list[tuple[float, float, int]]] = field(default_factory=dict)
    stalled: set[int] = field(default_factory=set)
    ahead: list[tuple[int, float, int]] = field(default_factory=list)
    outcomes: dict[int, list[Any]] = field(default_factory=dict)
    left: str = "not"
    left_at: float = math.inf
    ended_at: float = math.inf
    left_over: list[int] = field(default_factory=list)
    pool: trio_dirty.Pool | None = None
    grace: float = math.inf
    late: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        EventLog.__init__(self)
        self.worker_ready = self.note_ready

    def note_ready(self, slot, worker, pid):
        if self.pool is not None:
            self.unsent[len(self.events)] = {
                other.index: [r.number for r in (*other.backlog._queue, *other.backlog._arrived)]
                for other in self.pool._supervisor.slots
                if other.state == "ready" and other.index != slot
            }
        self._note("worker_ready", slot, worker, pid)


class ScriptedPlan(Plan):
    """Actions last as long as they are told to; boots go as the script has said last."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.boots: dict[int, deque[Boot]] = {slot: deque() for slot in range(SLOTS)}
        self.engine = SimEngine(self)

    def boot(self, slot, worker):
        if not self.boots[slot]:
            return Boot(0.5)
        self.log.hit.add(worker)
        return self.boots[slot].popleft()

    def turn(self, call):
        tag, seconds, *dies = call.args
        now = self.log.began_at[tag] = trio.current_time()
        self.log.spans.setdefault(call.worker, []).append((now, now + seconds, tag))
        sent = len(self.engine._workers[call.slot]._inbox)
        self.log.ahead.append((call.worker, seconds, sent))
        return Turn(seconds, exitcode=9 if dies and dies[0] else None)


class LeaveError(Exception):
    """Raised by a script in the block."""


async def client(pool, log, scopes, app, seconds, dies):
    tag = len(log.outcomes)  # the call accepts before anybody else runs: it is its number
    outcomes = log.outcomes[tag] = []
    if log.left != "not":
        log.late.add(tag)
    if dies:
        log.deadly.add(tag)
    with trio.CancelScope() as scope:
        scopes.append(scope)
        try:
            arguments = (tag, seconds, True) if dies else (tag, seconds)
            function = apps.record if app == len(APPS) else APPS[app].work
            outcome = await pool.run_sync(function, *arguments)
        except trio_dirty.WorkerCrashedError as error:
            outcome = "crashed", error.slot, error.pid
        except trio_dirty.NoWorkersAvailableError:
            outcome = "unavailable"
        except trio.ClosedResourceError:
            outcome = "closed"
    outcomes.append("cancelled" if scope.cancelled_caught else outcome)


class Simulation:
    """Where a script is played: on simulated workers, in virtual time."""

    unit = 1.0

    def __init__(self, log: Log) -> None:
        self.log = log
        self.plan = ScriptedPlan(log)
        self.engine = self.plan.engine

    def boot_badly(self, slot, boots):
        self.plan.boots[slot].extend(boots)

    def do(self, fault, pool, slot):
        worker = pool.statistics().workers[slot].worker
        getattr(self.engine, fault)(slot)
        if fault == "stall":
            self.log.stalled.add(worker)
        elif fault == "crash":
            self.log.hit.add(worker)

    def living(self):
        return [worker._blueprint.worker for worker in self.engine._workers.values()]


SIGNALS = {"crash": signal.SIGKILL, "stall": signal.SIGSTOP, "resume": signal.SIGCONT}


class Reality:
    """Where a script is played: on processes, in real time, with real signals."""

    unit = 0.005
    engine = None

    def __init__(self, log: Log) -> None:
        self.log = log

    def do(self, fault, pool, slot):
        statistics = pool.statistics().workers[slot]
        if fault == "crash":
            self.log.hit.add(statistics.worker)
        if statistics.pid is not None:
            with suppress(ProcessLookupError):  # it has died, and the pool not heard of it yet
                os.kill(statistics.pid, SIGNALS[fault])

    def living(self):
        pids = {event.values[2]: event.values[1] for event in self.log.of("worker_ready")}
        return [pids[pid] for pid in children() if pid in pids]


async def play(script, log, world):
    """Play a script on a pool, to the end of everything that it has begun."""
    scopes: list[trio.CancelScope] = []
    unit = world.unit
    log.grace = GRACE * unit if script.leave == "grace" else math.inf
    async with trio.open_nursery() as clients:
        with trio.CancelScope() as block, suppress(LeaveError):
            async with trio_dirty.open_pool(
                APPS,
                workers=SLOTS,
                engine=world.engine,
                boot_timeout=BOOT_TIMEOUT,
                grace_period=log.grace,
                instruments=[log],
            ) as pool:
                log.pool = pool
                for operation, *parameters in script.operations:
                    if operation == "submit":
                        count, app, length, dies = parameters
                        for _ in range(count):
                            clients.start_soon(client, pool, log, scopes, app, length * unit, dies)
                        await trio.lowlevel.checkpoint()
                    elif operation == "advance":
                        await trio.sleep(parameters[0] * unit)
                    elif operation == "cancel" and parameters[0] < len(scopes):
                        scopes[-1 - parameters[0]].cancel()
                    elif operation == "boot badly":
                        world.boot_badly(parameters[0] % SLOTS, parameters[1])
                    elif operation == "ruin":
                        world.boot_badly(parameters[0] % SLOTS, ruin)
                        world.do("crash", pool, parameters[0] % SLOTS)
                    elif operation in ("crash", "stall", "resume"):
                        world.do(operation, pool, parameters[0] % SLOTS)
                if script.leave != "grace":
                    for slot in range(SLOTS):
                        world.do("resume", pool, slot)
                log.left, log.left_at = script.leave, trio.current_time()
                if script.leave == "raise":
                    raise LeaveError
                if script.leave == "cancel":
                    block.cancel()
                    await trio.sleep_forever()
        log.ended_at = trio.current_time()
        log.left_over = world.living()


async def play_until_done(script, log):
    """Play, but not for ever: a caller for whom nobody works would wait until then."""
    with trio.fail_after(1e6):
        await play(script, log, Simulation(log))


def play_simulated(script):
    """Play on simulated workers and virtual time; return the log."""
    log = Log()
    apps.LOG.clear()
    trio.run(play_until_done, script, log, clock=trio.testing.MockClock(autojump_threshold=0))
    log.begun = list(apps.LOG)
    return log


def play_really(script, path):
    """Play on processes, which append what begins to a file; return the log."""
    log = Log()
    path.write_text("")

    async def run():
        with trio.fail_after(120):
            await play(script, log, Reality(log))

    trio.run(run)
    log.begun = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
    return log


def outcome_counts(log: Log) -> Counter[str]:
    """Return how many calls ended how, to see what a search reaches."""
    return Counter(
        outcome if isinstance(outcome, str) else type(outcome).__name__
        for outcomes in log.outcomes.values()
        for outcome in outcomes
    )
