"""What happens in simulated workers: how boots and executions go."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from .._common.errors import DirtyError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Boot:
    """How the boot of a simulated worker goes.

    Attributes:
        seconds: how long it takes; `math.inf` never ends.
        exitcode: the worker dies at the end of it, with this code; None: it does not.
        error: the boot fails with this text; None: it does not.
        memory: how many bytes are resident for the worker then.
    """

    seconds: float = 0.0
    exitcode: int | None = None
    error: str | None = None
    memory: int = 1 << 20

    def __post_init__(self) -> None:
        _check_seconds("seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class Call:
    """A request as a plan sees it when it begins.

    Attributes:
        slot, worker: who executes it.
        app: the index of the app; None for a plain function.
        action: the name of the action or function. What is neither, as a `functools.partial`,
            is called by a function of this library: then it is ``"call"``, and ``args[0]``
            is what that one calls.
        args, kwargs: what it is called with. Copies: nothing that the plan does to them
            reaches the action, nor the other way round.
    """

    slot: int
    worker: int
    app: int | None
    action: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """How the execution of a request goes.

    Attributes:
        seconds: how long it takes, or each step of a generator; `math.inf` never ends.
        exitcode: the worker dies at the end of it, with this code, and does not answer;
            None: it answers.
        stall: how many seconds longer it takes because the worker is stopped, as by SIGSTOP.
        chunks: how many chunks a generator yields before ``exitcode`` applies.
        is_stubborn: whether it catches what it is interrupted with, and goes on.
        memory: how many bytes it adds to what is resident for the worker.
    """

    seconds: float = 0.0
    exitcode: int | None = None
    stall: float = 0.0
    chunks: int = 0
    is_stubborn: bool = False
    memory: int = 0

    def __post_init__(self) -> None:
        _check_seconds("seconds", self.seconds)
        _check_seconds("stall", self.stall)


def _check_seconds(name: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{name} must be 0 or more, was {value!r}")


class Plan:
    """Says how boots and executions go. Override what should not go smoothly and at once.

    A method that raises, or returns anything else than it should, ends the pool: its block
    raises a `DirtyError` that tells which.
    """

    def boot(self, slot: int, worker: int) -> Boot:
        """Return how the boot of this worker goes."""
        return Boot()

    def turn(self, call: Call) -> Turn:
        """Return how the execution of this request goes."""
        return Turn()


def ask(plan: Plan, method: str, kind: type[T], about: str, *args: object) -> T:
    """Return what a plan says.

    Raises:
        DirtyError: it raised, or returned anything else than a ``kind``.
    """
    failed = f"the plan failed for {about}: {type(plan).__name__}.{method}()"
    try:
        said: object = getattr(plan, method)(*args)
    except Exception as error:
        raise DirtyError(f"{failed} raised {error!r}") from error
    if not isinstance(said, kind):
        name = kind.__name__
        example = f"`return {name}(seconds=1.0)`"
        raise DirtyError(f"{failed} must return a {name}, such as {example}, was {said!r}")
    return said


class RandomPlan(Plan):
    """Durations and faults at random, the same for the same seed.

    What happens to a boot depends on the seed and the worker's number only; what happens to
    a request on the seed, its worker's number, and how many the worker has executed before.
    So a change of the schedule does not change all that follows, and one plan says the same
    to each of several pools, one after the other.

    Args:
        seed: any number.
        seconds: the shortest and the longest execution; uniformly between them.
        crash: how often the worker dies of a request, from 0 to 1.
        stall: how often the worker is stopped during a request, from 0 to 1.
        stall_seconds: the shortest and the longest stop.
        boot_seconds: the shortest and the longest boot.
        boot_failure: how often a boot fails: by an error, or by the death of the worker.
        first_workers: how many workers' boots never fail. Opening a pool fails if one of
            its first workers cannot boot, so give the number of its workers.
    """

    def __init__(
        self,
        seed: int,
        *,
        seconds: tuple[float, float] = (0.0, 1.0),
        crash: float = 0.0,
        stall: float = 0.0,
        stall_seconds: tuple[float, float] = (0.0, 10.0),
        boot_seconds: tuple[float, float] = (0.0, 1.0),
        boot_failure: float = 0.0,
        first_workers: int = 0,
    ) -> None:
        for name, value in (("crash", crash), ("stall", stall), ("boot_failure", boot_failure)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be from 0 to 1, was {value}")
        for name, (least, most) in (
            ("seconds", seconds),
            ("stall_seconds", stall_seconds),
            ("boot_seconds", boot_seconds),
        ):
            if not 0 <= least <= most < math.inf:
                raise ValueError(
                    f"{name} must be (shortest, longest), at least 0 and finite, "
                    f"was {(least, most)}"
                )
        self._seed = seed
        self._seconds = seconds
        self._crash = crash
        self._stall = stall
        self._stall_seconds = stall_seconds
        self._boot_seconds = boot_seconds
        self._boot_failure = boot_failure
        self._first_workers = first_workers
        self._executed: Counter[int] = Counter()

    def boot(self, slot: int, worker: int) -> Boot:
        """Return a boot at random."""
        del self._executed[worker]  # of the pool before
        random = Random(f"{self._seed} {worker}")  # noqa: S311
        seconds = random.uniform(*self._boot_seconds)
        if worker < self._first_workers or random.random() >= self._boot_failure:
            return Boot(seconds)
        if random.random() < 0.5:
            return Boot(seconds, exitcode=-9)
        return Boot(seconds, error=f"a boot that failed at random, with seed {self._seed}")

    def turn(self, call: Call) -> Turn:
        """Return an execution at random."""
        self._executed[call.worker] += 1
        random = Random(f"{self._seed} {call.worker} {self._executed[call.worker]}")  # noqa: S311
        return Turn(
            random.uniform(*self._seconds),
            exitcode=-9 if random.random() < self._crash else None,
            stall=random.uniform(*self._stall_seconds) if random.random() < self._stall else 0.0,
        )
