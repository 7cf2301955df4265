"""A program that opens a pool in a daemonic child, as Hypercorn would."""

import multiprocessing

import trio

import trio_dirty


async def main() -> None:
    async with trio_dirty.open_pool([], workers=1):
        print("opened")


def child() -> None:
    try:
        trio.run(main)
    except trio_dirty.DirtyError as error:
        print(type(error).__name__, error)


if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child, daemon=True)
    process.start()
    process.join()
