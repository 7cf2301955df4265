"""A program that is stopped while a worker executes what may not take long."""

import time

import trio

import trio_dirty


def compute(seconds: float) -> float:
    """Compute for so long, by the clock of this thread, which stands still with it."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


async def main() -> None:
    async with trio_dirty.open_pool([], workers=1) as pool:
        await pool.run_sync(compute, 0)
        async with trio.open_nursery() as nursery:

            async def timed() -> None:
                await pool.with_options(timeout=1.5).run_sync(compute, 0.5)
                print(2, flush=True)

            nursery.start_soon(timed)
            await trio.testing.wait_all_tasks_blocked()
            print(1, flush=True)


if __name__ == "__main__":
    import trio.testing

    trio.run(main)
