"""The options of a pool, checked before anything is started."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from .._common.app import declared_workers
from .instruments import Instruments
from .limits import Limits, choice, count, seconds
from .recycling import RecyclingLimits
from .targets import AppPath

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .._common.app import AppLike

Routing: TypeAlias = Literal["round_robin", "least_loaded"]
"""How the slot of a request without a key is chosen."""


class Options:
    """What `open_pool` was called with, checked, in the form that the pool uses.

    Attributes:
        app_limits: for each app, how many slots may carry it; infinity for all, None where only
            a worker can tell.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Check the arguments of `open_pool`, which are given by their names.

        Raises:
            TypeError, ValueError: an option is out of its range; the text names it.
        """
        self.apps, self.app_limits = _apps(given["apps"])
        self.workers = count("workers", given["workers"], least=1)
        self.threads = count("threads", given["threads"], least=1)
        self.routing: Routing = choice("routing", given["routing"], get_args(Routing))
        self.max_queue = _max_queue(given["max_queue"])
        self.limits = Limits.checked(given)
        self.cancel_grace = seconds("cancel_grace", given["cancel_grace"], zero=True)
        self.boot_timeout = seconds("boot_timeout", given["boot_timeout"])
        self.grace_period = seconds("grace_period", given["grace_period"], zero=True)
        self.recycling = RecyclingLimits.checked(given)
        self.instruments = Instruments.checked(given["instruments"])


def _apps(
    apps: Iterable[type[AppLike] | str],
) -> tuple[tuple[AppPath, ...], tuple[float | None, ...]]:
    if isinstance(apps, (str, type)):
        raise TypeError(f"apps must be a list of apps, was {apps!r}; write [{_written(apps)}]")
    try:
        found = [_app(app) for app in apps]
    except TypeError as error:
        if "not iterable" in str(error):
            raise TypeError(f"apps must be a list of apps, was {apps!r}") from None
        raise
    paths = tuple(path for path, _ in found)
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"apps must differ, but {path} is there {paths.count(path)} times")
    return paths, tuple(limit for _, limit in found)


def _app(app: object) -> tuple[AppPath, float | None]:
    """Return an app's path, and how many slots may carry it; None: only a worker can tell."""
    if not isinstance(app, str):
        path = AppPath.of(app)
        declared = declared_workers(app)  # type: ignore[arg-type]  # a class: it has a path
        return path, math.inf if declared is None else declared
    parts = app.split(":")
    if len(parts) != 3 or not parts[-1]:
        return AppPath.of(app), None
    number = parts.pop()
    path = AppPath.of(":".join(parts))
    if not (number.isascii() and number.isdigit() and int(number)):
        raise ValueError(
            f"an app's workers, as in 'module:Class:2', must be a whole number of at least 1, "
            f"was {number!r} in {app!r}"
        )
    return path, int(number)


def _written(app: str | type) -> str:
    return repr(app) if isinstance(app, str) else app.__qualname__


def _max_queue(value: object) -> int | None:
    return None if value is None else count("max_queue", value, least=0)
