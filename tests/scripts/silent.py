"""A program that configures no logging, and in which all goes wrong that a pool logs."""

import os
import sys
from contextlib import suppress

import trio
from apps_lives import Lasting

import trio_dirty


async def main() -> None:
    async with trio_dirty.open_pool([Lasting], workers=1, max_requests=3) as pool:
        for _ in range(8):
            await pool.run_sync(Lasting.who)
        with suppress(trio_dirty.WorkerCrashedError):
            await pool.run_sync(Lasting.die, 3)
        with suppress(trio_dirty.RequestTimeoutError):
            await pool.with_options(timeout=0.1).run_sync(Lasting.sleep, 600)
        await pool.run_sync(Lasting.who)
        with open(os.environ["LIVES_BROKEN"], "w"):  # noqa: ASYNC230
            pass
        with suppress(trio_dirty.AppLoadError):
            await pool.reload()


if __name__ == "__main__":
    os.environ["LIVES_BROKEN"] = sys.argv[1]
    trio.run(main)
