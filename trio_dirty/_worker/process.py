"""The process of a worker: its streams, its signals, and its tie to the life of the pool.

Imports nothing of trio.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys


def fill_standard_streams() -> None:
    """Open the standard streams that are closed, on the null device.

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


def reset_signals() -> None:
    """Undo those of the program's settings of signals that a worker inherits and must not have.

    - Blocked signals: the thread that has started the worker may have blocked some, for another
      thread of the program to wait for. All are unblocked: SIGURG interrupts actions, SIGTERM
      ends the worker as it ends any other program, and an app may use others (SIGALRM, SIGPROF).
    - SIGCHLD is not ignored: else an action could not learn how its child processes ended.
    - SIGURG gets its handler, whatever was inherited: see `WorkerSocket.install_handler`.
    - SIGINT is ignored, by trio-parallel: a Ctrl-C is for the program to handle.
    - What else the program ignores stays ignored, as in every process that it starts: SIGHUP
      under nohup, SIGPIPE by Python itself, SIGTERM if the program ignores that.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def die_with(lifeline: int) -> None:
    """Have this process killed when the other end of a pipe is closed, whatever it is doing.

    On Linux the kernel sends SIGKILL itself: the owner of an O_ASYNC descriptor is
    signalled when the pipe hangs up. That needs no thread, which C code that holds the
    interpreter lock would stop; and it depends on the process that made the pipe, where
    PR_SET_PDEATHSIG depends on its thread. Measured: 6 ms after the death of the pool.
    """
    if sys.platform == "linux":
        kill_at_end(lifeline, os.getpid())
    else:
        _kill_at_end_in_thread(lifeline)


def kill_at_end(lifeline: int, pid: int) -> None:
    """Have the kernel, of Linux, kill a process when the other end of a pipe is closed.

    It does as long as this end is open in any process.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, pid)
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)


def _kill_at_end_in_thread(lifeline: int) -> None:
    # The thread waits for the interpreter lock while C code holds it.
    import threading

    def wait_for_end() -> None:
        os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait_for_end, name="trio_dirty lifeline", daemon=True).start()
