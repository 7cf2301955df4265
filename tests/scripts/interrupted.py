"""A program with one request and no nursery of its own: prints its worker once it is busy.

Argument: the path that the action makes when it begins.
"""

import sys
import threading
import time
from pathlib import Path

import trio
from apps_bad import Bad

import trio_dirty


def announce(pid: int | None) -> None:
    while not Path(sys.argv[1]).exists():
        time.sleep(0.01)
    print(pid, flush=True)


async def main() -> None:
    async with trio_dirty.open_pool([Bad], workers=1) as pool:
        pid = pool.statistics().workers[0].pid
        threading.Thread(target=announce, args=[pid], daemon=True).start()
        await pool.run_sync(Bad.hang, sys.argv[1])


if __name__ == "__main__":
    trio.run(main)
