"""Opens a pool while signals are blocked, or ignored, and has requests interrupted."""

import os
import signal
import sys
import threading

import trio
from apps_control import Control
from apps_signals import Signals
from harness import until

import trio_dirty

THREADS = int(sys.argv[2])


async def main() -> None:
    async with trio_dirty.open_pool(
        [Control, Signals], workers=1, threads=THREADS, cancel_grace=None
    ) as pool:
        if sys.argv[1] == "ignore":
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        how = "sleep" if THREADS == 1 else "loop"
        begun = sys.argv[3]
        try:
            view = pool.with_options(soft_timeout=0.1)
            await view.run_sync(Control.last, how, begun, f"{begun}.never")
        except trio_dirty.RequestTimeoutError as error:
            print("soft" if error.soft else "hard")
        os.unlink(begun)
        async with trio.open_nursery() as nursery:
            view = pool.with_options(on_cancel="interrupt")
            nursery.start_soon(view.run_sync, Control.last, how, begun, f"{begun}.never")
            await until(lambda: os.access(begun, os.F_OK))
            nursery.cancel_scope.cancel()
        print(await pool.run_sync(Signals.blocked))
        print(await pool.run_sync(Signals.exitcode))
        print(pool.statistics().restarts)


if __name__ == "__main__":
    if sys.argv[1] == "block":
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    elif sys.argv[1] == "ignore":
        for number in (signal.SIGURG, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
    if sys.argv[1] == "thread":

        def run() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            trio.run(main)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    else:
        trio.run(main)
