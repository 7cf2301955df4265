"""Scripts of operations, and the play of a script on a pool.

A script is a list of plain operations, so that Hypothesis can shrink it: each sublist of a
script is a script, and an operation on what is gone does nothing. A play writes down what
happened: the pool's own events, and what began, by the workers' own log.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections import Counter, defaultdict, deque
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import apps
import moments
import trio
from hypothesis import strategies as st
from scripts.harness import children

import trio_dirty
from trio_dirty import open_pool
from trio_dirty._common import wire
from trio_dirty._engines.contract import Chunks
from trio_dirty.testing import Boot, EventLog, Plan, SimEngine, SimWorker, Turn

SLOTS = 3
"""How many there are at first."""

MOST_SLOTS = 4
APPS = [apps.Recorder, apps.OtherRecorder]
LOOK_SECONDS = 2.0

GRACE = 100.0
"""Seconds, where a script leaves the block before all is served."""

BOOT_TIMEOUT = 20.0

CANCEL_GRACE = 1.5

PATIENCE = 5.0
"""For how long a reader waits, between two chunks, for another call."""

SIZES = [65_000, 66_000, 262_000, 263_000, 524_000, 525_000, 1_048_000, 1_049_000]
"""Bytes on either side of what the library decides by: 64, 256 and 512 KiB, and 1 MiB."""

SMALL_SIZES = [20, 200, 250, 300, 700, 1_200, 5_000, 20_000]
"""And what stands for them where `LOWERED` applies."""

LOWERED = {
    "AHEAD_BYTES": 4_096,
    "BEHIND_CHUNKS": 3,
    "BYTES_AHEAD": 2_048,
    "CHOICES_LIMIT": 2,
    "CHUNKS_AHEAD": 12,
    "DRAIN_LIMIT": 5,
    "SMALL_LIMIT": 256,
}
"""Limits of the library's, and lower ones, which small scripts reach."""

PIECES = {"CLOSED_AT_ONCE": 2, "ROUTED_AT_ONCE": 2}
"""The same, of how many requests are dealt with before others get the loop."""


@dataclass(frozen=True)
class Ask:
    """What one client asks for.

    Attributes:
        app: the index of an app; behind the last one, a plain function.
        length: how long it takes, or each step of its generator.
        dies: whether the worker dies of it.
        timeout, soft_timeout: in units of time.
        on_cancel, key: as of `Pool.with_options`.
        stubborn: whether it ignores interrupts.
        chunks: how many its generator yields; None: it is a call for one value.
        takes: how many the reader takes before it leaves; None: all.
        pace: how long it pauses behind each.
        broadcast: whether every worker is to execute it.
        fails: whether its action raises: of a stream, behind its chunks.
        where: what is of some size: "argument", "result" (of a stream, each chunk), or "error".
        kind, size: of what kind that is, and the index of its size.
        calls: whether its reader makes a call behind the first chunk, and waits for it.
    """

    app: int
    length: int
    dies: bool = False
    timeout: float | None = None
    soft_timeout: float | None = None
    on_cancel: str = "abandon"
    key: int | str | None = None
    stubborn: bool = False
    chunks: int | None = None
    takes: int | None = None
    pace: int = 0
    broadcast: bool = False
    fails: bool = False
    where: str = ""
    kind: str = "bytes"
    size: int = 0
    calls: bool = False

    @property
    def turns(self) -> bool:
        """Whether it takes part in the rotation."""
        return self.key is None and not self.broadcast


modes = st.sampled_from(["abandon", "interrupt", "kill", "wait"])
limits = st.sampled_from(
    [(None, None)] * 3 + [(2.5, None), (2.0, None), (None, 1.5), (None, 2.0), (2.5, 1.5)]
)
ODD_KEYS = ["hash", "equal"]
"""Keys whose hash is another each time, and such as raise when they are compared."""

keys = st.sampled_from([None, None, 0, 1, 2] * 4 + ODD_KEYS)
KINDS = ["bytes", "bytearray", "str", "list", "int"]
bulks = st.builds(
    dict,
    where=st.sampled_from(["argument", "argument", "result"]),
    kind=st.sampled_from(KINDS),
    size=st.integers(0, len(SIZES) - 1),
) | st.builds(
    dict,
    fails=st.just(True),
    where=st.sampled_from(["error", "argument"]),
    kind=st.sampled_from(KINDS),
    size=st.integers(0, len(SIZES) - 1),
)
more = st.one_of(*[st.just({})] * 6, st.just({"fails": True}), bulks)
asks = st.builds(
    lambda app, length, limits, more, **others: Ask(
        app, length, timeout=limits[0], soft_timeout=limits[1], **more, **others
    ),
    st.integers(0, 2),
    st.integers(0, 4),
    limits,
    more,
    dies=st.sampled_from([False] * 9 + [True]),
    on_cancel=modes,
    key=keys,
    stubborn=st.booleans(),
)
streams = st.builds(
    lambda ask, dies, chunks, takes, pace: replace(
        ask, dies=dies, chunks=chunks, takes=takes, pace=pace
    ),
    asks,
    st.sampled_from([False, False, True]),
    st.integers(0, 4),
    st.sampled_from([None, None, 0, 1, 2]),
    st.sampled_from([0, 0, 0, 3]),
)
# Longer than the window, at once or slowly; its reader has it held, by its pace or by a call.
long_streams = st.builds(
    lambda ask, chunks, length, takes, pace, calls: replace(
        ask, dies=False, chunks=chunks, length=length, takes=takes, pace=pace, calls=calls
    ),
    asks,
    st.sampled_from([6, 14, 30]),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([None, None, 5]),
    st.sampled_from([0, 0, 1]),
    st.booleans(),
)
broadcasts = st.builds(lambda ask: replace(ask, broadcast=True, key=None), asks)

requests = st.tuples(
    st.just("submit"),
    st.integers(1, 8),  # how many clients at once
    st.integers(0, 2),  # an app, or a plain function
    st.integers(0, 4),  # how long it takes
    st.sampled_from([False] * 9 + [True]),  # whether the worker dies of it
)
targets = st.integers(0, 7)
bad_boots = st.sampled_from(
    [Boot(0.5, exitcode=7), Boot(0.5, error="no such model"), Boot(5.0), Boot(math.inf)]
)
ruin = [Boot(0.5, exitcode=7)] * 7
"""As many as fail a slot."""

on_every_engine = (
    requests,
    requests,
    st.tuples(st.just("ask"), asks, st.integers(1, 4)),
    st.tuples(st.just("ask"), streams, st.integers(1, 2)),
    st.tuples(st.just("ask"), broadcasts, st.just(1)),
    st.tuples(st.just("ask"), long_streams, st.integers(1, 2)),
    st.tuples(st.just("regret"), asks | streams | broadcasts),
    st.tuples(st.just("advance"), st.integers(0, 5)),
    st.tuples(st.just("crash"), targets),
    st.tuples(st.just("cancel"), st.integers(0, 5) | st.integers(0, 30)),
    st.tuples(st.just("stall"), targets),
    st.tuples(st.just("resume"), targets),
    st.tuples(st.just("resize"), st.integers(1, MOST_SLOTS)),
    st.tuples(st.just("reload"), st.sampled_from([True, True, False])),
    st.tuples(st.just("give up"), st.integers(0, 1)),
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
    """What to do, how to leave the block then, and the options of the pool.

    Attributes:
        lowered: in simulation: whether limits are lowered, see `LOWERED`.
        pieces: in simulation: whether those are that `PIECES` has. Then what a lost slot had does
            not go elsewhere all at once.
        lag: in simulation: how many times the loop comes round before the pool reads what its
            workers have answered, so that several answers are read at a time.
        slow: in simulation: for how long a large argument is sent; it is pickled in less.
        boot: in simulation: how long a boot takes.
        hurry: after how long the block is cancelled if its workers have not booted by then.
    """

    operations: list[Any]
    leave: str = "serve"
    routing: str = "round_robin"
    max_queue: int | None = None
    carriers: int | None = None
    max_requests: int | None = None
    max_lifetime: float | None = None
    threads: int = 1
    lowered: bool = False
    pieces: bool = False
    lag: int = 0
    slow: float = 0.0
    hurry: float | None = None
    boot: float = 0.5

    @property
    def app_limits(self):
        """By how many slots each app may be carried."""
        return [1 if self.carriers == 1 else None, self.carriers]


routings = st.sampled_from(["round_robin", "round_robin", "round_robin", "least_loaded"])
max_queues = st.sampled_from([None, None, None, 0, 1, 4])
options = (
    leaving,
    routings,
    max_queues,
    st.sampled_from([None, None, 1, 2]),  # by how many slots the apps may be carried
    st.sampled_from([None, None, 1, 4]),  # after how many requests a worker is replaced
    st.sampled_from([None, None, None, 3.0]),  # and after how long
    st.sampled_from([1, 1, 1, 2, 2, 3]),
)
in_simulation = (
    st.sampled_from([True, True, False]),
    st.sampled_from([False] * 7 + [True]),
    st.sampled_from([0, 0, 0, 2, 12]),
    st.sampled_from([0.0, 0.0, 0.0, 1.5]),
    st.sampled_from([None] * 24 + [0.0, 0.3, 0.5]),
)
scripts = st.builds(
    Script, st.lists(operations, min_size=10, max_size=40), *options, *in_simulation
)
real_scripts = st.builds(
    Script, st.lists(st.one_of(*on_every_engine), min_size=10, max_size=25), *options
)

TAG: ContextVar[int] = ContextVar("TAG")
"""The tag of the call that is being made."""


@dataclass
class Log(EventLog):
    """What happened in a play.

    Requests are known by their numbers; what a client calls, and what the workers say, by a tag
    that the client chooses: several requests of one broadcast have the same.

    Attributes:
        script: what was played.
        asked: what each call was, by tag.
        tags: the tag of each request.
        begun: what the workers say: slot, worker, number, in the order in which each began.
        hit: workers that the script has killed, or has had boot badly.
        unsent: at each `worker_ready`, by its position, what each other slot had not sent.
        began_at: in simulation: when a request began.
        spans: in simulation: by worker when it was executing which request.
        stalled: workers that have been stopped.
        ahead: in simulation: at each beginning the worker, the seconds of the request,
            how many had been sent ahead of it, and its number.
        outcomes: what each call ended with, by tag.
        taken: the chunks that each reader got, by tag.
        left, left_at, grace: how the block was left, when, and how long that may take.
        ended_at: when the block had been left.
        left_over: workers that were still there then.
        late: tags of calls that came after the block had been left.
        wanted: how many slots there are to be, as the script has said last.
        resized: for each resize that has returned, how many there were, and were to be.
        wishes: when a resize or a reload was called, which may have a worker start.
        reading: tags of streams whose readers wait for a chunk.
        worked: in simulation: by worker, from when to when one of its lanes executed something;
            None: it does so still.
        asleep: in simulation: who waited for nothing when nothing was left to do.
        miscounts: in simulation: what the pool's statistics were then, and are not to be.
        samples: in simulation: what the pool's statistics were, and when.
        unit: seconds of a unit of time.
        sizes: see `SIZES`.
    """

    script: Script | None = None
    asked: dict[int, Ask] = field(default_factory=dict)
    tags: dict[int, int] = field(default_factory=dict)
    taken: dict[int, list[int]] = field(default_factory=dict)
    places: dict[tuple[int, int], int] = field(default_factory=dict)
    begun: list[tuple[int, int, int]] = field(default_factory=list)
    hit: set[int] = field(default_factory=set)
    unsent: dict[int, dict[int, list[int]]] = field(default_factory=dict)
    began_at: dict[int, float] = field(default_factory=dict)
    spans: dict[int, list[tuple[float, float, int]]] = field(default_factory=dict)
    stalled: set[int] = field(default_factory=set)
    ahead: list[tuple[int, float, int, int]] = field(default_factory=list)
    outcomes: dict[int, list[Any]] = field(default_factory=dict)
    left: str = "not"
    left_at: float = math.inf
    ended_at: float = math.inf
    left_over: list[int] = field(default_factory=list)
    pool: trio_dirty.Pool | None = None
    grace: float = math.inf
    late: set[int] = field(default_factory=set)
    wanted: int = SLOTS
    resized: list[tuple[int, int]] = field(default_factory=list)
    wishes: list[float] = field(default_factory=list)
    reading: set[int] = field(default_factory=set)
    worked: dict[int, list[list[Any]]] = field(default_factory=dict)
    asleep: list[str] = field(default_factory=list)
    miscounts: list[str] = field(default_factory=list)
    samples: list[tuple[float, Any]] = field(default_factory=list)
    unit: float = 1.0
    sizes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        EventLog.__init__(self)
        self.worker_ready = self.note_ready
        self.request_accepted = self.note_accepted
        self.request_given = self.note_given

    def note_accepted(self, number, app, action):
        self.tags[number] = TAG.get()
        self._note("request_accepted", number, app, action)

    def note_given(self, number, slot):
        self.places[self.tags[number], slot] = number
        self._note("request_given", number, slot)

    def ask(self, number) -> Ask:
        """Return what a request is for."""
        return self.asked[self.tags[number]]

    def numbers(self, said):
        """Return what workers said, with requests' numbers for tags."""
        return [(slot, worker, self.places[tag, slot]) for slot, worker, tag in said]

    def note_ready(self, slot, worker, pid):
        if self.pool is not None:
            self.unsent[len(self.events)] = {
                other.index: [r.number for r in (*other.queue, *other._given._state.data)]
                for other in self.pool._slots.all
                if other.current is not None and not other.life.is_leaving and other.index != slot
            }
        self._note("worker_ready", slot, worker, pid)


class ScriptedWorker(SimWorker):
    """A simulated worker that is read late, and that takes its time to read what is large."""

    log: Log
    lag = 0
    slow = 0.0
    is_sent_to = False
    """Whether the pool is in the middle of a large frame."""

    async def receive(self):
        if self.lag:
            while not self._replies and self._exit is None:
                await self._changed.park()
            for _ in range(self.lag):
                await trio.lowlevel.checkpoint()
        return merged(await super().receive())

    def send_nowait(self, frames):
        if self.slow and wire.HEADER.unpack_from(frames[0])[1] & wire.LARGE:
            self.is_sent_to = True
            return frames
        return super().send_nowait(frames)

    @property
    def unsent(self):
        return int(self.is_sent_to)

    async def send_rest(self, rest):
        with trio.move_on_after(self.slow):
            while self._exit is None:
                await self._changed.park()
        while self._exit is None and self.stalled is not None:
            await self._changed.park()
        self.is_sent_to = False
        super().send_nowait(rest)

    def resume(self):
        super().resume()
        self._changed.unpark_all()

    async def _last(self, lane, turn):
        span = [trio.current_time(), None]
        self.log.worked.setdefault(self.number, []).append(span)
        try:
            return await super()._last(lane, turn)
        finally:
            span[1] = trio.current_time()


def merged(answers):
    """Return answers as they are read: chunks of a stream that follow each other are one answer."""
    read = []
    for answer in answers:
        last = read[-1] if read else None
        if type(answer) is type(last) is Chunks and answer.number == last.number:
            last.chunks.extend(answer.chunks)
        else:
            read.append(answer)
    return read


class ScriptedEngine(SimEngine):
    """Starts such workers."""

    def _make(self, blueprint):
        worker = ScriptedWorker(blueprint, self._plan)
        worker.log, script = self._plan.log, self._plan.log.script
        worker.lag, worker.slow = script.lag, script.slow
        return worker


class ScriptedPlan(Plan):
    """Actions last as long as they are told to; boots go as the script has said last."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.boots: defaultdict[int, deque[Boot]] = defaultdict(deque)
        self.engine = ScriptedEngine(self, look_seconds=LOOK_SECONDS)

    def boot(self, slot, worker):
        if not self.boots[slot]:
            return Boot(self.log.script.boot)
        self.log.hit.add(worker)
        return self.boots[slot].popleft()

    def turn(self, call):
        tag, seconds, dies, stubborn, *chunks = call.args
        number = self.log.places[tag, call.slot]
        now = self.log.began_at[number] = trio.current_time()
        self.log.spans.setdefault(call.worker, []).append((now, now + seconds, number))
        (worker,) = [each for each in self.engine._workers if each.number == call.worker]
        sent = len(worker._inbox)
        self.log.ahead.append((call.worker, seconds, sent, number))
        return Turn(
            seconds,
            exitcode=9 if dies else None,
            chunks=chunks[0] - 1 if chunks else 0,
            is_stubborn=stubborn,
        )


class OddKeyError(Exception):
    """Raised by a key that is compared."""


class OddKey:
    """What is hashable, and no good key.

    Args:
        kind: see `ODD_KEYS`.
    """

    hashes = 0

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __hash__(self) -> int:
        self.hashes += 1
        return self.hashes if self.kind == "hash" else 1

    def __eq__(self, other: object) -> bool:
        if self.kind == "equal" and self is not other:
            raise OddKeyError
        return self is other


class LeaveError(Exception):
    """Raised by a script in the block."""


async def client(pool, log, scopes, ask, patience=math.inf):
    tag = len(log.asked)
    log.asked[tag] = ask
    TAG.set(tag)
    outcomes = log.outcomes[tag] = []
    if log.left != "not":
        log.late.add(tag)
    scaled = [None if t is None else t * log.unit for t in (ask.timeout, ask.soft_timeout)]
    view = pool.with_options(
        timeout=scaled[0],
        soft_timeout=scaled[1],
        on_cancel=ask.on_cancel,
        key=OddKey(ask.key) if isinstance(ask.key, str) else ask.key,
    )
    content = (ask.kind, log.sizes[ask.size])
    outcome: Any = "cancelled"  # as where a reader leaves in the middle of its call
    scope = trio.CancelScope(deadline=trio.current_time() + patience)
    scopes.append(scope)
    try:
        with scope:
            outcome = await outcome_of(view, log, tag, ask, content)
    finally:
        outcomes.append("cancelled" if scope.cancelled_caught else outcome)


async def outcome_of(pool, log, tag, ask, content):
    try:
        return await call(pool, log, tag, ask, content)
    except ExceptionGroup as group:
        return "group", len(group.exceptions)
    except trio_dirty.WorkerCrashedError as error:
        return "crashed", error.slot, error.pid
    except trio_dirty.RequestTimeoutError as error:
        return "soft" if error.soft else "timed_out"
    except trio_dirty.NoWorkersAvailableError:
        return "unavailable"
    except trio_dirty.PoolBusyError:
        return "busy"
    except trio.ClosedResourceError:
        return "closed"
    except OddKeyError:
        return "odd"
    except apps.PlannedError as error:
        expected = tag, apps.bulk(content if ask.where == "error" else None)
        return "failed" if error.args == expected else "failed wrongly"


async def call(pool, log, tag, ask, content):
    arguments = [tag, ask.length * log.unit, ask.dies, ask.stubborn]
    more = {"fails": True} if ask.fails else {}
    if ask.where == "argument":
        more["payload"] = apps.bulk(content)
    elif ask.where:
        more["content"] = content

    def unwrapped(value):
        if ask.where not in ("result", "error"):
            return value
        return value[0] if value[1] == apps.bulk(content) else "another"

    app = None if ask.app == len(APPS) else APPS[ask.app]
    if ask.chunks is None:
        function = apps.record if app is None else app.work
        if ask.broadcast:
            return [*map(unwrapped, await pool.broadcast(function, *arguments, **more))]
        return unwrapped(await pool.run_sync(function, *arguments, **more))
    function = apps.produce if app is None else app.produce
    taken = log.taken[tag] = []
    async with pool.stream(function, *arguments, ask.chunks, **more) as chunks:
        while ask.takes is None or len(taken) < ask.takes:
            log.reading.add(tag)
            try:
                taken.append(unwrapped(await chunks.receive()))
            except trio.EndOfChannel:
                return "read"
            finally:
                log.reading.discard(tag)
            if ask.pace:
                await trio.sleep(ask.pace * log.unit)
            if ask.calls and len(taken) == 1:
                await client(pool, log, [], Ask(ask.app, 0), PATIENCE * log.unit)
    return "left"


class Simulation:
    """Where a script is played: on simulated workers, in virtual time."""

    unit = 1.0
    sizes = SMALL_SIZES

    def __init__(self, log: Log) -> None:
        self.log = log
        self.plan = ScriptedPlan(log)
        self.engine = self.plan.engine

    def boot_badly(self, slot, boots):
        self.plan.boots[slot].extend(boots)

    def do(self, fault, target):
        # Of those of one slot the oldest is perhaps about to go, and the youngest about to come.
        workers = [each for each in self.engine._workers if each.slot == target % MOST_SLOTS]
        if not workers:
            return
        worker = workers[0 if target < MOST_SLOTS else -1]
        if fault == "crash":
            self.log.hit.add(worker.number)
            worker.die(-9)
        elif fault == "stall":
            self.log.stalled.add(worker.number)
            worker.stall()
        else:
            worker.resume()

    def resume_all(self):
        for worker in self.engine._workers:
            worker.resume()

    def living(self):
        return [worker.number for worker in self.engine._workers]


SIGNALS = {"crash": signal.SIGKILL, "stall": signal.SIGSTOP, "resume": signal.SIGCONT}


class Reality:
    """Where a script is played: on processes, in real time, with real signals."""

    unit = 0.005
    sizes = SIZES
    engine = None

    def __init__(self, log: Log) -> None:
        self.log = log

    def do(self, fault, target):
        pids = self.pids()
        living = [pid for pid in pids if pids[pid][0] == target % MOST_SLOTS]
        if not living:
            return
        pid = living[0 if target < MOST_SLOTS else -1]
        if fault == "crash":
            self.log.hit.add(pids[pid][1])
        elif fault == "stall":
            self.log.stalled.add(pids[pid][1])
        with suppress(ProcessLookupError):  # it has died, and the pool not heard of it yet
            os.kill(pid, SIGNALS[fault])

    def resume_all(self):
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def pids(self):
        """Return slot and worker of each process that is there and has been ready."""
        ready = {event.values[2]: event.values[:2] for event in self.log.of("worker_ready")}
        return {pid: ready[pid] for pid in ready if pid in children()}

    def living(self):
        return [worker for _, worker in self.pids().values()]


async def resize(pool, log, changes, count):
    log.wishes.append(trio.current_time())
    if log.left == "not":
        log.wanted = count
    with trio.CancelScope() as scope, suppress(trio_dirty.AppLoadError, trio.ClosedResourceError):
        changes.append(scope)
        await pool.resize(count)
        if log.left == "not":
            log.resized.append((len(pool.statistics().workers), log.wanted))


async def reload(pool, log, changes, overlap):
    log.wishes.append(trio.current_time())
    with trio.CancelScope() as scope, suppress(trio_dirty.AppLoadError, trio.ClosedResourceError):
        changes.append(scope)
        await pool.reload(overlap=overlap)


def named(app, carriers):
    """Return an app as `open_pool` is told of it, carried by so many slots."""
    return app if carriers is None else f"{app.__module__}:{app.__qualname__}:{carriers}"


async def play(script, log, world):
    """Play a script on a pool, to the end of everything that it has begun."""
    scopes: list[trio.CancelScope] = []
    changes: list[trio.CancelScope] = []
    log.unit = unit = world.unit
    log.sizes = world.sizes
    log.grace = GRACE * unit if script.leave == "grace" else math.inf
    async with trio.open_nursery() as clients:
        hurry = math.inf if script.hurry is None else trio.current_time() + script.hurry * unit
        with trio.CancelScope(deadline=hurry) as block, suppress(LeaveError):
            async with open_pool(
                [*map(named, APPS, script.app_limits)],
                workers=SLOTS,
                threads=script.threads,
                engine=world.engine,
                boot_timeout=BOOT_TIMEOUT,
                grace_period=log.grace,
                cancel_grace=CANCEL_GRACE * unit,
                routing=script.routing,
                max_queue=script.max_queue,
                max_requests=script.max_requests,
                max_lifetime=None if script.max_lifetime is None else script.max_lifetime * unit,
                instruments=[log],
            ) as pool:
                log.pool = pool
                block.deadline = math.inf
                for operation in () if block.cancel_called else script.operations:
                    await perform(operation, pool, log, world, clients, scopes, changes)
                if script.leave != "grace":
                    world.resume_all()
                log.left = "cancel" if block.cancel_called else script.leave
                log.left_at = trio.current_time()
                if log.left == "raise":
                    raise LeaveError
                if log.left == "cancel":
                    block.cancel()
                    await trio.sleep_forever()
        if log.pool is None:
            log.left, log.left_at = "cancel", hurry
        log.ended_at = trio.current_time()
        log.left_over = world.living()


async def perform(operation, pool, log, world, clients, scopes, changes):
    """Do what one operation of a script says."""
    kind, *parameters = operation
    unit = world.unit
    if kind in ("submit", "ask"):
        if kind == "submit":
            count, *how = parameters
            ask = Ask(*how)
        else:
            ask, count = parameters
        for _ in range(count):
            clients.start_soon(client, pool, log, scopes, ask)
        await trio.lowlevel.checkpoint()
    elif kind == "regret":
        clients.start_soon(client, pool, log, scopes, parameters[0])
        regretted = len(scopes)
        await trio.sleep(unit)
        if len(scopes) > regretted:
            scopes[regretted].cancel()
    elif kind == "advance":
        await trio.sleep(parameters[0] * unit)
    elif kind == "cancel" and parameters[0] < len(scopes):
        scopes[-1 - parameters[0]].cancel()
    elif kind == "give up" and parameters[0] < len(changes):
        changes[-1 - parameters[0]].cancel()
    elif kind == "boot badly":
        world.boot_badly(parameters[0] % MOST_SLOTS, parameters[1])
    elif kind == "ruin":
        world.boot_badly(parameters[0] % MOST_SLOTS, ruin)
        world.do("crash", parameters[0])
    elif kind in ("crash", "stall", "resume"):
        world.do(kind, parameters[0])
    elif kind in ("resize", "reload"):
        change = resize if kind == "resize" else reload
        clients.start_soon(change, pool, log, changes, parameters[0])
        await trio.lowlevel.checkpoint()


@cache
def occurrences(names):
    """Return where limits stand, and what they are."""
    modules = [module for name, module in sys.modules.items() if name.startswith("trio_dirty.")]
    found = [
        (vars(module), name, vars(module)[name])
        for name in names
        for module in modules
        if name in vars(module)
    ]
    assert {name for _, name, _ in found} == {*names}, "some are there no more"
    return found


@contextmanager
def simulated_limits(script):
    """Have a play reach what only large objects and long streams reach.

    What is pickled in a thread is pickled here and now: no clock would wait for the thread.
    """

    async def run_here(function, *args, abandon_on_cancel=False, cancellable=None, limiter=None):
        await trio.sleep(script.slow / 6)
        return function(*args)

    limits = {**(LOWERED if script.lowered else {}), **(PIECES if script.pieces else {})}
    found = occurrences(tuple(limits))
    run, trio.to_thread.run_sync = trio.to_thread.run_sync, run_here
    try:
        for module, name, _ in found:
            module[name] = limits[name]
        yield
    finally:
        trio.to_thread.run_sync = run
        for module, name, limit in found:
            module[name] = limit


async def play_until_done(script, log, world):
    """Play, but not for ever: a caller for whom nobody works would wait until then."""
    with trio.fail_after(2e3):
        await play(script, log, world)


def play_simulated(script):
    """Play on simulated workers and virtual time; return the log."""
    log = Log(script)
    apps.LOG.clear()
    world = Simulation(log)
    clock = moments.JumpingClock(moments.Watch(log, world).look)
    with simulated_limits(script):
        try:
            trio.run(play_until_done, script, log, world, clock=clock)
        except trio.TrioInternalError as error:
            if not isinstance(error.__cause__, moments.DeadlockError):
                raise
            raise trio.TooSlowError from error  # what waits is shielded, and for ever
    log.begun = log.numbers(apps.LOG)
    return log


def play_really(script, path):
    """Play on processes, which append what begins to a file; return the log."""
    log = Log(script)
    path.write_text("")

    async def run():
        with trio.fail_after(120):
            await play(script, log, Reality(log))

    trio.run(run)
    said = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
    log.begun = log.numbers(said)
    return log


def outcome_counts(log: Log) -> Counter[str]:
    """Return how many calls ended how, to see what a search reaches."""
    return Counter(
        outcome if isinstance(outcome, str) else type(outcome).__name__
        for outcomes in log.outcomes.values()
        for outcome in outcomes
    )
