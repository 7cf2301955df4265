"""The loop of a lane: take up a request, execute it, answer it. Imports nothing of trio."""

from __future__ import annotations

import contextlib
import os
import sys

from .._common import wire
from .._common.errors import traceback_text
from .._common.wire import EXIT_BROKE_DOWN, EXIT_CONNECTION_LOST
from .execution import StreamExecution, answer
from .outcomes import OutcomeEncoder
from .socket import ConnectionLost, WorkerSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .apps import Apps
    from .lane import Lane


def execute_requests(sock: WorkerSocket, lane: Lane, apps: Apps) -> None:
    """Execute requests in this thread, one after the other, until told to close.

    Each is answered before the next is taken up. The pool's ledger, which tells what may have
    begun, relies on it.
    """
    encoder = OutcomeEncoder()
    while (request := sock.take_up(lane)) is not None:
        kind, number, _, target, pickled = request
        if lane.abandoned:
            sock.send((wire.frame(wire.SKIPPED, number),))
        elif kind == wire.REQUEST:
            sock.send(answer(lane, apps, encoder, number, target, pickled))
        else:
            execution = StreamExecution(lane, apps, encoder, number, target, pickled)
            send_stream(sock, lane, execution)
            del execution
        # Arguments can be large, and the next request may be long in coming.
        del request, pickled


def send_stream(sock: WorkerSocket, lane: Lane, execution: StreamExecution) -> None:
    """Send what a generator yields, each chunk at once, as far ahead as the reader allows."""
    while not execution.ended:
        lane.refresh()
        if lane.abandoned:
            sock.send(execution.close())
        elif lane.window.is_open:
            sock.send(execution.step())
        else:
            lane.wait_for_news()


def exit_if_raises(sock: WorkerSocket, run: Callable[..., object], *args: object) -> None:
    """Run something, in any thread; end the whole process at once where it raises.

    If the connection is lost, the pool is gone or does not need the worker any more: the process
    ends quietly. If the worker's own code raises, the traceback goes to its standard error: the
    worker cannot tell any more where the next frame begins.
    """
    try:
        run(*args)
    except ConnectionLost:
        # A child that an action forked comes here when it returns from the action, since its
        # socket was closed at the fork. It must neither answer nor run its parent's exit handlers.
        os._exit(EXIT_CONNECTION_LOST if sock.pid == os.getpid() else 0)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            sys.stderr.write(traceback_text(error))
            sys.stderr.flush()
        os._exit(EXIT_BROKE_DOWN)
