"""What runs in a worker: boot the apps, execute requests in order, close the apps.

Imports nothing of trio: that would cost each worker 190 ms and 13 MB.

`serve` is the one long job that the pool gives to a trio-parallel process. `Apps` and
`Outbox` know nothing of processes and sockets, and serve the simulated engine as well.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import sys
import types
from pickle import loads
from time import perf_counter

from . import _wire
from ._app import check_app
from ._info import WorkerInfo, current_worker
from ._link import Link, LinkLost
from ._pickling import PROTOCOL, SegmentPickler, SegmentReader, SegmentsCutError
from ._wire import HEADER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn, TypeAlias

    from ._pickling import Segment

    Action: TypeAlias = Callable[..., Any]

TARGETS_LIMIT = 1000

TEXT_LIMIT = 20_000
"""Characters of a traceback: its end tells most."""

EXIT_LINK_LOST = 74
"""The exit code of a worker that lost its socket (EX_IOERR of sysexits.h)."""

EXIT_BROKE_DOWN = 70
"""The exit code of a worker whose own code raised, for want of memory (EX_SOFTWARE)."""


def call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call what could only be sent as an argument."""
    return function(*args, **kwargs)


class Apps:
    """The apps of one worker, and what may be called in it."""

    def __init__(self, paths: Sequence[tuple[int, str, str]]) -> None:
        """Import, make and initialise each app; ``paths`` are (index, module, qualname)."""
        self._apps: dict[int, Any] = {}
        self.actions: dict[bytes, Action] = {}
        for index, module, qualname in paths:
            __import__(module)
            app: Any = sys.modules[module]
            for name in qualname.split("."):
                app = getattr(app, name)
            check_app(app)
            instance = app()
            instance.init()
            self._apps[index] = instance

    def find(self, target: bytes) -> Action:
        """Return what a target's bytes stand for, and remember it in ``actions``."""
        meant = pickle.loads(target)
        if type(meant) is tuple:
            index, name = meant
            action: Action = functools.partial(self._apps[index], name)
        else:
            action = meant
        if len(self.actions) >= TARGETS_LIMIT:
            self.actions.clear()
        self.actions[target] = action
        return action

    def close(self) -> list[str]:
        """Close the apps, the last one first; return the tracebacks of those that raise."""
        failures = []
        while self._apps:
            _, app = self._apps.popitem()
            try:
                app.close()
            except BaseException as error:
                failures.append(traceback_text(error))
        return failures


REFUSED = frozenset((types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType))


def refusal(value: Any) -> TypeError:
    """Return the error for a result that only exists as long as somebody consumes it."""
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


class Outbox:
    """Turns outcomes into the frames that report them."""

    def __init__(self) -> None:
        self._pickler = SegmentPickler()

    def report(
        self, kind: int, value: object, number: int = 0, seconds: float = 0.0
    ) -> Sequence[Segment]:
        """Return the frames of one reply.

        Raises:
            BaseException: whatever pickling the value raises.
        """
        segments = self._pickler.dump(value)
        if len(segments) == 1:
            body = segments[0]
            return (HEADER.pack(len(body), kind, 0, seconds, number) + body,)
        return _wire.large_frame(kind, number, segments, seconds=seconds)

    def result(self, value: object, number: int, seconds: float) -> Sequence[Segment]:
        """Return the frames of a result, or of the failure to pickle it."""
        try:
            return self.report(_wire.RESULT, value, number, seconds)
        except BaseException as error:
            text = f"a result of type {qualified(type(value))} cannot be pickled: {error!r}"
            failure = (text, qualified(type(value)), traceback_text(error), None)
            return self.report(_wire.ERROR, failure, number, seconds)

    def error(self, error: BaseException, number: int, seconds: float) -> Sequence[Segment]:
        """Return the frames of an exception that an action raised.

        The exception itself travels only if it pickles, and if raising it in the caller's
        program is harmless: a `SystemExit` would end it.
        """
        kind = qualified(type(error))
        try:
            text = f"{kind}: {error}"
        except BaseException:
            text = kind
        pickled = None
        if isinstance(error, Exception):
            try:
                pickled = pickle.dumps(error, PROTOCOL)
            except BaseException as cause:
                text += f" (it cannot be pickled: {type(cause).__name__})"
        failure = (text, kind, traceback_text(error), pickled)
        return self.report(_wire.ERROR, failure, number, seconds)


def qualified(kind: type) -> str:
    """Return the name by which a traceback calls a type."""
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an exception and of its causes, as Python prints it."""
    import traceback  # only wanted when something has failed

    try:
        return "".join(traceback.format_exception(error))[-TEXT_LIMIT:]
    except BaseException as second:
        return f"{qualified(type(error))} (its traceback cannot be printed: {second!r})\n"


def serve(
    address: str, token: bytes, slot: int, worker: int, paths: Sequence[tuple[int, str, str]]
) -> None:
    """Connect to the pool, boot, and serve requests until told to close.

    The job that trio-parallel runs. Where the connection is lost, the pool is gone or
    the worker is of no more use: the process ends at once and quietly. It ends at once, too,
    with a traceback on its standard error, where its own code raises: by what was sent to it
    it can no longer tell where a frame begins.
    """
    current_worker.set(WorkerInfo(slot, worker, os.getpid()))
    link = Link.connect(address, token)
    try:
        _serve(link, paths)
    except LinkLost:
        _vanish(link)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            sys.stderr.write(traceback_text(error))
            sys.stderr.flush()
        os._exit(EXIT_BROKE_DOWN)
    link.close()


def _serve(link: Link, paths: Sequence[tuple[int, str, str]]) -> None:
    outbox = Outbox()
    try:
        apps = Apps(paths)
    except BaseException as error:
        link.send([_wire.frame(_wire.FAILED, 0, pickle.dumps(traceback_text(error)))])
        return
    link.send([_wire.frame(_wire.READY)])
    execute_requests(link, apps, outbox)
    link.send([_wire.frame(_wire.CLOSED, 0, pickle.dumps(apps.close()[:10]))])


def execute_requests(link: Link, apps: Apps, outbox: Outbox) -> None:
    """Execute the requests of the link one after the other, until told to close.

    Each is answered before the next is taken up: the ledger on the pool's side, which
    tells what may have begun, stands on it.
    """
    while (request := link.next_request()) is not None:
        link.send(answer(apps, outbox, *request))
        # Nothing here may keep arguments: they can be large, and the next request long in
        # coming.
        del request


def answer(
    apps: Apps, outbox: Outbox, number: int, target: bytes | None, pickled: bytes | SegmentReader
) -> Sequence[Segment]:
    """Execute one request, unless it was withdrawn; return the frames of its outcome."""
    if target is None:
        return (_wire.frame(_wire.SKIPPED, number),)
    began = perf_counter()
    try:
        args, kwargs = loads(pickled) if isinstance(pickled, bytes) else pickled.load()
        value = (apps.actions.get(target) or apps.find(target))(*args, **kwargs)
        if type(value) in REFUSED:
            raise refusal(value)
    except LinkLost:
        raise
    except SegmentsCutError as error:
        raise LinkLost from error
    except BaseException as error:
        return outbox.error(error, number, perf_counter() - began)
    return outbox.result(value, number, perf_counter() - began)


def _vanish(link: Link) -> NoReturn:
    # A child that an action forked comes here, when it returns from the action, with the
    # link closed at the fork: it must neither answer nor run its parent's exit handlers.
    os._exit(EXIT_LINK_LOST if link.pid == os.getpid() else 0)
