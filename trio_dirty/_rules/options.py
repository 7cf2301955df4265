"""The options of a pool, checked before anything is started."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from .._common.app import declared_workers
from .instruments import Instruments
from .limits import Limits, count, seconds
from .recycling import RecyclingLimits
from .targets import AppPath

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._common.app import AppLike

Routing: TypeAlias = Literal["round_robin", "least_loaded"]
"""Which slot a request without a key is given to."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `open_pool` was called with, in the form that the pool uses.

    Attributes:
        app_limits: for each app, by how many slots it may be carried; infinity for all, None
            where only a worker can tell.
    """

    apps: tuple[AppPath, ...]
    app_limits: tuple[float | None, ...]
    workers: int
    threads: int
    routing: Routing
    max_queue: int | None
    limits: Limits
    cancel_grace: float
    boot_timeout: float
    grace_period: float
    recycling: RecyclingLimits
    instruments: Instruments

    @classmethod
    def checked(
        cls,
        apps: Iterable[type[AppLike] | str],
        *,
        workers: int,
        threads: object,
        routing: object,
        max_queue: object,
        timeout: object,
        soft_timeout: object,
        on_cancel: object,
        cancel_grace: object,
        boot_timeout: float | None,
        grace_period: float | None,
        max_requests: object,
        max_requests_jitter: object,
        max_memory: object,
        max_lifetime: object,
        instruments: Iterable[object],
    ) -> Options:
        """Return the options, or raise `TypeError` or `ValueError` that names the bad one."""
        paths, app_limits = _apps(apps)
        return cls(
            apps=paths,
            app_limits=app_limits,
            workers=count("workers", workers, least=1),
            threads=count("threads", threads, least=1),
            routing=_routing(routing),
            max_queue=None if max_queue is None else count("max_queue", max_queue, least=0),
            limits=Limits.checked(timeout, soft_timeout, on_cancel),
            cancel_grace=seconds("cancel_grace", cancel_grace, zero=True),
            boot_timeout=seconds("boot_timeout", boot_timeout, zero=False),
            grace_period=seconds("grace_period", grace_period, zero=True),
            recycling=RecyclingLimits.checked(
                max_requests, max_requests_jitter, max_memory, max_lifetime
            ),
            instruments=Instruments.checked(instruments),
        )


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
    """Return an app's path, and by how many slots it may be carried; None: a worker can tell."""
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


def _routing(value: object) -> Routing:
    names = get_args(Routing)
    if value not in names:
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f"routing must be one of {', '.join(map(repr, names))}, was {value!r}")
    return value  # type: ignore[return-value]  # it is one of the names
