"""An ordinary program: an app of its own, some requests, a crash, and the end."""

import logging
import os
import sys

import trio

import trio_dirty


class Counter(trio_dirty.App):
    def init(self) -> None:
        self.count = 0

    def add(self, number: int) -> int:
        self.count += number
        return self.count

    def flags(self) -> tuple[bool, int, list[str]]:
        return sys.flags.dev_mode, sys.flags.optimize, sys.warnoptions

    def die(self) -> None:
        os._exit(3)


def double(data: bytes) -> bytes:
    return data * 2


async def main() -> None:
    async with trio_dirty.open_pool([Counter], workers=1) as pool:
        print(*await pool.run_sync(Counter.flags))
        print([await pool.run_sync(Counter.add, 1) for _ in range(3)])
        print(len(await pool.run_sync(double, bytes(1_000_000))))
        try:
            await pool.run_sync(Counter.die)
        except trio_dirty.WorkerCrashedError as error:
            print("crashed with", error.exitcode)
        print(await pool.run_sync(Counter.add, 1))


if __name__ == "__main__":
    logging.disable()
    trio.run(main)
    print("done")
