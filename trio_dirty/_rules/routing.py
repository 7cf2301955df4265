"""Which slot a request is given to: round robin, least loaded, by key; and a new slot's share."""

from __future__ import annotations

from bisect import bisect_right, insort
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping


class Rotation:
    """Round-robin over the ready slots that carry one app.

    The rule: a request goes to the first ready slot behind the one that was given the
    app's last request, counting upwards and around. So as long as the set of ready slots
    stays the same, the numbers of requests given to them differ by at most one; and
    when it changes, no slot's turn is skipped or repeated.

    Attributes:
        bits: the slots, each a bit of this number.
    """

    __slots__ = ("_last", "_next", "_ready", "bits")

    def __init__(self) -> None:
        self._ready: list[int] = []
        self.bits = 0
        self._last = -1
        # Invariant: _ready is sorted, and _ready[_next:] are the slots behind _last.
        self._next = 0

    def __len__(self) -> int:
        return len(self._ready)

    def __repr__(self) -> str:
        return f"<Rotation over {self._ready}, last {self._last}>"

    def take(self) -> int | None:
        """Return the slot whose turn it is, and move on; None if no slot is ready."""
        ready = self._ready
        if not ready:
            return None
        at = self._next
        if at == len(ready):
            at = 0
        self._next = at + 1
        slot = self._last = ready[at]
        return slot

    def in_turn(self) -> list[int]:
        """Return the slots that are ready, the one whose turn it is first."""
        return self._ready[self._next :] + self._ready[: self._next]

    def first_of(self, bits: int) -> int:
        """Return the one of some slots, at least one, whose turn comes first."""
        last = self._last
        behind = bits >> (last + 1)
        if behind:
            return last + (behind & -behind).bit_length()
        return (bits & -bits).bit_length() - 1

    def took(self, slot: int) -> None:
        """Take note that a ready slot was given a request, whosever turn it was."""
        self._last = slot
        self._next = bisect_right(self._ready, slot)

    def add(self, slot: int) -> None:
        """Let a slot that has become ready take part."""
        insort(self._ready, slot)
        self.bits |= 1 << slot
        self._next = bisect_right(self._ready, self._last)

    def remove(self, slot: int) -> None:
        """Leave out a slot that is ready no more."""
        self._ready.remove(slot)
        self.bits ^= 1 << slot
        self._next = bisect_right(self._ready, self._last)


class Loads:
    """Finds the least loaded of some slots, in a time that does not grow with their number.

    Slots are bits of numbers: so those with one load are found, and compared with those that
    carry an app, all at once. There are as many different loads as slots at most, and hardly
    ever more than three.
    """

    __slots__ = ("_levels", "_loads")

    def __init__(self) -> None:
        self._loads: dict[int, int] = {}
        # By load, the slots that have it. Invariant: none is 0.
        self._levels: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<Loads {self._loads}>"

    def put(self, slot: int, load: int) -> None:
        """Take note of the load of a slot."""
        before = self._loads.get(slot)
        if before == load:
            return
        bit = 1 << slot
        if before is not None:
            self._leave(before, bit)
        self._loads[slot] = load
        self._levels[load] = self._levels.get(load, 0) | bit

    def remove(self, slot: int) -> None:
        """Forget a slot, if it is there."""
        load = self._loads.pop(slot, None)
        if load is not None:
            self._leave(load, 1 << slot)

    def _leave(self, load: int, bit: int) -> None:
        left = self._levels[load] ^ bit
        if left:
            self._levels[load] = left
        else:
            del self._levels[load]

    def least(self, bits: int) -> int:
        """Return those of some slots, at least one, that have the least load."""
        levels = self._levels
        least = levels[min(levels)] & bits
        return least or next(some for load in sorted(levels) if (some := levels[load] & bits))


def highest_random_weight(key: int, slots: Iterable[int]) -> int:
    """Return the slot for a key's hash: the one that has the highest weight for it.

    Each slot's weight for a key depends on nothing but the two, so when one of n slots comes
    or goes only the keys change that it wins or has won: 1/n of all. Thaler and Ravishankar,
    *Using Name-Based Mappings to Increase Hit Rates* (1998), known as rendezvous hashing.
    """
    mixed = _mixed(key)
    return max(slots, key=lambda slot: _mixed(mixed ^ _mixed_slot(slot)))


_WORD = (1 << 64) - 1


def _mixed(value: int) -> int:
    """Return 64 well mixed bits: the finaliser of splitmix64 (Steele, Lea, Flood, 2014).

    Python's own hash of a small number is that number.
    """
    value = (value + 0x9E3779B97F4A7C15) & _WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)


@cache
def _mixed_slot(slot: int) -> int:
    """Return the same of a slot, of which there are few."""
    return _mixed(~slot)


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


class Routable(Protocol):
    """What is routed: it has a place in the order of acceptance, an app, and perhaps a key."""

    @property
    def number(self) -> int:
        """The place, counted from 0."""

    @property
    def app(self) -> int | None:
        """The index of the app that can serve it; None if every slot can."""

    @property
    def key(self) -> object:
        """What decides on its slot; None for the rotation."""

    @property
    def pinned(self) -> int | None:
        """The only slot that may execute it; None for any."""


R = TypeVar("R", bound=Routable)


number: Callable[[Routable], int] = attrgetter("number")
"""A request's place in the order of acceptance, to sort by."""


def fair_share(queue: Iterable[R], carriers: Mapping[int | None, int]) -> list[R]:
    """Choose what a slot that has become ready takes from the queue of another.

    Of an app that n others carry it takes one request of each n + 1, evenly spread over the queue:
    so every slot keeps as much as the new one gets, and neither the oldest requests nor the
    youngest are preferred. Requests with a key, and those that are pinned, stay where they are.

    Args:
        queue: the requests of another ready slot that have not been sent, in order.
        carriers: for each app of the new slot, how many other ready slots carry it.

    Returns:
        The requests to move: of each app in the order of the queue.
    """
    # Without a line of Python for each: 50,000 may wait.
    movable = [each for each in queue if each.key is None and each.pinned is None]
    apps = {request.app for request in movable}
    share: list[R] = []
    for app in apps & carriers.keys():
        of_app = movable if len(apps) == 1 else [each for each in movable if each.app == app]
        others = carriers[app]
        share += of_app[others :: others + 1]
    return share
