"""Interrupts of lanes that are threads: each hits the action that it is meant for, or nothing.

CPython raises an asynchronous exception some bytecodes after it was set off. Here it is set off
before the n-th bytecode of a request, and raised before the k-th behind that unless it has been
called off, for each n and many k: at more places than those where CPython looks.
"""

from __future__ import annotations

import itertools
import pickle
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from bytecode import BeforeEachBytecode, codes_of

from trio_dirty import RequestCancelled, SoftTimeout
from trio_dirty._common.wire import CANCELLED, CHUNK, ERROR, HEADER, RESULT, SOFT_TIMEOUT
from trio_dirty._worker import execution, thread_lane
from trio_dirty._worker.execution import StreamExecution, answer
from trio_dirty._worker.outcomes import OutcomeEncoder
from trio_dirty._worker.thread_lane import ThreadLane, TooLate

POINTS = 100
"""How many bytecodes each test has at least."""

LATER = [0, 1, 2, 4, 8, 20, 50]
"""How many bytecodes later it is raised."""

BEFORE, NUMBER, NEXT, LAST = 6, 7, 8, 9

HITS: list[str] = []
"""What has been raised in an action, and what it did then."""


class Thread:
    """Stands for the lane's thread, as CPython treats it: one exception may be pending."""

    def __init__(self, lane: ThreadLane, at: int, later: int, what: Callable[[], object]) -> None:
        self.lane, self.at, self.later, self.what = lane, at, later, what
        self.count = 0
        self.pending: type[BaseException] | None = None
        self.left = 0
        self.raised: list[str] = []
        # What the main thread has still to do, and for how many bytecodes it does not run.
        self.rest: Callable[[], object] | None = None
        self.sleeps = 0

    def raise_in(self, thread: int, error: type[BaseException]) -> None:
        assert thread == threading.get_ident()
        self.pending, self.left = error, self.later
        if error is TooLate:
            self.pending = None
            raise error

    def go_on(self, *_: float) -> None:
        """Let the main thread run, which has been in the middle of an interrupt."""
        if self.rest is not None:
            rest, self.rest = self.rest, None
            rest()

    def bytecode(self, _: FrameType) -> None:
        self.count += 1
        if self.count == self.at:
            self.what()
        if self.rest is not None:
            self.sleeps -= 1
            if not self.sleeps:
                self.go_on()
        if self.pending is not None:
            if self.left:
                self.left -= 1
            else:
                error, self.pending = self.pending, None
                self.raised.append(error.__name__)
                raise error


class Lane:
    """A lane, and what came of its requests."""

    thread: Thread

    def __init__(self) -> None:
        self.lane = ThreadLane()
        self.lane.enter()
        self.apps: Any = SimpleNamespace(actions={})
        self.outbox = OutcomeEncoder()
        self.chunks: list[Any] = []

    def call(self, number: int, action: Callable[..., Any], *args: Any) -> Any:
        self.apps.actions[b"action"] = action
        pickled = pickle.dumps((args, {}))
        self.lane.begin(number)
        frames = answer(self.lane, self.apps, self.outbox, number, b"action", pickled)
        return outcome(b"".join(frames))

    def stream(self, number: int, action: Callable[..., Any]) -> Any:
        self.apps.actions[b"action"] = action
        self.lane.begin(number)
        pickled = pickle.dumps(((), {}))
        execution = StreamExecution(self.lane, self.apps, self.outbox, number, b"action", pickled)
        while True:
            frames = execution.close() if self.lane.abandoned else execution.step()
            kind, value = outcome(b"".join(frames))
            if execution.ended:
                return kind, value
            self.chunks.append(value)


def outcome(data: bytes) -> tuple[str, Any]:
    _, kind, _, _, _ = HEADER.unpack_from(data)
    value = pickle.loads(data[HEADER.size :])
    if kind == ERROR:
        return "error", value[1]
    return {RESULT: "result", CHUNK: "chunk"}[kind], value


def at_every_bytecode(
    monkeypatch: pytest.MonkeyPatch,
    execute: Callable[[Lane], Any],
    what: Callable[[Lane], object],
    check: Callable[[Lane, Thread, Any], object],
    later: list[int] = LATER,
) -> None:
    """Execute the same with an interrupt before each bytecode, until there is none left."""

    def once(at: int, delay: int) -> bool:
        HITS.clear()
        lane = Lane()
        lane.thread = thread = Thread(lane.lane, at, delay, lambda: what(lane))
        monkeypatch.setattr(thread_lane, "raise_in", thread.raise_in)
        monkeypatch.setattr(thread_lane, "sleep", thread.go_on)
        with BeforeEachBytecode(codes_of(execution, thread_lane) | ACTIONS, thread.bytecode):
            found = execute(lane)
        assert thread.pending is None, "something is still to come"
        assert not lane.lane._interrupting, "the main thread is still at it"
        if thread.count < at:
            assert at > POINTS, "too few to prove anything"
            return False
        check(lane, thread, found)
        # What follows is hit by nothing that went before.
        assert lane.call(NEXT, work, 2) == ("result", 12)
        lane.chunks.clear()
        assert lane.stream(LAST, count_to_3) == ("result", None)
        assert lane.chunks == [0, 1, 2]
        assert not lane.lane._is_set
        return True

    for delay in later:
        # A thread for each: see conftest. What a trace function raises leaves traces behind.
        for at in itertools.count(1):
            with ThreadPoolExecutor(1) as executor:
                if not executor.submit(once, at, delay).result():
                    break


def work(value: int) -> int:
    for number in range(5):
        value += number
    return value


def fails(value: int) -> None:
    raise LookupError(work(value))


def cleans_up(value: int) -> int:
    try:
        return work(value)
    finally:
        HITS.append("cleaned")


def catches(value: int) -> int:
    for _ in range(4):
        try:
            work(value)
        except (SoftTimeout, RequestCancelled) as error:
            HITS.append(type(error).__name__)
    return work(value)


def is_a_lock(_: int) -> Any:
    return threading.Lock()


class Steps:
    """A stream; no generator, out of whose frame a trace function in CPython 3.11 cannot raise.

    Args:
        stop: how many steps it has.
        leaves: its lane, where its reader leaves at the fourth step at the latest.
    """

    def __init__(self, stop: int, leaves: ThreadLane | None = None) -> None:
        self.number = 0
        self.stop = stop
        self.leaves = leaves

    def __iter__(self) -> Steps:
        return self

    def __next__(self) -> int:
        if self.number == self.stop:
            raise StopIteration
        if self.number == 3 and self.leaves is not None:
            self.leaves.abandoned = True
        self.number += 1
        return self.number - 1

    def close(self) -> None:
        HITS.append("closing")
        work(1)
        HITS.append("closed")


def count_to_3() -> Steps:
    return Steps(3)


def counts_on(lane: Lane) -> Callable[[], Steps]:
    return lambda: Steps(10, lane.lane)


ACTIONS = {
    action.__code__
    for action in (work, fails, cleans_up, catches, is_a_lock, Steps.__next__, Steps.close)
}


def interrupt_from_outside(lane: ThreadLane, reason: int) -> None:
    thread = threading.Thread(target=lane.interrupt, args=(reason, 0))
    thread.start()
    thread.join()


NAMES = {SOFT_TIMEOUT: "SoftTimeout", CANCELLED: "RequestCancelled"}


def interrupted(reason: int) -> tuple[str, str]:
    return "error", f"trio_dirty.{NAMES[reason]}"


@pytest.mark.parametrize("reason", [SOFT_TIMEOUT, CANCELLED])
@pytest.mark.parametrize(
    ("action", "undisturbed"),
    [
        (work, ("result", 12)),
        (cleans_up, ("result", 12)),
        (fails, ("error", "LookupError")),
        (is_a_lock, ("error", "_thread.lock")),
    ],
)
def test_a_request_ends_as_it_would_or_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, action: Any, undisturbed: Any, reason: int
) -> None:
    seen: Counter[Any] = Counter()

    def check(lane: Lane, thread: Thread, found: Any) -> None:
        assert found in (undisturbed, interrupted(reason))
        if thread.raised:
            assert found == interrupted(reason), "it is lost"
        seen[found] += 1

    at_every_bytecode(
        monkeypatch,
        lambda lane: lane.call(NUMBER, action, 2),
        lambda lane: lane.lane.number == NUMBER and lane.lane.interrupt(reason, 0),
        check,
    )
    assert set(seen) == {undisturbed, interrupted(reason)}


@pytest.mark.parametrize("reason", [SOFT_TIMEOUT, CANCELLED])
def test_it_is_raised_at_most_once(monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    seen: Counter[Any] = Counter()

    def check(lane: Lane, thread: Thread, found: Any) -> None:
        assert HITS in ([], [NAMES[reason]])
        assert len(thread.raised) <= 1
        assert found == ("result", 12) or (found == interrupted(reason) and not HITS)
        seen[found, *HITS] += 1

    at_every_bytecode(
        monkeypatch,
        lambda lane: lane.call(NUMBER, catches, 2),
        lambda lane: lane.lane.number == NUMBER and lane.lane.interrupt(reason, 0),
        check,
    )
    assert len(seen) == 3


@pytest.mark.parametrize("first", [SOFT_TIMEOUT, CANCELLED])
def test_of_two_at_once_the_cancellation_is_raised(
    monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    def interrupt(lane: Lane) -> None:
        if lane.lane.number == NUMBER:
            lane.lane.interrupt(first, 0)
            lane.lane.interrupt(SOFT_TIMEOUT + CANCELLED - first, 0)

    def check(lane: Lane, thread: Thread, found: Any) -> None:
        assert HITS in ([], ["RequestCancelled"])
        assert found in (("result", 12), interrupted(CANCELLED))

    at_every_bytecode(
        monkeypatch, lambda lane: lane.call(NUMBER, catches, 2), interrupt, check, [0, 3, 9]
    )


def test_a_cancellation_behind_a_soft_timeout_is_raised_too() -> None:
    """In an action that has caught the first: else it would go on until it is killed."""
    lane = Lane()

    def action(value: int) -> int:
        for reason in (SOFT_TIMEOUT, CANCELLED, SOFT_TIMEOUT):
            try:
                interrupt_from_outside(lane.lane, reason)
                work(value)
            except (SoftTimeout, RequestCancelled) as error:
                HITS.append(repr(error))
        return work(value)

    HITS.clear()
    assert lane.call(NUMBER, action, 2) == ("result", 12)
    assert HITS == [
        "SoftTimeout('soft_timeout has passed')",
        "RequestCancelled('the caller has left')",
    ]
    assert lane.call(NEXT, work, 2) == ("result", 12)


@pytest.mark.parametrize("sleeps", [1, 4, 16, 1_000])
@pytest.mark.parametrize("first", [0, SOFT_TIMEOUT])
def test_it_does_not_go_on_while_it_may_be_interrupted(
    monkeypatch: pytest.MonkeyPatch, first: int, sleeps: int
) -> None:
    """The main thread has seen it armed, and then does not run for a while."""
    seen: Counter[Any] = Counter()

    def interrupt_slowly(lane: Lane) -> None:
        if not lane.lane.armed:
            return
        if first:
            lane.lane.interrupt(first, 0)
        lane.lane._interrupting = True

        def rest() -> None:
            lane.lane._is_set = True
            lane.thread.raise_in(lane.lane._thread, RequestCancelled)
            lane.lane._interrupting = False

        lane.thread.rest, lane.thread.sleeps = rest, sleeps

    def check(lane: Lane, thread: Thread, found: Any) -> None:
        possible = [("error", "LookupError"), interrupted(CANCELLED), interrupted(SOFT_TIMEOUT)]
        assert found in possible
        seen[found] += 1

    at_every_bytecode(
        monkeypatch,
        lambda lane: lane.call(NUMBER, fails, 2),
        interrupt_slowly,
        check,
        [0, 1, 2, 4, 8],
    )
    assert seen["error", "LookupError"]


def test_what_has_been_raised_is_not_raised_again_in_the_next_step() -> None:
    lane = Lane()

    class Catches(Steps):
        def __next__(self) -> int:
            if self.number == 1:
                try:
                    interrupt_from_outside(lane.lane, CANCELLED)
                    work(2)
                except RequestCancelled:
                    HITS.append("caught")
            return super().__next__()

    HITS.clear()
    assert lane.stream(NUMBER, lambda: Catches(3)) == ("result", None)
    assert (lane.chunks, HITS) == ([0, 1, 2], ["caught"])


def test_a_step_ends_as_it_would_or_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[Any] = Counter()

    def check(lane: Lane, thread: Thread, found: Any) -> None:
        assert lane.chunks == [0, 1, 2][: len(lane.chunks)]
        if found == interrupted(SOFT_TIMEOUT):
            seen[len(lane.chunks)] += 1
        else:
            assert (found, len(lane.chunks), thread.raised) == (("result", None), 3, [])

    at_every_bytecode(
        monkeypatch,
        lambda lane: lane.stream(NUMBER, count_to_3),
        lambda lane: (
            lane.lane.number == NUMBER and lane.lane.interrupt(SOFT_TIMEOUT, lane.lane.steps)
        ),
        check,
        [0, 1, 2, 5, 9, 24],
    )
    assert set(seen) == {0, 1, 2, 3}


@pytest.mark.parametrize("further", [-1, 5])
def test_a_soft_timeout_of_another_step_hits_nobody(
    monkeypatch: pytest.MonkeyPatch, further: int
) -> None:
    def interrupt(lane: Lane) -> None:
        step = lane.lane.steps + further
        if step >= 0:
            lane.lane.interrupt(SOFT_TIMEOUT, step)

    def check(lane: Lane, thread: Thread, found: Any) -> None:
        assert (found, lane.chunks) == (("result", None), [0, 1, 2])
        assert thread.raised == []

    at_every_bytecode(
        monkeypatch, lambda lane: lane.stream(NUMBER, count_to_3), interrupt, check, [0, 5]
    )


def test_a_generator_that_is_left_is_closed_once_and_in_peace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: Counter[Any] = Counter()

    def leave(lane: Lane) -> None:
        if lane.lane.number == NUMBER:
            lane.lane.abandon()
            lane.lane.interrupt(CANCELLED, 0)

    def check(lane: Lane, thread: Thread, found: Any) -> None:
        assert found in (("result", None), interrupted(CANCELLED))
        assert HITS == ["closing", "closed"] or (not HITS and not lane.chunks)
        seen[found] += 1

    at_every_bytecode(
        monkeypatch,
        lambda lane: lane.stream(NUMBER, counts_on(lane)),
        leave,
        check,
        [0, 1, 2, 5, 9, 24],
    )
    assert len(seen) == 2


@pytest.mark.parametrize("reason", [SOFT_TIMEOUT, CANCELLED])
def test_what_was_asked_for_before_it_began_is_raised_at_its_beginning(reason: int) -> None:
    lane = Lane()
    for told_in_the_queue in (True, False):
        HITS.clear()
        lane.apps.actions[b"action"] = catches
        lane.lane.begin(NUMBER, reason if told_in_the_queue else 0)
        if not told_in_the_queue:
            lane.lane.interrupt(reason, 0)
        pickled = pickle.dumps(((2,), {}))
        frames = answer(lane.lane, lane.apps, lane.outbox, NUMBER, b"action", pickled)
        assert outcome(b"".join(frames)) == interrupted(reason)
        assert HITS == []
        assert lane.call(NEXT, work, 2) == ("result", 12)


def test_nothing_is_left_that_cpython_would_look_for() -> None:
    """Else no traced call of the process would ever end: CPython 3.11 looks again and again."""
    lane = Lane()
    assert lane.call(
        NUMBER, lambda: interrupt_from_outside(lane.lane, SOFT_TIMEOUT)
    ) == interrupted(SOFT_TIMEOUT)
    # And of one that comes when the action has ended, and is called off.
    lane.lane.begin(NEXT)
    lane.lane._is_set = True
    assert lane.lane.run(lambda: 1, (), {}) == 1
    done = threading.Event()

    def traced() -> None:
        sys.settrace(lambda *_: None)
        work(1)
        sys.settrace(None)
        done.set()

    threading.Thread(target=traced, daemon=True).start()
    assert done.wait(30)
