"""What has to hold whenever nothing is left to do until time passes.

In simulation every such moment is known: the clock is about to jump. A request that waits then,
although a worker is there that could take it up, waits for nothing.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

import trio

SAMPLED = {1, 3, 9, 27}
"""At which of these moments the pool is asked for its statistics, which takes a millisecond."""


IDLE_LIMIT = 100
"""How often trio may find nothing to run and nothing to wait for."""


class DeadlockError(Exception):
    """Nothing can ever run again."""


class JumpingClock(trio.abc.Clock):
    """Virtual time, which jumps to the next deadline whenever no task can run.

    Args:
        about_to_jump: called before each jump.
    """

    def __init__(self, about_to_jump) -> None:
        self._now = 0.0
        self._idle = 0
        self._about_to_jump = about_to_jump

    def start_clock(self) -> None:
        """Begin with 0."""

    def current_time(self) -> float:
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        # Asked only where no task can run; in a play there is no input or output either.
        if deadline == math.inf:
            self._idle += 1  # at its end, trio wakes a task of its own through a socket
            if self._idle > IDLE_LIMIT:
                raise DeadlockError
        elif self._now < deadline:
            self._about_to_jump()
            self._now = deadline
        return 0.0


class Watch:
    """Looks at a play at those moments, and writes into its log what is not as it has to be.

    What it knows of the pool it has from the events alone, and of the workers from the simulation.
    """

    def __init__(self, log, world) -> None:
        self._log = log
        self._engine = world.engine
        self._position = 0
        self._looks = 0
        self._apps: dict[int, Any] = {}
        # What has been accepted and has not ended: not given to a slot, given, and begun.
        self._waiting: dict[int, None] = {}
        self._given: dict[int, dict[int, None]] = defaultdict(dict)
        self._begun: dict[int, int] = {}
        self._slot_of: dict[int, int] = {}
        self._cancelled: set[int] = set()
        self._ended: list[int] = []
        self._unanswered: set[int] = set()
        self._running: dict[int, list[int]] = defaultdict(list)
        self._carries: dict[int, set[Any]] = {}
        self._failed: set[int] = set()
        self._fresh: set[int] = set()
        self._leaving: set[int] = set()
        self._retired: dict[int, Any] = {}
        self._workers: dict[int, list[int]] = defaultdict(list)
        self._counts: Counter[str] = Counter()
        self._open_parts: Counter[int] = Counter()

    def look(self) -> None:
        """Look at everything; to be called when no task can run."""
        log = self._log
        for event in log.events[self._position :]:
            getattr(self, event.hook, _ignore)(*event.values)
        self._position = len(log.events)
        self._looks += 1
        if not log.asleep:
            found = [*self._callers(), *self._asleep(), *self._homeless()]
            now = trio.current_time()
            log.asleep += [f"at {now}: {each}" for each in found]
        if self._looks in SAMPLED:
            self.sample()

    # What has happened

    def request_accepted(self, number, app, action):
        self._apps[number] = app
        self._waiting[number] = None
        self._counts["accepted"] += 1
        self._open_parts[self._log.tags[number]] += 1

    def request_given(self, number, slot):
        self._leave(number)
        self._given[slot][number] = None
        self._slot_of[number] = slot

    def _leave(self, number):
        self._waiting.pop(number, None)
        if number in self._slot_of:
            self._given[self._slot_of[number]].pop(number, None)

    def request_begun(self, number, slot, worker):
        self._leave(number)
        self._begun[number] = worker
        self._running[worker].append(number)

    def request_cancelled(self, number):
        self._cancelled.add(number)

    def request_ended(self, number, how):
        self._leave(number)
        worker = self._begun.pop(number, None)
        if worker is not None:
            self._running[worker].remove(number)
        self._counts[how] += 1
        tag = self._log.tags[number]
        self._open_parts[tag] -= 1
        if not self._open_parts[tag]:
            self._unanswered.add(tag)

    def slot_opened(self, slot, apps):
        if slot not in self._failed:
            self._fresh.add(slot)
            self._leaving.discard(slot)
        self._failed.discard(slot)
        self._carries[slot] = {*apps, None}

    def slot_carries(self, slot, apps):
        self._carries[slot] = {*apps, None}

    def slot_leaving(self, slot):
        self._leaving.add(slot)
        self._failed.discard(slot)

    def slot_closed(self, slot, failure):
        if failure is not None and slot not in self._leaving:
            self._failed.add(slot)

    def worker_started(self, slot, worker):
        self._counts["restarts"] += slot not in self._fresh
        self._fresh.discard(slot)

    def worker_ready(self, slot, worker, pid):
        self._workers[slot].append(worker)

    def worker_retired(self, slot, worker, cause):
        self._retired[worker] = cause

    def worker_exited(self, slot, worker, pid, exitcode):
        if worker in self._workers[slot]:
            self._workers[slot].remove(worker)

    # What has to be so

    def _callers(self):
        """Yield calls that have ended, and whose callers wait all the same."""
        log = self._log
        for tag in self._unanswered:
            if log.asked[tag].chunks is not None:
                if tag in log.reading:
                    yield f"the reader of call {tag} waits, and it has ended"
            elif not log.outcomes[tag]:
                yield f"the caller of call {tag} waits, and it has ended"
        self._unanswered = {tag for tag in self._unanswered if not log.outcomes[tag]}

    def _asleep(self):
        """Yield requests that wait for a lane of a worker that has one free."""
        log = self._log
        threads = log.script.threads
        living = None
        for slot, workers in self._workers.items():
            queue = self._given[slot]
            if not queue or not workers:
                continue
            *predecessors, current = workers
            if current in self._retired and slot not in self._leaving:
                continue  # what is queued waits for its successor
            if len(self._running[current]) >= threads:
                continue
            if living is None:
                living = {each.number: each for each in self._engine._workers}
            if not self._obeys(living.get(current)):
                continue
            if any(_holds_some(living.get(number)) for number in predecessors):
                continue  # whose last have to begin before
            for number in queue:
                if number not in self._cancelled and self._may_begin(number, slot):
                    yield f"{number} waits in slot {slot}, and worker {current} has a free lane"

    @staticmethod
    def _obeys(worker):
        return (
            worker is not None
            and worker.exit().exitcode is None
            and worker.stalled is None
            and worker._held is None
            and not worker.is_sent_to
        )

    def _may_begin(self, number, slot):
        ask = self._log.ask(number)
        if ask.broadcast:
            return True
        if slot in self._leaving:
            return False  # it may wait for what its key has in the slot
        return ask.key is None or self._is_first_of_key(number)

    def _is_first_of_key(self, number):
        key = self._log.ask(number).key
        if isinstance(key, str):
            return False
        others = [*self._waiting, *self._begun, *(n for g in self._given.values() for n in g)]
        return not any(
            other != number
            and self._log.ask(other).key == key
            and self._apps[other] == self._apps[number]
            for other in others
        )

    def _homeless(self):
        """Yield requests that wait for a slot, although there is one."""
        if not self._waiting:
            return
        for number in self._waiting:
            if number in self._cancelled:
                continue
            app = self._apps[number]
            carriers = [
                slot
                for slot, workers in self._workers.items()
                if workers
                and slot not in self._leaving
                and app in self._carries[slot]
                and workers[-1] not in self._retired
            ]
            ask = self._log.ask(number)
            if carriers and (ask.key is None or self._is_first_of_key(number)):
                yield f"{number} waits, and slots {carriers} are ready"

    # Statistics

    def sample(self) -> None:
        """Compare the pool's statistics with what was told of it."""
        log = self._log
        if log.pool is None:
            return
        statistics = log.pool.statistics()
        log.samples.append((trio.current_time(), statistics))
        counts = self._counts
        running = {number for numbers in self._running.values() for number in numbers}
        queued = [*self._waiting, *(n for g in self._given.values() for n in g)]
        expected = {
            "completed": counts["returned"] + counts["raised"],
            "failed": counts["crashed"] + counts["timed_out"] + counts["killed"],
            "queued": len([number for number in queued if number not in self._cancelled]),
            "running": len(running),
            "abandoned": len(
                [n for n in running & self._cancelled if log.ask(n).on_cancel != "wait"]
            ),
            "restarts": counts["restarts"],
        }
        for name, number in expected.items():
            told = getattr(statistics, name)
            if told != number:
                log.miscounts.append(f"at {trio.current_time()}: {name} was {told}, not {number}")


def _ignore(*values):
    """For what is of no matter."""


def _holds_some(worker):
    """Whether a worker has been sent requests that none of its lanes has taken up."""
    return worker is not None and any(
        number not in worker._withdrawn for _, number, _, _, _ in worker._inbox
    )
