"""What a row is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .watch import Watch

LIMIT_MS = 20.0
"""What the pool promises, and what every row is held to that is not told otherwise."""

Play: TypeAlias = "Callable[[Watch, int], Awaitable[None]]"
"""Has an event of some size happen, and measures it once."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to a pool, in several sizes.

    Attributes:
        name: by which it is chosen.
        what: what happens, with a place for the size.
        sizes: each a row.
        quick: the one size that it has with ``--quick``.
        play: has it happen.
        unit: of the sizes; they are shown in thousands or millions of it.
        limit: of the longest step, in milliseconds; None for what is only compared with.
        rounds: at most so many; what takes long is played less often.
    """

    name: str
    what: str
    sizes: tuple[int, ...]
    quick: int
    play: Play
    unit: str = ""
    limit: float | None = LIMIT_MS
    rounds: int = 5


@dataclass(slots=True)
class Row:
    """An event of one size, and what was measured of it.

    Attributes:
        steps: of each round the longest step, in milliseconds.
        gaps: of each round the longest gap, in milliseconds.
        where: whose step the longest of all was.
        error: why it could not be measured, if it could not.
    """

    event: Event
    size: int
    steps: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    where: str = ""
    error: str = ""

    @property
    def name(self) -> str:
        """By which it is chosen."""
        return f"{self.event.name}-{self.size_in_words}"

    @property
    def size_in_words(self) -> str:
        """The size with its unit: ``50k``, ``1MB``."""
        size, unit = self.size, self.event.unit
        if size < 1000:
            return f"{size}{unit}"
        if size < 1_000_000:
            return f"{size / 1000:.3g}k{unit}"
        return f"{size / 1_000_000:.3g}M{unit}"

    @property
    def what(self) -> str:
        """What happens, in words."""
        return self.event.what.format(self.size_in_words)

    @property
    def is_over(self) -> bool:
        """Whether a step took longer than it may."""
        limit = self.event.limit
        return limit is not None and bool(self.steps) and max(self.steps) > limit

    def add(self, watch: Watch) -> None:
        """Take note of a round."""
        step = 1000 * watch.step
        if not self.steps or step > max(self.steps):
            self.where = watch.where
        self.steps.append(step)
        self.gaps.append(1000 * watch.gap)

    def record(self) -> dict[str, object]:
        """Return it as the JSON has it."""
        return {
            "name": self.name,
            "event": self.event.name,
            "size": self.size,
            "limit_ms": self.event.limit,
            "step_ms": self.steps,
            "median_ms": median(self.steps) if self.steps else None,
            "gap_ms": self.gaps,
            "where": self.where,
            "over": self.is_over,
            "error": self.error,
        }
