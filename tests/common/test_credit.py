"""How far a worker may run ahead of a stream's reader."""

import pytest
from hypothesis import example, given, strategies as st

from trio_dirty._common.credit import BYTES_AHEAD, CHUNKS_AHEAD, CreditWindow

sizes = st.one_of(st.integers(0, 100), st.integers(0, 2 * BYTES_AHEAD))


def filled(sizes):
    """Return what is ahead when the reader takes nothing."""
    window, ahead = CreditWindow(), []
    for size in sizes:
        if not window.is_open:
            break
        window.add(size)
        ahead.append(size)
    return ahead


def test_small_chunks_are_bounded_by_their_number():
    assert len(filled([16] * 5_000)) == CHUNKS_AHEAD


@given(st.integers(1, BYTES_AHEAD))
@example(BYTES_AHEAD // 2)
def test_chunks_of_a_size_are_bounded_by_their_bytes(size):
    ahead = filled([size] * 5_000)
    assert len(ahead) == min(CHUNKS_AHEAD, BYTES_AHEAD // size)


def test_a_larger_chunk_goes_alone():
    assert filled([BYTES_AHEAD + 1] * 3) == [BYTES_AHEAD + 1]


@given(st.lists(sizes, max_size=50))
def test_whatever_comes_at_most_one_is_above_what_was_expected(several):
    ahead = filled(several)
    if len(ahead) > 1:
        assert sum(ahead[:-1]) <= BYTES_AHEAD


def test_a_single_large_one_is_forgotten():
    window = CreditWindow()
    window.add(BYTES_AHEAD)
    window.give_back(1, BYTES_AHEAD)
    for _ in range(100):
        window.add(16)
        window.give_back(1, 16)
    while window.is_open:
        window.add(16)
    assert window.chunks == CHUNKS_AHEAD


@pytest.mark.parametrize(("more", "is_open"), [(0, True), (1, False)])
def test_a_large_one_is_forgotten_by_an_eighth_with_each_that_is_smaller(more, is_open):
    window = CreditWindow()
    window.add(BYTES_AHEAD // 2)
    window.add(BYTES_AHEAD // 16 + more)  # after which seven sixteenths are expected
    assert window.is_open == is_open


def test_what_the_reader_has_taken_is_taken_off():
    window = CreditWindow()
    for size in (5, 7, 9):
        window.add(size)
    window.give_back(2, 12)
    assert (window.chunks, window.size) == (1, 9)


@given(st.lists(st.tuples(sizes, st.booleans()), max_size=60))
def test_both_sides_reckon_alike(steps):
    """The pool counts what arrives, and what it gives back, as the worker does."""
    worker, pool = CreditWindow(), CreditWindow()
    taken: list[int] = []
    for size, reads in steps:
        if worker.is_open:
            worker.add(size)
            pool.add(size)
            taken.append(size)
        if reads and taken:
            pool.give_back(len(taken), sum(taken))
            worker.give_back(len(taken), sum(taken))
            taken.clear()
        assert worker.is_open == pool.is_open
    if taken:
        worker.give_back(len(taken), sum(taken))
    assert worker.is_open, "an idle reader is never waited for"
