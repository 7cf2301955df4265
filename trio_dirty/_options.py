"""The options of a pool, checked before anything is started."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._instruments import Instruments
from ._targets import AppPath

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._app import AppLike


@dataclass(frozen=True, slots=True)
class Options:
    """What `open_pool` was called with, in the form that the pool uses."""

    apps: tuple[AppPath, ...]
    workers: int
    boot_timeout: float
    grace_period: float
    instruments: Instruments | None

    @classmethod
    def checked(
        cls,
        apps: Iterable[type[AppLike] | str],
        *,
        workers: int,
        boot_timeout: float | None,
        grace_period: float | None,
        instruments: Iterable[object],
    ) -> Options:
        """Return the options, or raise `TypeError` or `ValueError` that names the bad one."""
        return cls(
            apps=_app_paths(apps),
            workers=_count("workers", workers),
            boot_timeout=_seconds("boot_timeout", boot_timeout, zero=False),
            grace_period=_seconds("grace_period", grace_period, zero=True),
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


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number of at least 1, was {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, was {value}")
    return value


def _seconds(name: str, value: object, *, zero: bool) -> float:
    """Return a number of seconds; None means no limit."""
    if value is None:
        return math.inf
    least = "at least 0" if zero else "more than 0"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds {least}, or None, was {value!r}")
    if not value >= 0 or (value == 0 and not zero):
        raise ValueError(f"{name} must be {least} seconds, was {value}")
    return float(value)
