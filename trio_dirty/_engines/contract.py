"""The contract of engines, which start workers and carry frames to and from them.

An engine knows nothing of routing, queues or retries: it starts one worker, moves frames, and
reports when and how the worker ended. The suite in ``tests/engines/test_contract.py`` runs
against each implementation.
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
    """Which worker is to be started.

    Attributes:
        slot: the index of its slot.
        worker: its number, which no other worker of the pool has.
        lanes: how many requests it executes at a time.
    """

    slot: int
    worker: int
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker ended.

    Attributes:
        pid: the number of its process.
        exitcode: as that of `multiprocessing.Process`: negative is the number of a signal; None
            if the program ignores SIGCHLD or another part of it has collected the exit code.
        reason: why the engine killed it, if the engine did so on its own.
    """

    pid: int | None
    exitcode: int | None
    reason: str | None = None

    def __str__(self) -> str:
        why = "" if self.reason is None else f"; {self.reason}"
        return f"process {self.pid} {describe_exit(self.exitcode)}{why}"


def describe_exit(exitcode: int | None) -> str:
    """Return how a process ended, in words."""
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
"""A worker's answer to a request: the number of the request; for how many seconds it was
executed, None if it was skipped and never began; the exception to raise in the caller, or None;
the result. A plain tuple, because one is made for every request."""


@final
class Chunks(NamedTuple):
    """Consecutive chunks of one stream.

    Attributes:
        number: the number of the request.
        chunks: each value, with the bytes that it counts for in the credit window.
    """

    number: int
    chunks: list[tuple[Any, int]]


@final
class Pong(NamedTuple):
    """The worker has read a PING, and had not taken up anything that was sent after it.

    Attributes:
        number: the number of the PING.
    """

    number: int


Answer: TypeAlias = Reply | Chunks | Pong
"""What `Worker.receive` returns."""


class Worker(ABC):
    """One worker, from its start to its exit."""

    pid: int | None = None

    @abstractmethod
    async def look_up(self, apps: AppPaths) -> Sequence[int | None]:
        """Have the apps imported; return the attribute ``workers`` of each.

        May be called once, before `boot`.

        Raises:
            AppLoadError: an app could not be imported, or the worker ended first.
        """

    @abstractmethod
    async def boot(self, apps: AppPaths) -> None:
        """Have the apps created and initialised; return when all of them are.

        Raises:
            AppLoadError: an app could not be loaded, or the worker ended first.
        """

    @abstractmethod
    def send_nowait(self, frames: Sequence[Segment]) -> Sequence[Segment]:
        """Send as much of these frames as can be sent without waiting, in order.

        Returns:
            What remains, usually nothing. It must be sent by `send_rest` before any other
            frame. If the worker has ended, nothing remains: `receive` reports the end.
        """

    @abstractmethod
    async def send_rest(self, rest: Sequence[Segment]) -> None:
        """Send what `send_nowait` has returned.

        Returns without an error if the worker has ended. If it is cancelled, the worker cannot
        be used any more.
        """

    @property
    @abstractmethod
    def unsent(self) -> int:
        """How many bytes `send_rest` has still to send.

        It becomes smaller as they are sent, and is 0 when there is nothing to send.
        """

    @abstractmethod
    def unreceived(self, number: int) -> int | None:
        """Return how many bytes of a request's large answer have not been received yet.

        None if no part of it has been received, or all of it has.
        """

    @abstractmethod
    async def receive(self) -> Sequence[Answer]:
        """Wait for answers of the worker and return them; return none when it has ended.

        Everything that the worker wrote before its end is returned first. The end is the exit
        of the worker: one that is only silent has not ended.
        """

    @abstractmethod
    def exit(self) -> Exit:
        """Return how the worker ended. The exit code is known once `receive` returns nothing."""

    @abstractmethod
    def kill(self) -> None:
        """End the worker at once, whatever it is doing, without waiting for its end."""

    @abstractmethod
    def interrupt(self) -> None:
        """Have the worker read what it has been sent, even in the middle of an action.

        An INTERRUPT frame then raises an exception in the action that it names. A worker that is
        stopped reads when it continues. If the program is not allowed to signal its workers, an
        action is interrupted by its next call of `check_cancelled`.
        """

    @abstractmethod
    async def hold(self) -> None:
        """Stop the worker, whatever it is doing, and wait until it has stopped.

        What it has answered until then can be received; nothing begins or ends before
        `release`. It may be killed in this state.

        A program that has given up the rights that it had when it started its workers cannot stop
        them. They continue, and a request that begins in the microseconds between the last
        look at the answers and a kill is then hit instead of the one that the kill was for.
        """

    @abstractmethod
    def unread(self) -> bool:
        """Return whether `receive` would return a complete answer without waiting."""

    @abstractmethod
    def release(self) -> None:
        """Let a worker continue that `hold` has stopped."""

    @abstractmethod
    def memory(self) -> int:
        """Return the resident memory of the worker in bytes; 0 if it has ended."""

    @abstractmethod
    def stands_still(self, *, busy: bool) -> bool:
        """Return whether the worker makes no progress and is not about to make any.

        True if it has not run since the last call and is stopped or, unless it is ``busy``,
        waits for something. False if it computes, or waits for a processor or for its memory.
        A worker is busy if it executes an action: what an action waits for is not known here.
        """


class Engine(ABC):
    """Starts workers.

    Attributes:
        look_seconds: after how many seconds the pool checks its workers again; infinity for
            never.
    """

    look_seconds: float = math.inf

    @abstractmethod
    def start(self, blueprint: Blueprint) -> AbstractAsyncContextManager[Worker]:
        """Return a block in which one worker lives.

        Entering the block does not wait for the worker to start. An engine that starts only a
        limited number of workers at a time may wait there until it is this one's turn. When
        the block has been left, the worker has ended: it has closed as it was told, or has been
        killed.
        """

    @abstractmethod
    def now(self) -> float:
        """Return the seconds of the clock by which durations are measured."""
