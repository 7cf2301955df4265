"""What a lane executes, and how it is interrupted. Imports nothing of trio.

An interrupt is a frame, and then a signal that has the frame read at once. The signal's
handler runs wherever the main thread happens to be, which may be anywhere in the worker's own
code: so it raises only inside the action that the frame names, and else leaves a flag that is
looked at on the next entry. What it may raise out of is one frame of Python, `Lane.run`: from
the moment in which that has returned, nothing can be raised any more.
"""

from __future__ import annotations

from threading import get_ident
from time import perf_counter

from .._common.credit import CreditWindow
from .._common.errors import RequestCancelled, SoftTimeout
from .._common.wire import CANCELLED, SOFT_TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

LOOK_SECONDS = 50e-6
"""How stale the knowledge of what the pool has said may be. A frame takes about as long from
the pool's decision to the worker, and a look costs 1 µs."""

RAISED: dict[int, type[BaseException]] = {SOFT_TIMEOUT: SoftTimeout, CANCELLED: RequestCancelled}


def never_look() -> None:
    """For a lane that somebody else tells what has arrived."""


class Lane:
    """What one lane executes, and what the pool has said about it since it began.

    Args:
        look: takes in what the pool has sent, without waiting.

    Attributes:
        number: the request's; None between two.
        left: whether its caller has left.
        steps: how many chunks its generator has yielded.
        window: those of them that its reader has not taken.
        looked: when what the pool has said was last looked at.
        armed: whether an interrupt may be raised: to be cleared by whoever calls `run`, as the
            first thing after it, however it ends.
    """

    def __init__(self, look: Callable[[], object] = never_look) -> None:
        self._look = look
        self.number: int | None = None
        self.left = False
        self.steps = 0
        self.window = CreditWindow()
        self.looked = 0.0
        self.armed = False
        self._interrupt = 0
        self._thread = get_ident()
        # A signal has come when nothing could be raised; and a signal has, or a frame been read.
        self._signalled = False
        self._noticed = False

    def begin(self, number: int, interrupt: int = 0) -> None:
        """Take a request up, which is interrupted at once if the pool has asked for it."""
        self.number = number
        self.left = False
        self.steps = 0
        self._interrupt = interrupt
        if interrupt:
            self._noticed = True

    def end(self) -> None:
        """Take note that the request has been answered: what is said of it is too late."""
        self.number = None
        self.left = False

    def run(self, action: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run what an interrupt may be raised in; clear ``armed`` as soon as this has ended."""
        self.armed = True
        if self._noticed:
            self._attend()
        return action(*args, **kwargs)

    def interrupt(self, reason: int, steps: int) -> None:
        """Take note of what an interrupt frame asks; a step that is done is not interrupted."""
        if reason == CANCELLED or steps == self.steps:
            self._interrupt = max(self._interrupt, reason)
            self._noticed = True

    @property
    def interrupted(self) -> bool:
        """Whether an interrupt is to be raised."""
        return self._interrupt != 0

    def take_interrupt(self) -> BaseException | None:
        """Return what is to be raised, which then is not any more."""
        reason, self._interrupt = self._interrupt, 0
        return RAISED[reason]() if reason else None

    def on_signal(self, _: int, frame: FrameType | None) -> None:
        """Read the frame that the signal announces, now or on the next entry."""
        if self.armed and _is_inside_run(frame):
            self._attend()
        else:
            self._signalled = self._noticed = True

    def check_cancelled(self) -> None:
        """Raise `RequestCancelled` if the caller has left."""
        # Another thread, that has inherited the context, must not read what this one may read.
        if (
            not self.left
            and perf_counter() - self.looked > LOOK_SECONDS
            and get_ident() == self._thread
        ):
            self._attend()
        if self.left:
            raise RequestCancelled

    def _attend(self) -> None:
        """Look at what the pool has said, and raise what it asks for."""
        while True:
            # A signal that comes while frames are read must not have them read once more.
            self.armed = False
            self._signalled = False
            self._look()
            self._noticed = False
            self.armed = True
            if not self._signalled:
                break
        error = self.take_interrupt()
        if error is not None:
            raise error


def _is_inside_run(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is _RUN:
            return True
        frame = frame.f_back
    return False


_RUN = Lane.run.__code__
