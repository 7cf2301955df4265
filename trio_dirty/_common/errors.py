"""Every error of the library, and the worker's traceback that an error carries.

Does not import trio, because workers import it.
"""

from __future__ import annotations

TEXT_LIMIT = 20_000
"""How many characters are kept: of a traceback the last ones, of an exception's text the first."""


class DirtyError(Exception):
    """The base class of the errors of this library."""


class AppNotFoundError(DirtyError):
    """The pool does not have the app that was named, or whose action was called."""


class AppLoadError(DirtyError):
    """A worker could not boot.

    The import of an app, its ``__init__()`` or its ``init()`` failed, the worker died, or
    ``boot_timeout`` passed. The text contains the worker's traceback if there is one. When
    `open_pool` raises it, every worker that had been started has been stopped. `Pool.resize` and
    `Pool.reload` raise it, too.
    """


class MemoryLimitError(AppLoadError, ValueError):
    """A worker uses ``max_memory`` or more as soon as it has booted."""


class PoolBusyError(DirtyError):
    """Every slot that could take the request has ``max_queue`` requests that have not begun.

    The request was not accepted, and has no effect. Try again later, or report to your own
    caller that the program is busy.
    """


class NoWorkersAvailableError(DirtyError):
    """Every slot that carries the app has failed.

    The text contains the last cause. Raised for new requests, and for those that were waiting
    when the last of these slots failed. `Pool.reload` starts failed slots again.
    """


class WorkerCrashedError(DirtyError):
    """The worker died while it may have been executing this request.

    The request is not repeated, because its action may have had effects. Requests that the
    worker cannot have begun are served by other workers.

    Attributes:
        app: ``"module:Class"`` of the request's app; None for a plain function.
        action: the name of the action or function.
        slot: the index of the slot.
        pid: the number of the process that died.
        exitcode: its exit code; negative is the number of the signal that killed it; None if
            the program ignores SIGCHLD or another part of it has collected the exit code.
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
    """The request was executed for longer than ``timeout`` or ``soft_timeout``.

    Also a `TimeoutError`, and therefore an `OSError`.

    Attributes:
        soft: True if ``soft_timeout`` passed: `SoftTimeout` was raised inside the action, and the
            worker keeps its state. False if ``timeout`` passed: the worker was killed, and is
            replaced.
        seconds: the limit that passed.
        app: ``"module:Class"`` of the request's app; None for a plain function.
        action: the name of the action or function.
        slot: the index of the slot.
        pid: the number of the worker's process.
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

    The action may catch it to clean up. What the action then returns or raises reaches the
    caller; if this exception leaves the action, the caller gets `RequestTimeoutError`. It is a
    `BaseException`, so that an ``except Exception`` does not catch it.
    """

    def __init__(self, text: str = "soft_timeout has passed") -> None:
        super().__init__(text)


class RequestCancelled(BaseException):
    """Raised inside an action whose caller was cancelled.

    `check_cancelled` raises it, and so does ``on_cancel="interrupt"``. The action may catch it to
    clean up, and should then raise it again. It is a `BaseException`, so that an ``except
    Exception`` does not catch it.
    """

    def __init__(self, text: str = "the caller has left") -> None:
        super().__init__(text)


class RemoteError(DirtyError):
    """An action raised or returned something that cannot be sent to the caller.

    Raised instead of exceptions and results that cannot be pickled or unpickled, and of
    exceptions that would end the caller's program, such as `SystemExit`.

    Attributes:
        type_name: the qualified name of the type that could not be sent.
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


class RemoteTraceback(Exception):  # noqa: N818 (not an error itself: the place of one)
    """The ``__cause__`` of an app's exception: the worker's traceback, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


# These appear in the tracebacks of workers, which do not import the names of the package.
SoftTimeout.__module__ = RequestCancelled.__module__ = "trio_dirty"


def qualified(kind: type) -> str:
    """Return the name by which a traceback calls a type."""
    if kind.__module__ in ("builtins", "__main__"):
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"


def traceback_text(error: BaseException) -> str:
    """Return the traceback of an exception and of its causes, as Python prints it."""
    import traceback  # needed only after a failure

    try:
        return "".join(traceback.format_exception(error))[-TEXT_LIMIT:]
    except BaseException as second:
        return f"{qualified(type(error))} (its traceback cannot be printed: {second!r})\n"
