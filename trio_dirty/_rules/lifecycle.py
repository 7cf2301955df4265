"""The life of a slot, as a table of states and events.

A slot has one worker after the other. The table says when the next one is started; `Lifecycle`
knows why, and after which delay. As with h11's connection states, the tasks of the pool report
events here, and do what the state then asks for.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._common.errors import DirtyError
    from .statistics import Cause, SlotState

FIRST_DELAY = 0.1
FAILURES_LIMIT = 7


class State(Enum):
    """What a slot's next worker waits for."""

    BOOTING = auto()
    """No worker serves. One is being started."""

    READY = auto()
    """A worker serves."""

    RENEWING = auto()
    """A worker serves, and its successor is being started."""

    VACATING = auto()
    """The worker ends what it has been sent. When it is gone, its successor is started."""

    SETTLING = auto()
    """The worker has died. What it leaves is settled, and its process reaped."""

    BACKING_OFF = auto()
    """The last workers died or did not boot. The next one is started after a delay."""

    FAILED = auto()
    """There is no worker, and there will be none, unless a reload asks for it."""

    REVIVING = auto()
    """The slot has failed. A worker is being started all the same."""

    LEAVING = auto()
    """The workers end what they have been sent, and close. No further one is started."""


class Event(Enum):
    """What happens to a slot."""

    BOOTED = auto()
    NOT_BOOTED = auto()
    LOST = auto()
    """The worker that served has ended."""
    GONE = auto()
    """Nothing is left of it."""
    DELAYED = auto()
    """The next worker has to wait."""
    GIVEN_UP = auto()
    """Too many in a row have died or have not booted."""
    DUE = auto()
    """The delay is over, or has been cut short by a reload."""
    RENEWED = auto()
    """A fresh worker is wanted."""
    VACATED = auto()
    """A fresh worker is wanted, and the old one has to be gone first."""
    LEFT = auto()
    """The slot leaves the pool, or the pool is being closed."""


_TABLE: dict[State, dict[Event, State]] = {
    State.BOOTING: {
        Event.BOOTED: State.READY,
        Event.NOT_BOOTED: State.BOOTING,
        Event.DELAYED: State.BACKING_OFF,
        Event.GIVEN_UP: State.FAILED,
        Event.LEFT: State.LEAVING,
    },
    State.READY: {
        Event.LOST: State.SETTLING,
        Event.RENEWED: State.RENEWING,
        Event.VACATED: State.VACATING,
        Event.LEFT: State.LEAVING,
    },
    State.RENEWING: {
        Event.BOOTED: State.READY,
        Event.NOT_BOOTED: State.READY,
        Event.LOST: State.BOOTING,
        Event.LEFT: State.LEAVING,
    },
    State.VACATING: {
        Event.GONE: State.BOOTING,
        Event.LEFT: State.LEAVING,
    },
    State.SETTLING: {
        Event.GONE: State.BOOTING,
        Event.DELAYED: State.BACKING_OFF,
        Event.GIVEN_UP: State.FAILED,
        Event.LEFT: State.LEAVING,
    },
    State.BACKING_OFF: {
        Event.DUE: State.BOOTING,
        Event.LEFT: State.LEAVING,
    },
    State.FAILED: {
        Event.RENEWED: State.REVIVING,
        Event.VACATED: State.REVIVING,
        Event.LEFT: State.LEAVING,
    },
    State.REVIVING: {
        Event.BOOTED: State.READY,
        Event.NOT_BOOTED: State.FAILED,
        Event.LEFT: State.LEAVING,
    },
    State.LEAVING: {
        Event.NOT_BOOTED: State.LEAVING,
        Event.LOST: State.LEAVING,
        Event.GONE: State.LEAVING,
        Event.LEFT: State.LEAVING,
    },
}

_SHOWN: dict[State, SlotState] = {
    State.BOOTING: "booting",
    State.READY: "ready",
    State.RENEWING: "ready",
    State.VACATING: "booting",
    State.SETTLING: "booting",
    State.BACKING_OFF: "backing_off",
    State.FAILED: "failed",
    State.REVIVING: "booting",
    State.LEAVING: "draining",
}


class Lifecycle:
    """Where a slot is in its life.

    Args:
        changed: called after each event.

    Attributes:
        state: see `State`.
        cause: what the next worker is started for, unless it is a renewal; None for the first.
        delay: seconds for which the next worker has to wait, while `State.BACKING_OFF`.
        failure: why the slot has failed; None if it has not.
        has_booted: whether there has ever been a worker that was ready.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self._changed = changed
        self._backoff = Backoff()
        self.state = State.BOOTING
        self.cause: Cause | None = None
        self.delay = 0.0
        self.failure: DirtyError | None = None
        self.has_booted = False

    def __repr__(self) -> str:
        return f"<Lifecycle {self.state.name}>"

    @property
    def shown(self) -> SlotState:
        """The state as `WorkerStatistics` calls it."""
        if self.failure is not None and self.state is State.LEAVING:
            return "failed"
        return _SHOWN[self.state]

    @property
    def is_leaving(self) -> bool:
        """Whether it gets no further worker."""
        return self.state is State.LEAVING

    @property
    def is_lost(self) -> bool:
        """Whether it has failed, and nothing is done about that."""
        return self.failure is not None and self.state is not State.REVIVING

    def booted(self) -> None:
        """Take note that the worker which was being started serves from now on."""
        self.has_booted = True
        self.failure = None
        self._move(Event.BOOTED)

    def not_booted(self, error: DirtyError) -> bool:
        """Take note that it could not boot; return whether the slot has failed for that now."""
        if self.state is State.BOOTING:
            self.cause = "boot_failed"
            return self._died(error, completed=0, else_=Event.NOT_BOOTED)
        if self.state is State.REVIVING:
            self.failure = error
        self._move(Event.NOT_BOOTED)
        return False

    def lost(self) -> None:
        """Take note that the worker which served has ended."""
        self._move(Event.LOST)

    def gone(self) -> None:
        """Take note that nothing is left of a worker that has ended in an orderly way."""
        self._move(Event.GONE)

    def died(
        self, error: DirtyError, cause: Cause, *, completed: int, is_latest: bool = True
    ) -> bool:
        """Take note that nothing is left of a worker that died; return whether the slot has failed.

        Args:
            error: what it died of.
            cause: the same, as the reason for the next one.
            completed: how many requests it had answered; at least 1 where its death was intended.
            is_latest: whether no other has taken over since.
        """
        if is_latest and self.state is State.SETTLING:
            self.cause = cause
            return self._died(error, completed, else_=Event.GONE)
        # Its successor is being started already, or serves: only the number of deaths counts.
        self._backoff.died(completed=completed)
        if is_latest:
            self.cause = cause
        return False

    def _died(self, error: DirtyError, completed: int, *, else_: Event) -> bool:
        delay = self._backoff.died(completed=completed)
        if delay is None or not self.has_booted:
            self._backoff = Backoff()
            self.failure = error
            self._move(Event.GIVEN_UP)
            return True
        self.delay = delay
        self._move(Event.DELAYED if delay else else_)
        return False

    def due(self) -> None:
        """Take note that the delay is over."""
        self._move(Event.DUE)

    def renew(self, *, overlaps: bool) -> None:
        """Have the worker replaced, or one started where there is none."""
        self._move(Event.RENEWED if overlaps else Event.VACATED)

    def leave(self) -> None:
        """Have the slot leave the pool."""
        self._move(Event.LEFT)

    def _move(self, event: Event) -> None:
        self.state = _TABLE[self.state][event]
        self._changed()


class Backoff:
    """Counts a slot's consecutive workers that died before completing any request.

    The first such death costs nothing: the next worker starts at once. The further ones
    cost 0.1, 0.2, 0.4, ... seconds, and the seventh fails the slot. A worker that
    completed a request, however it died, starts the count anew.
    """

    __slots__ = ("failures",)

    def __init__(self) -> None:
        self.failures = 0

    def died(self, *, completed: int) -> float | None:
        """Return the seconds to wait before the next worker, or None for no other."""
        if completed:
            self.failures = 0
            return 0.0
        self.failures += 1
        if self.failures == 1:
            return 0.0
        if self.failures >= FAILURES_LIMIT:
            return None
        return float(FIRST_DELAY * 2 ** (self.failures - 2))
