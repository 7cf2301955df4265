"""The options of a pool, checked before anything is started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from ._instruments import Instruments
from ._limits import Limits, seconds
from ._targets import AppPath

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._app import AppLike

Routing: TypeAlias = Literal["round_robin", "least_loaded"]
"""Which slot a request without a key is given to."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `open_pool` was called with, in the form that the pool uses."""

    apps: tuple[AppPath, ...]
    workers: int
    routing: Routing
    max_queue: int | None
    limits: Limits
    cancel_grace: float
    boot_timeout: float
    grace_period: float
    instruments: Instruments | None

    @classmethod
    def checked(
        cls,
        apps: Iterable[type[AppLike] | str],
        *,
        workers: int,
        routing: object,
        max_queue: object,
        timeout: object,
        soft_timeout: object,
        on_cancel: object,
        cancel_grace: object,
        boot_timeout: float | None,
        grace_period: float | None,
        instruments: Iterable[object],
    ) -> Options:
        """Return the options, or raise `TypeError` or `ValueError` that names the bad one."""
        return cls(
            apps=_app_paths(apps),
            workers=_count("workers", workers, least=1),
            routing=_routing(routing),
            max_queue=None if max_queue is None else _count("max_queue", max_queue, least=0),
            limits=Limits.checked(timeout, soft_timeout, on_cancel),
            cancel_grace=seconds("cancel_grace", cancel_grace, zero=True),
            boot_timeout=seconds("boot_timeout", boot_timeout, zero=False),
            grace_period=seconds("grace_period", grace_period, zero=True),
            instruments=Instruments.checked(instruments),
        )


def _app_paths(apps: Iterable[type[AppLike] | str]) -> tuple[AppPath, ...]:
    if isinstance(apps, (str, type)):
        raise TypeError(f"apps must be a list of apps, was {apps!r}; write [{_written(apps)}]")
    try:
        paths = tuple(AppPath.of(app) for app in apps)
    except TypeError as error:
        if "not iterable" in str(error):
            raise TypeError(f"apps must be a list of apps, was {apps!r}") from None
        raise
    for path in paths:
        if paths.count(path) > 1:
            raise ValueError(f"apps must differ, but {path} is there {paths.count(path)} times")
    return paths


def _written(app: str | type) -> str:
    return repr(app) if isinstance(app, str) else app.__qualname__


def _routing(value: object) -> Routing:
    names = get_args(Routing)
    if value not in names:
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f"routing must be one of {', '.join(map(repr, names))}, was {value!r}")
    return value  # type: ignore[return-value]  # it is one of the names


def _count(name: str, value: object, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number of at least {least}, was {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, was {value}")
    return value
