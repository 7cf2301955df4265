"""An instrument that remembers."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import trio

from .._rules.instruments import HOOKS, Instrument


class Event(NamedTuple):
    """One event in a pool.

    Attributes:
        time: when, on trio's clock.
        hook: which, by the name of the hook of `trio_dirty.Instrument`.
        values: what the hook was called with.
    """

    time: float
    hook: str
    values: tuple[object, ...]


class EventLog(Instrument):
    """Writes down every event in a pool, in order: ``open_pool(..., instruments=[log])``.

    Attributes:
        events: what has happened so far.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        for hook in HOOKS:
            vars(self)[hook] = partial(self._note, hook)

    def _note(self, hook: str, *values: object) -> None:
        self.events.append(Event(trio.current_time(), hook, values))

    def of(self, *hooks: str) -> list[Event]:
        """Return the events of some hooks only."""
        return [event for event in self.events if event.hook in hooks]
