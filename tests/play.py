"""Scripts of operations, the play of a script on a pool, and the judgement of what began.

A script is a list of plain operations, so that Hypothesis can shrink it: each sublist of a
script is a script. What is judged is what *began*, by the workers' own log, and what was
given to which slot; never who resumed first, which trio shuffles.
"""

from __future__ import annotations

import os
import signal
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import apps
import trio
import trio.testing
from hypothesis import strategies as st

import trio_dirty
from trio_dirty import _dispatcher, _slot
from trio_dirty.testing import Boot, Plan, SimEngine, Turn

SLOTS = 3
APPS = [apps.Recorder, apps.OtherRecorder]

requests = st.tuples(
    st.just("submit"),
    st.integers(1, 8),  # how many clients at once
    st.integers(0, 2),  # an app, or a plain function
    st.integers(0, 4),  # how long it takes
    st.sampled_from([False] * 9 + [True]),  # whether the worker dies of it
)
targets = st.integers(0, 5)
operations = st.one_of(
    requests,
    requests,
    st.tuples(st.just("advance"), st.integers(0, 5)),
    st.tuples(st.just("crash"), targets),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("stall"), targets),
    st.tuples(st.just("resume"), targets),
)
scripts = st.lists(operations, min_size=10, max_size=40)


@dataclass
class Log:
    """What happened in a play."""

    given: list[tuple[int, int, Any]] = field(default_factory=list)  # slot, tag, app
    readiness: list[tuple[int, int, bool]] = field(default_factory=list)  # at, slot, ready
    begun: list[tuple[int, int, int]] = field(default_factory=list)  # slot, worker, tag
    spans: dict[int, list[tuple[float, float]]] = field(default_factory=dict)  # by worker
    began_at: dict[int, float] = field(default_factory=dict)
    cancelled_at: dict[int, float] = field(default_factory=dict)
    accepted: int = 0
    outcomes: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    crashed_pids: Counter[int] = field(default_factory=Counter)


class ScriptedPlan(Plan):
    """Actions last as long as they are told to; every third replacement fails to boot."""

    def __init__(self, log: Log, flaky: bool) -> None:
        self.log = log
        self.flaky = flaky

    def boot(self, slot, worker):
        failing = self.flaky and worker >= SLOTS and worker % 3 == 0
        return Boot(0.5, exitcode=7 if failing else None)

    def turn(self, call):
        _, seconds, *dies = call.args
        now = self.log.began_at[call.args[0]] = trio.current_time()
        self.log.spans.setdefault(call.worker, []).append((now, now + seconds))
        return Turn(seconds, exitcode=9 if dies and dies[0] else None)


@contextmanager
def observed(log: Log):
    """Write down what is given to which slot, and when which slot is ready."""
    give, ready, lost = _slot.Slot.give, _dispatcher.Dispatcher.ready, _dispatcher.Dispatcher.lost

    def observed_give(slot, request):
        log.given.append((slot.index, request.number, request.app))
        give(slot, request)

    def observed_ready(dispatcher, slot):
        ready(dispatcher, slot)
        log.readiness.append((len(log.given), slot.index, True))

    def observed_lost(dispatcher, slot):
        log.readiness.append((len(log.given), slot.index, False))
        lost(dispatcher, slot)

    _slot.Slot.give = observed_give
    _dispatcher.Dispatcher.ready = observed_ready
    _dispatcher.Dispatcher.lost = observed_lost
    try:
        yield
    finally:
        _slot.Slot.give = give
        _dispatcher.Dispatcher.ready = ready
        _dispatcher.Dispatcher.lost = lost


async def client(pool, log, scopes, app, seconds, dies):
    tag = log.accepted  # the call below accepts before anybody else runs
    log.accepted += 1
    with trio.CancelScope() as scope:
        scopes.append(scope)
        try:
            arguments = (tag, seconds, True) if dies else (tag, seconds)
            function = apps.record if app == len(APPS) else APPS[app].work
            outcome = await pool.run_sync(function, *arguments)
        except trio_dirty.WorkerCrashedError as error:
            log.crashed_pids[error.pid] += 1
            outcome = "crashed"
        except trio_dirty.NoWorkersAvailableError:
            outcome = "nobody"
        except trio.ClosedResourceError:
            outcome = "refused"  # it came after the block had been left
    if scope.cancelled_caught:
        outcome = "cancelled"
        log.cancelled_at[tag] = trio.current_time()
    log.outcomes[tag].append(outcome)


async def play(script, engine, log, *, unit=1.0, crash=None):
    """Play a script on a pool, to the end of everything that it has begun."""
    scopes: list[trio.CancelScope] = []
    async with (
        trio.open_nursery() as clients,
        trio_dirty.open_pool(APPS, workers=SLOTS, engine=engine, grace_period=None) as pool,
    ):
        for operation, *parameters in script:
            if operation == "submit":
                count, app, length, dies = parameters
                for _ in range(count):
                    clients.start_soon(client, pool, log, scopes, app, length * unit, dies)
                await trio.lowlevel.checkpoint()
            elif operation == "advance":
                await trio.sleep(parameters[0] * unit)
            elif operation == "cancel" and parameters[0] < len(scopes):
                scopes[-1 - parameters[0]].cancel()
            elif operation in ("crash", "stall", "resume"):
                slot = parameters[0] % SLOTS
                if crash is None:
                    getattr(engine, operation)(slot)
                elif operation == "crash":
                    crash(pool, slot)
        for slot in range(SLOTS):
            if crash is None:
                engine.resume(slot)


async def play_until_done(script, engine, log):
    """Play, but not for ever: a caller for whom nobody works would wait until then."""
    with trio.fail_after(1e6):
        await play(script, engine, log)


def play_simulated(script, *, flaky=False):
    """Play on simulated workers and virtual time; return the log."""
    log = Log()
    apps.LOG.clear()
    with observed(log):
        trio.run(
            play_until_done,
            script,
            SimEngine(ScriptedPlan(log, flaky)),
            log,
            clock=trio.testing.MockClock(autojump_threshold=0),
        )
    log.begun = list(apps.LOG)
    return log


def kill_worker(pool, slot):
    """Kill the present worker of a slot, if there is one."""
    pid = pool.statistics().workers[slot].pid
    if pid is not None:
        with suppress(ProcessLookupError):  # it has died, and the pool has not heard of it yet
            os.kill(pid, signal.SIGKILL)


# The judgement: one function for each promise.


def judge_order(log: Log) -> None:
    """Each worker began a subsequence of what its slot was given, one at a time."""
    given = defaultdict(list)
    for slot, tag, _ in log.given:
        given[slot].append(tag)
    begun = defaultdict(list)
    for slot, worker, tag in log.begun:
        begun[slot, worker].append(tag)
    for (slot, _), tags in begun.items():
        rest = iter(given[slot])
        assert all(tag in rest for tag in tags), f"slot {slot} began {tags} of {given[slot]}"


def judge_serial(log: Log) -> None:
    """No worker executed two requests at once."""
    for worker, spans in log.spans.items():
        for (_, end), (begin, _) in pairwise(sorted(spans)):
            assert begin >= end, f"worker {worker} was executing until {end} and began at {begin}"


def judge_fairness(log: Log) -> None:
    """Each request went to the first ready slot behind the one its app's last had gone to.

    From which it follows that the numbers differ by at most one; that is checked as well.
    """
    changes = defaultdict(list)
    for at, slot, is_ready in log.readiness:
        changes[at].append((slot, is_ready))
    ready: set[int] = set()
    last: dict[Any, int] = {}
    counts: dict[Any, Counter[int]] = defaultdict(Counter)
    for at, (slot, tag, app) in enumerate(log.given):
        for changed, is_ready in changes[at]:
            (ready.add if is_ready else ready.discard)(changed)
            counts.clear()
        if slot not in ready:
            continue  # its share of what waits, which it takes as it becomes ready
        behind = [s for s in sorted(ready) if s > last.get(app, -1)]
        assert slot == (behind or sorted(ready))[0], (
            f"request {tag} of app {app} went to slot {slot}, after {last.get(app)}, of {ready}"
        )
        last[app] = slot
        counts[app][slot] += 1
        numbers = [counts[app][s] for s in ready]
        assert max(numbers) - min(numbers) <= 1


def judge_one_outcome(log: Log) -> None:
    """Each accepted request ended, once; and its result is its own."""
    assert sorted(log.outcomes) == list(range(log.accepted))
    given = {tag for _, tag, _ in log.given}
    for tag, outcomes in log.outcomes.items():
        assert len(outcomes) == 1
        assert outcomes[0] in (tag, "crashed", "cancelled", "nobody", "refused")
        assert outcomes[0] != "refused" or tag not in given, "what was accepted is served"


def judge_at_most_once(log: Log) -> None:
    """No request began twice."""
    counts = Counter(tag for _, _, tag in log.begun)
    assert not [tag for tag, count in counts.items() if count > 1]


def judge_nothing_lost(log: Log) -> None:
    """Each dead worker failed at most the one request that it may have begun."""
    assert all(count == 1 for count in log.crashed_pids.values())
    deaths = sum(not is_ready for _, _, is_ready in log.readiness)
    assert sum(log.crashed_pids.values()) <= deaths


def judge_rerouting(log: Log) -> None:
    """What a lost slot had been given was given on in the order of acceptance."""
    for position, (at, slot, is_ready) in enumerate(log.readiness):
        if is_ready:
            continue
        holder = {tag: held_by for held_by, tag, _ in log.given[:at]}
        until = next((when for when, s, _ in log.readiness[position + 1 :] if s == slot), None)
        moved = [tag for _, tag, _ in log.given[at:until] if holder.get(tag) == slot]
        first_moves = list(dict.fromkeys(moved))
        assert first_moves == sorted(first_moves)


def judge_cancellation(log: Log) -> None:
    """What had not begun when its caller left did not begin."""
    for tag, at in log.cancelled_at.items():
        assert log.began_at.get(tag, at) <= at


PROMISES = (
    judge_order,
    judge_serial,
    judge_fairness,
    judge_one_outcome,
    judge_at_most_once,
    judge_nothing_lost,
    judge_rerouting,
    judge_cancellation,
)


def judge(log: Log) -> None:
    """Check all promises."""
    for promise in PROMISES:
        promise(log)
