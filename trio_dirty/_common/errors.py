"""What can go wrong: every error of the library, and how a worker's traceback travels with one.

Imports nothing of trio, so that worker processes may use it.
"""

from __future__ import annotations

TEXT_LIMIT = 20_000
"""Characters of a traceback: its end tells most. Of an exception's own text: its beginning does."""


class DirtyError(Exception):
    """The base of all errors that this library defines."""


class AppNotFoundError(DirtyError):
    """The named app, or the action's app, is not one of the pool's apps."""


class AppLoadError(DirtyError):
    """A worker could not boot: import, ``__init__()``, ``init()`` or ``boot_timeout``.

    The text contains the worker's own traceback where there is one. Raised by
    `open_pool`, which then has stopped every worker that it had started.
    """


class MemoryLimitError(AppLoadError, ValueError):
    """``max_memory`` is out of its range, which only a worker could tell."""


class PoolBusyError(DirtyError):
    """Every slot that could take the request has ``max_queue`` that have not begun.

    The request was not accepted, and nothing of it is left: try again later, or pass the
    refusal on to whoever asks.
    """


class NoWorkersAvailableError(DirtyError):
    """No slot that carries the app is ready, and none will be: all have failed.

    The text names the last cause. Raised at once for new requests, and for those that
    were waiting when the last of those slots failed.
    """


class WorkerCrashedError(DirtyError):
    """The worker died while it may have been executing this request.

    The request is not repeated, because its action may have had effects. All requests
    that the dead worker cannot have begun are served by others.

    Attributes:
        app: ``"module:Class"`` of the request's app; None for a plain function.
        action: the name of the action or function.
        slot: the slot's index.
        pid: the dead process.
        exitcode: its exit code; negative is the number of the signal that killed it;
            None where somebody else has collected it.
    """

    def __init__(
        self,
        message: str,
        *,
        app: str | None = None,
        action: str | None = None,
        slot: int | None = None,
        pid: int | None = None,
        exitcode: int | None = None,
    ) -> None:
        super().__init__(message)
        self.app = app
        self.action = action
        self.slot = slot
        self.pid = pid
        self.exitcode = exitcode


class RequestTimeoutError(DirtyError, TimeoutError):
    """The request was executed for longer than it may be.

    A `TimeoutError`, too, and so an `OSError`, as what sockets raise in such a case.

    Attributes:
        soft: True where ``soft_timeout`` has passed: `SoftTimeout` was raised inside the
            action, and its worker has kept its state. False where ``timeout`` has: the worker
            was killed, and is being replaced.
        seconds: the limit that has passed.
        app: ``"module:Class"`` of the request's app; None for a plain function.
        action: the name of the action or function.
        slot: the slot's index.
        pid: the worker's process.
    """

    def __init__(
        self,
        message: str,
        *,
        soft: bool = False,
        seconds: float = 0.0,
        app: str | None = None,
        action: str | None = None,
        slot: int | None = None,
        pid: int | None = None,
    ) -> None:
        super().__init__(message)
        self.soft = soft
        self.seconds = seconds
        self.app = app
        self.action = action
        self.slot = slot
        self.pid = pid


class SoftTimeout(BaseException):
    """Raised inside an action when its ``soft_timeout`` has passed.

    The action may catch it to clean up. What it then returns or raises reaches the caller; where
    this exception itself leaves the action, the caller gets `RequestTimeoutError`. A
    `BaseException`, so that an ``except Exception`` does not swallow it.
    """

    def __init__(self, text: str = "soft_timeout has passed") -> None:
        super().__init__(text)


class RequestCancelled(BaseException):
    """Raised inside an action whose caller has left: by `check_cancelled`, or by an interrupt.

    The action may catch it to clean up, and should let it pass. A `BaseException`, so that an
    ``except Exception`` does not swallow it.
    """

    def __init__(self, text: str = "the caller has left") -> None:
        super().__init__(text)


class RemoteError(DirtyError):
    """An exception, or a result, that cannot cross from the worker to the caller.

    It stands in for exceptions and results that do not pickle or unpickle, and for
    exceptions that would end the caller's program, such as `SystemExit`.

    Attributes:
        type_name: the qualified name of the type that could not cross.
        remote_traceback: the worker's traceback, as text.
    """

    def __init__(
        self,
        message: str,
        *,
        type_name: str = "",
        remote_traceback: str = "",
    ) -> None:
        super().__init__(message)
        self.type_name = type_name
        self.remote_traceback = remote_traceback


class RemoteTraceback(Exception):  # noqa: N818 (it is no error, it is where one was)
    """The ``__cause__`` of an app's exception: the worker's traceback as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


# In a worker nobody imports the package's names, and these appear in its tracebacks.
SoftTimeout.__module__ = RequestCancelled.__module__ = "trio_dirty"


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
