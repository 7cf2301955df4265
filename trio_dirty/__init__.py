"""A supervised pool of long-lived, stateful worker processes for trio programs.

The map of the house. Three kinds of code live here, apart from each other:

Decide: synchronous, knows nothing of trio and does no I/O.
    _targets     what a request calls; which action a function stands for
    _options     the options of a pool, checked
    _routing     round-robin, and the share of a slot that becomes ready
    _dispatcher  gives requests to slots, or lets them wait for one
    _backlog     what a slot has been given and has not ended, and what is sent when
    _ledger      what a worker has been sent and may have begun; how much is sent ahead
    _backoff     when the next worker of a slot may start
    _instruments what a pool tells of what happens in it
    _replies     a worker's frames as results and exceptions
    _durations   percentiles in constant memory
    _statistics  what a pool tells about itself

Perform: trio. Each task has one job.
    _pool        open_pool and the Pool that callers hold
    _slot        a slot's channel, its consumer, and the supervision of its workers
    _request     a call, from acceptance to its outcome
    _engine      the contract of what starts workers
    _processes   the engine whose workers are processes
    _frames      the pool's end of a worker's socket
    _handshake   where a worker connects to, and how it proves who it is
    _nursery     a nursery for tasks that serve a block
    _threads     pickling what is large without holding the loop
    _log         the logger

Child: runs in the worker, and imports nothing that imports trio.
    _worker      boot the apps, execute requests in order, close the apps
    _link        the worker's end of its socket, tied to the life of the pool
    _app         the base class of apps
    _info        what an action can ask about its worker

For tests: testing, a package of its own: workers simulated in the same process.

Both sides use _wire (frames), _pickling (segments) and _errors.

Names are imported when they are first used: a worker imports the module of an app, that
imports this package, and must not pay 190 ms and 13 MB for a trio that it has no use for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import testing as testing
    from ._app import App as App
    from ._durations import Percentiles as Percentiles
    from ._errors import (
        AppLoadError as AppLoadError,
        AppNotFoundError as AppNotFoundError,
        DirtyError as DirtyError,
        NoWorkersAvailableError as NoWorkersAvailableError,
        RemoteError as RemoteError,
        WorkerCrashedError as WorkerCrashedError,
    )
    from ._info import WorkerInfo as WorkerInfo, worker_info as worker_info
    from ._instruments import Instrument as Instrument, Outcome as Outcome
    from ._pool import Pool as Pool, open_pool as open_pool
    from ._statistics import (
        PoolStatistics as PoolStatistics,
        WorkerStatistics as WorkerStatistics,
    )

_HOMES = {
    "App": "_app",
    "AppLoadError": "_errors",
    "AppNotFoundError": "_errors",
    "DirtyError": "_errors",
    "Instrument": "_instruments",
    "NoWorkersAvailableError": "_errors",
    "Outcome": "_instruments",
    "Percentiles": "_durations",
    "Pool": "_pool",
    "PoolStatistics": "_statistics",
    "RemoteError": "_errors",
    "WorkerCrashedError": "_errors",
    "WorkerInfo": "_info",
    "WorkerStatistics": "_statistics",
    "open_pool": "_pool",
    "worker_info": "_info",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES and name != "testing":
        raise AttributeError(f"module 'trio_dirty' has no attribute {name!r}")
    from importlib import import_module

    if name == "testing":
        return import_module("trio_dirty.testing")
    value = getattr(import_module(f"trio_dirty.{_HOMES[name]}"), name)
    _show_public_places()
    globals()[name] = value
    return value


def _show_public_places() -> None:
    """Have tracebacks and documentation name the place where the public finds things."""
    import sys

    for name, home in _HOMES.items():
        module = sys.modules.get(f"trio_dirty.{home}")
        if module is not None and hasattr(module, name):
            getattr(module, name).__module__ = "trio_dirty"


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, "testing"})
