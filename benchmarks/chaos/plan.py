"""Who does what and when, from the seed. Decisions only."""

from __future__ import annotations

from enum import Enum
from random import Random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trio_dirty import OnCancel


class Kind(Enum):
    """What is done to a worker, or to the pool."""

    KILL = "SIGKILL"
    EXIT = "os._exit in an action"
    STOP_KILL = "SIGSTOP, then SIGKILL"
    STOP = "SIGSTOP, then SIGCONT"
    STARVE = "RLIMIT_AS lowered"
    HOG = "MemoryError in an action"
    RESIZE = "resize"
    RELOAD = "reload"


WEIGHTS = {
    Kind.KILL: 10,
    Kind.EXIT: 5,
    Kind.STOP_KILL: 3,
    Kind.STOP: 3,
    Kind.STARVE: 4,
    Kind.HOG: 1,
    Kind.RESIZE: 2,
    Kind.RELOAD: 2,
}

DEADLY = (Kind.KILL, Kind.EXIT, Kind.STOP_KILL)
"""The others may or may not end a worker."""

CHANGES = (Kind.RESIZE, Kind.RELOAD)
"""Not faults: the pool is told to do these while faults happen."""

LONGEST_STOP = 0.4
LONGEST_STARVATION = 0.4
LONGEST_BEFORE_EXIT = 0.01

BOOTING_SPARED = 0.6
"""How often an agent that meets a process which is still booting leaves it alone.

Most processes boot, at several kills a second; and a slot whose workers die seven times in a
row without completing a request is given up for good."""


class Fault(NamedTuple):
    """One thing that is done to a worker, or to the pool.

    Attributes:
        after: seconds since the fault before it.
        kind: what is done.
        whom: from 0 to 1, where in the list of the processes that there are then; of twice the
            slots that there were at first, how many the pool is to have.
        spares: whether it leaves a process alone that is still booting; whether a reload
            overlaps.
        seconds: for how long; before an exit, how long its action runs.
        share: of its address space, what a worker is left with that is starved.
    """

    after: float
    kind: Kind
    whom: float
    spares: bool
    seconds: float
    share: float


def plan_faults(seed: int, kills_per_second: float) -> Iterator[Fault]:
    """Yield faults without end; of the deadly kinds so many a second, at random moments."""
    random = Random(f"faults {seed}")
    kinds, weights = [*WEIGHTS], [*WEIGHTS.values()]
    rate = kills_per_second * sum(weights) / sum(WEIGHTS[kind] for kind in DEADLY)
    longest = {Kind.EXIT: LONGEST_BEFORE_EXIT, Kind.STARVE: LONGEST_STARVATION}
    while True:
        after = random.expovariate(rate)
        kind = random.choices(kinds, weights)[0]
        yield Fault(
            after=after,
            kind=kind,
            whom=random.random(),
            spares=random.random() < BOOTING_SPARED,
            seconds=random.random() * longest.get(kind, LONGEST_STOP),
            share=random.uniform(0.5, 1.05),
        )


class Order(NamedTuple):
    """One request that a client makes.

    Attributes:
        action: of `work.Witness`.
        amount: seconds, bytes or chunks, as the action takes it.
        leaves: after how many seconds the client cancels it; None if it waits.
        on_cancel: what becomes of it then.
        key: its key, if it has one.
        timeout, soft_timeout: its limits, in seconds; none of them is cancelled by its client.
        takes: how many chunks of a stream the client takes; None: all.
    """

    action: str
    amount: float = 0.0
    leaves: float | None = None
    on_cancel: OnCancel = "abandon"
    key: int | None = None
    timeout: float | None = None
    soft_timeout: float | None = None
    takes: int | None = None


LEAVING = 0.02
KEYED = 0.1
LIMITED = 0.02
"""The share of naps and computations with a limit that is close to what they take."""

KEYS = 32
LONGEST_WAIT = 0.02
LONGEST_SPIN = 0.002
LONGEST_NAP = 0.01
LONGEST_STREAM = 1_500
"""Chunks: a stream may run a thousand ahead of its reader."""

LARGEST = 1_200_000
"""Bytes. Sizes on either side of several limits are handled in different ways by the pool."""

LIMITS = (1 << 16, 1 << 17, 1 << 18, 1 << 19, 1 << 20)
NEAR = 200
ON_CANCEL: tuple[OnCancel, ...] = ("abandon", "abandon", "interrupt", "wait")
"""Not "kill": no client learns which process was killed for a client that has left."""


def plan_orders(seed: int, client: int) -> Iterator[Order]:
    """Yield the requests of one client without end, most of them tiny."""
    random = Random(f"client {client} {seed}").random
    while True:
        which = random()
        order = Order("touch")
        if which >= 0.985:
            order = _bulky(random)
        elif which >= 0.96:
            order = Order("nap", random() * LONGEST_NAP)
        elif which >= 0.93:
            order = Order("spin", random() * LONGEST_SPIN)
        if random() < KEYED:
            order = order._replace(key=int(random() * KEYS))
        if random() < LEAVING:
            # A quarter is cancelled before it is called.
            leaves = max(0.0, random() * 4 - 1) / 3 * LONGEST_WAIT
            on_cancel = ON_CANCEL[int(random() * len(ON_CANCEL))]
            order = order._replace(leaves=leaves, on_cancel=on_cancel)
        elif order.amount and order.action in ("nap", "spin") and random() < LIMITED:
            limit = order.amount * (0.5 + random())
            if random() < 0.5:
                order = order._replace(timeout=limit)
            else:
                order = order._replace(soft_timeout=limit)
        yield order


def _bulky(random: Callable[[], float]) -> Order:
    """Return a request with a large payload, or a stream."""
    which = random()
    if which < 0.3:
        return Order("echo", int(random() * LARGEST))
    if which < 0.6:
        limit = LIMITS[int(random() * len(LIMITS))]
        return Order("echo", limit + int((2 * random() - 1) * NEAR))
    chunks = int(random() ** 3 * LONGEST_STREAM)
    return Order("count", chunks, takes=int(random() * chunks) if random() < 0.2 else None)
