"""The execution of one request in a worker. Imports nothing of trio, and does no I/O.

Worker processes and simulated workers use it; they send the frames that it returns.
"""

from __future__ import annotations

import contextlib
import types
from pickle import loads
from time import perf_counter

from .._common import wire
from .._common.credit import CreditWindow
from .._common.segments import SegmentsCutError
from .socket import ConnectionLost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, TypeAlias

    from .._common.segments import SegmentReader
    from .._common.wire import Segment
    from .apps import Apps
    from .lane import Lane
    from .outcomes import OutcomeEncoder

    Pickled: TypeAlias = bytes | SegmentReader


def answer(
    lane: Lane, apps: Apps, encoder: OutcomeEncoder, number: int, target: bytes, pickled: Pickled
) -> Sequence[Segment]:
    """Execute one request; return the frames of its outcome."""
    began = perf_counter()
    try:
        args, kwargs = loads(pickled) if isinstance(pickled, bytes) else pickled.load()
        value = lane.run(apps.actions.get(target) or apps.find(target), args, kwargs)
        lane.armed = False
        if type(value) in CONSUMED:
            raise refusal(value)
    except ConnectionLost:
        raise
    except SegmentsCutError as error:
        raise ConnectionLost from error
    except BaseException as error:
        lane.armed = False
        return encoder.error(error, number, perf_counter() - began)
    return encoder.result(value, number, perf_counter() - began)


class StreamExecution:
    """The execution of a request whose results are sent one by one.

    Call `step` while ``lane.window`` is open, and `close` once ``lane.abandoned`` is true.

    Attributes:
        ended: whether the last frames have been returned.
    """

    def __init__(
        self,
        lane: Lane,
        apps: Apps,
        encoder: OutcomeEncoder,
        number: int,
        target: bytes,
        pickled: Pickled,
    ) -> None:
        self._lane = lane
        lane.window = CreditWindow()
        self._apps = apps
        self._encoder = encoder
        self._number = number
        self._call: tuple[bytes, Pickled] | None = (target, pickled)
        self._iterator: Iterator[Any] | None = None
        # The time of the steps, without that of waiting for the reader.
        self._seconds = 0.0
        self.ended = False

    def step(self) -> Sequence[Segment]:
        """Run the generator to its next ``yield`` or its end; return the frames that report it."""
        lane = self._lane
        began = perf_counter()
        try:
            if self._call is not None:
                try:
                    self._start(*self._call)
                except StopIteration as error:  # raised by the action: no end of its generator
                    lane.armed = False
                    self.ended = True
                    return self._encoder.error(error, self._number, self._since(began))
            value = lane.run(next, (self._iterator,), {})
            lane.armed = False
        except ConnectionLost:
            raise
        except SegmentsCutError as error:
            raise ConnectionLost from error
        except StopIteration:
            lane.armed = False
            self.ended = True
            return self._encoder.result(None, self._number, self._since(began))
        except BaseException as error:
            lane.armed = False
            self.ended = True
            # An interrupt at the beginning of a step is raised outside the generator.
            with contextlib.suppress(BaseException):
                self._close_iterator()
            return self._encoder.error(error, self._number, self._since(began))
        try:
            segments = self._encoder.dump(value)
        except BaseException as error:
            frames = self._encoder.not_pickled("a chunk", value, error, self._number, 0.0)
            self.close()
            return frames
        frames = wire.value_frames(wire.CHUNK, self._number, segments)
        lane.steps += 1
        lane.window.add(sum(map(len, segments)))
        self._seconds += perf_counter() - began
        return frames

    def _start(self, target: bytes, pickled: Pickled) -> None:
        self._call = None
        args, kwargs = loads(pickled) if isinstance(pickled, bytes) else pickled.load()
        value = self._lane.run(
            self._apps.actions.get(target) or self._apps.find(target), args, kwargs
        )
        self._lane.armed = False
        if not hasattr(type(value), "__next__"):
            raise no_stream(value)
        self._iterator = value

    def close(self) -> Sequence[Segment]:
        """Close the generator, whose reader has left; return the frames that report it.

        What it does at its end is not interrupted.
        """
        self.ended = True
        began = perf_counter()
        try:
            self._close_iterator()
        except BaseException as error:
            return self._encoder.error(error, self._number, self._since(began))
        return self._encoder.result(None, self._number, self._since(began))

    def _close_iterator(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()

    def _since(self, began: float) -> float:
        return self._seconds + perf_counter() - began


CONSUMED = frozenset((types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType))
"""Results that have to be consumed in the worker."""


def refusal(value: Any) -> TypeError:
    """Return the error for such a result of a request for one value."""
    name = value.__qualname__
    if type(value) is types.GeneratorType:
        value.close()
        return TypeError(
            f"{name} is a generator, whose results come one by one: "
            "use stream(...) instead of run_sync or execute"
        )
    if type(value) is types.CoroutineType:
        value.close()
    return TypeError(f"{name} is async; workers run synchronous code: write it with def")


def no_stream(value: Any) -> TypeError:
    """Return the error for a result that is no iterator, of a request for a stream."""
    if type(value) in CONSUMED:
        return refusal(value)
    kind = type(value).__qualname__
    return TypeError(
        f"stream needs an action that yields, or returns an iterator, and this one returned a "
        f"{kind}: use run_sync or execute for it, or write the action with yield"
    )
