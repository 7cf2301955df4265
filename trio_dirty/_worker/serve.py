"""What runs in a worker: boot the apps, execute requests in order, close the apps.

Imports nothing of trio: that would cost each worker 190 ms and 13 MB.

`serve` is the one long job that the pool gives to a trio-parallel process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

from .._common import wire
from .._common.app import declared_workers
from .._common.context import WorkerInfo, current_lane, current_worker
from .._common.errors import traceback_text
from .._common.wire import EXIT_BROKE_DOWN, EXIT_LINK_LOST
from .apps import Apps, import_afresh, load
from .execution import StreamExecution, answer
from .outcomes import Outbox
from .socket import Link, LinkLost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

REPORTED = 10
"""How many ``close()`` that have raised are reported."""


def fill_standard_streams() -> None:
    """Open those standard streams that are closed, onto nothing.

    Else a pipe or socket could be given the number of one, and whatever is printed would be
    written into it.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, fd)
            os.set_inheritable(fd, True)
            if null != fd:
                os.close(null)


def serve(
    address: str, token: bytes, slot: int, worker: int, lanes: int = 1, directory: str = ""
) -> None:
    """Connect to the pool, boot what it says, and serve requests until told to close.

    The job that trio-parallel runs. ``directory`` is where the program was when it opened the
    pool: what it imports from relative paths is found from there, wherever it has gone since.
    """
    fill_standard_streams()
    sys.path[:] = [
        os.path.join(directory, path) if isinstance(path, str) else path for path in sys.path
    ]
    receive_signals()
    current_worker.set(WorkerInfo(slot, worker, os.getpid()))
    import_afresh()
    link = (Link if lanes == 1 else _lanes().SharedLink).connect(address, token)
    current_lane.set(link.lane)
    stand_or_fall(link, _serve, link, lanes)
    link.close()


def receive_signals() -> None:
    """Undo what a worker inherits of the program's dealings with signals, and must not.

    - What is blocked, in the thread that has started the worker, is blocked for another thread of
      the program that waits for it; in a worker nobody does. All is unblocked: SIGURG
      interrupts actions, SIGTERM ends the worker as it ends any other program, and what else an app
      wants to use (SIGALRM, SIGPROF) arrives.
    - SIGCHLD is not ignored: else an action could not learn how what it has started ended.
    - SIGURG gets its handler, whatever was inherited: see `Link.heed_signals`.
    - SIGINT is ignored, by trio-parallel: a Ctrl-C is the program's to deal with.
    - What else the program ignores stays ignored, as in every process that it starts: SIGHUP
      under nohup, SIGPIPE by Python itself, SIGTERM where it wants that to end nothing.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def stand_or_fall(link: Link, run: Callable[..., object], *args: object) -> None:
    """Run, in any thread, what the whole process ends with where it raises.

    Where the connection is lost, the pool is gone or the worker is of no more use: the process
    ends at once and quietly. It ends at once, too, with a traceback on its standard error, where
    its own code raises: by what was sent to it it can no longer tell where a frame begins.
    """
    try:
        run(*args)
    except LinkLost:
        _vanish(link)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            sys.stderr.write(traceback_text(error))
            sys.stderr.flush()
        os._exit(EXIT_BROKE_DOWN)


def _lanes() -> Any:
    # A worker with one lane has no use for threads, and need not import them.
    from . import thread_lanes

    return thread_lanes


def _serve(link: Link, lanes: int) -> None:
    outbox = Outbox()
    try:
        apps = _boot(link, outbox)
    except LinkLost:
        raise
    except BaseException as error:
        link.send(outbox.report(wire.FAILED, traceback_text(error)))
        return
    if apps is None:
        return
    link.send([wire.frame(wire.READY)])
    if lanes == 1:
        execute_requests(link, apps, outbox)
    else:
        _lanes().execute_requests(link, apps, lanes)
    link.send(outbox.report(wire.CLOSED, apps.close()[:REPORTED]))


def _boot(link: Link, outbox: Outbox) -> Apps | None:
    """Boot the apps that the pool names; None where it wants to close before it has named any."""
    while (order := link.next_order()) is not None:
        kind, paths = order
        if kind == wire.BOOT:
            return Apps(paths)
        declared = [declared_workers(load(*path)) for _, *path in paths]
        link.send(outbox.report(wire.DECLARED, declared))
    return None


def execute_requests(link: Link, apps: Apps, outbox: Outbox) -> None:
    """Execute the requests of the link one after the other, until told to close.

    Each is answered before the next is taken up: the ledger on the pool's side, which
    tells what may have begun, stands on it.
    """
    lane = link.lane
    while (request := link.next_request()) is not None:
        number, target, pickled, kind, _ = request
        if target is None:
            link.send((wire.frame(wire.SKIPPED, number),))
        elif kind == wire.REQUEST:
            link.send(answer(lane, apps, outbox, number, target, pickled))
        else:
            send_stream(link, StreamExecution(lane, apps, outbox, number, target, pickled))
        lane.end()
        # Nothing here may keep arguments: they can be large, and the next request long in
        # coming.
        del request, pickled


def send_stream(link: Link, execution: StreamExecution) -> None:
    """Send what a generator yields, each chunk at once, as far ahead as the reader allows."""
    lane = link.lane
    while not execution.ended:
        if lane.left:
            link.send(execution.close())
        elif lane.window.is_open:
            link.send(execution.step())
            if not execution.ended:
                link.look_if_stale()
        else:
            link.wait()


def _vanish(link: Link) -> NoReturn:
    # A child that an action forked comes here, when it returns from the action, with the
    # link closed at the fork: it must neither answer nor run its parent's exit handlers.
    os._exit(EXIT_LINK_LOST if link.pid == os.getpid() else 0)
