"""The contracts that a program, or another library, may implement.

`Engine` and `Worker`
    What starts workers, and one worker as its engine serves it: give ``open_pool(...,
    engine=...)`` an engine of your own. Its methods use `Blueprint`, `AppPath`, `Exit` and
    `Answer` (a `Reply`, `Chunks` or `Pong`). Frames are bytes-like objects; an engine delivers
    them to the worker unchanged and in order. What they contain is not part of the contract yet,
    and may change in any version.

`Instrument`
    What a pool reports while it works: give ``open_pool(..., instruments=[...])`` objects that
    have some of these hooks. The same class as `trio_dirty.Instrument`.

`AppLike`
    What a class must have to be an app, for annotations; `trio_dirty.App` is one way to it.

Importing this module does not import trio, so a module with apps may import it.
"""

from __future__ import annotations

from ._common.app import AppLike
from ._engines.contract import Answer, Blueprint, Chunks, Engine, Exit, Pong, Reply, Worker
from ._rules.instruments import Instrument
from ._rules.targets import AppPath

__all__ = [
    "Answer",
    "AppLike",
    "AppPath",
    "Blueprint",
    "Chunks",
    "Engine",
    "Exit",
    "Instrument",
    "Pong",
    "Reply",
    "Worker",
]

# Tracebacks and documentation name the place where the public finds them.
for _public in (AppLike, AppPath, Blueprint, Chunks, Engine, Exit, Pong, Worker):
    _public.__module__ = __name__
Instrument.__module__ = "trio_dirty"
