"""The apps of one worker, and what may be called in it. Imports nothing of trio."""

from __future__ import annotations

import functools
import pickle
import sys

from ._app import check_app
from ._outbox import traceback_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    Action: TypeAlias = Callable[..., Any]

TARGETS_LIMIT = 1000


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
