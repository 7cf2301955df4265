"""Ctrl-C at every point of the code that opens and leaves the block of a pool."""

import gc
import signal

import pytest
import trio
from apps import Counter
from bytecode import BeforeEachBytecode, codes_of

from trio_dirty import open_pool
from trio_dirty._engines import nursery
from trio_dirty._pool import opening
from trio_dirty.testing import SimEngine

WATCHED = codes_of(opening, nursery)
"""Where the block is opened and left. What this calls is protected because it is."""

LEAST = 50
"""How many bytecodes each test has at least."""


class Interrupter:
    """Presses Ctrl-C before the n-th bytecode of what is watched; counts them."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.count = 0

    def watching(self):
        return BeforeEachBytecode(WATCHED, self._step)

    def _step(self, frame):
        self.count += 1
        if self.count == self._at:
            signal.raise_signal(signal.SIGINT)


async def opened(interrupter):
    block = open_pool([Counter], workers=1, engine=SimEngine())
    with interrupter.watching():
        pool = await block.__aenter__()
    try:
        assert await pool.run_sync(Counter.add) == 1
    finally:
        await block.__aexit__(None, None, None)


async def left_by(interrupter, error):
    block = open_pool([Counter], workers=1, engine=SimEngine())
    pool = await block.__aenter__()
    assert await pool.run_sync(Counter.add) == 1
    with interrupter.watching():
        await block.__aexit__(None if error is None else type(error), error, None)
    if error is not None:
        raise error


async def left(interrupter):
    await left_by(interrupter, None)


async def left_by_an_exception(interrupter):
    await left_by(interrupter, LookupError("mine"))


@pytest.mark.parametrize("way", [opened, left, left_by_an_exception])
def test_ctrl_c_at_any_bytecode_ends_the_program_as_itself(way):
    counter = Interrupter(-1)
    try:
        trio.run(way, counter)
    except LookupError:
        assert way is left_by_an_exception
    assert counter.count > LEAST, "it watches nothing"
    for at in range(1, counter.count + 1):
        with pytest.raises(KeyboardInterrupt):
            trio.run(way, Interrupter(at))
    gc.collect()  # a generator that was left open would complain now, and fail the test
