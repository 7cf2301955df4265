"""What a request calls: app paths and actions, and which action a function stands for."""

from __future__ import annotations

import inspect
import pickle
import sys
from dataclasses import dataclass, field, replace
from operator import attrgetter
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, TypeAlias

from .._common.app import call, check_app
from .._common.errors import AppNotFoundError
from .._common.wire import PROTOCOL, TARGET_LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

REMEMBERED_LIMIT = 1000
"""Names of actions may come from outside: what is remembered must not grow with them."""


@dataclass(frozen=True, slots=True)
class AppPath:
    """Where workers import an app from."""

    module: str
    qualname: str

    def __str__(self) -> str:
        return f"{self.module}:{self.qualname}"

    def loaded(self) -> type | None:
        """Return the class if this process has imported it already; never import it."""
        try:
            found: object = attrgetter(self.qualname)(sys.modules[self.module])
        except (KeyError, AttributeError):
            return None
        return found if isinstance(found, type) else None

    @classmethod
    def of(cls, app: object) -> AppPath:
        """Return the path of an app given as a class or as ``"module:Class"``.

        Raises:
            TypeError: it is neither, or the class lacks one of an app's three methods.
            ValueError: the text does not parse, or the class cannot be imported.
        """
        if isinstance(app, str):
            return cls._parsed(app)
        if not isinstance(app, type):
            raise TypeError(
                f"an app is given as a class or as 'module:Class', not as {app!r}"
                + (f"; give the class {type(app).__qualname__}" if _is_app(type(app)) else "")
            )
        check_app(app)
        path = cls(app.__module__, app.__qualname__)
        if path.loaded() is not app:
            raise ValueError(
                f"app {path} cannot be imported by a worker: no such name leads to it; "
                "define the class at the top level of a module"
            )
        return path

    @classmethod
    def _parsed(cls, text: str) -> AppPath:
        module, _, qualname = text.partition(":")
        if _are_names(module, qualname):
            return cls(module, qualname)
        hint = ""
        qualname, _, number = qualname.rpartition(":")
        if number.isdecimal() and _are_names(module, qualname):
            hint = (
                ": how many workers carry the app is for open_pool to know; "
                f"write '{module}:{qualname}'"
            )
        raise ValueError(f"app path must read 'module:Class', was {text!r}{hint}")


AppPaths: TypeAlias = "Sequence[tuple[int, AppPath]]"
"""Apps, each with its index in the pool."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What a request calls: an action of an app, or a plain function.

    Attributes:
        app: the app's index in the pool; None for a plain function, which any worker runs.
        path: the app's path.
        action: the name of the action or function.
        wire: what the worker knows it by: a pickled (app, action), or the function.
        owner: the app's class where the caller named the action by its function.
        is_generator: whether it is known to be a generator function.
        app_name: the app's path as text; None for a plain function.
    """

    app: int | None
    path: AppPath | None
    action: str
    wire: bytes
    owner: type | None = None
    is_generator: bool = False
    app_name: str | None = field(init=False)

    def __post_init__(self) -> None:
        # Once: every request is reported with it.
        object.__setattr__(self, "app_name", None if self.path is None else str(self.path))

    def __str__(self) -> str:
        return f"{self.path}.{self.action}" if self.path else self.action


class Targets:
    """Finds what a pool's callers mean, and remembers it."""

    def __init__(self, apps: Iterable[AppPath]) -> None:
        self._apps = tuple(apps)
        self._by_function: dict[Callable[..., Any], Target] = {}
        self._by_name: dict[tuple[object, str], Target] = {}

    def named(self, app: object, action: str) -> Target:
        """Return the target of an app, a class or ``"module:Class"``, and an action.

        Raises:
            AppNotFoundError: the pool has no such app.
            ValueError: the action's name has a leading underscore.
        """
        try:
            return self._by_name[app, action]
        except (KeyError, TypeError):
            pass
        path = AppPath.of(app)
        if not isinstance(action, str):
            raise TypeError(f"action must be the name of a method, was {action!r}")
        if path not in self._apps:
            raise AppNotFoundError(f"{path} is not an app of this pool, which has {self._listed()}")
        target = self._action(self._apps.index(path), action)
        if len(self._by_name) < REMEMBERED_LIMIT:
            self._by_name[app, action] = target
        return target

    def of_function(self, function: Callable[..., Any]) -> tuple[Target, tuple[Any, ...]]:
        """Return the target that a function stands for, and arguments to put first.

        A function that is an attribute of exactly one app stands for that app's action.
        Any other is itself the target. What is pickled by value, as a `functools.partial`,
        becomes an argument of a function that calls it.

        Raises:
            AppNotFoundError: it is a method of an app that the pool does not have.
            TypeError: it cannot be run in a worker.
            ValueError: it is a private method, or an action of several apps.
        """
        try:
            return self._by_function[function], ()
        except KeyError:
            pass
        except TypeError:  # does not hash
            self._check_callable(function)
            return self._remembered(call), (function,)
        if isinstance(function, (FunctionType, BuiltinFunctionType, type)):
            return self._remembered(function), ()
        self._check_callable(function)
        return self._remembered(call), (function,)

    def of_call(
        self, first: Any, args: tuple[Any, ...], verb: str
    ) -> tuple[Target, tuple[Any, ...]]:
        """Return the target and the arguments of a call in either form.

        Either its first argument is a function, or an app, which the name of an action follows.

        Args:
            first: the function or the app.
            args: what follows it.
            verb: the method of the pool that is called, for errors.

        Raises:
            AppNotFoundError, TypeError, ValueError: as of `named` and `of_function`.
        """
        if isinstance(first, str) or (isinstance(first, type) and _is_app(first)):
            if not args:
                name = first if isinstance(first, str) else first.__qualname__
                raise TypeError(
                    f"{verb}({name!r}) lacks the name of an action: "
                    f'call {verb}({name!r}, "action", ...), or {verb}(App.action, ...)'
                )
            return self.named(first, args[0]), args[1:]
        target, more = self.of_function(first)
        if args and type(args[0]) is target.owner:
            raise TypeError(given_for_self(target, args[0], verb))
        return target, more + args

    def _remembered(self, function: Callable[..., Any]) -> Target:
        target = self._by_function.get(function)
        if target is None:
            self._check_callable(function)
            target = self._app_action(function) or self._plain(function)
            if inspect.isgeneratorfunction(function):
                target = replace(target, is_generator=True)
            if len(self._by_function) < REMEMBERED_LIMIT:
                self._by_function[function] = target
        return target

    def _app_action(self, function: Callable[..., Any]) -> Target | None:
        found = [
            (index, name, owner)
            for index, path in enumerate(self._apps)
            if (owner := path.loaded()) is not None
            for name in dir(owner)
            if _is_attribute(owner, name, function)
        ]
        if not found:
            self._check_not_foreign(function)
            return None
        if len({index for index, _, _ in found}) > 1:
            calls = " or ".join(
                f'execute({owner.__qualname__}, "{name}", ...)' for _, name, owner in found
            )
            raise ValueError(f"{function.__qualname__} is an action of several apps: call {calls}")
        index, name, owner = found[0]
        return self._action(index, name, owner)

    def _action(self, index: int, action: str, owner: type | None = None) -> Target:
        if action.startswith("_"):
            raise ValueError(
                f"action {action!r} of {self._apps[index]} has a leading underscore: "
                "it is private to its app"
            )
        wire = pickle.dumps((index, action), PROTOCOL)
        if len(wire) > TARGET_LIMIT:
            raise ValueError(f"action must be a name, was {len(action)} characters long")
        return Target(index, self._apps[index], action, wire, owner)

    def _plain(self, function: Callable[..., Any]) -> Target:
        name = function.__qualname__
        try:
            wire = pickle.dumps(function, PROTOCOL)
        except Exception as error:
            raise TypeError(
                f"function {name} cannot be imported by a worker ({error}); "
                "define it at the top level of a module"
            ) from error
        return Target(None, None, name, wire)

    @staticmethod
    def _check_callable(function: object) -> None:
        name = getattr(function, "__qualname__", repr(function))
        if not callable(function):
            hint = '; to name an action, use execute(app, "action", ...)'
            raise TypeError(f"the first argument must be a function, was {function!r}{hint}")
        if isinstance(function, MethodType) and _is_app(type(function.__self__)):
            raise TypeError(
                f"{name} is bound to an instance in this process, but the pool has instances "
                f"of its own in its workers: call run_sync({name}, ...) with the function of "
                "the class"
            )
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{name} is an async function; workers run synchronous code: "
                f"write it with def, or await it in this process"
            )

    def _check_not_foreign(self, function: Callable[..., Any]) -> None:
        """Refuse a method of an app that is not in the pool: it would run without a self."""
        qualname = function.__qualname__
        owner = AppPath(str(function.__module__), qualname.rpartition(".")[0]).loaded()
        if owner is not None and _is_app(owner) and not isinstance(function, type):
            raise AppNotFoundError(
                f"{qualname} is an action of {AppPath(owner.__module__, owner.__qualname__)}, "
                f"which is not an app of this pool; it has {self._listed()}"
            )

    def _listed(self) -> str:
        return ", ".join(map(str, self._apps)) or "no apps"


def one_by_one(target: Target) -> str:
    """Say that a target's results come one by one."""
    return (
        f"{target} is a generator function, whose results come one by one: "
        f"use stream({_called(target)}, ...) instead of run_sync"
    )


def given_for_self(target: Target, instance: object, verb: str) -> str:
    """Say that an action takes no instance."""
    kind = type(instance).__qualname__
    return (
        f"{target} is executed on the instance that lives in a worker: leave out the {kind} "
        f"given for self, and call {verb}({kind}.{target.action}, ...) with the other arguments"
    )


def _called(target: Target) -> str:
    return f"{target.path.qualname}.{target.action}" if target.path else target.action


def _are_names(*dotted: str) -> bool:
    return all(part.isidentifier() for names in dotted for part in names.split("."))


def _is_attribute(owner: type, name: str, function: object) -> bool:
    found = inspect.getattr_static(owner, name)
    return found is function or (isinstance(found, staticmethod) and found.__func__ is function)


def _is_app(cls: type) -> bool:
    try:
        check_app(cls)
    except TypeError:
        return False
    return True
