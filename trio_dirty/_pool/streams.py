"""A request whose results come one by one, and the channel that its reader holds."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, final

import trio

from .._common import wire
from .._common.credit import BYTES_AHEAD, CHUNKS_AHEAD, CreditWindow
from .._common.errors import RemoteError, qualified
from .._engines.replies import ChunkFailure
from .._rules.request import Request
from .waiting import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from types import TracebackType

    from .._common.wire import Segment
    from .._rules.limits import Limits
    from .._rules.targets import Target

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Producer(Protocol):
    """The worker in which a generator runs."""

    def give_credit(self, request: StreamRequest, chunks: int, size: int) -> None:
        """Tell the generator what its reader has taken."""


class StreamRequest(Request):
    """A request for a stream: what has arrived for its reader, and what the reader has taken.

    Attributes:
        arrived: each chunk that the reader has not taken, and its size.
        ended: whether no further chunk will arrive.
        error: what is raised behind the last chunk, if anything.
    """

    __slots__ = (
        "_ahead",
        "_changed",
        "_held_seconds",
        "_held_since",
        "_reader",
        "_taken",
        "_worker",
        "arrived",
        "ended",
        "error",
    )
    streams = True
    _kind = wire.STREAM

    def __init__(
        self,
        target: Target,
        number: int,
        pickled: bytes | list[Segment],
        accepted: float,
        limits: Limits,
        key: object,
    ) -> None:
        super().__init__(target, number, pickled, accepted, limits, key)
        self.arrived: deque[tuple[Any, int]] = deque()
        self.ended = False
        self.error: BaseException | None = None
        # Waits for the reader to want more, or for the end.
        self._changed = Waiters()
        self._reader: trio.lowlevel.Task | None = None
        # What the worker counts as ahead of the reader: of that, this has been taken already,
        # and the worker not been told.
        self._ahead = CreditWindow()
        self._taken = CreditWindow()
        self._worker: Producer | None = None
        # For how long the generator has waited for its reader.
        self._held_seconds = 0.0
        self._held_since: float | None = None

    # From the worker

    def arrive(self, chunks: Sequence[tuple[Any, int]], worker: Producer) -> None:
        """Take in what the generator has yielded, in a worker."""
        if self.cancelled:
            return
        self._worker = worker
        add = self._ahead.add
        for _, size in chunks:
            add(size)
        self.arrived.extend(chunks)
        self._wake_reader()

    @property
    def is_bounded(self) -> bool:
        """Whether a time-out will end it: its time stands still while it is held."""
        return super().is_bounded and not self.is_held

    @property
    def is_held(self) -> bool:
        """Whether the generator waits until its reader has taken more."""
        return not self._ahead.is_open

    def hold(self, now: float) -> None:
        """Take note that the generator waits from now on."""
        if self._held_since is None:
            self._held_since = now

    def resume(self, now: float) -> None:
        """Take note that it goes on."""
        self._held_seconds, self._held_since = self._held(now), None

    def _held(self, now: float) -> float:
        """Return for how many seconds the generator has waited for its reader until now."""
        since = now if self._held_since is None else self._held_since
        return self._held_seconds + now - since

    def executed(self, now: float) -> float:
        """Return for how many seconds its steps have been executed, if it has begun."""
        # The sum of all for which it was held may be a rounding more than the whole.
        return max(0.0, super().executed(now) - self._held(now))

    def succeed(self, value: Any) -> None:
        """End behind the last chunk."""
        self._end(None)

    def fail(self, error: BaseException) -> None:
        """End with an exception behind the last chunk."""
        self._end(error)

    def skip(self) -> None:
        """End one whose reader has left before it began."""
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        self.frames = ()
        self.awaited = False
        self._worker = None
        self.ended = True
        self.error = None if self.cancelled else error
        self._changed.wake()
        self._wake_reader()

    def _wake_reader(self) -> None:
        task = self._reader
        if task is not None:
            self._reader = None
            trio.lowlevel.reschedule(task)

    # From the reader

    async def wait_arrival(self) -> None:
        """Wait until something has arrived, or nothing more will."""
        if self._taken.chunks and self.is_held:
            self._give_credit()
        self._reader = trio.lowlevel.current_task()
        self._changed.wake()

        def abort(_: Callable[[], Any]) -> trio.lowlevel.Abort:
            self._reader = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def take(self) -> Any:
        """Take the next chunk, and have the worker told now and then."""
        value, size = self.arrived.popleft()
        taken = self._taken
        taken.chunks += 1
        taken.size += size
        if taken.chunks >= CHUNKS_AHEAD // 2 or taken.size >= BYTES_AHEAD // 2:
            self._give_credit()
        return value

    def _give_credit(self) -> None:
        chunks, size = self._taken.chunks, self._taken.size
        self._taken = CreditWindow()
        self._ahead.give_back(chunks, size)
        if self._worker is not None:
            self._worker.give_credit(self, chunks, size)

    def leave(self) -> None:
        """Have the generator closed at its next ``yield``; take nothing more."""
        self.arrived.clear()
        self._changed.wake()
        if not self.ended and not self.cancelled:
            self.cancelled = True
            self.awaited = self.limits.on_cancel == "wait"
            if self.place.withdraw(self):
                self._end(None)

    async def wait_taken(self) -> None:
        """Wait until its reader has taken what has arrived, or has left."""
        await self._changed.wait()

    async def wait_answered(self) -> None:
        """Wait until the worker is done with it."""
        await self._changed.until(lambda: self.ended)


@final
class ChunkChannel(trio.abc.ReceiveChannel[T_co]):
    """What a stream is read from: ``async for chunk in chunks``, or `receive`.

    Made by `Pool.stream`, and usable inside its block by one task at a time.
    """

    _request: StreamRequest
    _is_read: bool
    _is_closed: bool

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise TypeError(
            "only the library makes a ChunkChannel: "
            "async with pool.stream(App.action, ...) as chunks: ..."
        )

    @classmethod
    def _made(cls, request: StreamRequest) -> ChunkChannel[T_co]:
        chunks = cls.__new__(cls)
        chunks._request = request
        chunks._is_read = chunks._is_closed = False
        return chunks

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._request.arrived)} chunks arrived"
        return f"<ChunkChannel of {self._request.target}, {state}>"

    async def receive(self) -> T_co:
        """Return the next chunk that the generator has yielded.

        A checkpoint. Cancelled, it has taken no chunk.

        Raises:
            trio.EndOfChannel: the generator has returned, or its end was told already.
            Exception: what the generator raised, behind the chunks before it.
            RemoteError: it raised, or yielded, what cannot cross to this process.
            WorkerCrashedError: the worker has died, behind the chunks that had arrived.
            RequestTimeoutError: a step of the generator took longer than it may.
            NoWorkersAvailableError: every slot that carries the app has failed.
            trio.BusyResourceError: another task is receiving.
            trio.ClosedResourceError: the block of the stream, or of the pool, has been left.
        """
        return await self._next(trio.EndOfChannel)

    def __anext__(self) -> Coroutine[Any, Any, T_co]:
        # Not through receive(), as trio's own: one coroutine less for each chunk.
        return self._next(StopAsyncIteration)

    @trio.lowlevel.enable_ki_protection
    async def _next(self, end: type[BaseException]) -> T_co:
        request = self._request
        if self._is_read:
            await trio.lowlevel.checkpoint()
            raise trio.BusyResourceError("another task is receiving from this stream")
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError("the block of this stream has been left")
        arrived = request.arrived
        self._is_read = True
        try:
            if arrived or request.ended or request.cancelled:
                await trio.lowlevel.checkpoint()
            else:
                await request.wait_arrival()
        finally:
            self._is_read = False
        if self._is_closed:
            raise trio.ClosedResourceError("the block of this stream was left")
        if arrived:
            chunk = request.take()
            if type(chunk) is not ChunkFailure:
                return chunk  # type: ignore[no-any-return]  # whatever the action yields
            request.leave()
            raise chunk.error
        error, request.error = request.error, None
        if isinstance(error, ENDS):
            raise _no_end(error) from error
        if error is not None:
            raise error
        raise end

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Let go of the stream at once: its generator is closed at its next ``yield``."""
        self._is_closed = True
        self._request.leave()
        self._request._wake_reader()

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """The same; and, where the stream has ``on_cancel="wait"``, wait for that."""
        self.close()
        if self._request.limits.on_cancel == "wait" and not self._request.ended:
            with trio.CancelScope(shield=True):
                await self._request.wait_answered()
        await trio.lowlevel.checkpoint()


ENDS = (StopIteration, StopAsyncIteration, trio.EndOfChannel)
"""What a reader takes for the end of a stream."""


def _no_end(error: BaseException) -> RemoteError:
    kind = qualified(type(error))
    return RemoteError(
        f"the generator raised {kind}, which would have ended the stream for its reader",
        type_name=kind,
        remote_traceback=str(error.__cause__),
    )


@final
class StreamManager(Generic[T]):
    """The block of one stream."""

    _accept: Callable[[], Any] | None
    _chunks: ChunkChannel[T]

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise TypeError(
            "only the library makes a StreamManager: async with pool.stream(App.action, ...): ..."
        )

    @classmethod
    def _made(cls, accept: Callable[[], Any]) -> StreamManager[T]:
        """``accept`` is called on entry, and returns the request when it has been accepted."""
        manager = cls.__new__(cls)
        manager._accept = accept
        return manager

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> ChunkChannel[T]:
        if self._accept is None:
            await trio.lowlevel.checkpoint()
            raise RuntimeError(
                "this stream has been entered already: call pool.stream(...) once for each block"
            )
        accept, self._accept = self._accept, None
        self._chunks = ChunkChannel._made(await accept())
        return self._chunks

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self._chunks.aclose()
        else:
            with trio.CancelScope(shield=True):
                await self._chunks.aclose()
