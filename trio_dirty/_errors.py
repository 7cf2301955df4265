"""What can go wrong: every error of the library, and how a worker's traceback travels with one.

Imports nothing of trio, so that worker processes may use it.
"""

from __future__ import annotations


class DirtyError(Exception):
    """The base of all errors that this library defines."""


class AppNotFoundError(DirtyError):
    """The named app, or the action's app, is not one of the pool's apps."""


class AppLoadError(DirtyError):
    """A worker could not boot: import, ``__init__()``, ``init()`` or ``boot_timeout``.

    The text contains the worker's own traceback where there is one. Raised by
    `open_pool`, which then has stopped every worker that it had started.
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
