"""Ctrl-C at every point of the code that opens and leaves the block of a pool."""

import gc
import signal
import sys

import pytest
import trio
from apps import Counter

from trio_dirty import open_pool
from trio_dirty.testing import SimEngine

FILES = ("trio_dirty/_opening.py", "trio_dirty/_nursery.py")
"""Where the block is opened and left. What they call is protected because they are."""


class Interrupter:
    """Presses Ctrl-C at one bytecode of some files, while it watches; counts them otherwise."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def trace(self, frame, event, arg):
        if not frame.f_code.co_filename.endswith(FILES):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.count += 1
            if self.count == self.at:
                signal.raise_signal(signal.SIGINT)
        return self.trace


async def opened(interrupter):
    sys.settrace(interrupter.trace)
    try:
        async with open_pool([Counter], workers=1, engine=SimEngine()) as pool:
            sys.settrace(None)
            assert await pool.run_sync(Counter.add) == 1
    finally:
        sys.settrace(None)


async def left_by(interrupter, error):
    try:
        async with open_pool([Counter], workers=1, engine=SimEngine()) as pool:
            assert await pool.run_sync(Counter.add) == 1
            sys.settrace(interrupter.trace)
            if error is not None:
                raise error
    finally:
        sys.settrace(None)


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
    assert counter.count > 50, "it watches nothing"
    for at in range(1, counter.count + 1):
        with pytest.raises(KeyboardInterrupt):
            trio.run(way, Interrupter(at))
    gc.collect()  # a generator that was left open would complain now, and fail the test
