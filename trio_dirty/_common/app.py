"""The base class of apps. Does not import trio, because workers import it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class AppLike(Protocol):
    """What a class must have to be an app. Inheriting from `App` is one way to have it."""

    def init(self) -> object:
        """Called in the worker, once, before any request."""

    def __call__(self, action: str, /, *args: Any, **kwargs: Any) -> Any:
        """Execute the action of this name. Every request passes through here."""

    def close(self) -> object:
        """Called in the worker, once, at its orderly end."""


APP_METHODS = ("init", "__call__", "close")


def check_app(cls: object) -> None:
    """Check that something is a class with the three methods of an app.

    Raises:
        TypeError: it is not.
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
    """Return how many workers may carry an app, by its attribute ``workers``; None for all.

    Raises:
        TypeError, ValueError: the attribute is neither None nor a whole number of at least 1.
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
    # Not getattr(cls, "__call__"): every class has that, from its metaclass.
    return any(callable(vars(base).get(name)) for base in cls.__mro__)


class App:
    """Base class for apps: classes whose instances live in workers and keep state there.

    Public methods are actions. Each worker creates one instance, without arguments, and calls
    `init` once, before any request. Every request goes through `__call__`. Requests begin in the
    order in which they were given to the worker's slot, and are executed one after the other
    unless the pool has several ``threads``. `close` runs once, when the worker ends in an orderly
    way, and not when it is killed. An exception in ``__init__`` or `init` fails the boot of the
    worker (`AppLoadError`).

    Inheriting from this class is not required: any class with these three methods is an app.

    Attributes:
        workers: how many workers of a pool may carry the app; None for all of them. It is read
            when the pool is opened. ``"module:Class:N"`` in `open_pool` overrides it for one pool.
    """

    workers: ClassVar[int | None] = None

    def init(self) -> None:
        """Load what the actions need. Called in the worker, before any request."""

    def __call__(self, action: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call the public method named ``action``.

        Every request goes through this method. Override it to dispatch in another way.

        Raises:
            ValueError: the app has no action of this name.
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
        """Release what `init` acquired. Called in the worker when it ends in an orderly way."""


def call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a function that was sent as an argument."""
    return function(*args, **kwargs)
