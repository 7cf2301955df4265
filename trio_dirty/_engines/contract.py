"""The contract of engines: what starts workers and carries frames to and from them.

An engine is small on purpose. It knows nothing of routing, queues or retries; it starts
one worker, moves frames, and tells when and how the worker ended. The contract suite in
``tests/engines/test_contract.py`` runs against each implementation.
"""

from __future__ import annotations

import math
import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, final

from .._common.wire import EXIT_BROKE_DOWN, EXIT_CONNECTION_LOST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from .._common.wire import Segment
    from .._rules.targets import AppPaths


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What a worker is to be.

    Attributes:
        slot: the index of the slot that it is for.
        worker: its number; no other worker of the pool has it.
        lanes: how many requests it is to execute at a time.
    """

    slot: int
    worker: int
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker ended.

    Attributes:
        pid: its process.
        exitcode: as of `multiprocessing.Process`: negative is a signal's number; None
            where the program ignores SIGCHLD, or something else in it has collected it.
        reason: why the engine has killed it, if it has done that by itself.
    """

    pid: int | None
    exitcode: int | None
    reason: str | None = None

    def __str__(self) -> str:
        why = "" if self.reason is None else f"; {self.reason}"
        return f"process {self.pid} {describe_exit(self.exitcode)}{why}"


def describe_exit(exitcode: int | None) -> str:
    """Say how a process died."""
    if exitcode is None:
        return (
            "died; its exit code is unknown, since the program ignores SIGCHLD or has collected it "
            "elsewhere"
        )
    if exitcode < 0:
        try:
            return f"was killed by {signal.Signals(-exitcode).name}"
        except ValueError:
            return f"was killed by signal {-exitcode}"
    if exitcode == EXIT_CONNECTION_LOST:
        return f"exited with code {exitcode}, having lost its socket to the pool"
    if exitcode == EXIT_BROKE_DOWN:
        return f"exited with code {exitcode}, having broken down: its standard error tells more"
    return f"exited with code {exitcode}"


Reply: TypeAlias = tuple[int, float | None, BaseException | None, Any]
"""A worker's answer to a request: the request's number; how many seconds it was executed,
None if it was skipped and so never began; the exception to raise in the caller, or None;
the result. A plain tuple, because one is made for every request."""


@final
class Chunks(NamedTuple):
    """What a generator has yielded, one after the other, between two other replies.

    Attributes:
        number: the request's.
        chunks: each value and its size in bytes, as it counts for the credit window.
    """

    number: int
    chunks: list[tuple[Any, int]]


@final
class Pong(NamedTuple):
    """That the worker has read a PING, and has not taken up what was sent behind it before that.

    Attributes:
        number: the PING's.
    """

    number: int


Answer: TypeAlias = Reply | Chunks | Pong
"""What a worker says."""


class Worker(ABC):
    """One worker, from its start to its exit."""

    pid: int | None = None

    @abstractmethod
    async def look_up(self, apps: AppPaths) -> Sequence[int | None]:
        """Have the apps imported, and return the ``workers`` that each declares.

        To be called before `boot`, if at all.

        Raises:
            AppLoadError: one could not be, or the worker ended first.
        """

    @abstractmethod
    async def boot(self, apps: AppPaths) -> None:
        """Have the apps made and initialised; wait until all have.

        Raises:
            AppLoadError: one could not, or the worker ended first.
        """

    @abstractmethod
    def send_nowait(self, frames: Sequence[Segment]) -> Sequence[Segment]:
        """Send of whole frames what can be sent at once, in order, after those sent before.

        Returns:
            What is left to be sent by `send_rest`, before anything else is; usually nothing. If
            the worker has ended nothing is left: `receive` tells.
        """

    @abstractmethod
    async def send_rest(self, rest: Sequence[Segment]) -> None:
        """Send what `send_nowait` has left.

        Returns without an error if the worker has ended. Cancelled in the middle, it leaves the
        worker unusable.
        """

    @property
    @abstractmethod
    def unsent(self) -> int:
        """How many bytes `send_rest` has still to send; the more, the longer ago it began."""

    @abstractmethod
    def unreceived(self, number: int) -> int | None:
        """Return how many bytes of a request's large answer are still to come.

        None, unless a part of it has been received, and not yet all.
        """

    @abstractmethod
    async def receive(self) -> Sequence[Answer]:
        """Wait for what the worker says; return at least one, or none when the worker has ended.

        All that the worker had written before its end is returned first. By the end is
        meant its exit: whatever is nothing but silent has not ended.
        """

    @abstractmethod
    def exit(self) -> Exit:
        """Return how the worker ended; its exit code is known once `receive` returns nothing."""

    @abstractmethod
    def kill(self) -> None:
        """Have the worker end at once, whatever it is doing. Does not wait."""

    @abstractmethod
    def interrupt(self) -> None:
        """Have the worker read at once, in the middle of an action, what it has been sent.

        An INTERRUPT frame is then raised in the action that it names. A worker that is stopped
        does so when it goes on. Where the program may not signal its workers, an action is
        interrupted when it next asks whether it is cancelled.
        """

    @abstractmethod
    async def hold(self) -> None:
        """Stop the worker, wherever it is, and wait until it stands still.

        What it has answered until then can be received, and nothing else begins or ends
        before `release`. It may be killed meanwhile.

        Where the program may not stop its workers, since it has given up the rights that it had
        when it started them, they go on: what a worker begins in the microseconds between the
        last look at its answers and a kill is then hit in place of what was to be killed.
        """

    @abstractmethod
    def unread(self) -> bool:
        """Return whether anything whole is there that `receive` has not returned."""

    @abstractmethod
    def release(self) -> None:
        """Let a worker that is held go on."""

    @abstractmethod
    def memory(self) -> int:
        """Return how many bytes of memory are resident for it; 0 if it has ended."""

    @abstractmethod
    def stands_still(self, *, busy: bool) -> bool:
        """Return whether it has done nothing since this was last asked, and does not want to.

        So it is with one that is stopped, or, unless it is ``busy``, that waits for what does not
        come; but not with one that computes, that waits for its turn on a busy processor, or for
        its memory. What an action waits for is not known here.
        """


class Engine(ABC):
    """Starts workers.

    Attributes:
        look_seconds: how often to look after the workers; infinity for never.
    """

    look_seconds: float = math.inf

    @abstractmethod
    def start(self, blueprint: Blueprint) -> AbstractAsyncContextManager[Worker]:
        """Return a block in which a worker lives.

        Entering it waits, where the engine starts so many at a time only, until it is the
        worker's turn to start, which it keeps until it has started or has ended; but not for the
        worker itself. When the block is left the worker has ended: killed, unless it has been
        told to close and has done so.
        """

    @abstractmethod
    def now(self) -> float:
        """Return the time in seconds on the clock that durations are measured by."""
