"""What a lane executes, and how it is interrupted. Imports nothing of trio.

An interrupt is a frame, followed by a signal that has the frame read at once. The signal's
handler runs wherever the main thread happens to be, which may be anywhere in the worker's own
code. So it raises only inside the action that the frame names, and else sets a flag that is
checked on the next entry. It may raise out of one Python frame only, `Lane.run`: as soon as that
has returned, nothing can be raised any more.
"""

from __future__ import annotations

from threading import get_ident
from time import perf_counter

from .._common import wire
from .._common.credit import CreditWindow
from .._common.errors import RequestCancelled, SoftTimeout
from .._common.wire import CANCELLED, SOFT_TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

STALE_SECONDS = 50e-6
"""When the worker asks its socket for frames again. A frame takes about as long from the pool's
decision to the worker, and asking costs 1 µs."""

WITHDRAWN = max(CANCELLED, SOFT_TIMEOUT) + 1
"""Beside the reasons of an interrupt: the request was withdrawn before it was taken up."""

RAISED: dict[int, type[BaseException]] = {SOFT_TIMEOUT: SoftTimeout, CANCELLED: RequestCancelled}


def receive_nothing() -> None:
    """For a lane that another thread or task receives for."""


class Lane:
    """What one lane executes, and what the pool has said about it since it began.

    Args:
        receive_nowait: takes in the frames that have arrived.
        receive: the same, but waits for some.

    Attributes:
        number: the request's; None between two.
        abandoned: whether its caller has left.
        steps: how many chunks its generator has yielded.
        window: those of them that its reader has not taken.
        received_at: when frames were last received, or asked for.
        wait_for_news: waits until the pool may have said something about the request.
        armed: whether an interrupt may be raised. The caller of `run` clears it, as the first
            thing afterwards, however `run` ends.
    """

    def __init__(
        self,
        receive_nowait: Callable[[], object] = receive_nothing,
        receive: Callable[[], object] = receive_nothing,
    ) -> None:
        self._receive_nowait = receive_nowait
        self.wait_for_news = receive
        self.number: int | None = None
        self.abandoned = False
        self.steps = 0
        self.window = CreditWindow()
        self.received_at = 0.0
        self.armed = False
        self._interrupt = 0
        self._thread = get_ident()
        # A signal has come when nothing could be raised; and: a signal has, or an interrupt.
        self._signalled = False
        self._is_pending = False

    def begin(self, number: int, told: int = 0) -> None:
        """Take a request up.

        Args:
            number: the request's.
            told: what the pool has said about it: a reason to interrupt it on entry, or
                `WITHDRAWN`; 0: nothing.
        """
        self.number = number
        self.abandoned = False
        self.steps = 0
        self._interrupt = 0
        if told == WITHDRAWN:
            self.abandoned = True
        elif told:
            self._interrupt = told
            self._is_pending = True

    def end(self) -> None:
        """Ignore from now on what the pool says about the request: it has been answered."""
        self.number = None
        self.abandoned = False

    def run(self, action: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run what an interrupt may be raised in; clear ``armed`` as soon as this has ended."""
        self.armed = True
        if self._is_pending:
            self._receive_and_raise()
        return action(*args, **kwargs)

    # What the pool says about the request

    def refresh(self) -> None:
        """Take in what the pool has said, unless that was done a moment ago."""
        if perf_counter() - self.received_at > STALE_SECONDS:
            self._receive_nowait()

    def obey(self, kind: int, body: bytes) -> None:
        """Apply a WITHDRAW, INTERRUPT or CREDIT frame."""
        if kind == wire.CREDIT:
            self.give_back(*wire.pair(body))
        elif kind == wire.INTERRUPT:
            self.interrupt(*wire.pair(body))
        else:
            self.abandon()

    def abandon(self) -> None:
        """Note that the caller has left."""
        self.abandoned = True

    def give_back(self, chunks: int, size: int) -> None:
        """Note how many chunks the stream's reader has taken."""
        self.window.give_back(chunks, size)

    def interrupt(self, reason: int, steps: int) -> None:
        """Note an interrupt; a step that has ended is not interrupted."""
        if reason == CANCELLED or steps == self.steps:
            self._interrupt = max(self._interrupt, reason)
            self._is_pending = True

    @property
    def interrupted(self) -> bool:
        """Whether an interrupt is to be raised."""
        return self._interrupt != 0

    def take_interrupt(self) -> BaseException | None:
        """Return what is to be raised, once."""
        reason, self._interrupt = self._interrupt, 0
        return RAISED[reason]() if reason else None

    def on_signal(self, _: int, frame: FrameType | None) -> None:
        """Read the frame that the signal announces, now or on the next entry."""
        if self.armed and _is_inside_run(frame):
            self._receive_and_raise()
        else:
            self._signalled = self._is_pending = True

    def check_cancelled(self) -> None:
        """Raise `RequestCancelled` if the caller has left."""
        # Another thread that has inherited the context must not read from the lane's socket.
        if (
            not self.abandoned
            and perf_counter() - self.received_at > STALE_SECONDS
            and get_ident() == self._thread
        ):
            self._receive_and_raise()
        if self.abandoned:
            raise RequestCancelled

    def _receive_and_raise(self) -> None:
        while True:
            # Disarmed: a signal that comes while frames are read must not read them as well.
            self.armed = False
            self._signalled = False
            self._receive_nowait()
            self._is_pending = False
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
