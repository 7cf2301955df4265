"""A program whose worker never ends its boot, and logs that it has begun to BAD_LOG."""

import os
import sys

import trio
from apps_bad import InitHangs

import trio_dirty


async def main() -> None:
    async with trio_dirty.open_pool([InitHangs], workers=1):
        pass


if __name__ == "__main__":
    os.environ["BAD_LOG"] = sys.argv[1]
    trio.run(main)
