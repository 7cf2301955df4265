"""What runs in a worker: boot the apps, execute requests, close the apps.

Imports nothing of trio: that would cost each worker 190 ms and 13 MB.

`serve` is the one long job that the pool gives to a trio-parallel process.
"""

from __future__ import annotations

import os
import sys
from functools import partial

from .._common import wire
from .._common.app import declared_workers
from .._common.context import WorkerInfo, current_lane, current_worker
from .._common.errors import traceback_text
from .apps import Apps, import_afresh, load
from .loop import execute_requests, exit_if_raises
from .outcomes import OutcomeEncoder
from .process import fill_standard_streams, reset_signals
from .socket import ConnectionLost, WorkerSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

REPORTED = 10
"""How many failures of ``close()`` are reported."""


def serve(
    address: str, token: bytes, slot: int, worker: int, lanes: int = 1, directory: str = ""
) -> None:
    """Connect to the pool, boot what it says, and serve requests until told to close.

    The job that trio-parallel runs. ``directory`` is where the program was when it opened the
    pool: what it imports from relative paths is found from there, even if it has changed since.
    """
    fill_standard_streams()
    sys.path[:] = [
        os.path.join(directory, path) if isinstance(path, str) else path for path in sys.path
    ]
    reset_signals()
    current_worker.set(WorkerInfo(slot, worker, os.getpid()))
    import_afresh()
    sock: WorkerSocket
    execute: Callable[[Apps], None]
    if lanes == 1:
        sock = WorkerSocket.connect(address, token)
        execute = partial(execute_requests, sock, sock.lane)
    else:
        # A worker with one lane does not import threads.
        from .shared_socket import SharedSocket, execute_in_threads

        sock = shared = SharedSocket.connect(address, token)
        execute = partial(execute_in_threads, shared, lanes)
    current_lane.set(sock.lane)
    exit_if_raises(sock, _serve, sock, execute)
    sock.close()


def _serve(sock: WorkerSocket, execute: Callable[[Apps], None]) -> None:
    encoder = OutcomeEncoder()
    try:
        apps = _boot(sock, encoder)
    except ConnectionLost:
        raise
    except BaseException as error:
        sock.send(encoder.report(wire.FAILED, traceback_text(error)))
        return
    if apps is None:
        return
    sock.send([wire.frame(wire.READY)])
    execute(apps)
    sock.send(encoder.report(wire.CLOSED, apps.close()[:REPORTED]))


def _boot(sock: WorkerSocket, encoder: OutcomeEncoder) -> Apps | None:
    """Boot the apps that the pool names; None where it closes before it has named any."""
    while (order := sock.next_order()) is not None:
        kind, paths = order
        if kind == wire.BOOT:
            return Apps(paths)
        declared = [declared_workers(load(*path)) for _, *path in paths]
        sock.send(encoder.report(wire.DECLARED, declared))
    return None
