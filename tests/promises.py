"""The judgement of a play: one function for each promise.

What is judged is what *began*, by the workers' own log, and what the pool did, by its events;
never who resumed first, which trio shuffles. Where a promise is about time or about how
many are sent ahead, it is judged in simulation only, where these are known exactly.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

from play import APPS, SLOTS, Log

AHEAD_LIMIT = 64
FAILURES_LIMIT = 7


def by_request(log: Log, hook: str) -> dict[int, list[tuple]]:
    """Return the values of a hook's events by their request."""
    found = defaultdict(list)
    for event in log.of(hook):
        number, *values = event.values
        found[number].append(tuple(values))
    return found


def only(values: list[Any]) -> Any:
    """Return the one value that there is."""
    assert len(values) == 1, f"there should be one of {values}"
    return values[0]


def judge_order(log: Log) -> None:
    """Each worker began a subsequence of what its slot was given, and one at a time."""
    given: dict[int, dict[int, None]] = defaultdict(dict)
    for event in log.of("request_given"):
        number, slot = event.values
        for numbers in given.values():  # given again, it is behind all that came meanwhile
            numbers.pop(number, None)
        given[slot][number] = None
    begun = defaultdict(list)
    for slot, worker, number in log.begun:
        begun[slot, worker].append(number)
    for (slot, _), numbers in begun.items():
        rest = iter(given[slot])
        assert all(number in rest for number in numbers), (
            f"slot {slot} was given {[*given[slot]]} and began {numbers}"
        )
    for worker, spans in log.spans.items():
        for (_, end, _), (begin, _, _) in pairwise(spans):
            assert begin >= end, f"worker {worker} was executing until {end} and began at {begin}"
    executing: dict[int, int] = {}
    for event in log.events:
        if event.hook == "request_begun":
            number, _, worker = event.values
            assert worker not in executing.values(), f"worker {worker} began two at once"
            executing[number] = worker
        elif event.hook == "request_ended":
            executing.pop(event.values[0], None)


class Rotations:
    """Follows the events, and knows whose turn it is for each app."""

    def __init__(self) -> None:
        self.ready: set[int] = set()
        self.last: dict[Any, int] = {}
        self.counts: dict[Any, Counter[int]] = defaultdict(Counter)

    def changed(self, slot: int, is_ready: bool) -> None:
        (self.ready.add if is_ready else self.ready.discard)(slot)
        self.counts.clear()

    def given(self, app: Any, slot: int) -> None:
        behind = [s for s in sorted(self.ready) if s > self.last.get(app, -1)]
        turn = min(behind or self.ready, default=None)
        assert slot == turn, f"slot {slot} was given what was slot {turn}'s, of {self.ready}"
        self.last[app] = slot
        self.counts[app][slot] += 1
        numbers = [self.counts[app][s] for s in self.ready]
        assert max(numbers) - min(numbers) <= 1


def judge_fairness(log: Log) -> None:
    """Each request went to the first ready slot behind the one its app's last had gone to.

    From which it follows that the numbers differ by at most one; that is checked as well.
    """
    rotations = Rotations()
    apps: dict[int, Any] = {}
    taker: int | None = None  # the slot that became ready, while it takes over
    for event in log.events:
        values: Any = event.values
        if taker is not None and event.hook != "request_given":
            rotations.changed(taker, True)
            taker = None
        if event.hook == "request_accepted":
            number, app, _ = values
            apps[number] = app
        elif event.hook == "request_given":
            number, slot = values
            if taker is None:
                rotations.given(apps[number], slot)
            assert slot in rotations.ready or slot == taker
        elif event.hook == "worker_ready":
            taker = values[0]
        elif event.hook == "worker_exited":
            rotations.changed(values[0], False)


def judge_share(log: Log) -> None:
    """A slot that became ready took over what waited for any slot, in order of acceptance.

    And of what each other slot had not sent, one of as many of each app as share it now.
    """
    apps = {event.values[0]: event.values[1] for event in log.of("request_accepted")}
    homeless: set[Any] = set()
    for position, event in enumerate(log.events):
        if event.hook == "request_accepted":
            homeless.add(event.values[0])
        elif event.hook in ("request_given", "request_ended"):
            homeless.discard(event.values[0])
        elif event.hook == "worker_exited" and event.time < given_up_at(log):
            homeless |= held_by(event.values[0], log.events[:position])
        elif event.hook == "worker_ready":
            taken: list[Any] = []
            for later in log.events[position + 1 :]:
                if later.hook != "request_given":
                    break
                taken.append(later.values[0])
            assert taken == sorted(taken), f"{taken} was taken over out of order"
            assert homeless <= set(taken), f"{homeless} wait for a slot although one is ready"
            queues = log.unsent.get(position, {})
            for queue in queues.values():
                for app in {apps[number] for number in queue}:
                    of_app = [number for number in queue if apps[number] == app]
                    moved = len(set(of_app) & set(taken))
                    assert moved == len(of_app) // (len(queues) + 1)


def given_up_at(log: Log) -> float:
    """Return when the pool killed its workers, and gave nothing to anybody any more."""
    return log.left_at if log.left == "cancel" else log.left_at + log.grace


def held_by(slot: int, events: list[Any]) -> set[Any]:
    """Return what a slot that is lost now had been given and had not begun or ended."""
    held: dict[Any, int] = {}
    for event in events:
        if event.hook == "request_given":
            held[event.values[0]] = event.values[1]
        elif event.hook in ("request_begun", "request_ended"):
            held.pop(event.values[0], None)
    return {number for number, at in held.items() if at == slot}


def judge_window(log: Log) -> None:
    """One was ahead of long requests, and never more than the limit."""
    long: dict[int, bool] = defaultdict(lambda: True)
    for worker, seconds, ahead in log.ahead:
        assert ahead <= AHEAD_LIMIT
        if long[worker]:
            assert ahead <= 1, f"worker {worker} had {ahead} ahead of a long request"
        long[worker] &= seconds >= 1


def judge_one_outcome(log: Log) -> None:
    """Each accepted request ended, once, by the log and for its caller; its result is its own."""
    accepted = [event.values[0] for event in log.of("request_accepted")]
    assert accepted == list(range(len(accepted)))
    ended = by_request(log, "request_ended")
    assert sorted(ended) == accepted
    ends = {number: only(outcomes)[0] for number, outcomes in ended.items()}
    expected = {
        "returned": lambda number, outcome: outcome == number,
        "crashed": lambda _, outcome: outcome[0] == "crashed",
        "unavailable": lambda _, outcome: outcome == "unavailable",
        "closed": lambda _, outcome: outcome == "closed",
        "withdrawn": lambda *_: False,  # only what was cancelled
    }
    cancelled = by_request(log, "request_cancelled")
    for number, outcomes in log.outcomes.items():
        assert len(outcomes) == 1, f"the call of {number} ended with {outcomes}"
        if number not in ended:
            assert outcomes == ["closed"]
            assert number in log.late
        elif number in cancelled:
            assert outcomes == ["cancelled"]
        else:
            how = ends[number]
            assert expected[how](number, outcomes[0]), f"{number} {how}, and got {outcomes[0]}"
    assert "closed" not in ends.values() or log.left in ("cancel", "grace"), (
        "what was accepted is served"
    )


def judge_no_service_without_cause(log: Log) -> None:
    """NoWorkersAvailableError came only when every slot had failed."""
    failed = set()
    for event in log.events:
        if event.hook == "slot_closed" and event.values[1] is not None:
            failed.add(event.values[0])
        elif event.hook == "request_ended" and event.values[1] == "unavailable":
            assert len(failed) == SLOTS, f"it came when only {failed} had failed"


def judge_at_most_once(log: Log) -> None:
    """No request began twice, in a worker or by the log."""
    twice = [n for n, times in Counter(n for _, _, n in log.begun).items() if times > 1]
    assert not twice, f"{twice} began twice"
    begun = by_request(log, "request_begun")
    assert all(only(times) for times in begun.values())
    # A pool that is being left kills its workers without reading what they have answered, and
    # what was sent ahead may have begun meanwhile.
    closed = {event.values[0] for event in log.of("request_ended") if event.values[1] == "closed"}
    for slot, worker, number in log.begun:
        known = begun[number] or (number in closed and [(slot, worker)])
        assert known == [(slot, worker)], f"{number} began, and the pool did not know"


def judge_nothing_lost(log: Log) -> None:
    """A request failed by a crash only if it may have begun in the worker that died.

    And of each worker that died at most one did.
    """
    begun = by_request(log, "request_begun")
    exits = {event.values[1]: event.values for event in log.of("worker_exited")}
    victims: Counter[int] = Counter()
    for number, outcomes in by_request(log, "request_ended").items():
        if only(outcomes) == ("crashed",):
            slot, worker = only(begun[number])
            victims[worker] += 1
            assert exits[worker][3] is not None, f"worker {worker} had not died"
            outcome = only(log.outcomes[number])
            assert outcome in ("cancelled", ("crashed", slot, exits[worker][2]))
    assert all(count == 1 for count in victims.values()), f"victims by worker: {victims}"


def judge_rerouting(log: Log) -> None:
    """What a lost slot had been given was given on in the order of acceptance."""
    for position, event in enumerate(log.events):
        if event.hook == "worker_exited":
            moved = []
            for later in log.events[position + 1 :]:
                if later.hook == "request_given":
                    moved.append(later.values[0])
                elif later.hook != "request_ended":
                    break
            assert moved == sorted(moved), f"{moved} was given on, which is out of order"


def judge_isolation(log: Log) -> None:
    """No worker died that nothing had hit; what it began ended by that worker alone.

    And one that was not stopped itself never stood still while its slot had anything to do.
    """
    killed = log.hit | {worker for _, worker, number in log.begun if number in log.deadly}
    for event in log.of("worker_exited"):
        _, worker, _, exitcode = event.values
        # Leaving kills what does not close in time.
        if exitcode is not None and exitcode != 0 and event.time < log.left_at:
            assert worker in killed, f"worker {worker} died, and nothing had hit it"
    died = {event.values[1] for event in log.of("worker_exited") if event.values[3] != 0}
    ended = by_request(log, "request_ended")
    for _, worker, number in log.begun:
        (how,) = only(ended[number])
        assert how == "returned" or worker in died, f"{number} {how}; worker {worker} was well"
    ready = {event.values[1]: event for event in log.of("worker_ready")}
    given = {event.values: event.time for event in log.of("request_given")}
    for worker, spans in log.spans.items():
        free = ready[worker].time
        for begin, end, number in spans:
            due = max(free, given[number, ready[worker].values[0]])
            assert worker in log.stalled or begin == due, f"{number} began {begin - due} s late"
            free = end


def judge_cancellation(log: Log) -> None:
    """What had not begun when its caller left did not begin."""
    for event in log.of("request_cancelled"):
        (number,) = event.values
        assert log.began_at.get(number, event.time) <= event.time


def judge_back_off(log: Log) -> None:
    """Workers that completed nothing made the next one wait; what served did not."""
    worker_of = {n: only(times)[1] for n, times in by_request(log, "request_begun").items()}
    served = set()
    failures: Counter[int] = Counter()
    exited: dict[int, float] = {}
    for event in log.events:
        values: Any = event.values
        if event.hook == "request_ended" and values[1] in ("returned", "raised"):
            served.add(worker_of[values[0]])
        elif event.hook == "worker_exited":
            slot, worker, *_ = values
            failures[slot] = 0 if worker in served else failures[slot] + 1
            exited[slot] = event.time
        elif event.hook == "worker_started" and values[0] in exited:
            (slot, _) = values
            assert failures[slot] < FAILURES_LIMIT
            wait = 0 if failures[slot] < 2 else 0.1 * 2 ** (failures[slot] - 2)
            assert abs(event.time - exited[slot] - wait) < 1e-6, (
                f"slot {slot} waited {event.time - exited[slot]} s after {failures[slot]} failures"
            )
        elif event.hook == "slot_closed" and values[1] is not None:
            assert failures[values[0]] == FAILURES_LIMIT, "it was given up too soon"


def judge_no_orphans(log: Log) -> None:
    """Every worker that was started has exited, every slot is closed, and nothing came later."""
    started = [event.values for event in log.of("worker_started")]
    exited = [event.values[:2] for event in log.of("worker_exited")]
    assert sorted(started) == sorted(exited)
    assert len({worker for _, worker in started}) == len(started), "a number was used again"
    opened = [event.values for event in log.of("slot_opened")]
    names = tuple(f"{app.__module__}:{app.__qualname__}" for app in APPS)
    assert opened == [(slot, names) for slot, _ in opened]
    assert sorted(slot for slot, _ in opened) == list(range(SLOTS))
    assert sorted(e.values[0] for e in log.of("slot_closed")) == list(range(SLOTS))
    assert log.left_over == []
    last = max(i for i, event in enumerate(log.events) if event.hook == "slot_closed")
    later = {event.hook for event in log.events[last + 1 :]}
    assert later <= {"request_accepted", "request_ended", "request_cancelled"}


def judge_leaving(log: Log) -> None:
    """Leaving took no longer than its kind of leaving may."""
    limit = 0.0 if log.left == "cancel" else log.grace
    assert log.ended_at - log.left_at <= limit + 1e-6


SAFETY = (
    judge_order,
    judge_fairness,
    judge_share,
    judge_one_outcome,
    judge_no_service_without_cause,
    judge_at_most_once,
    judge_nothing_lost,
    judge_rerouting,
    judge_isolation,
    judge_no_orphans,
)
"""What can be judged of any engine."""

TIMING = (judge_window, judge_cancellation, judge_back_off, judge_leaving)
"""What can be judged on virtual time only."""


def judge(log: Log) -> None:
    """Check all promises."""
    for promise in (*SAFETY, *TIMING):
        promise(log)
