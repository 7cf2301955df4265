"""A suite of its own, for the test of how tests end. Not collected with the others."""

import os
import signal
from pathlib import Path

import trio
from apps_bad import Bad

from trio_dirty import open_pool


async def test_something():
    how, begun = os.environ["HOW"], os.environ["BEGUN"]
    async with open_pool([Bad], workers=2, grace_period=0) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.run_sync, Bad.hang, begun)
        while not Path(begun).exists():  # noqa: ASYNC110, ASYNC240
            await trio.sleep(0.01)
        if how in ("interrupted", "killed"):
            os.kill(os.getpid(), signal.SIGINT if how == "interrupted" else signal.SIGKILL)
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()
        assert how == "passes"
