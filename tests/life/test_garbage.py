"""Dead workers are freed at once, without the collector: each has a buffer of half a megabyte."""

import gc
import os
import signal
import weakref

import pytest
import trio
from apps_control import Control
from calling import Calling
from lives import until

from trio_dirty import RequestTimeoutError, WorkerCrashedError, open_pool
from trio_dirty._engines.socket import FrameSocket


@pytest.fixture
def sockets(monkeypatch):
    """Return the pool's ends of all sockets that are alive; keep the collector from freeing any."""
    made = []
    make = FrameSocket.__init__

    def note(socket, *args, **kwargs):
        make(socket, *args, **kwargs)
        made.append(weakref.ref(socket))

    monkeypatch.setattr(FrameSocket, "__init__", note)
    gc.collect()
    gc.disable()
    yield lambda: [socket for socket in made if socket() is not None]
    gc.enable()


@pytest.fixture
async def pool():
    async with open_pool([Control], workers=1) as pool:
        yield pool


def kill(pool):
    os.kill(pool.statistics().workers[0].pid, signal.SIGKILL)


async def crash(pool, **options):
    """Have a worker killed while it executes a request with these options."""
    async with trio.open_nursery() as nursery:
        calling = Calling.begin(nursery, pool.with_options(**options).run_sync, signal.pause)
        await until(lambda: pool.statistics().running == 1)
        kill(pool)
    return calling.error


async def test_of_workers_that_crash_nothing_is_left(sockets, pool):
    errors = []
    for options in ({}, {"timeout": 60.0}, {"on_cancel": "kill"}, {"key": "user"}):
        errors.append(await crash(pool, **options))
        assert await pool.run_sync(Control.add) == 1
        await until(lambda: len(sockets()) == 1)
    assert {type(error) for error in errors} == {WorkerCrashedError}, "and they are kept"


async def test_of_workers_that_are_killed_for_their_requests_nothing_is_left(sockets, pool):
    with pytest.raises(RequestTimeoutError) as caught:
        await pool.with_options(timeout=0.01).run_sync(signal.pause)
    assert await pool.run_sync(Control.add) == 1
    await until(lambda: len(sockets()) == 1)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.with_options(on_cancel="kill").run_sync, signal.pause)
            await until(lambda: pool.statistics().running == 1)
            scope.cancel()
    await until(lambda: pool.statistics().restarts == 2)
    assert await pool.run_sync(Control.add) == 1
    await until(lambda: len(sockets()) == 1)
    assert caught.value.soft is False, "it is kept"


async def test_of_workers_that_are_replaced_nothing_is_left_though_exceptions_are_kept(
    sockets, pool
):
    errors = []
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as caught:
            await pool.run_sync(divmod, 1, 0)
        errors.append(caught.value)
        await pool.reload()
        await until(lambda: len(sockets()) == 1)
    assert len(errors) == 3


async def test_of_workers_nothing_is_left_though_the_channels_of_their_streams_are_kept(
    sockets, pool
):
    channels = []
    for ends in (True, False):
        async with pool.stream(Control.numbers, 3) as chunks:
            channels.append(chunks)
            if ends:
                assert [chunk async for chunk in chunks] == [0, 1, 2]
            else:
                assert await chunks.receive() == 0
        await pool.reload()
        await until(lambda: len(sockets()) == 1)
    assert len(channels) == 2


async def test_of_a_pool_that_is_closed_nothing_is_left(sockets):
    async with open_pool([Control], workers=2) as pool:
        await pool.run_sync(Control.add)
    assert sockets() == []
    assert pool.statistics().completed == 1, "it is kept"
