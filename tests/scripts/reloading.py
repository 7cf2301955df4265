"""A program that changes an app's module over and over, and reloads: prints what it found.

The versions of the module have the same size, and were written within the same second.
Arguments: the directory of the module, and how many versions.
"""

import os
import sys
import time
from pathlib import Path

import trio

import trio_dirty

APP = "changing:Changing"

MODULE = """
import trio_dirty

class Changing(trio_dirty.App):
    def version(self):
        return {}
"""

SECOND = (int(time.time()) + 3600) * 10**9
"""When all were written: later than the bytecode is, however long the workers take to boot."""


def write(version: int) -> None:
    path = Path(sys.argv[1], "changing.py")
    path.write_text(MODULE.format(version))
    written = SECOND + version * 10**6
    os.utime(path, ns=(written, written))


async def main() -> None:
    found = []
    write(1)
    async with trio_dirty.open_pool([APP], workers=2) as pool:
        for version in range(2, 1 + int(sys.argv[2])):
            found.append(await pool.execute(APP, "version"))
            write(version)
            await pool.reload()
        found += await pool.broadcast(APP, "version")
    print(*found, flush=True)


if __name__ == "__main__":
    sys.dont_write_bytecode = False
    sys.path.insert(0, sys.argv[1])
    trio.run(main)
