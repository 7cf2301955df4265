"""What becomes of the requests of a worker that has died, or of a slot that leaves.

Of a dead worker's requests those that may have begun fail, since they must not be begun twice; the
ledger knows which. All others are served as if nothing had happened: here, in the slot, or
elsewhere. The caller of `settle` applies what it returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._common.errors import DirtyError, RequestTimeoutError, WorkerCrashedError
from .deadlines import TIMEOUT, Due
from .routing import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .instruments import Outcome
    from .request import Request


@dataclass(frozen=True, slots=True)
class Settlement:
    """What becomes of requests that cannot have begun, each list in order of acceptance.

    Attributes:
        kept: stay in the slot, before all that it has been given since.
        moved: are routed again.
        withdrawn: end without having begun: their callers have left.
        stranded: end because no other slot may execute them.
    """

    kept: list[Request]
    moved: list[Request]
    withdrawn: list[Request]
    stranded: list[Request]


def settle(requests: Iterable[Request], *, keeps_keys: bool, keeps_pinned: bool) -> Settlement:
    """Decide what becomes of requests that cannot have begun.

    Args:
        requests: those of a worker that has died, and what its slot has queued; or what a slot
            has queued that has no worker for it any more.
        keeps_keys: whether the slot stays, and those with a key with it.
        keeps_pinned: whether a worker of the slot will still execute what only it may.
    """
    # Without a line of Python for each: there may be 100,000.
    requests = sorted(requests, key=number)
    withdrawn = [request for request in requests if request.cancelled]
    bound = [
        request
        for request in requests
        if (request.key is not None or request.pinned is not None) and not request.cancelled
    ]
    if keeps_keys and keeps_pinned and len(bound) == len(requests):
        return Settlement(requests, [], [], [])
    kept = [each for each in bound if (keeps_keys if each.pinned is None else keeps_pinned)]
    stranded = [] if keeps_pinned else [each for each in bound if each.pinned is not None]
    moved = requests
    if withdrawn or kept or stranded:
        others = {*withdrawn, *kept, *stranded}
        moved = [request for request in requests if request not in others]
    return Settlement(kept, moved, withdrawn, stranded)


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker died.

    Attributes:
        slot, worker, pid, exitcode: whose death it was, and how it exited.
        how: the same in words.
        killed_for: what the pool has killed it for; None if it has not.
        is_unresponsive: whether the pool has killed it because it stood still.
    """

    slot: int
    worker: int
    pid: int | None
    exitcode: int | None
    how: str
    killed_for: Due | None = None
    is_unresponsive: bool = False

    def described(self, begun: Sequence[Request]) -> str:
        """Say how it died, and of what."""
        doing = " and ".join(str(request.target) for request in begun) or "nothing"
        text = f"worker {self.worker} of slot {self.slot} died while executing {doing}: {self.how}"
        if self.is_unresponsive:
            text += "; the pool killed it because it stood still, as if stopped"
        due = self.killed_for
        if due is not None:
            # Those who only shared the worker are to know whose limits it was.
            which = [request.target for request in begun if request is due.request]
            whose = f" of {which[0]}" if len(begun) > 1 and which else ""
            if due.reason == TIMEOUT:
                seconds = due.request.limits.timeout
                text += f"; the pool killed it after timeout={seconds} seconds{whose}"
            else:
                text += f"; the pool killed it because the caller{whose} was cancelled"
        return text

    def outcome(self, request: Request, text: str) -> tuple[Outcome, DirtyError | None]:
        """Return how a request ends that may have begun, and its error; None for no error.

        Args:
            request: one that the worker may have begun.
            text: what `described` returns.
        """
        due = self.killed_for
        if due is None or request is not due.request:
            return "crashed", self.error(text, request)
        if due.reason != TIMEOUT:
            return "killed", None
        seconds = request.limits.timeout
        what = (
            f"took longer than timeout={seconds} seconds, and its worker {self.worker} of slot "
            f"{self.slot} was killed"
        )
        return "timed_out", timed_out(request, what, seconds, slot=self.slot, pid=self.pid)

    def error(self, text: str, request: Request | None = None) -> WorkerCrashedError:
        """Return the error that says so, to the caller of a request or as a slot's failure."""
        target = None if request is None else request.target
        return WorkerCrashedError(
            text,
            app=None if target is None else target.app_name,
            action=None if target is None else target.action,
            slot=self.slot,
            pid=self.pid,
            exitcode=self.exitcode,
        )


def timed_out(
    request: Request,
    what: str,
    seconds: float,
    *,
    slot: int,
    pid: int | None,
    soft: bool = False,
) -> RequestTimeoutError:
    """Return the error of a request that was executed for longer than it may be."""
    subject = "a step of its generator" if request.streams else "it"
    return RequestTimeoutError(
        f"{request.target}: {subject} {what}",
        soft=soft,
        seconds=seconds,
        app=request.target.app_name,
        action=request.target.action,
        slot=slot,
        pid=pid,
    )
