"""A program whose worker closes all descriptors and lives on; it must not hold the loop."""

import logging

import trio
from apps_bad import Bad

import trio_dirty


async def main() -> None:
    async with trio_dirty.open_pool([Bad], workers=1) as pool:
        try:
            await pool.run_sync(Bad.close_descriptors_and_hang)
        except trio_dirty.WorkerCrashedError as error:
            print("crashed with", error.exitcode)
        print(await pool.run_sync(Bad.echo, "still here"))


if __name__ == "__main__":
    logging.disable()
    trio.run(main)
