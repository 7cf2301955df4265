"""Many slots: how long they take to open, and what a decision between them costs.

A decision is what the dispatcher does from the acceptance of a request until it gives it to a
slot, without either: the requests are there before, and the slots only count. The machine
drifts, so rounds with few slots and with many take turns, and the best of each is compared.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from trio_dirty import open_pool
from trio_dirty._pool.calls import Call
from trio_dirty._rules.dispatcher import Dispatcher
from trio_dirty._rules.limits import Limits
from trio_dirty._rules.targets import Target

from ..harness.figures import Figure
from ..harness.process import children, processor_seconds
from ..work import Empty

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trio_dirty._common.wire import Segment
    from trio_dirty._rules.options import Routing
    from trio_dirty._rules.request import Request

    from ..output.display import Stage

OPEN_SECONDS = 6
"""Of `MANY` on two processors."""

FEW, MANY = 4, 64
OF_FEW = 1.2
KEYS = 1_000
ROUTINGS: tuple[tuple[str, Routing, bool], ...] = (
    ("round_robin", "round_robin", False),
    ("least_loaded", "least_loaded", False),
    ("a key", "round_robin", True),
)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        slots: how many are opened.
        decisions: of one round.
        rounds: of decisions with few slots and with many each.
    """

    slots: int
    decisions: int
    rounds: int

    @property
    def steps(self) -> int:
        """How many rounds there are in all."""
        return 1 + len(ROUTINGS)


FULL = Effort(slots=MANY, decisions=2_000, rounds=200)
QUICK = Effort(slots=16, decisions=2_000, rounds=40)


class Seat:
    """A slot that only counts the requests that it is given."""

    carries = frozenset((0,))

    def __init__(self, index: int) -> None:
        self.index = index
        self.load = 0

    def has_room(self, max_queue: int) -> bool:
        """Whether one more may wait."""
        return True

    def give(self, request: Request) -> None:
        """Count one."""
        self.load += 1

    def give_all(self, requests: Sequence[Request]) -> None:
        """Count them."""
        self.load += len(requests)

    def unsent(self) -> Iterable[Request]:
        """Return nothing: no request waits."""
        return ()

    def take_back(self, requests: Iterable[Request]) -> None:
        """Not called: nothing waits."""

    def withdraw(self, request: Request) -> bool:
        """Not called: no caller is cancelled."""
        return True

    def tell(self, request: Request, frame: Segment) -> None:
        """Not called: there are no streams."""


class Table:
    """A dispatcher and its slots, all of them ready."""

    def __init__(self, seats: int, routing: Routing) -> None:
        self._seats = [Seat(index) for index in range(seats)]
        left: list[Request] = []  # stays empty: no caller is cancelled
        self._dispatcher = Dispatcher(
            self._seats, [0], left.append, lambda request, error: None, routing=routing
        )
        for seat in self._seats:
            self._dispatcher.ready(seat)

    def decide(self, requests: Sequence[Request]) -> float:
        """Return the microseconds that one decision takes."""
        accept = self._dispatcher.accept
        began = perf_counter()
        for request in requests:
            accept(request)
        seconds = perf_counter() - began
        for seat in self._seats:
            seat.load = 0
            self._dispatcher.load_changed(seat)
        for request in requests:
            if request.key is not None:
                self._dispatcher.release(request)
        return 1e6 * seconds / len(requests)


async def measure_many(*, effort: Effort, stage: Stage) -> list[Figure]:
    """Open a pool of many slots; then measure decisions between few and many, without a pool."""
    began = perf_counter()
    async with open_pool([Empty], workers=effort.slots):
        opened = perf_counter() - began
        each = sum(map(processor_seconds, children())) / effort.slots
    stage.advance()
    figures = [
        Figure(
            f"open_pool to ready, {effort.slots} slots, an empty app",
            opened,
            "s",
            at_most=OPEN_SECONDS * effort.slots / MANY,
            note=f"{1000 * each:.0f} ms of a processor for each worker, of {os.cpu_count()} "
            "processors",
        )
    ]
    for name, routing, has_keys in ROUTINGS:
        figures.append(compare(name, routing, effort, has_keys=has_keys))
        stage.advance()
    return figures


def compare(name: str, routing: Routing, effort: Effort, *, has_keys: bool) -> Figure:
    """Compare decisions between many slots with decisions between few."""
    target = Target(0, None, "noop", b"")
    requests = [
        Call(target, number, b"", 0.0, Limits(), number % KEYS if has_keys else None)
        for number in range(effort.decisions)
    ]
    tables = Table(FEW, routing), Table(MANY, routing)
    rounds = [[table.decide(requests) for table in tables] for _ in range(effort.rounds)]
    few, many = map(min, zip(*rounds, strict=True))
    return Figure(
        f"routing decision, {name}, {MANY} slots against {FEW}",
        many / few,
        "times",
        at_most=OF_FEW,
        note=f"{many:.2f} µs against {few:.2f} µs, the best of {effort.rounds} rounds",
    )
