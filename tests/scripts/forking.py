"""A program that forks without exec while a pool is open: prints the worker, then the child."""

import os
import time

import trio
from apps_bad import Bad

import trio_dirty


def live_on() -> None:
    """Wait for a signal; not by pause(), because it may come just before that."""
    try:
        while True:
            time.sleep(0.01)
    finally:
        os._exit(0)


async def main() -> None:
    async with trio_dirty.open_pool([Bad], workers=1) as pool:
        worker = await pool.run_sync(Bad.pid)
        child = os.fork()
        if child == 0:
            live_on()
        print(worker, child, await pool.run_sync(Bad.pid), flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
