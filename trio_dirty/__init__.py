"""A supervised pool of long-lived, stateful worker processes for trio programs.

The map of the house. Three kinds of code live here, apart from each other:

Decide: synchronous, knows nothing of trio and does no I/O.
    _targets     what a request calls; which action a function stands for
    _options     the options of a pool, checked
    _limits      what a caller asks of one request besides its outcome
    _routing     round-robin, the slot of a key, the share of a slot that becomes ready
    _keys        where the requests of a key are
    _dispatcher  gives requests to slots, or lets them wait for one
    _displaced   requests that have lost their slot, until each of them has been seen to
    _backlog     what a worker has been given and has not ended, and what is sent when
    _ledger      what a worker has been sent and may have begun; how much is sent ahead
    _oversight   what is to be done about requests that have begun, and when
    _allocation  which slot carries which app
    _recycling   when a worker is worn, and to be replaced
    _backoff     when the next worker of a slot may start
    _instruments what a pool tells of what happens in it
    _replies     a worker's frames as results and exceptions
    _durations   percentiles in constant memory
    _statistics  what a pool tells about itself

Perform: trio. Each task has one job.
    _opening     open_pool
    _pool        the Pool that callers hold
    _intake      from a call to an accepted request
    _request     a request, from acceptance to its outcome
    _stream      a request whose results come one by one, and what its reader holds
    _broadcast   one call that every worker executes
    _supervisor  the slots of a pool, from the first worker's start to the last one's end
    _scaling     how many slots there are, and the renewal of their workers
    _slot        a slot's channel, its consumer, and what it has been given
    _succession  the workers that succeed each other in a slot
    _wish        what a slot's next worker is wanted for
    _incarnation one worker of a slot, from its taking over to the settlement of what it leaves
    _engine      the contract of what starts workers
    _processes   the engine whose workers are processes
    _job         the process of a worker, and the one long job that it runs
    _frames      the pool's end of a worker's socket
    _handshake   where a worker connects to, and how it proves who it is
    _nursery     a nursery for tasks that serve a block
    _threads     pickling what is large without holding the loop
    _log         the logger

Child: runs in the worker, and imports nothing that imports trio.
    _worker      boot, execute requests in order, close
    _apps        the apps of a worker, and what may be called in it
    _execution   the execution of one request
    _lane        what is executed, and how it is interrupted
    _lanes       several of them in one worker, each in a thread
    _outbox      outcomes as frames
    _link        the worker's end of its socket, tied to the life of the pool
    _app         the base class of apps
    _info        what an action can ask about its worker

For tests: testing, a package of its own: workers simulated in the same process.

Both sides use _wire (frames), _pickling (segments), _credit (how far a stream runs ahead) and
_errors.

Names are imported when they are first used: a worker imports the module of an app, that
imports this package, and must not pay 190 ms and 13 MB for a trio that it has no use for.
"""

from __future__ import annotations

from ._version import __version__ as __version__

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
        PoolBusyError as PoolBusyError,
        RemoteError as RemoteError,
        RequestCancelled as RequestCancelled,
        RequestTimeoutError as RequestTimeoutError,
        SoftTimeout as SoftTimeout,
        WorkerCrashedError as WorkerCrashedError,
    )
    from ._info import WorkerInfo as WorkerInfo, worker_info as worker_info
    from ._instruments import Instrument as Instrument, Outcome as Outcome
    from ._lane import check_cancelled as check_cancelled
    from ._limits import OnCancel as OnCancel
    from ._opening import open_pool as open_pool
    from ._options import Routing as Routing
    from ._pool import Pool as Pool
    from ._statistics import (
        AppStatistics as AppStatistics,
        Cause as Cause,
        PoolStatistics as PoolStatistics,
        WorkerStatistics as WorkerStatistics,
    )
    from ._stream import ChunkChannel as ChunkChannel, StreamManager as StreamManager

__all__ = [
    "App",
    "AppLoadError",
    "AppNotFoundError",
    "AppStatistics",
    "Cause",
    "ChunkChannel",
    "DirtyError",
    "Instrument",
    "NoWorkersAvailableError",
    "OnCancel",
    "Outcome",
    "Percentiles",
    "Pool",
    "PoolBusyError",
    "PoolStatistics",
    "RemoteError",
    "RequestCancelled",
    "RequestTimeoutError",
    "Routing",
    "SoftTimeout",
    "StreamManager",
    "WorkerCrashedError",
    "WorkerInfo",
    "WorkerStatistics",
    "check_cancelled",
    "open_pool",
    "testing",
    "worker_info",
]

_HOMES = {
    "App": "_app",
    "AppLoadError": "_errors",
    "AppNotFoundError": "_errors",
    "AppStatistics": "_statistics",
    "Cause": "_statistics",
    "ChunkChannel": "_stream",
    "DirtyError": "_errors",
    "Instrument": "_instruments",
    "NoWorkersAvailableError": "_errors",
    "OnCancel": "_limits",
    "Outcome": "_instruments",
    "Percentiles": "_durations",
    "Pool": "_pool",
    "PoolBusyError": "_errors",
    "PoolStatistics": "_statistics",
    "RemoteError": "_errors",
    "RequestCancelled": "_errors",
    "RequestTimeoutError": "_errors",
    "Routing": "_options",
    "SoftTimeout": "_errors",
    "StreamManager": "_stream",
    "WorkerCrashedError": "_errors",
    "WorkerInfo": "_info",
    "WorkerStatistics": "_statistics",
    "check_cancelled": "_lane",
    "open_pool": "_opening",
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
    return sorted([*__all__, "__version__"])
