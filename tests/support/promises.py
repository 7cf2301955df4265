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

from play import APPS, CANCEL_GRACE, Log

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


class Slots:
    """Follows the events, and knows what each slot is.

    Attributes:
        carries: by slot, its apps; of those that have not left.
        current: by slot, the worker that it gives requests to.
        failed: by slot, why; of those that have failed.
    """

    def __init__(self) -> None:
        self.carries: dict[int, set[Any]] = {}
        self.current: dict[int, int] = {}
        self.failed: dict[int, Any] = {}

    def follow(self, event: Any) -> None:
        values: Any = event.values
        match event.hook:
            case "slot_opened" | "slot_carries":
                self.carries[values[0]] = {*values[1], None}
                self.failed.pop(values[0], None)
            case "slot_leaving":
                del self.carries[values[0]]
                self.current.pop(values[0], None)
                self.failed.pop(values[0], None)
            case "slot_closed" if values[1] is not None:
                self.failed[values[0]] = values[1]
            case "worker_ready":
                self.current[values[0]] = values[1]
            case "worker_retired" if values[2] != "closing":
                self.current.pop(values[0], None)
            case "worker_exited" if self.current.get(values[0]) == values[1]:
                del self.current[values[0]]

    def carriers(self, app: Any) -> set[int]:
        """Return the slots that carry an app and have not failed."""
        return {slot for slot, apps in self.carries.items() if app in apps} - {*self.failed}

    def ready(self, app: Any) -> set[int]:
        """Return those of them that have a worker."""
        return self.carriers(app) & {*self.current}


def takes_over(events: list[Any], position: int) -> bool:
    """Whether the worker that is ready there succeeds one that has served until then."""
    before = [event for event in events[:position] if event.hook != "slot_carries"][-1]
    return before.hook == "worker_retired" and before.values[0] == events[position].values[0]


def succeeded(events: list[Any], position: int) -> bool:
    """Whether another worker takes over from the one that is retired there."""
    after = [event for event in events[position + 1 :] if event.hook != "slot_carries"]
    return after[0].hook == "worker_ready" and after[0].values[0] == events[position].values[0]


def threads_of(log: Log) -> int:
    """Return how many requests a worker executes at a time."""
    assert log.script is not None
    return log.script.threads


def is_in_pieces(log: Log) -> bool:
    """Whether what a lost slot had goes elsewhere little by little, and others in between."""
    assert log.script is not None
    return log.script.pieces


def is_stream(log: Log, number: int) -> bool:
    """Whether a request's results come one by one."""
    return log.ask(number).chunks is not None


def judge_order(log: Log) -> None:
    """Each worker began a subsequence of what its slot was given, and one at a time."""
    given: dict[int, list[int]] = defaultdict(list)
    has_begun: set[int] = set()
    slots = Slots()
    kept = 0  # how many in a row a slot was given again that it had been given before
    for event in log.events:
        if event.hook.startswith(("slot_", "worker_")):
            slots.follow(event)
        elif event.hook == "request_begun":
            has_begun.add(event.values[0])
        if event.hook != "request_given":
            kept = 0
            continue
        number, slot = event.values
        keeps = number in given[slot] and not log.ask(number).turns and slot in slots.current
        for numbers in given.values():
            if number in numbers:
                numbers.remove(number)
        # It is behind all that came meanwhile, unless a successor begins with it.
        at = sum(other in has_begun for other in given[slot]) + kept
        given[slot].insert(at if keeps else len(given[slot]), number)
        kept += keeps
    threads = threads_of(log)
    orders = defaultdict(list)
    if threads == 1:
        for slot, worker, number in log.begun:
            orders[slot, worker].append(number)
    else:  # what threads say is no order; in simulation it is known when each was taken up
        slots_of = {event.values[1]: event.values[0] for event in log.of("worker_ready")}
        for worker, _, _, number in log.ahead:
            orders[slots_of[worker], worker].append(number)
    for (slot, _), numbers in orders.items():
        rest = iter(given[slot])
        assert all(number in rest for number in numbers), (
            f"slot {slot} was given {given[slot]} and began {numbers}"
        )
    ready = {event.values[1]: at for at, event in enumerate(log.of("worker_ready"))}
    # One whose caller has left before it began may begin all the same; nobody waits for that.
    left: set[int] = set()
    wanted = []
    for event in log.events:
        if event.hook == "request_cancelled":
            left.add(event.values[0])
        elif event.hook == "request_begun" and event.values[0] not in left:
            wanted.append(event)
    withdrawn = {e.values[0] for e in log.of("request_ended") if e.values[1] == "withdrawn"}
    for slot in {slot for slot, _, _ in log.begun}:
        begun = [e.values[1:] for e in wanted if e.values[0] not in withdrawn]
        workers = [ready[worker] for of, worker in begun if of == slot]
        assert workers == sorted(workers), f"slot {slot}: a predecessor began behind a successor"
    for worker, spans in executed(log).items():
        for position, (begin, _, number) in enumerate(spans):
            others = [n for _, end, n in spans[:position] if end > begin]
            assert len(others) < threads, f"worker {worker} began {number} beside {others}"
    executing: dict[int, int] = {}
    for event in log.events:
        if event.hook == "request_begun":
            number, _, worker = event.values
            beside = [*executing.values()].count(worker)
            assert beside < threads, f"worker {worker} began {beside + 1} at once"
            executing[number] = worker
        elif event.hook == "request_ended":
            executing.pop(event.values[0], None)


class Rotations:
    """Follows the events, and knows whose turn it is for each app.

    ``loads``: by slot, what it has been given and has not ended; None: turns alone decide.
    """

    def __init__(self, loads: Counter[int] | None) -> None:
        self.loads = loads
        self.slots = Slots()
        self.last: dict[Any, int] = {}
        self.counts: dict[Any, Counter[int]] = defaultdict(Counter)

    def follow(self, event: Any) -> None:
        before = {app: self.slots.ready(app) for app in self.counts}
        self.slots.follow(event)
        for app, ready in before.items():
            if self.slots.ready(app) != ready:
                self.counts[app].clear()

    def given(self, app: Any, slot: int) -> None:
        ready = candidates = self.slots.ready(app)
        if self.loads is not None:
            least = min((self.loads[s] for s in ready), default=0)
            candidates = {s for s in ready if self.loads[s] == least}
        behind = [s for s in sorted(candidates) if s > self.last.get(app, -1)]
        turn = min(behind or candidates, default=None)
        assert slot == turn, f"slot {slot} was given what was slot {turn}'s, of {ready}"
        self.last[app] = slot
        if self.loads is not None:
            return
        self.counts[app][slot] += 1
        numbers = [self.counts[app][s] for s in ready]
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
    if log.script.routing == "least_loaded" and is_in_pieces(log):
        return  # what is on its way is in no slot
    loads: Counter[int] = Counter()
    rotations = Rotations(loads if log.script.routing == "least_loaded" else None)
    places: dict[int, int] = {}
    apps: dict[int, Any] = {}
    taker: int | None = None  # the slot that became ready, while it takes over
    ready: Any = None  # that it did
    for position, event in enumerate(log.events):
        values: Any = event.values
        if event.hook == "worker_exited":  # what cannot have begun leaves the slot all at once
            for number in given_on(log.events, position):
                if log.ask(number).turns and number in places:
                    loads[places.pop(number)] -= 1
        if ready is not None and event.hook != "request_given":
            rotations.follow(ready)
            ready = taker = None
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
                assert slot in rotations.slots.ready(apps[number]) or slot == taker
            places[number] = slot
            loads[slot] += 1
        elif event.hook == "request_ended" and values[0] in places:
            loads[places.pop(values[0])] -= 1
        elif event.hook == "worker_ready":
            taker, ready = values[0], event
        if event.hook.startswith(("slot_", "worker_")) and event.hook != "worker_ready":
            rotations.follow(event)


def judge_share(log: Log) -> None:
    """A slot that became ready took over what waited for any slot, in order of acceptance.

    And of what each other slot had not sent, one of as many of each app as share it now.
    """
    apps = {event.values[0]: event.values[1] for event in log.of("request_accepted")}
    homeless: set[Any] = set()
    begun = {event.values[0]: event.values[1:] for event in log.of("request_begun")}
    slots = Slots()
    for position, event in enumerate(log.events):
        is_current = (
            event.hook == "worker_exited" and slots.current.get(event.values[0]) == event.values[1]
        )
        if event.hook.startswith(("slot_", "worker_")):
            slots.follow(event)
        if event.hook == "request_accepted":
            if log.ask(event.values[0]).turns:
                homeless.add(event.values[0])
        elif event.hook in ("request_given", "request_ended"):
            homeless.discard(event.values[0])
        elif event.hook == "worker_exited" and is_current and event.time < given_up_at(log):
            slot, worker, *_ = event.values
            held = held_by(slot, log.events[:position])
            # What its predecessors have been sent is theirs; of what never began nobody knows.
            before = log.events[:position]
            there = {
                e.values[1] for e in before if e.hook == "worker_ready" and e.values[0] == slot
            }
            there -= {e.values[1] for e in before if e.hook == "worker_exited"}
            its_own = None if there - {worker} else (slot, worker)
            homeless |= {
                number
                for number in held
                if log.ask(number).turns and begun.get(number, its_own) == (slot, worker)
            }
        elif event.hook == "worker_ready":
            taken: list[Any] = []
            for later in log.events[position + 1 :]:
                if later.hook != "request_given":
                    break
                taken.append(later.values[0])
            if is_in_pieces(log):
                continue
            assert taken == sorted(taken), f"{taken} was taken over out of order"
            carried = slots.carries[event.values[0]]
            waiting = {number for number in homeless if apps[number] in carried}
            assert waiting <= set(taken), f"{waiting} wait for a slot although one is ready"
            if takes_over(log.events, position):
                continue
            queues = log.unsent.get(position, {})
            for unsent in queues.values():
                queue = [number for number in unsent if log.ask(number).turns]
                for app in {apps[number] for number in queue} & carried:
                    of_app = [number for number in queue if apps[number] == app]
                    moved = len(set(of_app) & set(taken))
                    assert moved == len(of_app) // len(slots.ready(app))


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
    others = threads_of(log) - 1  # which may be about to begin in its other lanes
    for worker, seconds, ahead, number in log.ahead:
        assert ahead <= AHEAD_LIMIT + others
        behind = ahead > others
        assert not (behind and is_stream(log, number)), f"{ahead} were sent behind stream {number}"
        if long[worker]:
            assert ahead <= 1 + others, f"worker {worker} had {ahead} ahead of a long request"
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
    if ask.where == "argument":  # and these are pickled in a thread
        return {"closed", "cancelled"}
    return {"closed", "cancelled"} if tag in log.late else set()


def judge_broadcast_outcome(tag: int, outcome: Any, ends: list[str]) -> None:
    """A broadcast returned the results in order, or a group of what failed."""
    failed = sum(end != "returned" for end in ends)
    # Of slots that have failed; those that have left are left out.
    unavailable = ends.count("unavailable")
    returned = [tag] * (len(ends) - failed)
    expected = [("group", failed - left_out) for left_out in range(unavailable + 1)]
    if failed == unavailable:
        expected[-1:] = [returned]
    assert outcome in expected, f"a broadcast ended with {ends}, its caller got {outcome}"


def hits(log: Log) -> set[tuple[int, int]]:
    """Return slot and process of the workers that the script has hit or stopped."""
    exits = [event.values for event in log.of("worker_exited")]
    return {(slot, pid) for slot, worker, pid, _ in exits if worker in log.hit | log.stalled}


def is_due(log: Log, tag: int, end: str, outcome: Any, *, was_cancelled: bool) -> bool:
    """Whether a request's end by the log is what its caller has got."""
    ask = log.asked[tag]
    if ask.chunks is not None:
        taken = log.taken[tag]
        assert taken == list(range(len(taken))), f"{taken} arrived"
        if outcome in ("left", "cancelled"):
            return True
        if outcome == "failed":
            assert len(taken) == ask.chunks, f"{taken} arrived before the error"
        if end == "returned":
            return outcome == "read" and len(taken) == ask.chunks
        alone = threads_of(log) == 1
        if end == "crashed" and ask.dies and alone and outcome[1:] not in hits(log):
            assert len(taken) == max(0, ask.chunks - 1), f"{taken} arrived before the end"
    if was_cancelled and ask.on_cancel != "wait":
        return outcome == "cancelled"
    match end:
        case "returned":
            return outcome == tag
        case "raised":
            if outcome == "failed":
                return ask.fails
            return outcome == "soft" or (was_cancelled and outcome == "cancelled")
        case "crashed":
            return outcome[0] == "crashed"
        case "withdrawn":
            return was_cancelled and outcome == "cancelled"
        case "busy" | "unavailable":  # a refusal is a checkpoint before it is raised
            return outcome in (end, "cancelled")
        case "closed":
            return outcome == "closed" or (was_cancelled and outcome == "cancelled")
        case _:
            return outcome == end


def judge_limits(log: Log) -> None:
    """What was over its limits was ended, at once; and nothing else was.

    A call only: of a stream, limits bound each step. Where a large argument is sent slowly, what
    is to end others is behind it.
    """
    assert log.script is not None
    is_prompt = not log.script.slow
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
        if is_prompt and not is_stream(log, number):
            assert lasted <= timeout + 1e-6, f"{number} lasted {lasted}"
            if ask.soft_timeout is not None and not ask.stubborn and not was_stopped:
                assert lasted <= ask.soft_timeout + 1e-6, f"{number} lasted {lasted}"
        if how == "killed":
            assert number in left, f"{number} was killed, and its caller had not left"
        if is_prompt and number in left and ask.on_cancel in ("interrupt", "kill"):
            grace = CANCEL_GRACE if ask.on_cancel == "interrupt" else KILL_PATIENCE
            since = max(left[number], begun[number])
            assert event.time - since <= grace + 1e-6, f"{number} went on after its caller left"
        if is_prompt and number in left and is_stream(log, number) and not was_stopped:
            went_on = event.time - max(left[number], begun[number])
            assert went_on <= planned[number] + 1e-6, f"{number} ran on for {went_on}"
        if is_prompt and number in left and ask.on_cancel == "interrupt" and how == "killed":
            assert ask.stubborn or was_stopped, f"{number} was killed, and would have ended"


def judge_broadcasts(log: Log) -> None:
    """A broadcast went to each slot that had not failed, ready or not, once."""
    slots = Slots()
    apps: dict[int, Any] = {}
    expected: dict[int, list[int]] = {}
    given: dict[int, list[int]] = defaultdict(list)
    seen: set[int] = set()
    for event in log.events:
        values: Any = event.values
        if event.hook.startswith(("slot_", "worker_")):
            slots.follow(event)
        elif event.hook == "request_accepted":
            apps[values[0]] = values[1]
        elif event.hook == "request_given" and log.ask(values[0]).broadcast:
            number, slot = values
            if number not in seen:
                seen.add(number)
                expected.setdefault(log.tags[number], sorted(slots.carriers(apps[number])))
                given[log.tags[number]].append(slot)
    if is_in_pieces(log):  # some may be given later, when slots have come or gone, or never
        assert all(len({*places}) == len(places) for places in given.values())
    else:
        assert given == expected


def judge_keys(log: Log) -> None:
    """Requests of one key began in the order of acceptance, and in one slot while it was there."""
    withdrawn = {e.values[0] for e in log.of("request_ended") if e.values[1] == "withdrawn"}
    # Where a key has its place, and which have been made to leave it.
    places: dict[tuple[Any, int], int] = {}
    gone: set[tuple[Any, int]] = set()
    # What of it has not ended, and which slots have come since it was last given a place.
    going: dict[tuple[Any, int], set[int]] = defaultdict(set)
    come: dict[tuple[Any, int], set[int]] = defaultdict(set)
    last: dict[tuple[Any, int], int] = {}
    apps: dict[int, Any] = {}
    left: set[int] = set()
    for event in log.events:
        values: Any = event.values
        if event.hook == "request_cancelled":
            left.add(values[0])
        if event.hook == "slot_leaving" or (event.hook == "slot_closed" and values[1] is not None):
            gone.update(thread for thread in places if places[thread] == values[0])
        elif event.hook in ("slot_opened", "slot_carries"):
            for opened in come.values():
                opened.add(values[0])
        elif event.hook == "request_accepted":
            apps[values[0]] = values[1]
        elif event.hook == "request_ended":
            going[apps[values[0]], log.ask(values[0]).key].discard(values[0])
        elif event.hook in ("request_given", "request_begun"):
            number, slot, *_ = values
            key = log.ask(number).key
            if key is None or isinstance(key, str):  # of which no two are equal
                continue
            thread = apps[number], key
            others = going[thread] - {number}
            freely, place = not going[thread], places.get(thread)
            going[thread].add(number)
            # Of one whose caller has left it is learnt late that it had begun.
            if event.hook == "request_begun" and number not in withdrawn | left:
                assert number > last.get(thread, -1), f"{number} of key {key} began too late"
                last[thread] = number
            elif event.hook == "request_given" and places.setdefault(thread, slot) != slot:
                came = slot in come[thread] and not others
                assert thread in gone or came, f"key {key} moved from a slot that was there"
                places[thread] = slot
                gone.discard(thread)
            if event.hook == "request_given" and (freely or places[thread] != place):
                come[thread].clear()  # all that there were could be chosen


def judge_max_queue(log: Log) -> None:
    """No slot was given a new request above what may wait there; none was refused without cause."""
    assert log.script is not None
    max_queue = log.script.max_queue
    slots = Slots()
    waiting: dict[int, set[int]] = defaultdict(set)
    # What a slot's dead worker or a living predecessor of it had: nobody knows which.
    perhaps: dict[int, set[int]] = defaultdict(set)
    executing: dict[int, int] = {}  # by request, which worker does
    living: dict[int, set[int]] = defaultdict(set)
    apps: dict[int, Any] = {}
    fresh = -1

    def forget(number: int) -> None:
        for others in (*waiting.values(), *perhaps.values()):
            others.discard(number)

    for position, event in enumerate(log.events):
        values: Any = event.values
        if event.hook in ("worker_exited", "worker_retired") and (
            slots.current.get(values[0]) == values[1]
            and (event.hook == "worker_exited" or not succeeded(log.events, position))
        ):
            # What takes turns is given on, or waits in the pool.
            leaving = {n for n in waiting[values[0]] if log.ask(n).turns}
            waiting[values[0]] -= leaving
            if len(living[values[0]]) > 1:
                perhaps[values[0]] |= leaving
        if event.hook == "worker_ready":
            living[values[0]].add(values[1])
        elif event.hook == "worker_exited":
            living[values[0]].discard(values[1])
        if event.hook.startswith(("slot_", "worker_")):
            slots.follow(event)
        match event.hook:
            case "slot_opened":  # what one of this number had that has left waits in the pool
                waiting[values[0]].clear()
                perhaps[values[0]].clear()
            case "request_accepted":
                fresh = values[0]
                apps[fresh] = values[1]
            case "request_given":
                number, slot = values
                forget(number)
                waiting[slot].add(number)
                if number == fresh and max_queue is not None:
                    # What its predecessors execute is no matter.
                    beside = [*executing.values()].count(slots.current.get(slot, -1))
                    free = max(0, threads_of(log) - beside)
                    begins = free if slot in slots.current else 0
                    assert len(waiting[slot]) <= max_queue + begins, f"slot {slot} was full"
            case "request_begun":
                number, slot, worker = values
                forget(number)
                executing[number] = worker
            case "request_cancelled":
                forget(values[0])
            case "request_ended":
                forget(values[0])
                executing.pop(values[0], None)
                if values[1] == "busy":
                    assert max_queue is not None
                    if log.ask(values[0]).turns:
                        ready = slots.ready(apps[values[0]])
                        full = all(len(waiting[s] | perhaps[s]) >= max_queue for s in ready)
                        assert full, f"{values[0]} was refused though there was room"
        if event.hook != "request_accepted":
            fresh = -1  # what waited in the pool may come in any number


def judge_no_service_without_cause(log: Log) -> None:
    """NoWorkersAvailableError came only when every slot had failed."""
    slots = Slots()
    apps: dict[int, Any] = {}
    fails: set[int] = set()
    for event in log.events:
        if event.hook.startswith(("slot_", "worker_")):
            slots.follow(event)
            fails |= {*slots.failed}
        elif event.hook == "request_accepted":
            apps[event.values[0]] = event.values[1]
        elif event.hook == "request_ended" and event.values[1] == "unavailable":
            if log.ask(event.values[0]).broadcast:
                assert fails or log.of("slot_leaving")
                continue
            carriers = slots.carriers(apps[event.values[0]])
            assert not carriers, f"it came though {carriers} had not failed"


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
    threads = threads_of(log)
    assert all(count <= threads for count in victims.values()), f"victims by worker: {victims}"


def judge_rerouting(log: Log) -> None:
    """What a lost slot had been given was given on in the order of acceptance."""
    if is_in_pieces(log):
        return
    for position, event in enumerate(log.events):
        if event.hook == "worker_exited":
            moved = given_on(log.events, position)
            assert moved == sorted(moved), f"{moved} was given on, which is out of order"


def given_on(events: list[Any], position: int) -> list[int]:
    """Return what was given to slots again when the worker had ended that did so there."""
    moved = []
    begun: set[Any] | None = None
    for later in events[position + 1 :]:
        if later.hook == "request_given":
            moved.append(later.values[0])
        elif later.hook != "request_ended" or later.values[1] in ("returned", "raised"):
            break
        elif later.values[1] == "withdrawn":
            # Of one that had begun, this is the answer of another worker, for which others of its
            # key may have waited.
            if begun is None:
                before = events[:position]
                begun = {event.values[0] for event in before if event.hook == "request_begun"}
            if later.values[0] in begun:
                break
    return moved


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
    killed |= killed_by_the_pool(log) | log.stalled  # idle ones that stand still are killed
    for event in log.of("worker_exited"):
        _, worker, _, exitcode = event.values
        # Leaving kills what does not close in time.
        if exitcode is not None and exitcode != 0 and event.time < log.left_at:
            assert worker in killed, f"worker {worker} died, and nothing had hit it"
    died = {event.values[1] for event in log.of("worker_exited") if event.values[3] != 0}
    ended = by_request(log, "request_ended")
    for _, worker, number in log.begun:
        (how,) = only(ended[number])
        due = how == "raised" and (log.ask(number).fails or is_interrupted(log, number))
        assert how == "returned" or due or worker in died, (
            f"{number} {how}; worker {worker} was well"
        )
    if log.script is not None and log.script.slow:
        return  # what is behind a large argument comes late
    ready = {event.values[1]: event for event in log.of("worker_ready")}
    given = {event.values: event.time for event in log.of("request_given")}
    order = [event.values[1] for event in log.of("worker_ready")]
    before: dict[int, float] = defaultdict(float)
    exits = {event.values[1]: event for event in log.of("worker_exited")}
    spans_of = executed(log)
    # While the reader of a stream is behind, the answers of other lanes lie in the socket.
    catch_up = 0.001 + 1e-9 if threads_of(log) > 1 else 0.0
    for worker in order:
        slot = ready[worker].values[0]
        # It begins its first when its predecessor has begun its last, or has died.
        lanes, predecessors_end = [ready[worker].time] * threads_of(log), before[slot]
        latest = 0.0
        stalled = worker in log.stalled
        for begin, end, number in spans_of.get(worker, ()):
            due = max(min(lanes), latest, given[number, slot])
            assert stalled or due <= begin <= max(due, predecessors_end) + catch_up, (
                f"{number} began {begin - due} s late"
            )
            lanes[lanes.index(min(lanes))] = end
            latest, predecessors_end = begin, 0
        before[slot] = max(before[slot], exits[worker].time)


def judge_cancellation(log: Log) -> None:
    """What had not begun when its caller left did not begin.

    A large argument that is being sent counts as begun, as the pool is concerned.
    """
    assert log.script is not None
    begun: set[Any] = set()
    for event in log.of("request_begun", "request_cancelled"):
        number = event.values[0]
        if event.hook == "request_begun":
            begun.add(number)
        elif not log.script.slow or number not in begun:
            began_at = log.began_at.get(number, event.time)
            assert began_at <= event.time, f"{number} began after its caller had left"


def judge_back_off(log: Log) -> None:
    """Workers that completed nothing made the next one wait; what served did not."""
    worker_of = {n: only(times)[1] for n, times in by_request(log, "request_begun").items()}
    served = killed_by_the_pool(log)  # which is no failure of theirs
    failures: Counter[int] = Counter()
    exited: dict[int, float] = {}
    last_exit: dict[int, float] = {}
    unsure: set[int] = set()
    served_slots: set[int] = set()
    slots = Slots()
    for event in log.events:
        values: Any = event.values
        had_one = event.hook.startswith("worker_") and values[0] in slots.current
        was_current = had_one and slots.current[values[0]] == values[1]
        if event.hook.startswith(("slot_", "worker_")):
            slots.follow(event)
        if event.hook in ("worker_exited", "worker_started", "slot_closed") and values[0] in unsure:
            continue
        if event.hook == "worker_exited" and last_exit.get(values[0]) == event.time:
            unsure.add(values[0])  # of two that end at once, which the pool counts first is chance
            continue
        if event.hook == "worker_exited":
            last_exit[values[0]] = event.time
        if event.hook == "request_ended" and values[1] in ("returned", "raised"):
            served.add(worker_of[values[0]])
        elif event.hook == "worker_ready":
            exited.pop(values[0], None)
            served_slots.add(values[0])
        elif event.hook == "worker_exited" and (was_current or not had_one):
            slot, worker, *_ = values
            if worker in retired(log):
                continue
            failures[slot] = 0 if worker in served else failures[slot] + 1
            exited[slot] = event.time
        elif event.hook == "worker_started" and values[0] in exited and not had_one:
            (slot, _) = values
            if any(exited[slot] <= at <= event.time for at in log.wishes) or slot in slots.failed:
                continue  # that is not waited for
            waited = event.time - exited[slot]
            if log.script is not None and log.script.max_lifetime is not None and not waited:
                continue  # it was to be replaced at the very moment of its death
            assert failures[slot] < FAILURES_LIMIT
            wait = 0 if failures[slot] < 2 else 0.1 * 2 ** (failures[slot] - 2)
            assert abs(waited - wait) < 1e-6 or (log.wishes and waited < wait), (
                f"slot {slot} waited {waited} s after {failures[slot]} failures"
            )
        elif event.hook in ("slot_leaving", "slot_opened"):
            failures[values[0]] = 0
            exited.pop(values[0], None)
            served_slots.discard(values[0])
        elif event.hook == "slot_closed" and values[1] is not None:
            is_first = values[0] not in served_slots
            assert failures[values[0]] >= FAILURES_LIMIT or is_first, "it was given up too soon"


def retired(log: Log) -> set[int]:
    """Return the workers that were retired."""
    return {event.values[1] for event in log.of("worker_retired")}


def judge_allocation(log: Log) -> None:
    """Each app was carried by as many slots as it may be, and always by one."""
    assert log.script is not None
    for app, limit in zip(APPS, log.script.app_limits, strict=True):
        name = f"{app.__module__}:{app.__qualname__}"
        judge_allocation_of(log, name, math.inf if limit is None else limit)


def judge_allocation_of(log: Log, app: str, limit: float) -> None:
    leaving = {slot: event.time for event in log.of("slot_leaving") for slot in event.values}
    opened = len([event for event in log.of("slot_opened") if event.time == 0])
    slots = Slots()
    for event, after in pairwise([*log.events, None]):
        if event.hook.startswith(("slot_", "worker_")):
            slots.follow(event)
        opened -= event.hook == "slot_opened"
        if opened > 0:
            continue  # they are being opened
        if event.time >= log.left_at:
            break
        carriers = {slot for slot, apps in slots.carries.items() if app in apps}
        if after is not None and after.time > event.time:
            # One that is about to leave hands its app over before.
            about_to_leave = {s for s in carriers if leaving.get(s, -1) >= event.time}
            present = carriers - about_to_leave - {*slots.failed}
            assert len(present) <= limit, f"{present} carry it, not {limit}"
            assert carriers, "nobody carries it"


def judge_resizes(log: Log) -> None:
    """When a resize returned there were as many slots as were wanted last."""
    for count, wanted in log.resized:
        assert count == wanted, f"there were {count} slots, and were to be {wanted}"


def judge_renewal(log: Log) -> None:
    """A slot that renewed its worker had one all the time, unless that died.

    Or, where there is no room for two, the next one was started when the old one had exited.
    """
    assert log.script is not None
    slots = Slots()
    vacating: dict[int, int] = {}
    for position, event in enumerate(log.events):
        if event.hook == "worker_retired":
            slot, worker, cause = event.values
            if cause in ("max_requests", "max_lifetime", "max_memory"):
                rest = (e for e in log.events[position + 1 :] if e.hook != "slot_carries")
                later = next(rest)
                assert (later.hook, later.values[0]) == ("worker_ready", slot)
            if cause == "reload" and not succeeded(log.events, position):
                vacating[slot] = worker
            if slot in slots.current:
                assert slots.current[slot] == worker, f"{worker} was not the current one"
        elif event.hook == "worker_started":
            slot, worker = event.values
            assert slot not in vacating, f"{worker} started before {vacating[slot]} had exited"
        elif event.hook == "worker_exited" and vacating.get(event.values[0]) == event.values[1]:
            del vacating[event.values[0]]
        if event.hook.startswith(("slot_", "worker_")):
            slots.follow(event)


def judge_no_orphans(log: Log) -> None:
    """Every worker that was started has exited, every slot is closed, and nothing came later."""
    started = [event.values for event in log.of("worker_started")]
    exited = [event.values[:2] for event in log.of("worker_exited")]
    assert sorted(started) == sorted(exited)
    assert len({worker for _, worker in started}) == len(started), "a number was used again"
    open_slots: set[int] = set()
    for event in log.of("slot_opened", "slot_closed"):
        if event.hook == "slot_opened":
            assert event.values[0] not in open_slots, f"slot {event.values[0]} was opened twice"
            open_slots.add(event.values[0])
        else:
            open_slots.remove(event.values[0])
    assert not open_slots, f"{open_slots} were not closed"
    assert log.left_over == []
    closings = (i for i, event in enumerate(log.events) if event.hook == "slot_closed")
    last = max(closings, default=0)
    later = log.events[last + 1 :]
    failed = {event.values[0] for event in log.of("slot_closed") if event.values[1] is not None}
    for event in later:  # a slot that has failed may have been reloaded in vain
        assert event.hook.startswith("request_") or event.values[0] in failed
    given = [event.values[0] for event in later if event.hook == "request_given"]
    assert not any(log.ask(number).turns for number in given), "only a key waits for its slot"


def judge_leaving(log: Log) -> None:
    """Leaving took no longer than its kind of leaving may."""
    limit = 0.0 if log.left == "cancel" else log.grace
    assert log.ended_at - log.left_at <= limit + 1e-6


def judge_liveness(log: Log) -> None:
    """Whenever nothing was left to do, nobody waited for what was there."""
    assert not log.asleep, "; ".join(log.asleep)


def judge_statistics(log: Log) -> None:
    """The pool's statistics were what its instruments had been told."""
    assert not log.miscounts, "; ".join(log.miscounts)


def judge_utilisation(log: Log) -> None:
    """It was the share of the time of its lanes for which a slot has executed anything.

    The time for which a stream was held by its reader is not among that. Where a large argument
    is sent slowly, it is not known to the pool when its execution begins.
    """
    assert log.script is not None
    if log.script.slow:
        return
    threads = threads_of(log)
    slots_of = {event.values[1]: event.values[0] for event in log.of("worker_started")}
    for time, statistics in log.samples:
        if time >= given_up_at(log):
            break  # what was executed then has not ended, and has not been told of
        for of_slot in statistics.workers:
            opened = opened_at(log, of_slot.slot, time)
            executed = 0.0
            known = all(slots_of[worker] != of_slot.slot for worker in log.stalled)
            for worker, spans in log.worked.items():
                if slots_of[worker] == of_slot.slot:
                    executed += sum(
                        max(0.0, min(time, math.inf if end is None else end) - max(begin, opened))
                        for begin, end in spans
                    )
            # Of a slot that two workers serve for a while it would be more.
            share = min(1.0, executed / ((time - opened) * threads)) if time > opened else 0.0
            told = of_slot.utilisation
            assert 0 <= told <= 1
            assert not known or abs(told - share) < UTILISATION_ERROR, (
                f"at {time}, the utilisation of slot {of_slot.slot} was {told:.3f}, not {share:.3f}"
            )


UTILISATION_ERROR = 0.01
"""The pool waits some milliseconds before it kills."""


def opened_at(log: Log, slot: int, time: float) -> float:
    """Return when the slot of that index was opened that was there at a time."""
    opened = 0.0
    has_failed = is_leaving = False
    for event in log.events:
        if event.time > time:
            break
        if event.hook == "slot_opened" and event.values[0] == slot:
            if not has_failed:
                opened = event.time
            has_failed = False
            is_leaving = False
        elif event.hook == "slot_closed" and event.values[0] == slot:
            has_failed = event.values[1] is not None and not is_leaving
        elif event.hook == "slot_leaving" and event.values[0] == slot:
            has_failed, is_leaving = False, True
    return opened


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
    judge_resizes,
    judge_renewal,
)
"""What can be judged of any engine."""

TIMING = (
    judge_window,
    judge_cancellation,
    judge_limits,
    judge_back_off,
    judge_allocation,
    judge_leaving,
    judge_liveness,
    judge_statistics,
    judge_utilisation,
)
"""What can be judged on virtual time only."""


def judge(log: Log) -> None:
    """Check all promises."""
    for promise in (*SAFETY, *TIMING):
        promise(log)
