"""Interrupts at every bytecode: each hits the action that it is meant for, once, or nothing.

A signal's handler runs between two bytecodes of whatever the worker is doing. Here it runs before
the n-th of them, for each n that there is; what it raises is raised there. In CPython a signal is
handled at some of these places only.
"""

from __future__ import annotations

import math
import os
import pickle
import random
import signal
import socket
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from apps_control import AsksAtItsBeginning, AsksAtItsEnd, AsksWhenUnpickled, Control
from bytecode import BeforeEachBytecode, codes_of
from calling import Calling
from scripts.harness import PATIENCE, until

from trio_dirty import RequestCancelled, RequestTimeoutError, SoftTimeout, open_pool
from trio_dirty._common import frames, pickling, segments, wire
from trio_dirty._common.context import current_lane
from trio_dirty._common.frames import read_frames
from trio_dirty._common.wire import CANCELLED, INTERRUPT_SIGNAL, SOFT_TIMEOUT
from trio_dirty._engines.processes import ProcessEngine
from trio_dirty._worker import execution, lane, loop, outcomes, socket as link
from trio_dirty._worker.execution import StreamExecution, answer
from trio_dirty._worker.lane import Lane
from trio_dirty._worker.loop import execute_requests
from trio_dirty._worker.outcomes import OutcomeEncoder
from trio_dirty._worker.socket import WorkerSocket

BEFORE, NUMBER, NEXT, LAST, UNKNOWN = 6, 7, 8, 9, 10
"""Requests: one that has been answered, the one that matters, those behind it, and none."""

POINTS = 200
"""How many bytecodes each test has at least."""

LEFT = 0
"""Beside the reasons of an interrupt: the caller has left."""


MODULES = (
    *(frames, pickling, segments, wire),
    *(execution, lane, link, loop, outcomes),
)

WATCHED: set[CodeType] = set()
"""Code that a signal may come in: the worker's own, and the actions of this module."""


class SignalAt:
    """A block in which a signal comes before the n-th bytecode of the watched code.

    Attributes:
        count: how many there have been.
        code: where the signal came.
        raised: the type of what its handler has raised there.
    """

    def __init__(self, at: int, handler: Callable[[FrameType], object]) -> None:
        self._at = at
        self._handler = handler
        self.count = 0
        self.code: CodeType | None = None
        self.raised: type[BaseException] | None = None

    def __enter__(self) -> SignalAt:
        if not WATCHED:
            WATCHED.update(codes_of(*MODULES, sys.modules[__name__]) - UNWATCHED)
        self._bytecode = BeforeEachBytecode(WATCHED, self._count)
        self._bytecode.__enter__()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._bytecode.__exit__()
        if error is not None and not isinstance(error, AssertionError):
            # Not as it is: where bytecode has no line, its traceback cannot be shown.
            raise AssertionError(f"{error!r} came out, of a signal in {self.code}") from None

    @property
    def came(self) -> bool:
        return self.count >= self._at

    def _count(self, frame: FrameType) -> None:
        self.count += 1
        if self.count == self._at:
            self.code = frame.f_code
            try:
                self._handler(frame)
            except BaseException as error:
                self.raised = type(error)
                raise


class Worker:
    """A lane, what the pool has sent it, and the outcomes of its requests.

    Attributes:
        chunks: what has come of its stream.
        hits: what had happened in it when it was answered.
    """

    def __init__(self) -> None:
        self.sent: deque[tuple[int, int, int]] = deque()
        self.lane = Lane(self.look)
        self.apps: Any = SimpleNamespace(actions={b"echo": lambda value: value})
        self.outbox = OutcomeEncoder()
        self.chunks: list[Any] = []
        self.hits: list[str] = []

    def look(self) -> None:
        lane = self.lane
        while self.sent:
            number, reason, steps = self.sent.popleft()
            if number != lane.number:
                continue
            if reason == LEFT:
                lane.abandoned = True
            else:
                lane.interrupt(reason, steps)
        lane.received_at = 0.0  # at once it is stale

    def signal(self, frame: FrameType | None, *sent: tuple[int, int, int]) -> None:
        """Send frames, and then the signal."""
        self.sent += sent
        self.lane.on_signal(INTERRUPT_SIGNAL, frame)

    def call(self, number: int, action: Callable[..., Any], *args: Any) -> tuple[str, Any]:
        """Execute a request as a worker does; return its outcome."""
        self.apps.actions[b"action"] = action
        pickled = pickle.dumps((args, {}))
        self.lane.begin(number)
        return outcome(
            b"".join(answer(self.lane, self.apps, self.outbox, number, b"action", pickled))
        )

    def stream(self, number: int, action: Callable[..., Any], most: int) -> tuple[str, Any]:
        """Execute one for a stream, whose reader leaves behind so many chunks."""
        self.apps.actions[b"action"] = action
        lane, chunks = self.lane, self.chunks
        lane.begin(number)
        pickled = pickle.dumps(((), {}))
        execution = StreamExecution(lane, self.apps, self.outbox, number, b"action", pickled)
        while True:
            frames = execution.close() if lane.abandoned else execution.step()
            kind, value = outcome(b"".join(frames))
            if execution.ended:
                self.hits = [*HITS]
                return kind, value
            assert kind == "chunk"
            chunks.append(value)
            if len(chunks) == most:
                self.sent.append((number, LEFT, 0))
            self.look()

    def check_the_next(self) -> None:
        """Check that the following requests are hit by nothing that went before."""
        assert self.call(NEXT, work, 2) == ("result", 12)
        self.chunks.clear()
        assert self.stream(LAST, count_to_3, 9) == ("result", None)
        assert self.chunks == [0, 1, 2]


KINDS = {
    wire.RESULT: "result",
    wire.ERROR: "error",
    wire.CHUNK: "chunk",
    wire.SKIPPED: "skipped",
}


def outcome(data: bytes) -> tuple[str, Any]:
    """Return what one reply says: an error by its type."""
    [(_, kind, value)] = read_outcomes(data)
    return kind, value


def read_outcomes(data: bytes) -> Iterator[tuple[int, str, Any]]:
    """Return what replies say."""
    for kind, number, _, _, body in read_frames(data):
        name = KINDS[kind]
        value = pickle.loads(body) if body else None
        yield number, name, value[1] if name == "error" else value


RESULT_12 = ("result", 12)
SOFT = ("error", "trio_dirty.SoftTimeout")
CANCEL = ("error", "trio_dirty.RequestCancelled")

HITS: list[str] = []
"""What has been raised in an action, and what it did then."""


@pytest.fixture(autouse=True)
def no_hits() -> Iterator[None]:
    HITS.clear()
    yield
    HITS.clear()


def at_every_bytecode(
    execute: Callable[[Worker], Any],
    handler: Callable[[Worker, FrameType], object],
    check: Callable[[Worker, SignalAt, Any], object],
) -> int:
    """Execute the same with a signal before each bytecode, until there is none left."""
    for at in range(1, 1_000_000):
        HITS.clear()
        worker = Worker()
        token = current_lane.set(worker.lane)
        try:
            with SignalAt(at, lambda frame: handler(worker, frame)) as came:  # noqa: B023
                found = execute(worker)
            if not came.came:
                assert at > POINTS, "too few to prove anything"
                return at
            check(worker, came, found)
            worker.check_the_next()
        finally:
            current_lane.reset(token)
    raise AssertionError("it never ends")


# Actions


def work(value: int) -> int:
    for number in range(5):
        value += number
    return value


def fails(value: int) -> None:
    raise LookupError(work(value))


def works_and_cleans_up(value: int) -> int:
    try:
        return work(value)
    finally:
        HITS.append("cleaned")
        HITS.append("up")


def catches(value: int) -> int:
    """Note what is raised in it, and go on."""
    for _ in range(4):
        try:
            work(value)
        except (SoftTimeout, RequestCancelled) as error:
            HITS.append(type(error).__name__)
    return work(value)


def asks(value: int) -> int:
    lane = current_lane.get()
    lane.check_cancelled()
    value = work(value)
    lane.check_cancelled()
    return value


def asks_and_catches(value: int) -> int:
    lane = current_lane.get()
    for _ in range(3):
        try:
            lane.check_cancelled()
            work(value)
        except (SoftTimeout, RequestCancelled) as error:
            HITS.append(type(error).__name__)
    return work(value)


def is_a_lock(_: int) -> Any:
    return threading.Lock()


def is_large(value: int) -> bytes:
    return bytes([value]) * 100_000


def is_a_generator(value: int) -> Iterator[int]:
    yield value


def count_to_3() -> Iterator[int]:
    yield from range(3)


def counts_on() -> Iterator[int]:
    """Yield until it is closed; what it does then may not be interrupted."""
    number = 0
    try:
        while True:
            yield number
            number += 1
    finally:
        HITS.append("closing")
        work(1)
        HITS.append("closed")


# One signal


@pytest.mark.parametrize(
    ("action", "undisturbed"),
    [
        (work, RESULT_12),
        (works_and_cleans_up, RESULT_12),
        (asks, RESULT_12),
        (fails, ("error", "LookupError")),
        (is_a_lock, ("error", "_thread.lock")),
        (is_large, ("result", b"\2" * 100_000)),
        (is_a_generator, ("error", "TypeError")),
    ],
)
@pytest.mark.parametrize(("reason", "interrupted"), [(SOFT_TIMEOUT, SOFT), (CANCELLED, CANCEL)])
def test_a_request_ends_as_it_would_or_is_interrupted(
    action: Any, undisturbed: Any, reason: int, interrupted: Any
) -> None:
    seen: Counter[Any] = Counter()

    def check(worker: Worker, came: SignalAt, found: Any) -> None:
        assert found in (undisturbed, interrupted)
        seen[found[1]] += 1
        if came.raised is not None:
            assert found == interrupted, f"lost in {came.code}"

    at_every_bytecode(
        lambda worker: worker.call(NUMBER, action, 2),
        lambda worker, frame: worker.signal(frame, (NUMBER, reason, 0)),
        check,
    )
    assert set(seen) == {undisturbed[1], interrupted[1]}


@pytest.mark.parametrize("action", [work, works_and_cleans_up, catches, asks_and_catches])
@pytest.mark.parametrize(
    "sent",
    [
        [],
        [(BEFORE, SOFT_TIMEOUT, 0)],
        [(BEFORE, CANCELLED, 0)],
        [(BEFORE, LEFT, 0), (UNKNOWN, SOFT_TIMEOUT, 0), (UNKNOWN, CANCELLED, 0)],
        [(NUMBER, SOFT_TIMEOUT, 1)],
    ],
)
def test_what_is_meant_for_another_hits_nobody(action: Any, sent: list[Any]) -> None:
    def check(worker: Worker, came: SignalAt, found: Any) -> None:
        assert found == RESULT_12
        assert came.raised is None
        assert HITS in ([], ["cleaned", "up"])

    at_every_bytecode(
        lambda worker: worker.call(NUMBER, action, 2),
        lambda worker, frame: worker.signal(frame, *sent),
        check,
    )


@pytest.mark.parametrize("action", [catches, asks_and_catches])
@pytest.mark.parametrize("reason", [SOFT_TIMEOUT, CANCELLED])
def test_an_interrupt_is_raised_at_most_once(action: Any, reason: int) -> None:
    name = {SOFT_TIMEOUT: "SoftTimeout", CANCELLED: "RequestCancelled"}[reason]
    seen: Counter[Any] = Counter()

    def check(worker: Worker, came: SignalAt, found: Any) -> None:
        assert found == RESULT_12 if HITS else found[1] in (12, f"trio_dirty.{name}")
        assert HITS in ([], [name])
        seen[found[1], *HITS] += 1

    at_every_bytecode(
        lambda worker: worker.call(NUMBER, action, 2),
        lambda worker, frame: worker.signal(frame, (NUMBER, reason, 0)),
        check,
    )
    assert set(seen) == {(12,), (12, name), (f"trio_dirty.{name}",)}


def test_what_arrives_with_a_request_is_raised_before_it_begins() -> None:
    worker = Worker()
    worker.apps.actions[b"action"] = catches
    worker.lane.begin(NUMBER, SOFT_TIMEOUT)
    pickled = pickle.dumps(((2,), {}))
    frames = answer(worker.lane, worker.apps, worker.outbox, NUMBER, b"action", pickled)
    assert outcome(b"".join(frames)) == SOFT
    assert HITS == []
    worker.check_the_next()


@pytest.mark.parametrize("reason", [SOFT_TIMEOUT, CANCELLED])
def test_a_signal_that_came_too_early_is_heeded_on_entry(reason: int) -> None:
    worker = Worker()
    worker.lane.begin(NUMBER)
    worker.signal(sys._getframe(), (NUMBER, reason, 0))
    assert worker.sent, "nobody has received_at yet"
    worker.apps.actions[b"action"] = work
    frames = answer(
        worker.lane, worker.apps, worker.outbox, NUMBER, b"action", pickle.dumps(((2,), {}))
    )
    assert outcome(b"".join(frames)) == {SOFT_TIMEOUT: SOFT, CANCELLED: CANCEL}[reason]
    worker.check_the_next()


# Streams


def test_a_step_ends_as_it_would_or_is_interrupted() -> None:
    seen: Counter[Any] = Counter()

    def check(worker: Worker, came: SignalAt, found: Any) -> None:
        assert worker.chunks == [0, 1, 2][: len(worker.chunks)]
        if found == SOFT:
            seen["interrupted", len(worker.chunks)] += 1
        else:
            assert found == ("result", None)
            assert came.raised is None
            assert len(worker.chunks) == 3
            seen["ended"] += 1

    at_every_bytecode(
        lambda worker: worker.stream(NUMBER, count_to_3, 9),
        lambda worker, frame: worker.signal(frame, (NUMBER, SOFT_TIMEOUT, len(worker.chunks))),
        check,
    )
    assert set(seen) == {"ended", *(("interrupted", count) for count in range(4))}


@pytest.mark.parametrize("further", [-1, 5])
def test_a_soft_timeout_of_another_step_hits_nobody(further: int) -> None:
    """Of one that is over, or that will not come."""

    def handler(worker: Worker, frame: FrameType) -> None:
        step = worker.lane.steps + further
        worker.signal(frame, *[(NUMBER, SOFT_TIMEOUT, step)] * (step >= 0))

    def check(worker: Worker, came: SignalAt, found: Any) -> None:
        assert (found, worker.chunks) == (("result", None), [0, 1, 2])
        assert came.raised is None

    at_every_bytecode(lambda worker: worker.stream(NUMBER, count_to_3, 9), handler, check)


@pytest.mark.parametrize("reasons", [[LEFT], [LEFT, CANCELLED], [CANCELLED]])
def test_a_generator_that_is_left_is_closed_once_and_in_peace(reasons: list[int]) -> None:
    seen: Counter[Any] = Counter()

    def check(worker: Worker, came: SignalAt, found: Any) -> None:
        assert worker.chunks == [0, 1, 2][: len(worker.chunks)]
        assert found in (("result", None), CANCEL)
        assert found == CANCEL or came.raised is None
        begun = worker.chunks or HITS
        assert worker.hits == HITS == (["closing", "closed"] if begun else [])
        seen[found[1]] += 1

    at_every_bytecode(
        lambda worker: worker.stream(NUMBER, counts_on, 3),
        lambda worker, frame: worker.signal(frame, *[(NUMBER, reason, 0) for reason in reasons]),
        check,
    )
    assert set(seen) == {None, *([CANCEL[1]] if CANCELLED in reasons else [])}


# A second signal, while the first is being attended to


def interrupts_itself(worker: Worker, *sent: tuple[int, int, int]) -> Callable[[int], int]:
    """Return an action in which a signal comes, and whose handler is interrupted in turn."""

    def action(value: int) -> int:
        for turn in range(4):
            try:
                if turn == 1:
                    worker.signal(sys._getframe(), *sent)
                work(value)
            except (SoftTimeout, RequestCancelled) as error:
                HITS.append(type(error).__name__)
        return work(value)

    return action


ATTENDING = Lane._receive_and_raise.__code__, Worker.look.__code__
"""Where the action is still to come back to."""

SOFT_NOW, CANCEL_NOW = (NUMBER, SOFT_TIMEOUT, 0), (NUMBER, CANCELLED, 0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([], [SOFT_NOW]),
        ([SOFT_NOW], []),
        ([SOFT_NOW], [(BEFORE, SOFT_TIMEOUT, 0)]),
        ([(BEFORE, CANCELLED, 0)], [SOFT_NOW]),
        ([], [CANCEL_NOW]),
        ([CANCEL_NOW], []),
    ],
)
def test_a_second_signal_loses_nothing_and_doubles_nothing(
    first: list[Any], second: list[Any]
) -> None:
    [expected] = {
        {SOFT_TIMEOUT: "SoftTimeout", CANCELLED: "RequestCancelled"}[reason]
        for number, reason, _ in first + second
        if number == NUMBER
    }
    seen: Counter[Any] = Counter()

    def check(worker: Worker, came: SignalAt, found: Any) -> None:
        assert found in (RESULT_12, ("error", f"trio_dirty.{expected}"))
        assert HITS in ([], [expected])
        assert not (HITS and found != RESULT_12), "raised twice"
        hit = bool(HITS) or found != RESULT_12
        seen[hit] += 1
        if first and first[0][0] == NUMBER:
            assert hit, f"lost in {came.code}"
        if came.code in ATTENDING:
            assert hit, f"lost in {came.code}"

    at_every_bytecode(
        lambda worker: worker.call(NUMBER, interrupts_itself(worker, *first), 2),
        lambda worker, frame: worker.signal(frame, *second),
        check,
    )
    assert seen[True]


def test_a_cancellation_during_a_soft_timeout_is_not_lost() -> None:
    """Else an action that has caught the soft time-out would go on."""

    def check(worker: Worker, came: SignalAt, found: Any) -> None:
        assert found in (RESULT_12, SOFT, CANCEL)
        raised = [*HITS] if found == RESULT_12 else [*HITS, found[1].rpartition(".")[2]]
        assert raised.count("SoftTimeout") <= 1
        assert raised.count("RequestCancelled") <= 1
        assert raised
        if came.code in ATTENDING:
            assert "RequestCancelled" in raised, f"lost in {came.code}"

    at_every_bytecode(
        lambda worker: worker.call(NUMBER, interrupts_itself(worker, SOFT_NOW), 2),
        lambda worker, frame: worker.signal(frame, CANCEL_NOW),
        check,
    )


@pytest.mark.parametrize("sent", [(SOFT_NOW, CANCEL_NOW), (CANCEL_NOW, SOFT_NOW)])
def test_a_cancellation_together_with_a_soft_timeout_is_not_lost(sent: Any) -> None:
    worker = Worker()
    assert worker.call(NUMBER, interrupts_itself(worker, *sent), 2) == RESULT_12
    assert HITS == ["RequestCancelled"]


def test_a_second_signal_on_entry_loses_nothing_and_doubles_nothing() -> None:
    """The first has come before the action: `run` itself attends to it."""

    def execute(worker: Worker) -> Any:
        worker.apps.actions[b"action"] = catches
        worker.lane.begin(NUMBER)
        worker.signal(sys._getframe(), SOFT_NOW)
        pickled = pickle.dumps(((2,), {}))
        frames = answer(worker.lane, worker.apps, worker.outbox, NUMBER, b"action", pickled)
        return outcome(b"".join(frames))

    def check(worker: Worker, came: SignalAt, found: Any) -> None:
        assert found == SOFT
        assert HITS == []

    at_every_bytecode(execute, lambda worker, frame: worker.signal(frame), check)


# A whole worker, with its link


class Served:
    """The pool's end of the socket of a worker that runs in this thread."""

    def __init__(self) -> None:
        self.ours, workers = socket.socketpair()
        self._lifeline, self._pool_end = os.pipe()
        self.link = WorkerSocket(workers, self._lifeline)
        self._rest = [request(NEXT, b"count", kind=wire.STREAM), request(LAST, b"finish")]
        self.apps: Any = SimpleNamespace(
            actions={b"work": self.work, b"count": count_to_3, b"finish": self.finish}
        )

    def send(self, *frames: bytes) -> None:
        self.ours.sendall(b"".join(frames))

    def work(self, value: int) -> int:
        """Have the worker read more in the middle of a request."""
        self.send_rest()
        self.link.lane.received_at = 0.0
        self.link.lane.check_cancelled()
        return work(value)

    def send_rest(self) -> None:
        rest, self._rest = self._rest, []
        self.send(*rest)

    def finish(self) -> None:
        """Have the worker told to close, in its last request."""
        self.send(wire.frame(wire.CLOSE))

    def signal(self, frame: FrameType, *frames: bytes) -> None:
        self.send_rest()
        self.send(*frames)
        self.link.lane.on_signal(INTERRUPT_SIGNAL, frame)

    def serve(self) -> None:
        execute_requests(self.link, self.link.lane, self.apps)

    def replies(self) -> dict[int, list[tuple[str, Any]]]:
        """Return what was answered to each request, when the worker has closed."""
        self.link.close()
        data = b""
        # It is reset, behind the data, where the worker has not read all.
        with suppress(ConnectionResetError):
            while more := self.ours.recv(1 << 16):
                data += more
        found: dict[int, list[tuple[str, Any]]] = {}
        for number, kind, value in read_outcomes(data):
            found.setdefault(number, []).append((kind, value))
        return found

    def close(self) -> None:
        self.link.close()
        self.ours.close()
        os.close(self._lifeline)
        os.close(self._pool_end)


UNWATCHED = {
    *(vars(SignalAt)[name].__code__ for name in ("__enter__", "__exit__", "_count")),
    *(SignalAt.came.fget.__code__, Served.send_rest.__code__, Served.send.__code__),  # type: ignore[attr-defined]
    read_frames.__code__,
}
"""What stands for the test and for the pool."""


def request(number: int, target: bytes, *args: Any, kind: int = wire.REQUEST) -> bytes:
    return wire.frame(kind, number, pickle.dumps((args, {})), target=target)


COUNTED = [("chunk", 0), ("chunk", 1), ("chunk", 2), ("result", None)]


@pytest.mark.parametrize("about", [BEFORE, NUMBER, NEXT])
@pytest.mark.parametrize("what", ["soft time-out", "cancellation", "withdrawal"])
def test_a_worker_answers_each_request_once_and_hits_no_other(
    monkeypatch: pytest.MonkeyPatch, about: int, what: str
) -> None:
    # Thousands of links would stay registered.
    monkeypatch.setattr(os, "register_at_fork", lambda **_: None)
    withdraw = wire.frame(wire.WITHDRAW, about)
    told = {
        "soft time-out": [wire.pair_frame(wire.INTERRUPT, about, SOFT_TIMEOUT, 0)],
        "cancellation": [withdraw, wire.pair_frame(wire.INTERRUPT, about, CANCELLED, 0)],
        "withdrawal": [withdraw],
    }[what]
    possible: dict[int, list[list[Any]]] = {
        NUMBER: [[RESULT_12]],
        NEXT: [COUNTED],
        LAST: [[("result", None)]],
    }
    if about == NUMBER:
        possible[NUMBER] += [[SOFT], [CANCEL], [("skipped", None)]]
    elif about == NEXT:
        # A soft time-out of its first step; a generator that is closed, or never made.
        possible[NEXT] += [[SOFT], [("skipped", None)]]
        possible[NEXT] += [[*COUNTED[:count], end] for count in range(4) for end in (CANCEL,)]
        possible[NEXT] += [[*COUNTED[:count], COUNTED[3]] for count in range(4)]
    seen: Counter[Any] = Counter()
    for at in range(1, 1_000_000):
        served = Served()
        # A worker that reads nonsense waits for more.
        patience = threading.Timer(PATIENCE, served.ours.shutdown, [socket.SHUT_RDWR])
        try:
            patience.start()
            served.send(request(NUMBER, b"work", 2))
            with SignalAt(at, lambda frame: served.signal(frame, *told)) as came:  # noqa: B023
                served.serve()
            replies = served.replies()
        finally:
            patience.cancel()
            served.close()
        if not came.came:
            assert at > POINTS, "too few to prove anything"
            break
        assert list(replies) == [NUMBER, NEXT, LAST]
        for number, ways in possible.items():
            assert replies[number] in ways, f"a signal in {came.code}"
        if about in replies:
            seen[replies[about][-1]] += 1
    expected = {
        "soft time-out": [SOFT],
        "cancellation": [CANCEL, ("skipped", None)],
        "withdrawal": [("skipped", None)],
    }[what]
    if about == NUMBER:
        # What is taken up first has begun before anything can be said about it.
        assert set(seen) >= {RESULT_12, *expected} - {("skipped", None)}
    elif about == NEXT:
        assert set(seen) >= {("result", None), *expected}


# Outside of actions


def test_nobody_is_told_between_requests_of_the_last_ones_caller() -> None:
    """An app's ``close()`` and a late finalizer may run code that asks."""
    served = Served()
    try:
        # Its caller leaves while it is executed; and the pool closes.
        told = wire.frame(wire.WITHDRAW, LAST), wire.frame(wire.CLOSE)
        served.apps.actions[b"leave"] = lambda: served.send(*told) or served.link.receive_nowait()
        served.send(request(LAST, b"leave"))
        served.serve()
        served.link.lane.check_cancelled()
    finally:
        served.close()


async def test_apps_may_ask_while_they_boot_and_close(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    async with open_pool([AsksAtItsBeginning, AsksAtItsEnd], workers=1) as pool:
        async with trio.open_nursery() as nursery:
            last = AsksAtItsEnd, "last", "sleep", str(begun), str(go)
            calling = Calling.begin(nursery, pool.execute, *last)
            await until(begun.exists)
            await calling.cancel()
        # The worker is told of it, and closes behind it.
        await trio.testing.wait_all_tasks_blocked()
        go.touch()
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("size", [1, 5_000_000])
async def test_arguments_may_ask_while_they_are_unpickled(size: int) -> None:
    """By a worker that is about to read the rest of them."""
    async with open_pool([Control], workers=1, grace_period=0) as pool:
        with trio.fail_after(PATIENCE):
            for _ in range(20):
                arguments = [AsksWhenUnpickled(), bytes(size)]
                assert await pool.run_sync(Control.echo, arguments) == [None, bytes(size)]
        assert pool.statistics().restarts == 0


# Real signals at random moments


@pytest.mark.parametrize("action", ["nap", "spin"])
async def test_300_soft_timeouts_around_the_end_hit_nobody_else(action: str) -> None:
    generator = random.Random(17)
    seen: Counter[str] = Counter()
    limiter = trio.CapacityLimiter(8)

    async def call(seconds: float, soft_timeout: float) -> None:
        async with limiter:
            try:
                view = pool.with_options(soft_timeout=soft_timeout)
                assert await view.execute(Control, action, seconds) == seconds
                seen["in time"] += 1
            except RequestTimeoutError as error:
                assert error.soft
                assert error.seconds == soft_timeout
                seen["interrupted"] += 1

    async def call_another(value: int) -> None:
        async with limiter:
            assert await pool.run_sync(Control.echo, value) == value
            seen["another"] += 1

    with trio.fail_after(PATIENCE):
        async with open_pool([Control], workers=1) as pool:
            pid = await pool.run_sync(Control.pid)
            async with trio.open_nursery() as nursery:
                for number in range(300):
                    seconds = generator.uniform(0.0005, 0.003)
                    around = generator.choice([0.00003, 0.0003, 0.001])
                    soft_timeout = max(0.0001, seconds + generator.uniform(-around, 3 * around))
                    nursery.start_soon(call, seconds, soft_timeout)
                    nursery.start_soon(call_another, number)
            assert await pool.run_sync(Control.pid) == pid
            statistics = pool.statistics()
            assert (statistics.restarts, statistics.failed) == (0, 0)
    assert seen["another"] == 300
    assert seen["in time"] + seen["interrupted"] == 300
    assert seen["interrupted"]


class LateEngine(ProcessEngine):
    """One whose clock can be put forward; that is not taken for a time in which nothing ran."""

    look_seconds = math.inf
    forward = 0.0

    def now(self) -> float:
        return super().now() + self.forward


async def test_c_code_is_interrupted_when_it_returns(tmp_path: Path) -> None:
    begun, go, engine = tmp_path / "begun", tmp_path / "go", LateEngine()
    call = Control.last, "c", str(begun), str(go)
    async with open_pool([Control], workers=1, cancel_grace=None, engine=engine) as pool:
        async with trio.open_nursery() as nursery:
            view = pool.with_options(soft_timeout=1_000)
            calling = Calling.begin(nursery, view.run_sync, *call)
            await until(begun.exists)
            engine.forward = 5_000.0
            # Have it look at its clock again; its sleep goes by another one.
            pool._slots.all[0].current.due_changed.wake()
            await trio.testing.wait_all_tasks_blocked()
            assert not calling.has_ended
            go.touch()
            error = (await calling.ended()).error
            assert isinstance(error, RequestTimeoutError)
            assert (error.soft, error.pid) == (True, int(begun.read_text()))
            begun.unlink()
            go.unlink()
            # The same for a caller who leaves.
            view = pool.with_options(on_cancel="interrupt")
            calling = Calling.begin(nursery, view.run_sync, *call)
            await until(begun.exists)
            await calling.cancel()
            await trio.testing.wait_all_tasks_blocked()
            go.touch()
        with trio.fail_after(PATIENCE):
            assert await pool.run_sync(Control.add) == 3
        assert pool.statistics().restarts == 0


async def test_signals_that_nothing_was_sent_for_do_nothing() -> None:
    ended = trio.Event()

    async def call() -> None:
        for number in range(300):
            assert await pool.run_sync(Control.spin, 0.0005) == 0.0005
            assert await pool.run_sync(Control.echo, bytes(number * 1_000)) == bytes(number * 1_000)
            async with pool.stream(Control.numbers, 20) as chunks:
                assert [chunk async for chunk in chunks] == [*range(20)]
        ended.set()

    async def send_signals() -> None:
        while not ended.is_set():
            os.kill(pid, INTERRUPT_SIGNAL)
            await trio.lowlevel.checkpoint()

    with trio.fail_after(PATIENCE):
        async with open_pool([Control], workers=1) as pool:
            pid = await pool.run_sync(Control.pid)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_signals)
                await call()
            assert await pool.run_sync(Control.pid) == pid


def test_a_signal_where_no_handler_is_does_nothing() -> None:
    # As in what a worker starts, and in a worker that has not come so far.
    assert signal.Signals(INTERRUPT_SIGNAL) is signal.SIGURG
    assert signal.getsignal(INTERRUPT_SIGNAL) is signal.SIG_DFL
    os.kill(os.getpid(), INTERRUPT_SIGNAL)
