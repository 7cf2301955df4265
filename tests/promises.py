"""The judgement of a play: one function for each promise.

What is judged is what *began*, by the workers' own log, and what the pool did, by its events;
never who resumed first, which trio shuffles. Where a promise is about time or about how
many are sent ahead, it is judged in simulation only, where these are known exactly.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

from play import APPS, CANCEL_GRACE, SLOTS, Log

AHEAD_LIMIT = 64
FAILURES_LIMIT = 7
KILL_PATIENCE = 0.005
"""Seconds that an order to kill waits for an answer that makes it needless."""


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


def executed(log: Log) -> dict[int, list[tuple[float, float, int]]]:
    """Return from when to when each worker was executing which request, in truth.

    A call lasts as planned unless it is interrupted; how long a stream lasts is its reader's.
    """
    ended = {event.values[0]: event.time for event in log.of("request_ended")}
    return {
        worker: [
            (begin, ended[number] if is_stream(log, number) else min(end, ended[number]), number)
            for begin, end, number in spans
            if number in ended
        ]
        for worker, spans in log.spans.items()
    }


def is_stream(log: Log, number: int) -> bool:
    """Whether a request's results come one by one."""
    return log.ask(number).chunks is not None


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
    for worker, spans in executed(log).items():
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
    """Follows the events, and knows whose turn it is for each app.

    ``loads``: by slot, what it has been given and has not ended; None: turns alone decide.
    """

    def __init__(self, loads: Counter[int] | None) -> None:
        self.loads = loads
        self.ready: set[int] = set()
        self.last: dict[Any, int] = {}
        self.counts: dict[Any, Counter[int]] = defaultdict(Counter)

    def changed(self, slot: int, is_ready: bool) -> None:
        (self.ready.add if is_ready else self.ready.discard)(slot)
        self.counts.clear()

    def given(self, app: Any, slot: int) -> None:
        candidates = self.ready
        if self.loads is not None:
            least = min((self.loads[s] for s in self.ready), default=0)
            candidates = {s for s in self.ready if self.loads[s] == least}
        behind = [s for s in sorted(candidates) if s > self.last.get(app, -1)]
        turn = min(behind or candidates, default=None)
        assert slot == turn, f"slot {slot} was given what was slot {turn}'s, of {self.ready}"
        self.last[app] = slot
        if self.loads is not None:
            return
        self.counts[app][slot] += 1
        numbers = [self.counts[app][s] for s in self.ready]
        assert max(numbers) - min(numbers) <= 1


def judge_fairness(log: Log) -> None:
    """Each request went to the first ready slot behind the one its app's last had gone to.

    From which it follows that the numbers differ by at most one; that is checked as well. With
    least_loaded it went to the first of those that had the fewest. Where slots can be full,
    they are passed over, and nothing is promised.
    """
    assert log.script is not None
    if log.script.max_queue is not None:
        return
    loads: Counter[int] = Counter()
    rotations = Rotations(loads if log.script.routing == "least_loaded" else None)
    places: dict[int, int] = {}
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
            if number in places:
                loads[places[number]] -= 1
            if taker is None and log.ask(number).turns:
                rotations.given(apps[number], slot)
            if log.ask(number).turns:
                assert slot in rotations.ready or slot == taker
            places[number] = slot
            loads[slot] += 1
        elif event.hook == "request_ended" and values[0] in places:
            loads[places.pop(values[0])] -= 1
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
            if log.ask(event.values[0]).turns:
                homeless.add(event.values[0])
        elif event.hook in ("request_given", "request_ended"):
            homeless.discard(event.values[0])
        elif event.hook == "worker_exited" and event.time < given_up_at(log):
            held = held_by(event.values[0], log.events[:position])
            homeless |= {number for number in held if log.ask(number).turns}
        elif event.hook == "worker_ready":
            taken: list[Any] = []
            for later in log.events[position + 1 :]:
                if later.hook != "request_given":
                    break
                taken.append(later.values[0])
            assert taken == sorted(taken), f"{taken} was taken over out of order"
            assert homeless <= set(taken), f"{homeless} wait for a slot although one is ready"
            queues = log.unsent.get(position, {})
            for waiting in queues.values():
                queue = [number for number in waiting if log.ask(number).turns]
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
    for worker, seconds, ahead, number in log.ahead:
        assert ahead <= AHEAD_LIMIT
        assert not (ahead and is_stream(log, number)), f"{ahead} were sent behind stream {number}"
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
    cancelled = by_request(log, "request_cancelled")
    requests: dict[int, list[int]] = defaultdict(list)
    for number in accepted:
        requests[log.tags[number]].append(number)
    for tag, outcomes in log.outcomes.items():
        outcome = only(outcomes)
        ask, numbers = log.asked[tag], requests[tag]
        if not numbers:
            assert outcome in refused(log, tag), f"{outcome} came though nothing was accepted"
        elif ask.broadcast:
            if outcome != "cancelled":
                judge_broadcast_outcome(tag, outcome, [ends[number] for number in numbers])
        else:
            number = only(numbers)
            was_cancelled = number in cancelled
            assert is_due(log, tag, ends[number], outcome, was_cancelled=was_cancelled), (
                f"{number} {ends[number]}, its caller got {outcome}"
            )
    assert "closed" not in ends.values() or log.left in ("cancel", "grace"), (
        "what was accepted is served"
    )


def refused(log: Log, tag: int) -> set[str]:
    """Return how a call may end that was never accepted."""
    ask = log.asked[tag]
    if ask.broadcast or ask.chunks is not None:  # these look around before they are accepted
        return {"closed", "cancelled", "unavailable", "busy"}
    return {"closed"} if tag in log.late else set()


def judge_broadcast_outcome(tag: int, outcome: Any, ends: list[str]) -> None:
    """A broadcast returned the results in order, or a group of what failed."""
    failed = sum(end != "returned" for end in ends)
    expected = ("group", failed) if failed else [tag] * len(ends)
    assert outcome == expected, f"a broadcast ended with {ends}, its caller got {outcome}"


def hits(log: Log) -> set[tuple[int, int]]:
    """Return slot and process of the workers that the script has hit."""
    exits = [event.values for event in log.of("worker_exited")]
    return {(slot, pid) for slot, worker, pid, _ in exits if worker in log.hit}


def is_due(log: Log, tag: int, end: str, outcome: Any, *, was_cancelled: bool) -> bool:
    """Whether a request's end by the log is what its caller has got."""
    ask = log.asked[tag]
    if ask.chunks is not None:
        taken = log.taken[tag]
        assert taken == list(range(len(taken))), f"{taken} arrived"
        if outcome in ("left", "cancelled"):
            return True
        if end == "returned":
            return outcome == "read" and len(taken) == ask.chunks
        if end == "crashed" and ask.dies and outcome[1:] not in hits(log):
            assert len(taken) == max(0, ask.chunks - 1), f"{taken} arrived before the end"
    if was_cancelled and ask.on_cancel != "wait":
        return outcome == "cancelled"
    match end:
        case "returned":
            return outcome == tag
        case "raised":
            return outcome == "soft" or (was_cancelled and outcome == "cancelled")
        case "crashed":
            return outcome[0] == "crashed"
        case "withdrawn":
            return was_cancelled and outcome == "cancelled"
        case "closed":
            return outcome == "closed" or (was_cancelled and outcome == "cancelled")
        case _:
            return outcome == end


def judge_limits(log: Log) -> None:
    """What was over its limits was ended, at once; and nothing else was.

    A call only: of a stream, limits bound each step.
    """
    begun = {event.values[0]: event.time for event in log.of("request_begun")}
    left = {event.values[0]: event.time for event in log.of("request_cancelled")}
    planned = {n: end - begin for spans in log.spans.values() for begin, end, n in spans}
    of = {n: worker for worker, spans in log.spans.items() for _, _, n in spans}
    for event in log.of("request_ended"):
        number, how = event.values
        ask = log.ask(number)
        if number not in begun or number not in planned or how == "closed":
            continue
        was_stopped = of[number] in log.stalled
        lasted = event.time - begun[number]
        timeout = math.inf if ask.timeout is None else ask.timeout
        if how == "timed_out":
            is_late = was_stopped or planned[number] >= timeout - 1e-6 or is_stream(log, number)
            assert is_late, f"{number} timed out, and would have taken {planned[number]}"
            assert lasted >= timeout - 1e-6, f"{number} timed out after {lasted}"
        if not is_stream(log, number):
            assert lasted <= timeout + 1e-6, f"{number} lasted {lasted}"
            if ask.soft_timeout is not None and not ask.stubborn and not was_stopped:
                assert lasted <= ask.soft_timeout + 1e-6, f"{number} lasted {lasted}"
        if how == "killed":
            assert number in left, f"{number} was killed, and its caller had not left"
        if number in left and ask.on_cancel in ("interrupt", "kill"):
            grace = CANCEL_GRACE if ask.on_cancel == "interrupt" else KILL_PATIENCE
            since = max(left[number], begun[number])
            assert event.time - since <= grace + 1e-6, f"{number} went on after its caller left"
        if number in left and is_stream(log, number) and not was_stopped:
            went_on = event.time - max(left[number], begun[number])
            assert went_on <= planned[number] + 1e-6, f"{number} ran on for {went_on}"
        if number in left and ask.on_cancel == "interrupt" and how == "killed":
            assert ask.stubborn or was_stopped, f"{number} was killed, and would have ended"


def judge_broadcasts(log: Log) -> None:
    """A broadcast went to each slot that had not failed, ready or not, once."""
    failed: set[int] = set()
    expected: dict[int, list[int]] = {}
    given: dict[int, list[int]] = defaultdict(list)
    seen: set[int] = set()
    for event in log.events:
        values: Any = event.values
        if event.hook == "slot_closed" and values[1] is not None:
            failed.add(values[0])
        elif event.hook == "request_given" and log.ask(values[0]).broadcast:
            number, slot = values
            if number not in seen:
                seen.add(number)
                expected.setdefault(log.tags[number], sorted({*range(SLOTS)} - failed))
                given[log.tags[number]].append(slot)
    assert given == expected


def judge_keys(log: Log) -> None:
    """Requests of one key began in the order of acceptance, and in one slot while it was there."""
    failed: set[int] = set()
    places: dict[tuple[Any, int], int] = {}
    last: dict[tuple[Any, int], int] = {}
    apps: dict[int, Any] = {}
    for event in log.events:
        values: Any = event.values
        if event.hook == "slot_closed" and values[1] is not None:
            failed.add(values[0])
        elif event.hook == "request_accepted":
            apps[values[0]] = values[1]
        elif event.hook in ("request_given", "request_begun"):
            number, slot, *_ = values
            key = log.ask(number).key
            if key is None:
                continue
            thread = apps[number], key
            if event.hook == "request_begun":
                assert number > last.get(thread, -1), f"{number} of key {key} began too late"
                last[thread] = number
            elif places.setdefault(thread, slot) != slot:
                assert places[thread] in failed, f"key {key} moved from a slot that was there"
                places[thread] = slot


def judge_max_queue(log: Log) -> None:
    """No slot was given a new request above what may wait there; none was refused without cause."""
    assert log.script is not None
    max_queue = log.script.max_queue
    ready: set[int] = set()
    waiting: dict[int, set[int]] = {slot: set() for slot in range(SLOTS)}
    executing: dict[int, set[int]] = {slot: set() for slot in range(SLOTS)}
    fresh = -1
    for event in log.events:
        values: Any = event.values
        match event.hook:
            case "worker_ready":
                ready.add(values[0])
            case "worker_exited":
                ready.discard(values[0])
                # What takes turns is given on, or waits in the pool.
                waiting[values[0]] = {n for n in waiting[values[0]] if not log.ask(n).turns}
            case "request_accepted":
                fresh = values[0]
            case "request_given":
                number, slot = values
                for others in waiting.values():
                    others.discard(number)
                waiting[slot].add(number)
                if number == fresh and max_queue is not None:
                    begins = slot in ready and not executing[slot]
                    assert len(waiting[slot]) <= max_queue + begins, f"slot {slot} was full"
            case "request_begun":
                number, slot, _ = values
                waiting[slot].discard(number)
                executing[slot].add(number)
            case "request_cancelled":
                for others in waiting.values():
                    others.discard(values[0])
            case "request_ended":
                for others in (*waiting.values(), *executing.values()):
                    others.discard(values[0])
                if values[1] == "busy":
                    assert max_queue is not None
                    if log.ask(values[0]).turns:
                        full = all(len(waiting[slot]) >= max_queue for slot in ready)
                        assert full, f"{values[0]} was refused though there was room"
        if event.hook != "request_accepted":
            fresh = -1  # what waited in the pool may come in any number


def judge_no_service_without_cause(log: Log) -> None:
    """NoWorkersAvailableError came only when every slot had failed."""
    failed = set()
    for event in log.events:
        if event.hook == "slot_closed" and event.values[1] is not None:
            failed.add(event.values[0])
        elif event.hook == "request_ended" and event.values[1] == "unavailable":
            if log.ask(event.values[0]).broadcast:
                assert failed
                continue
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
        if only(outcomes)[0] in ("crashed", "timed_out", "killed"):
            slot, worker = only(begun[number])
            victims[worker] += 1
            assert exits[worker][3] is not None, f"worker {worker} had not died"
        if only(outcomes) == ("crashed",) and not log.ask(number).broadcast:
            outcome = only(log.outcomes[log.tags[number]])
            assert outcome in ("cancelled", "left", ("crashed", slot, exits[worker][2]))
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


def killed_by_the_pool(log: Log) -> set[int]:
    """Return the workers that the pool has killed for what they were executing."""
    begun = by_request(log, "request_begun")
    ended = [event.values for event in log.of("request_ended")]
    return {begun[number][0][1] for number, how in ended if how in ("timed_out", "killed")}


def is_interrupted(log: Log, number: int) -> bool:
    """Whether something may be raised inside a request."""
    ask = log.ask(number)
    return ask.soft_timeout is not None or ask.on_cancel in ("interrupt", "wait")


def judge_isolation(log: Log) -> None:
    """No worker died that nothing had hit; what it began ended by that worker alone.

    And one that was not stopped itself never stood still while its slot had anything to do.
    """
    begun = by_request(log, "request_begun")
    killed = log.hit | {only(at)[1] for number, at in begun.items() if log.ask(number).dies}
    killed |= killed_by_the_pool(log)
    for event in log.of("worker_exited"):
        _, worker, _, exitcode = event.values
        # Leaving kills what does not close in time.
        if exitcode is not None and exitcode != 0 and event.time < log.left_at:
            assert worker in killed, f"worker {worker} died, and nothing had hit it"
    died = {event.values[1] for event in log.of("worker_exited") if event.values[3] != 0}
    ended = by_request(log, "request_ended")
    for _, worker, number in log.begun:
        (how,) = only(ended[number])
        interrupted = how == "raised" and is_interrupted(log, number)
        assert how == "returned" or interrupted or worker in died, (
            f"{number} {how}; worker {worker} was well"
        )
    ready = {event.values[1]: event for event in log.of("worker_ready")}
    given = {event.values: event.time for event in log.of("request_given")}
    for worker, spans in executed(log).items():
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
    served = killed_by_the_pool(log)  # which is no failure of theirs
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
    later = log.events[last + 1 :]
    hooks = {"request_accepted", "request_given", "request_ended", "request_cancelled"}
    assert {event.hook for event in later} <= hooks
    given = [event.values[0] for event in later if event.hook == "request_given"]
    assert not any(log.ask(number).turns for number in given), "only a key waits for its slot"


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
    judge_broadcasts,
    judge_keys,
    judge_max_queue,
    judge_no_orphans,
)
"""What can be judged of any engine."""

TIMING = (judge_window, judge_cancellation, judge_limits, judge_back_off, judge_leaving)
"""What can be judged on virtual time only."""


def judge(log: Log) -> None:
    """Check all promises."""
    for promise in (*SAFETY, *TIMING):
        promise(log)
