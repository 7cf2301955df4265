"""The base class of apps. Imports nothing of trio: workers load it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Protocol

    class AppLike(Protocol):
        """What a class must offer to be an app; inheriting `App` is one way to."""

        def init(self) -> object: ...
        def __call__(self, action: str, /, *args: Any, **kwargs: Any) -> Any: ...
        def close(self) -> object: ...


APP_METHODS = ("init", "__call__", "close")


def check_app(cls: object) -> None:
    """Refuse what is no class, and a class that lacks one of an app's three methods.

    Raises:
        TypeError: it cannot be an app.
    """
    if not isinstance(cls, type):
        raise TypeError(f"an app must be a class, was {cls!r}")
    missing = [name for name in APP_METHODS if not _defines(cls, name)]
    if missing:
        raise TypeError(
            f"app {cls.__module__}:{cls.__qualname__} has no method {' and no '.join(missing)}; "
            "an app has init(), __call__() and close(), which it may inherit from trio_dirty.App"
        )


def declared_workers(cls: type) -> int | None:
    """Return by how many workers an app wants to be carried at most; None for all.

    Raises:
        TypeError, ValueError: its attribute ``workers`` is no such number.
    """
    workers: object = getattr(cls, "workers", None)
    if workers is None:
        return None
    name = f"{cls.__module__}:{cls.__qualname__}.workers"
    if isinstance(workers, bool) or not isinstance(workers, int):
        raise TypeError(
            f"{name} must be None or a whole number of at least 1, was {workers!r}: it says by "
            "how many workers the app is carried at most"
        )
    if workers < 1:
        raise ValueError(f"{name} must be at least 1, was {workers}")
    return workers


def _defines(cls: type, name: str) -> bool:
    # Not getattr: every class can be called itself, and so has a __call__.
    return any(callable(vars(base).get(name)) for base in cls.__mro__)


class App:
    """A class with state that lives in a worker process; its public methods are actions.

    Each worker makes one instance and calls `init` once, before any request. Requests
    are then executed one after the other in the order in which the worker's slot was
    given them, always through `__call__`. `close` runs once, at the worker's orderly
    end, and not when the worker is killed. Exceptions in ``__init__`` and `init` fail
    the boot of the worker (`AppLoadError`).

    Any class with these three methods will do; this one only saves the typing.

    Attributes:
        workers: by how many workers of a pool the app is carried at most; None for all of them.
            ``"module:Class:N"`` in `open_pool` says something else for one pool. It is read when
            the pool is opened.
    """

    workers: ClassVar[int | None] = None

    def init(self) -> None:
        """Load what the actions need. Called in the worker before any request."""

    def __call__(self, action: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the public method named ``action``.

        Override it to dispatch in another way: every request passes through here.

        Raises:
            ValueError: there is no such action.
        """
        method = None
        if not action.startswith("_") and action not in APP_METHODS:
            method = getattr(self, action, None)
        if not callable(method):
            actions = sorted(
                name
                for name in dir(type(self))
                if not name.startswith("_")
                and name not in APP_METHODS
                and callable(getattr(type(self), name))
            )
            raise ValueError(
                f"{type(self).__qualname__} has no action {action!r}; "
                f"its actions are: {', '.join(actions) or 'none'}"
            )
        return method(*args, **kwargs)

    def close(self) -> None:
        """Release what `init` acquired. Called in the worker at its orderly end."""


def call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call what could only be sent as an argument."""
    return function(*args, **kwargs)
