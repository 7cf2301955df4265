"""What a row is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .watch import Watch

LIMIT_MS = 20.0
"""What the pool promises: the limit of every row."""

Play: TypeAlias = "Callable[[Watch, int], Awaitable[None]]"
"""Makes an event of some size happen, and measures it once."""


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
        control: the same without a pool: what trio itself takes for it is not the pool's.
        rounds: at most so many; what takes long is played less often.
    """

    name: str
    what: str
    sizes: tuple[int, ...]
    quick: int
    play: Play
    unit: str = ""
    control: Play | None = None
    rounds: int = 5


@dataclass(slots=True)
class Row:
    """An event of one size, and what was measured of it.

    Attributes:
        steps: of each round the longest step, in milliseconds.
        bare: the same of each round's control, if there is one.
        gaps: of each round the longest gap, in milliseconds.
        where: whose step the longest of all was.
        error: why it could not be measured, if it could not.
    """

    event: Event
    size: int
    steps: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
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
    def own(self) -> list[float]:
        """Of each round what the pool's part of the longest step was, in milliseconds."""
        if not self.bare:
            return self.steps
        return [step - bare for step, bare in zip(self.steps, self.bare, strict=True)]

    @property
    def is_over(self) -> bool:
        """Whether the pool's part of a step took longer than it may."""
        return bool(self.steps) and max(self.own) > LIMIT_MS

    def add(self, watch: Watch, control: Watch | None = None) -> None:
        """Add the measurements of a round, and of its control."""
        step = 1000 * watch.step
        if not self.steps or step > max(self.steps):
            self.where = watch.where
        self.steps.append(step)
        self.gaps.append(1000 * watch.gap)
        if control is not None:
            self.bare.append(1000 * control.step)

    def record(self) -> dict[str, object]:
        """Return it as the JSON has it."""
        return {
            "name": self.name,
            "event": self.event.name,
            "size": self.size,
            "limit_ms": LIMIT_MS,
            "step_ms": self.steps,
            "bare_ms": self.bare,
            "median_ms": median(self.steps) if self.steps else None,
            "gap_ms": self.gaps,
            "where": self.where,
            "over": self.is_over,
            "error": self.error,
        }
