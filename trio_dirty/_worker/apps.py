"""The apps of one worker, and what may be called in it. Imports nothing of trio."""

from __future__ import annotations

import functools
import os
import pickle
import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)

from .._common.app import check_app
from .._common.errors import traceback_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    Action: TypeAlias = Callable[..., Any]

TARGETS_LIMIT = 1000


def load(module: str, qualname: str) -> Any:
    """Import an app; return its class."""
    __import__(module)
    app: Any = sys.modules[module]
    for name in qualname.split("."):
        app = getattr(app, name)
    check_app(app)
    return app


class FreshLoader(SourceFileLoader):
    """Imports the present source, even if it has changed twice within a second.

    Python uses cached bytecode if the size and the second of the last change of its source are
    the same. So a worker that is started by a reload could execute the former source.
    """

    def get_data(self, path: str) -> bytes:
        """Read a file, unless it is bytecode that is older than its source."""
        is_bytecode = path.endswith(tuple(BYTECODE_SUFFIXES))
        if is_bytecode and os.stat(path).st_mtime_ns < os.stat(self.path).st_mtime_ns:
            raise OSError(f"{path} is older than {self.path}")
        return super().get_data(path)


def import_afresh() -> None:
    """Have this process import with `FreshLoader` from now on."""
    hook = FileFinder.path_hook(
        (ExtensionFileLoader, EXTENSION_SUFFIXES),
        (FreshLoader, SOURCE_SUFFIXES),
        (SourcelessFileLoader, BYTECODE_SUFFIXES),
    )
    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()


class Apps:
    """The apps of one worker, and what may be called in it."""

    def __init__(self, paths: Sequence[tuple[int, str, str]]) -> None:
        """Import, make and initialise each app; ``paths`` are (index, module, qualname)."""
        self._apps: dict[int, Any] = {}
        self.actions: dict[bytes, Action] = {}
        for index, module, qualname in paths:
            instance = load(module, qualname)()
            instance.init()
            self._apps[index] = instance

    def find(self, target: bytes) -> Action:
        """Return what a target's bytes mean, and keep it in ``actions``."""
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
