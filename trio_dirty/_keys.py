"""Which slot the requests of a key are given to.

Decisions only: nothing here waits, and nothing here knows of trio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._routing import highest_random_weight

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class OnlySlot:
    """The key of a request that one slot is to execute and no other: a part of a broadcast."""

    index: int


CHOICES_LIMIT = 10_000
"""Keys may be without number: what is remembered of them must not grow with them."""


class Keys:
    """Finds the slot of a key, the same as long as that is there.

    While requests of a key have not ended, others of it go where those are: so that they
    begin in order also when a slot comes that the key would move to.
    """

    def __init__(self) -> None:
        # By app and key: the slot, and how many requests of theirs have not ended.
        self._places: dict[tuple[int | None, object], list[int]] = {}
        # What has been chosen: that costs a microsecond for each slot.
        self._choices: dict[tuple[int | None, int], int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def choose(self, app: int | None, key: object, slots: Iterable[int]) -> int:
        """Return the slot that a request of the key goes to, of those that carry the app."""
        place = self._places.get((app, key))
        if place is not None:
            return place[0]
        hashed = hash(key)
        choice = self._choices.get((app, hashed))
        if choice is None:
            if len(self._choices) >= CHOICES_LIMIT:
                self._choices.clear()
            choice = self._choices[app, hashed] = highest_random_weight(hashed, slots)
        return choice

    def forget_choices(self) -> None:
        """Choose anew, since slots have come or gone."""
        self._choices.clear()

    def has(self, app: int | None, key: object) -> bool:
        """Whether any request of the key has been given to a slot and has not ended."""
        return (app, key) in self._places

    def begin(self, app: int | None, key: object, slot: int) -> None:
        """Count a request of the key that has been given to its slot."""
        self._places.setdefault((app, key), [slot, 0])[1] += 1

    def end(self, app: int | None, key: object) -> None:
        """Count one off that has ended, or leaves its slot."""
        place = self._places[app, key]
        place[1] -= 1
        if not place[1]:
            del self._places[app, key]
