"""What is pickled at once, and what takes too long for that."""

import pickle
from array import array

import numpy as np
import pytest
from hypothesis import given, strategies as st

from trio_dirty._common.pickling import BUFFERS_LIMIT, QuickPickler
from trio_dirty._common.segments import read_whole
from trio_dirty._common.wire import SMALL_LIMIT

LARGE = 100_000
"""Bytes that the pickler writes by themselves."""


def loaded(pickled):
    data = pickled if isinstance(pickled, bytes) else b"".join(pickled)
    return read_whole(data).load()


small = st.recursive(
    st.none() | st.integers() | st.text(max_size=20) | st.binary(max_size=20),
    lambda children: st.lists(children, max_size=5),
)
buffers = st.sampled_from([bytes(LARGE), bytearray(LARGE), bytes(70_000), b"x" * 65_536])


@given(st.lists(small | buffers, max_size=6))
def test_what_is_pickled_at_once_is_read_as_it_was(values):
    pickler = QuickPickler()
    for _ in range(2):
        assert loaded(pickler.dump(values)) == values


@pytest.mark.parametrize(
    "make", [bytes, bytearray, lambda size: np.zeros(size, "u1"), lambda size: [bytes(size)]]
)
def test_a_large_buffer_is_handed_over_at_once_and_not_copied(make):
    value = make(LARGE)
    pickled = QuickPickler().dump(value)
    assert isinstance(pickled, list)
    (large,) = (segment for segment in pickled if len(segment) == LARGE)
    if isinstance(value, bytes):
        assert large is value
    elif not isinstance(value, list):
        assert memoryview(large).obj is not None
        assert np.shares_memory(np.frombuffer(large, "u1"), np.frombuffer(value, "u1"))
    assert np.array_equal(loaded(pickled), value)


@pytest.mark.parametrize(
    "value",
    [
        list(range(LARGE)),
        ["x" * 1_000] * LARGE + [object] * LARGE,
        [str(number) for number in range(LARGE)],
        ["x" * LARGE, "y" * LARGE],
        [1 << (8 * 2 * LARGE)],
        bytes(BUFFERS_LIMIT + 1),
        [bytearray(BUFFERS_LIMIT // 2 + 1), bytes(BUFFERS_LIMIT // 2 + 1)],
        [array("b", bytes(LARGE)) for _ in range(100)],
    ],
)
def test_what_takes_long_is_given_up_and_leaves_nothing_behind(value):
    pickler = QuickPickler()
    assert pickler.dump(value) is None
    assert pickler.dump([1]) == pickle.dumps([1], 5)


def test_as_much_is_pickled_at_once_as_takes_a_millisecond():
    pickler = QuickPickler()
    overhead = len(pickle.dumps([bytes(1_000)] * 2 + [None], 5)) - 1_000
    values = [bytes([number]) * 1_000 for number in range((SMALL_LIMIT - overhead) // 1_100)]
    assert isinstance(pickler.dump(values), bytes | list)
    assert pickler.dump([values, values[0] + b"x", bytes(30_000), bytes(40_000)]) is None
    assert loaded(pickler.dump([values, bytes(BUFFERS_LIMIT // 2)]))[0] == values


class Fails:
    def __reduce__(self):
        raise ValueError("no")


def test_a_value_that_does_not_pickle_keeps_no_buffer():
    pickler, data = QuickPickler(), bytearray(LARGE)
    with pytest.raises(ValueError, match="no"):
        pickler.dump([data, Fails()])
    data.append(1)  # a BufferError where it is kept
    assert pickler.dump(1) == pickle.dumps(1, 5)


def test_a_value_that_is_given_up_keeps_no_buffer():
    pickler, data = QuickPickler(), bytearray(LARGE)
    assert pickler.dump([data, list(range(LARGE))]) is None
    data.append(1)
