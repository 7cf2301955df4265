"""Frames: what one side packs is what the other side reads."""

import pytest
from hypothesis import given, strategies as st
from messages import whole

from trio_dirty._common import wire
from trio_dirty._common.pickling import QuickPickler
from trio_dirty._common.wire import HEADER, LARGE, frame, large_frame, large_size

KINDS = [
    *(wire.REQUEST, wire.WITHDRAW, wire.CLOSE),
    *(wire.READY, wire.FAILED, wire.RESULT, wire.ERROR, wire.SKIPPED, wire.CLOSED),
]

kinds = st.sampled_from(KINDS)
numbers = st.integers(0, 2**64 - 1)
seconds = st.floats(0, width=32, allow_infinity=False)
segments = st.one_of(st.binary(), st.binary().map(bytearray), st.binary().map(memoryview))


def test_kinds_differ_and_leave_the_mark_of_large_frames_free():
    assert len(set(KINDS)) == len(KINDS)
    assert not any(kind & LARGE for kind in KINDS)


@given(kinds, numbers, st.binary(), st.binary(), seconds)
def test_a_frame_is_read_as_it_was_packed(kind, number, body, target, seconds):
    data = frame(kind, number, body, target=target, seconds=seconds)
    expected = (len(data) - HEADER.size, kind, len(target), seconds, number)
    assert HEADER.unpack_from(data) == expected
    assert data[HEADER.size :] == target + body


def test_a_frame_may_have_nothing_but_its_kind():
    assert frame(wire.CLOSE) == HEADER.pack(0, wire.CLOSE, 0, 0.0, 0)


def test_the_longest_target_fits_a_header():
    data = frame(wire.REQUEST, target=bytes(wire.TARGET_LIMIT))
    assert HEADER.unpack_from(data)[2] == wire.TARGET_LIMIT


def test_a_body_has_room_for_the_longest_target_and_the_largest_small_pickle():
    pickled = QuickPickler().dump([bytes(65_000), bytes(65_535)])
    assert len(pickled) > 2 * 65_000
    assert wire.TARGET_LIMIT + len(pickled) <= wire.BODY_LIMIT


@given(kinds, numbers, st.lists(segments), st.binary(), seconds)
def test_a_large_frame_tells_how_much_follows_it(kind, number, segments, target, seconds):
    head, *following = large_frame(kind, number, segments, target=target, seconds=seconds)
    assert following == segments
    assert HEADER.unpack_from(head)[1:] == (kind | LARGE, len(target), seconds, number)
    body = head[HEADER.size :]
    assert HEADER.unpack_from(head)[0] == len(body)
    assert body.startswith(target)
    assert large_size(body) == large_size(memoryview(body)) == len(b"".join(segments))


def test_a_large_frame_may_have_neither_target_nor_duration():
    (head,) = large_frame(wire.RESULT, 7, [])
    assert head == HEADER.pack(8, wire.RESULT | LARGE, 0, 0.0, 7) + bytes(8)


@pytest.mark.parametrize("size", [0, 1, 2**16, 2**40])
def test_the_size_is_in_the_last_eight_bytes(size):
    assert large_size(b"a target" + size.to_bytes(8, "little")) == size


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 60), st.integers(0, 1 << 60))
def test_two_numbers_arrive_as_they_were(number, first, second):
    data = wire.pair_frame(wire.CREDIT, number, first, second)
    length, kind, target, _, told = HEADER.unpack_from(data)
    body = data[HEADER.size :]
    assert (length, kind, target, told) == (len(body), wire.CREDIT, 0, number)
    assert wire.pair(body) == (first, second)


@pytest.mark.parametrize("length", [0, 1, wire.SMALL_LIMIT, wire.SMALL_LIMIT + 1])
def test_a_value_is_small_or_large_by_its_length(length):
    frames = wire.value_frames(wire.RESULT, 7, [bytes(length)], 0.5)
    if length > wire.SMALL_LIMIT:
        assert frames == large_frame(wire.RESULT, 7, [bytes(length)], seconds=0.5)
    else:
        assert frames == (frame(wire.RESULT, 7, bytes(length), seconds=0.5),)


def test_a_value_of_several_segments_is_large():
    assert wire.value_frames(wire.CHUNK, 7, [b"a", b"b"]) == large_frame(
        wire.CHUNK, 7, [b"a", b"b"]
    )
    assert HEADER.unpack_from(wire.value_frames(wire.CHUNK, 7, [b"a"])[0])[3] == 0.0


def test_the_longest_target_and_the_largest_small_pickle_have_room():
    frame(wire.REQUEST, body=bytes(wire.SMALL_LIMIT), target=bytes(wire.TARGET_LIMIT))
    wire.check_length(wire.TARGET_LIMIT + wire.SMALL_LIMIT)


def test_what_has_no_room_is_refused_on_both_sides():
    most = wire.BODY_LIMIT
    assert len(frame(wire.CLOSED, body=bytes(most - 1), target=b"t")) == HEADER.size + most
    with pytest.raises(ValueError, match=whole(f"a body has at most {most} bytes, was {most + 1}")):
        frame(wire.CLOSED, body=bytes(most), target=b"t")
    wire.check_length(most)
    text = f"a frame of {most + 1} bytes was announced, and {most} are the most"
    with pytest.raises(ValueError, match=whole(text)):
        wire.check_length(most + 1)
