"""Values of every type and size arrive, in every place: small and large differ by length alone."""

from __future__ import annotations

import array
import datetime
import decimal
import fractions
import pickle
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
import trio
from apps_payloads import ENDINGS, DeclaresMuch, Payloads, RaisesAtItsBeginning
from scripts.harness import PATIENCE

from trio_dirty import AppLoadError, Pool, open_pool
from trio_dirty._common import wire
from trio_dirty._common.pickling import QuickPickler
from trio_dirty._engines.socket import FrameSocket
from trio_dirty._worker.socket import WorkerSocket

KIB = 1024

SIZES = [
    threshold * KIB + around for threshold in (64, 128, 256, 512, 1024) for around in (-200, 200)
]
"""Bytes, on both sides of each threshold, whatever the pickle adds."""

MANY = {"float", "none", "bool", "complex", "fraction", "datetime", "tuple", "frozenset", "dict"}
"""Kinds of many objects, whose pickles differ only in how many pieces they have."""


def listed(item: Any) -> Callable[[int], Any]:
    size = len(pickle.dumps([item] * 1_000)) / 1_000
    return lambda length: [item] * int(length / size)


KINDS: dict[str, Callable[[int], Any]] = {
    "int": lambda size: (1 << 8 * size - 9) + 1,
    "negative int": lambda size: -(1 << 8 * size - 9),
    "two ints": lambda size: [1 << 4 * size, 1 << 4 * size],
    "ascii": lambda size: "a" * size,
    "latin1": lambda size: "\xe9" * (size // 2),
    "ucs2": lambda size: "\u4e00" * (size // 3),
    "ucs4": lambda size: "\U0001f600" * (size // 4),
    "surrogates": lambda size: "\ud800" * (size // 3),
    "bytes": bytes,
    "bytearray": bytearray,
    "float": listed(1.5),
    "none": listed(None),
    "bool": listed(True),
    "complex": listed(1 + 2j),
    "decimal": lambda size: decimal.Decimal("1" * size),
    "fraction": listed(fractions.Fraction(1, 3)),
    "datetime": listed(datetime.datetime(2020, 1, 1)),
    "tuple": lambda size: tuple(range(1 << 16, (1 << 16) + size // 5)),
    "frozenset": lambda size: frozenset(range(1 << 16, (1 << 16) + size // 5)),
    "list": lambda size: ["a" * 1_000] * (size // 2_000) + ["b" * (size // 2)],
    "dict": lambda size: dict.fromkeys(range(1 << 16, (1 << 16) + size // 6)),
    "array": lambda size: array.array("d", bytes(size // 8 * 8)),
    "numpy": lambda size: np.arange(size, dtype=np.uint8),
    "numpy, two": lambda size: [np.zeros(size // 2, np.uint8), np.ones(size // 2, np.uint8)],
    "nested": lambda size: {"a": [(1 << 4 * size, bytes(size // 2)), "\u4e00" * (size // 6)]},
}


def equal(one: Any, other: Any) -> bool:
    return bool(np.array_equal(one, other) if "numpy" in repr(type(one)) else one == other)


@pytest.fixture(params=[1, 2])
async def pool(request: Any) -> AsyncIterator[Pool]:
    """A pool of one worker, which must outlive whatever the test does."""
    async with open_pool([Payloads], workers=1, threads=request.param) as pool:
        with trio.fail_after(PATIENCE):
            yield pool
            assert await pool.run_sync(Payloads.echo, "still here") == "still here"
        assert pool.statistics().restarts == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_every_type_arrives_at_every_size_in_every_place(pool: Pool, kind: str) -> None:
    for size in SIZES[1::4] if kind in MANY else SIZES:
        value = KINDS[kind](size)
        if kind == "numpy, two":
            found = await pool.run_sync(Payloads.echo, value)
            assert all(map(equal, found, value))
            continue
        assert equal(await pool.run_sync(Payloads.echo, value), value)
        async with pool.stream(Payloads.yields, value) as chunks:
            assert equal(await chunks.receive(), value)
            assert await chunks.receive() == 1
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            await pool.run_sync(Payloads.raises, value)
        assert equal(caught.value.args[0], value)


@pytest.mark.parametrize("view", [memoryview(bytes(300_000)), memoryview(bytearray(300_000))])
async def test_a_view_arrives_as_what_it_views(pool: Pool, view: memoryview) -> None:
    found = await pool.run_sync(Payloads.echo, pickle.PickleBuffer(view))
    assert (type(found), found) == (type(view.obj), view.obj)


async def test_arguments_of_every_size_find_an_action_of_every_length(pool: Pool) -> None:
    for length in (1, 20_000):
        for size in (1, 100_000, 130_000, 140_000, 600_000):
            with pytest.raises(ValueError, match="has no action"):
                await pool.execute(Payloads, "e" * length, 1 << 8 * size)


@pytest.mark.parametrize("threads", [1, 2])
async def test_long_reports_of_close_arrive(threads: int, caplog: pytest.LogCaptureFixture) -> None:
    with trio.fail_after(PATIENCE):
        async with open_pool(ENDINGS, workers=1, threads=threads) as pool:
            await pool.run_sync(len, b"")
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 10
    assert all("close() raised in worker 0" in message for message in messages)
    assert sum(map(len, messages)) > 10 * 20_000


async def test_a_long_report_of_a_boot_arrives() -> None:
    with pytest.raises(AppLoadError, match="\U0001f600" * 1_000):
        async with open_pool([RaisesAtItsBeginning], workers=1):
            raise AssertionError("it has not booted")


async def test_an_app_may_declare_any_number_of_workers() -> None:
    async with open_pool(["apps_payloads:DeclaresMuch"], workers=1) as pool:
        assert await pool.execute(DeclaresMuch, "echo", 1) == 1


# What decides


@pytest.mark.parametrize("length", [1, wire.SMALL_LIMIT, wire.SMALL_LIMIT + 1])
def test_a_report_is_small_or_large_by_its_length(length: int) -> None:
    frames = wire.value_frames(wire.RESULT, 7, [bytes(length)], 0.5)
    announced, kind, _, seconds, number = wire.HEADER.unpack_from(frames[0])
    assert (seconds, number) == (0.5, 7)
    assert announced <= wire.BODY_LIMIT
    is_large = length > wire.SMALL_LIMIT
    assert kind == wire.RESULT | (wire.LARGE if is_large else 0)
    assert len(frames) == 1 + is_large


def test_arguments_are_small_or_large_by_the_length_of_their_pickle() -> None:
    pickler = QuickPickler()
    overhead = len(pickle.dumps(1 << 8 * 100_000, 5)) - 100_000
    most = wire.SMALL_LIMIT - overhead
    pickled = pickler.dump(1 << 8 * most)
    assert pickled is not None
    assert len(pickled) == wire.SMALL_LIMIT
    assert pickler.dump(1 << 8 * (most + 1)) is None
    assert pickler.dump(1) == pickle.dumps(1, 5)


def test_a_frame_that_has_no_room_is_refused_and_not_taken_for_the_end() -> None:
    header = wire.HEADER.pack(wire.BODY_LIMIT + 1, wire.REQUEST, 0, 0.0, 1)
    one, other = socket.socketpair()
    with one, other:
        one.sendall(header)
        link = WorkerSocket(other, -1)
        with pytest.raises(ValueError, match="a frame of 262145 bytes was announced"):
            link.receive()
        one.sendall(header)
        frames = FrameSocket(other, lambda text: None)
        with pytest.raises(ValueError, match="a frame of 262145 bytes was announced"):
            frames._receive_nowait()
    with pytest.raises(ValueError, match="a body has at most 262144 bytes, was 262145"):
        wire.frame(wire.CLOSED, body=bytes(wire.BODY_LIMIT + 1))
    wire.check_length(wire.BODY_LIMIT)
