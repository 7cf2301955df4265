"""A lane in a thread of its own, and how it is interrupted. Imports nothing of trio.

Signal handlers run in the main thread only. So here an interrupt is an asynchronous exception,
which CPython raises when it next checks for one: at the beginning of a function, after a call of
C code, in each turn of a loop. It may be pending for long after it was set; a lane does not leave
`ThreadLane.run` before none is pending and none can be set any more.
"""

from __future__ import annotations

import ctypes
from collections import deque
from threading import Event, get_ident
from time import sleep

from .._common.context import current_lane
from .._common.errors import RequestCancelled
from .._common.wire import CANCELLED
from .lane import RAISED, Lane

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc


def raise_in(thread: int, error: type[BaseException]) -> None:
    """Have an exception raised in a thread, in place of one that is pending."""
    _set_async_exc(ctypes.c_ulong(thread), ctypes.py_object(error))


class TooLate(BaseException):
    """Raised in place of an interrupt that was set when its action had ended."""


class ThreadLane(Lane):
    """A lane in a thread of its own; the main thread tells it what the pool has said."""

    def __init__(self) -> None:
        super().__init__(receive=self._wait)
        # Set when there is news for the lane's stream.
        self._news = Event()
        # What the stream's reader has taken. Only the lane's thread adds it up: of sums that two
        # threads change, some updates are lost.
        self._credits: deque[tuple[int, int]] = deque()
        # The step of a soft time-out that has not been raised.
        self._step = 0
        # Whether the main thread may be about to set an exception; whether it has since the
        # present step began; and whether that was a cancellation, since the request began.
        self._interrupting = False
        self._is_set = False
        self._is_cancelled = False

    def enter(self) -> None:
        """Make the present thread the lane's."""
        self._thread = get_ident()
        current_lane.set(self)

    def begin(self, number: int, told: int = 0) -> None:
        """Take a request up; see `Lane.begin`."""
        self._step = 0
        super().begin(number, told)
        self._is_cancelled = False
        self._news.clear()
        self._credits.clear()

    # Interrupts

    def run(self, action: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run what an interrupt may be raised in; when this ends, none is pending.

        One may be when the action ends. `_run` replaces it; or it is raised there before that,
        and then is the outcome. In either case nothing is pending when `_run` raises.
        """
        try:
            return self._run(action, args, kwargs)
        except BaseException:
            self._disarm()
            raise

    def _run(
        self, action: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            # Armed first: see `interrupt`.
            self.armed = True
            reason, self._interrupt = self._interrupt, 0
            if reason == CANCELLED or (reason and self._step == self.steps):
                raise RAISED[reason]
            return action(*args, **kwargs)
        finally:
            # At once, before CPython checks for exceptions: nothing more is set.
            self.armed = False
            self._disarm()

    def _disarm(self) -> None:
        self.armed = False
        while self._interrupting:
            sleep(0)
        if self._is_set:
            self._is_set = False
            # Clearing the pending exception would do as well, but CPython 3.11 would check for it
            # for ever; and where a debugger or a coverage tool traces, it would never go on.
            try:
                raise_in(self._thread, TooLate)
                while True:
                    sleep(0)
            except TooLate:
                pass

    def interrupt(self, reason: int, steps: int) -> None:
        """Raise what an interrupt frame asks for: now, or at the beginning of its step.

        Called by the main thread, while no request can be taken up.
        """
        # The main thread notes it first, and then checks whether the lane is armed; the lane is
        # armed first, and then checks what is noted. So one of the two finds it.
        if reason == CANCELLED or self._interrupt != CANCELLED:
            self._step = steps
            self._interrupt = reason
        self._interrupting = True
        # From here on a lane that is seen armed ends no step. (A soft time-out must not replace a
        # cancellation that is pending.)
        if self.armed and (reason == CANCELLED or (steps == self.steps and not self._is_cancelled)):
            self._interrupt = 0
            self._is_cancelled = reason == CANCELLED
            self._is_set = True
            raise_in(self._thread, RAISED[reason])
        self._interrupting = False

    def check_cancelled(self) -> None:
        """Raise `RequestCancelled` if the caller has left: the main thread reads all the time."""
        if self.abandoned:
            raise RequestCancelled

    # News for a stream

    def abandon(self) -> None:
        """Note that the caller has left."""
        self.abandoned = True
        self._news.set()

    def give_back(self, chunks: int, size: int) -> None:
        """Note how many chunks the stream's reader has taken, until `refresh`."""
        self._credits.append((chunks, size))
        self._news.set()

    def refresh(self) -> None:
        """Apply to the window what the stream's reader has taken."""
        while self._credits:
            self.window.give_back(*self._credits.popleft())

    def _wait(self) -> None:
        self._news.wait()
        self._news.clear()
