"""A supervised pool of long-lived, stateful worker processes for trio programs.

The map of the house. Imports run from each wing to those above it on this page, never down.
docs/how-it-works.md is a tour of it, with the way of one request and of a crash.

_common/: what the pool and its workers have in common; no trio.
    wire         frames in both directions, as bytes
    frames       the reader of frames
    pickling     objects to segments
    pieces       long values pickled piece by piece
    segments     segments back to objects
    credit       how far a stream may run ahead of its reader
    errors       the exceptions, and how a worker's traceback travels with one
    app          the base class of apps, and what a class needs to be one
    context      what an action can ask: worker_info, check_cancelled
    log          the logger

_rules/: decisions. Synchronous, without trio and without I/O; the property tests are about these.
    request      what is known of a request
    targets      what a call means: app paths, actions, functions
    options      the options of a pool, checked
    limits       the options of one request, checked
    routing      the routing rules: round robin, least loaded, by key; a new slot's share
    dispatcher   which slot is given a request, and what waits for one
    displaced    requests that have lost their slot
    ledger       a slot's queue; what a worker has been sent, and may have begun
    settlement   when a worker dies or a slot leaves: which requests fail, stay, or are moved
    lifecycle    what follows when a worker boots, dies or is replaced: a table of states
    deadlines    when a request is interrupted, or its worker killed for it
    health       when a worker that stands still is killed
    recycling    when a worker is worn
    allocation   which slot carries which app
    statistics   what `Pool.statistics` returns; percentiles in constant memory
    instruments  what a pool reports while it works

_worker/: runs inside a worker process; imports nothing that imports trio.
    serve        boot the apps, execute requests, close
    process      its streams, its signals, its tie to the life of the pool
    loop         the loop of a lane: take up a request, execute it, answer it
    apps         the apps of a worker, and what may be called in it
    execution    the execution of one request
    lane         what is executed, and how it is interrupted
    thread_lane  a lane in a thread of its own
    outcomes     results and exceptions as frames
    socket       the worker's end of its socket
    shared_socket  the same, of a worker with several lanes, each a thread

_engines/: what starts workers and carries frames to and from them.
    contract     what an engine and a worker must do
    processes    the engine whose workers are processes
    job          one process, and the one long job that it runs
    socket       the pool's end of a worker's socket
    handshake    where a worker connects to, and how it proves who it is
    replies      a worker's frames as results and exceptions
    threads      pickling what is large without holding the loop
    nursery      a nursery for tasks that serve a block

_pool/: trio tasks, each with one job.
    opening      open_pool
    pool         the Pool that callers hold
    calls        from a call to an accepted request, and its caller
    streams      a request whose results are read one by one
    broadcast    one call that every worker executes
    supervisor   the life of a pool, from the first worker's start to the last one's end
    slots        which slots there are, and what they carry
    scaling      how many slots there are to be, and reloads
    slot         a slot's memory channel, its consumer, its queue
    replacement  the workers of a slot, one after the other: started, settled, replaced
    renewal      that a worker is to be replaced, and whether it has been
    worker       one worker: what it is sent, what it answers, what it leaves when it dies
    enforcement  interrupts and kills what is over its limits
    wear         has a worn worker replaced
    closing      what a closed pool has not served
    waiting      tasks that wait until something has changed

testing/: simulated workers, for the tests of programs that use a pool.
    _event_log   an instrument that remembers
    _plans       how boots and executions go
    _simulation  the engine, and one simulated worker

abc.py: the contracts of engines, instruments and apps, for those who implement one.

Names are imported when they are first used: a worker imports the module of an app, that
imports this package, and must not pay 190 ms and 13 MB for a trio that it has no use for.
"""

from __future__ import annotations

from ._version import __version__ as __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import abc as abc, testing as testing
    from ._common.app import App as App
    from ._common.context import (
        WorkerInfo as WorkerInfo,
        check_cancelled as check_cancelled,
        worker_info as worker_info,
    )
    from ._common.errors import (
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
    from ._pool.opening import open_pool as open_pool
    from ._pool.pool import Pool as Pool
    from ._pool.streams import ChunkChannel as ChunkChannel, StreamManager as StreamManager
    from ._rules.instruments import Instrument as Instrument, Outcome as Outcome
    from ._rules.limits import OnCancel as OnCancel
    from ._rules.options import Routing as Routing
    from ._rules.statistics import (
        AppStatistics as AppStatistics,
        Cause as Cause,
        Percentiles as Percentiles,
        PoolStatistics as PoolStatistics,
        WorkerStatistics as WorkerStatistics,
    )

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
    "App": "_common.app",
    "AppLoadError": "_common.errors",
    "AppNotFoundError": "_common.errors",
    "AppStatistics": "_rules.statistics",
    "Cause": "_rules.statistics",
    "ChunkChannel": "_pool.streams",
    "DirtyError": "_common.errors",
    "Instrument": "_rules.instruments",
    "NoWorkersAvailableError": "_common.errors",
    "OnCancel": "_rules.limits",
    "Outcome": "_rules.instruments",
    "Percentiles": "_rules.statistics",
    "Pool": "_pool.pool",
    "PoolBusyError": "_common.errors",
    "PoolStatistics": "_rules.statistics",
    "RemoteError": "_common.errors",
    "RequestCancelled": "_common.errors",
    "RequestTimeoutError": "_common.errors",
    "Routing": "_rules.options",
    "SoftTimeout": "_common.errors",
    "StreamManager": "_pool.streams",
    "WorkerCrashedError": "_common.errors",
    "WorkerInfo": "_common.context",
    "WorkerStatistics": "_rules.statistics",
    "check_cancelled": "_common.context",
    "open_pool": "_pool.opening",
    "worker_info": "_common.context",
}


_MODULES = ("abc", "testing")
"""Not all of them in `__all__`: a star import must not hide the standard library's `abc`."""


def __getattr__(name: str) -> object:
    if name not in _HOMES and name not in _MODULES:
        raise AttributeError(f"module 'trio_dirty' has no attribute {name!r}")
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"trio_dirty.{name}")
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
    return sorted({*__all__, *_MODULES, "__version__"})
