"""Which slot carries which app."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence


def allocate(
    limits: Sequence[float], staying: Mapping[int, frozenset[int]], new: Iterable[int]
) -> dict[int, frozenset[int]]:
    """Decide which apps each slot is to carry.

    A slot that stays keeps what it carries. A new one takes up what may have more carriers, the
    load spread: each next carrier of an app is the new slot that has the fewest limited apps.
    Only where an app has no carrier left, and there is no new slot, does one that stays gain
    it: that costs it a new worker, and the state of the old one.

    Args:
        limits: by app, how many slots may carry it; infinity for all.
        staying: by slot, what it carries.
        new: the slots that are about to be opened.

    Returns:
        By slot, what it is to carry.
    """
    unlimited = {app for app, limit in enumerate(limits) if limit == float("inf")}
    apps = {slot: set(carried) for slot, carried in staying.items()}
    opened = {slot: set(unlimited) for slot in new}
    for app, limit in enumerate(limits):
        if app in unlimited:
            continue
        missing = min(limit, len(apps) + len(opened)) - sum(app in each for each in apps.values())
        takers = opened
        if not opened and not any(app in each for each in apps.values()):
            takers, missing = apps, 1
        least = sorted(takers, key=lambda slot: (len(takers[slot] - unlimited), slot))
        for slot in least[: max(0, int(missing))]:
            takers[slot].add(app)
    return {slot: frozenset(carried) for slot, carried in {**apps, **opened}.items()}


def gains(
    limits: Sequence[float], able: Mapping[int, frozenset[int]], kept: frozenset[int]
) -> dict[int, frozenset[int]]:
    """Decide which slots are to gain an app that no other slot carries.

    Args:
        limits: see `allocate`.
        able: by slot, what it carries.
        kept: what is carried by slots that have failed, and waits for their return.

    Returns:
        By slot, what it gains; of those that gain anything.
    """
    apps = allocate(limits, able, ())
    gained = {slot: apps[slot] - carried - kept for slot, carried in able.items()}
    return {slot: more for slot, more in gained.items() if more}


def choose_leaving(
    count: int, slots: Mapping[int, frozenset[int]], failed: Collection[int]
) -> list[int]:
    """Choose the slots that leave when there are to be fewer.

    One after the other: first those that have failed; then those that leave no app without a
    carrier; then the highest index.

    Args:
        count: how many.
        slots: what each slot carries.
        failed: those of them that carry nothing any more.
    """
    staying = dict(slots)
    leaving = []
    for _ in range(count):
        chosen = max(
            staying,
            key=lambda slot: (slot in failed, not _orphans(slot, staying, failed), slot),
        )
        del staying[chosen]
        leaving.append(chosen)
    return leaving


def _orphans(slot: int, slots: Mapping[int, frozenset[int]], failed: Collection[int]) -> bool:
    """Whether an app is carried by this slot and by no other that has not failed."""
    others: set[int] = set()
    others.update(*(slots[other] for other in slots if other != slot and other not in failed))
    return not slots[slot] <= others
