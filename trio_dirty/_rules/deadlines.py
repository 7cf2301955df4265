"""When a request that a worker executes is to be interrupted, or its worker killed for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from .._common.wire import CANCELLED, SOFT_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from .limits import Limits

EARLY_SECONDS = 1e-6
"""How much too early is in time. Waiting until a moment may end one rounding before it, and then
the rest can be too short to be waited for at all."""

KILL_PATIENCE = 0.005
"""Seconds that a request whose worker is to be killed for its cancelled caller has to be answered
as withdrawn, or, of a stream, to close its generator: then the worker can live."""


class Timed(Protocol):
    """A request that has begun."""

    @property
    def number(self) -> int:
        """Its place in the order of acceptance."""

    @property
    def limits(self) -> Limits:
        """What its caller asks."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done now.

    Attributes:
        request: about which request.
        action: ``"interrupt"`` it, or ``"kill"`` its worker.
        reason: `SOFT_TIMEOUT`, `CANCELLED`, or `TIMEOUT`.
        steps: how many steps of a stream were done then.
    """

    request: Timed
    action: Literal["interrupt", "kill"]
    reason: int
    steps: int = 0


TIMEOUT = 3
"""Beside the reasons that a worker is told: this one it does not hear of."""


class _Record:
    """One request that has begun.

    Attributes:
        since: when it, or the present step of its generator, began; infinity while the
            generator waits for its reader.
        steps: how many of them are done.
        soft_told: whether the worker has been told of the soft time-out of this step.
        left: when its caller left, and it had begun; infinity as long as it has not.
        left_told: whether the worker has been told to interrupt it for that.
        on_way: bytes of its payload that were still on their way at the last look; -1: never seen.
    """

    __slots__ = ("left", "left_told", "on_way", "request", "since", "soft_told", "steps")

    def __init__(self, request: Timed, since: float) -> None:
        self.request = request
        self.since = since
        self.steps = 0
        self.soft_told = False
        self.left = math.inf
        self.left_told = False
        self.on_way = -1


class Deadlines:
    """When the requests that one worker executes are to be interrupted, or killed with it.

    There is at most one request for each lane. One that has no limits is watched only from the
    moment when its caller leaves.

    Args:
        cancel_grace: seconds that an interrupted request may take to end.
        changed: called whenever what `due` returns may have become another.

    Attributes:
        are_there: whether any request is watched.
    """

    def __init__(self, cancel_grace: float, changed: Callable[[], object]) -> None:
        self._cancel_grace = cancel_grace
        self._changed = changed
        self._records: dict[int, _Record] = {}
        self.are_there = False

    def begun(self, request: Timed, now: float) -> None:
        """Watch a request from its beginning, or from where it turned out to be worth it."""
        if request.number not in self._records:
            self._records[request.number] = _Record(request, now)
            self.are_there = True
            self._changed()

    def left(self, request: Timed, now: float) -> None:
        """Take note that the caller of a request that has begun has left."""
        self.begun(request, now)
        self.resumed(request.number, now)  # what it does at its end has the time of a step
        self._records[request.number].left = now
        self._changed()

    def stepped(self, number: int, steps: int, since: float) -> None:
        """Take note of the steps that a generator has done.

        Args:
            number: the request's.
            steps: how many more.
            since: when the next one began; infinity: the generator waits for its reader.
        """
        record = self._records.get(number)
        if record is not None:
            record.steps += steps
            record.since = since
            record.soft_told = False
            self._changed()

    def resumed(self, number: int, now: float) -> None:
        """Take note that a generator that was waiting for its reader may go on."""
        record = self._records.get(number)
        if record is not None and record.since == math.inf:
            record.since = now
            self._changed()

    def transferred(self, number: int, on_way: int, now: float, *, is_answer: bool = False) -> None:
        """Take note of how much of a request's payload is still on its way.

        The time for which it moves is no execution. What has stopped moving, since the worker does
        not read or write any more, has as long as an execution may take.

        Args:
            number: the request's.
            on_way: bytes of its arguments that the worker has not read, or of its answer that the
                pool has not.
            now: the time.
            is_answer: whether it is the answer: then there is nothing left to be killed for.
        """
        record = self._records.get(number)
        if record is None or on_way == record.on_way:
            return
        record.on_way = on_way
        if record.since < now:
            record.since = now
        if is_answer and record.left < now:
            record.left = now

    def paused(self, seconds: float, now: float) -> None:
        """Leave out seconds in which nothing could run, the workers included."""
        for record in self._records.values():
            if record.since < now:
                record.since = min(now, record.since + seconds)
            if record.left < now:
                record.left = min(now, record.left + seconds)

    @property
    def watched(self) -> list[Timed]:
        """The requests that are watched."""
        return [record.request for record in self._records.values()]

    def ended(self, number: int) -> None:
        """Forget a request that has been answered."""
        if self._records.pop(number, None) is not None:
            self.are_there = bool(self._records)
            self._changed()

    def clear(self) -> None:
        """Forget all requests, with the worker."""
        self._records.clear()
        self.are_there = False

    def due(self, now: float) -> Due | None:
        """Return what is to be done now, if anything; an interrupt is returned once."""
        for record in self._records.values():
            kill = self.kill(record.request.number, now)
            if kill is not None:
                return kill
        now += EARLY_SECONDS
        for record in self._records.values():
            if self._soft_at(record) <= now:
                record.soft_told = True
                return Due(record.request, "interrupt", SOFT_TIMEOUT, record.steps)
            if self._interrupt_at(record) <= now:
                record.left_told = True
                return Due(record.request, "interrupt", CANCELLED)
        return None

    def kill(self, number: int, now: float) -> Due | None:
        """Return the kill of the worker for one request, if that is due."""
        now += EARLY_SECONDS
        record = self._records.get(number)
        if record is None or self._kill_at(record) > now:
            return None
        reason = TIMEOUT if self._timeout_at(record) <= now else CANCELLED
        return Due(record.request, "kill", reason)

    def next_time(self) -> float:
        """Return when there will be something to do, if nothing happens until then."""
        return min(
            (
                at
                for record in self._records.values()
                for at in (
                    self._kill_at(record),
                    self._soft_at(record),
                    self._interrupt_at(record),
                )
            ),
            default=math.inf,
        )

    def _timeout_at(self, record: _Record) -> float:
        return record.since + record.request.limits.timeout

    def _kill_at(self, record: _Record) -> float:
        match record.request.limits.on_cancel:
            case "kill":
                grace = KILL_PATIENCE
            case "interrupt":
                grace = self._cancel_grace
            case _:
                grace = math.inf
        return min(self._timeout_at(record), record.left + grace)

    def _soft_at(self, record: _Record) -> float:
        if record.soft_told:
            return math.inf
        return record.since + record.request.limits.soft_timeout

    def _interrupt_at(self, record: _Record) -> float:
        if record.left_told or record.request.limits.on_cancel != "interrupt":
            return math.inf
        return record.left
