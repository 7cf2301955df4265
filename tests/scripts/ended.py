"""A program that is about to be ended: prints its two workers once it does what it is told.

Arguments: ``idle``, ``busy``, ``locked`` (in C code), ``reloading`` (both workers in one slot),
``booting`` (one of them boots), or ``forked`` (with a child that lives on); and a directory.
"""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import trio
from apps_lives import Lasting, SecondHangs

import trio_dirty


def exists(path: Path) -> bool:
    return path.exists()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def until_begun(pool: trio_dirty.Pool, nursery: trio.Nursery, action: str) -> None:
    begun = Path(sys.argv[2], f"begun {pool.statistics().running}")

    async def call() -> None:
        with suppress(trio_dirty.DirtyError, trio.ClosedResourceError):
            await pool.execute(Lasting, action, str(begun))

    nursery.start_soon(call)
    while not exists(begun):  # noqa: ASYNC110
        await trio.sleep(0.01)


def fork() -> None:
    """Fork a child that waits for a signal, and return when it does.

    Before that, in what Python does in a child, a KeyboardInterrupt is printed and forgotten.
    """
    reader, writer = os.pipe()
    if os.fork():
        os.read(reader, 1)
        return
    try:
        os.write(writer, b"!")
        while True:
            time.sleep(0.01)
    finally:
        os._exit(0)


async def main(what: str) -> None:
    count = 1 if what == "reloading" else 2
    async with (
        trio_dirty.open_pool([Lasting], workers=count, grace_period=0) as pool,
        trio.open_nursery() as nursery,
    ):
        pids = [worker.pid for worker in pool.statistics().workers]
        if what in ("busy", "locked"):
            for _ in pids:
                await until_begun(pool, nursery, "hang" if what == "busy" else "hold_lock")
        elif what == "reloading":
            await until_begun(pool, nursery, "hang")
            await pool.reload()
            pids.append(pool.statistics().workers[0].pid)
        elif what == "forked":
            fork()
        print(*pids, flush=True)
        await trio.sleep_forever()


async def main_booting(log: Path) -> None:
    os.environ["BAD_LOG"] = str(log)

    async def announce() -> None:
        while len(lines(log)) < 2:  # noqa: ASYNC110
            await trio.sleep(0.01)
        print(*lines(log), flush=True)

    async with (
        trio.open_nursery() as nursery,
        trio_dirty.open_pool([SecondHangs], workers=1, grace_period=0) as pool,
    ):
        nursery.start_soon(announce)
        await pool.reload()


if __name__ == "__main__":
    if sys.argv[1] == "booting":
        trio.run(main_booting, Path(sys.argv[2], "log"))
    else:
        trio.run(main, sys.argv[1])
