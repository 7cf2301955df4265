"""A program whose two workers are busy: prints their process numbers once both are.

Arguments: an action of apps_bad.Bad that takes a path, and a directory.
"""

import sys
from contextlib import suppress
from pathlib import Path

import trio
from apps_bad import Bad

import trio_dirty


async def main() -> None:
    first, second = Path(sys.argv[2], "first"), Path(sys.argv[2], "second")
    async with trio.open_nursery() as outside, trio_dirty.open_pool([Bad], workers=2) as pool:

        async def call() -> None:
            with suppress(trio.ClosedResourceError):
                await pool.execute(Bad, sys.argv[1], str(first))

        outside.start_soon(call)
        outside.start_soon(announce, pool, first, second)
        await pool.execute(Bad, sys.argv[1], str(second))


async def announce(pool: trio_dirty.Pool, *begun: Path) -> None:
    while not all(path.exists() for path in begun):  # noqa: ASYNC110
        await trio.sleep(0.01)
    print(*(worker.pid for worker in pool.statistics().workers), flush=True)


if __name__ == "__main__":
    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None  # of the nursery above, not of the pool
