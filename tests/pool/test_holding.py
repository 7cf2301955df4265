"""Large texts and arrays are taken piece by piece, and what cannot be sent is named in a thread."""

from __future__ import annotations

import array
import itertools
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import trio
from apps_payloads import Payloads
from scripts.harness import PATIENCE

from trio_dirty import open_pool
from trio_dirty._common.pieces import TEXT_PIECE, dump_slowly, instead_of, is_slow, join_text
from trio_dirty._common.wire import SMALL_LIMIT
from trio_dirty._engines import threads
from trio_dirty._worker.outcomes import OutcomeEncoder

LENGTH = 3 * TEXT_PIECE + 7

TEXTS = {
    "ascii": "a" * LENGTH,
    "latin1": "\xe9" * LENGTH,
    "ucs2": "\u4e00" * LENGTH,
    "ucs4": "\U0001f600" * LENGTH,
    "surrogates": "\ud800" * LENGTH,
    "wide at its end": "a" * LENGTH + "\U0001f600",
    "wider and wider": "a" * TEXT_PIECE + "\xe9" * TEXT_PIECE + "\u4e00" * TEXT_PIECE,
}

ARRAYS = [array.array(code, bytes(LENGTH * 8)) for code in "bBhHiIlLqQfd"]


@pytest.mark.parametrize("threads", [1, 2])
async def test_long_texts_and_arrays_go_there_and_back(threads: int) -> None:
    with trio.fail_after(PATIENCE):
        async with open_pool([Payloads], workers=1, threads=threads) as pool:
            for value in (*TEXTS.values(), *ARRAYS):
                assert await pool.run_sync(Payloads.echo, value) == value
                assert await pool.run_sync(Payloads.echo, value=value) == value
                found, again = await pool.execute(Payloads, "pair", value, value)
                assert found == value
                assert found is again


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_is_encoded_in_pieces(text: str) -> None:
    stops = []
    segments = dump_slowly((text,), {"name": text}, lambda: stops.append(1))
    assert len(stops) >= LENGTH / TEXT_PIECE
    assert max(map(len, segments)) <= 4 * TEXT_PIECE
    assert pickle.loads(b"".join(segments)) == ((text,), {"name": text})


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_is_joined_in_pieces(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stops: list[int] = []
    monkeypatch.setattr(threads, "yield_lock", lambda: stops.append(1))
    frames = OutcomeEncoder().result(text, 1, 0.0)
    assert pickle.loads(b"".join(frames[1:])) == text
    assert len(stops) >= 3


def test_texts_of_all_widths_are_joined_as_python_joins_them() -> None:
    widths = ["", "a", "\xe9", "abc", "\xe9x", "\u4e00", "\u4e00\xe9", "\U0001f600a", "\ud800"]
    for texts in itertools.product(widths, repeat=3):
        joined = join_text(*(text.encode("utf-8", "surrogatepass") for text in texts))
        expected = "".join(texts)
        assert joined == expected
        assert hash(joined) == hash(expected)
        assert joined.isascii() == expected.isascii()
    text = join_text(b"a" * 1_000, b"b")
    assert sys.getrefcount(text) == 2
    assert join_text() == ""


def test_an_array_is_not_copied() -> None:
    value = array.array("d", bytes(800_000))
    segments = dump_slowly((value,), {}, lambda: None)
    with pytest.raises(BufferError):
        value.append(1)
    value[0] = 7
    assert pickle.loads(b"".join(segments)) == ((value,), {})


@pytest.mark.parametrize(
    ("make", "slow"),
    [
        (lambda: "a" * SMALL_LIMIT, False),
        (lambda: "a" * (SMALL_LIMIT + 1), True),
        (lambda: array.array("b", bytes(SMALL_LIMIT)), False),
        (lambda: array.array("b", bytes(SMALL_LIMIT + 1)), True),
        (lambda: array.array("u", "a" * SMALL_LIMIT), False),
        (lambda: bytes(SMALL_LIMIT + 1), False),
        (lambda: type("array", (), {})(), False),
    ],
)
@pytest.mark.filterwarnings("ignore:The 'u' type code")
def test_what_is_slow(make: Callable[[], Any], slow: bool) -> None:
    value = make()
    assert is_slow(value) == slow
    assert (instead_of(value, lambda: None) is not value) == slow


class NotesItsThread:
    """Does not pickle, and notes in which thread that was tried."""

    threads: list[int] = []  # noqa: RUF012

    def __reduce__(self) -> NoReturn:
        self.threads.append(threading.get_ident())
        raise ValueError("no way")


async def test_what_does_not_pickle_behind_what_is_large_is_named_in_a_thread() -> None:
    NotesItsThread.threads.clear()
    async with open_pool([Payloads], workers=1) as pool:
        with pytest.raises(TypeError, match=r"argument 2, NotesItsThread, of .* no way"):
            await pool.execute(Payloads, "echo", "a" * 1_000_000, NotesItsThread())
    assert len(NotesItsThread.threads) == 2
    assert threading.get_ident() not in NotesItsThread.threads


def test_a_long_text_of_an_exception_is_cut_where_the_exception_does_not_need_it() -> None:
    error = ValueError("a" * 3_000_000)
    frames = OutcomeEncoder().error(error, 1, 0.0)
    assert sum(map(len, frames)) < 3_000_000 + 100_000
