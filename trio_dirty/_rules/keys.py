"""Which slot the requests of a key are given to.

Decisions only: nothing here waits, and nothing here knows of trio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .routing import highest_random_weight

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable


class Key:
    """A caller's key, which nothing that it does can harm the pool.

    Its hash is taken once: an object whose hash changes would not be found again. One whose
    comparison raises is equal to none but itself.
    """

    __slots__ = ("_hash", "_value")

    def __init__(self, value: Hashable) -> None:
        self._value = value
        self._hash = hash(value)

    def __repr__(self) -> str:
        return f"<Key {self._value!r}>"

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        value = other._value if isinstance(other, Key) else other
        try:
            return self._value is value or bool(self._value == value)
        except BaseException:  # whatever it is: a decision of the pool is not to end by it
            return False


_HARMLESS = frozenset((str, bytes, int, float, bool))


def key_of(value: Hashable) -> object:
    """Return what stands for a key in the pool; None for none.

    Raises:
        TypeError: it does not hash.
    """
    if value is None or type(value) in _HARMLESS:
        return value
    try:
        return Key(value)
    except Exception as error:
        raise TypeError(f"key must hash, was {_shown(value)}: {error}") from None


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return f"a {type(value).__qualname__}"


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
