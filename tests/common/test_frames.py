"""The reader of frames: however a stream of bytes is split, the same frames come out of it."""

import pytest
from hypothesis import given, strategies as st
from messages import whole

from trio_dirty._common import wire
from trio_dirty._common.frames import FrameReader, read_frames
from trio_dirty._common.wire import BODY_LIMIT, HEADER, LARGE, frame, large_frame, large_size

MOST = 2 * BODY_LIMIT

numbers = st.integers(0, 2**64 - 1)
seconds = st.floats(0, width=32, allow_infinity=False)
targets = st.binary(max_size=20)
lengths = st.one_of(st.integers(0, 40), st.integers(0, BODY_LIMIT - 20))


@st.composite
def small(draw):
    kind = draw(st.sampled_from([wire.REQUEST, wire.CREDIT, wire.RESULT, wire.CHUNK]))
    body = bytes([draw(st.integers(0, 255))]) * draw(lengths)
    number, target, took = draw(numbers), draw(targets), draw(seconds)
    return frame(kind, number, body, target=target, seconds=took), (
        *(kind, number, took, target, body),
    )


@st.composite
def large(draw):
    kind = draw(st.sampled_from([wire.REQUEST, wire.RESULT]))
    number, target, took = draw(numbers), draw(targets), draw(seconds)
    segments = [
        bytes([draw(st.integers(0, 255))]) * length
        for length in draw(st.lists(st.integers(0, MOST), max_size=3))
    ]
    data = b"".join(large_frame(kind, number, segments, target=target, seconds=took))
    return data, (kind | LARGE, number, took, target, b"".join(segments))


streams = st.lists(st.one_of(small(), large()), max_size=8)


def read(data, sizes, *, copies):
    """Return the frames of data that arrives in pieces of these sizes, over and over."""
    reader = FrameReader(copies=copies)
    data, at, turn, found = memoryview(data), 0, 0, []

    def arrive(room):
        nonlocal at, turn
        size = min(sizes[turn % len(sizes)], len(room), len(data) - at)
        turn += 1
        room[:size] = data[at : at + size]
        at += size
        return size

    while at < len(data):
        assert len(reader.room) > 0
        frames = reader.received(arrive(reader.room))
        while frames:
            for kind, number, took, target, body in frames:
                value = bytes(body)
                if kind & LARGE:
                    size = large_size(body)
                    value = bytearray(reader.take(size))
                    while len(value) < size:
                        piece = bytearray(size - len(value))
                        value += piece[: arrive(memoryview(piece))]
                found.append((kind, number, took, bytes(target), bytes(value)))
            frames = reader.received()
    assert reader.received() == []
    return found


@given(streams, st.lists(st.integers(1, 3 * BODY_LIMIT), min_size=1, max_size=5), st.booleans())
def test_frames_arrive_as_they_were_sent_however_they_are_split(stream, sizes, copies):
    data = b"".join(sent for sent, _ in stream)
    assert read(data, sizes, copies=copies) == [expected for _, expected in stream]


@pytest.mark.parametrize("copies", [True, False])
def test_every_split_in_two_yields_the_same(copies):
    first = frame(wire.REQUEST, 1, b"arguments", target=b"target", seconds=1.0)
    second = b"".join(large_frame(wire.STREAM, 2, [b"some", b"segments"], target=b"t"))
    third = frame(wire.CLOSE)
    data = first + second + third
    expected = [
        (wire.REQUEST, 1, 1.0, b"target", b"arguments"),
        (wire.STREAM | LARGE, 2, 0.0, b"t", b"somesegments"),
        (wire.CLOSE, 0, 0.0, b"", b""),
    ]
    for split in range(1, len(data)):
        assert read(data, [split, len(data)], copies=copies) == expected
    assert read(data, [1], copies=copies) == expected


def receive(reader, data):
    reader.room[: len(data)] = data
    return reader.received(len(data))


@pytest.mark.parametrize(("copies", "kind"), [(True, bytes), (False, memoryview)])
def test_bodies_are_copied_on_request(copies, kind):
    [(_, _, _, target, body)] = receive(
        FrameReader(copies=copies), frame(wire.REQUEST, 1, b"body", target=b"target")
    )
    assert (type(target), type(body)) == (kind, kind)
    assert (target, body) == (b"target", b"body")


@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_is_moved_is_not_moved_over_frames_that_have_been_returned(copies, count):
    """With views of the buffer, it would be: they begin where the rest is moved to."""
    sent = frame(wire.RESULT, 1, b"x" * BODY_LIMIT)
    rest = frame(wire.RESULT, 2, b"y" * BODY_LIMIT)[: MOST - len(sent) - count]
    reader = FrameReader(copies=copies)
    [(_, number, _, _, body)] = receive(reader, sent + rest)
    assert number == 1
    assert bytes(body) == b"x" * BODY_LIMIT
    assert len(reader.room) == MOST - len(rest)


def test_bodies_are_copied_by_default():
    [(*_, body)] = receive(FrameReader(), frame(wire.RESULT, 1, b"body"))
    assert type(body) is bytes


def test_a_buffer_that_has_been_read_is_used_from_its_beginning():
    reader = FrameReader()
    data = frame(wire.RESULT, 1, b"value")
    assert receive(reader, data[:5]) == []
    assert len(reader.room) == MOST - 5
    assert len(receive(reader, data[5:])) == 1
    assert len(reader.room) == MOST
    assert len(receive(reader, data + data[:7])) == 1
    assert len(reader.room) == MOST - len(data) - 7


def test_the_rest_is_moved_when_half_of_the_buffer_has_been_used():
    reader = FrameReader()
    whole_frame = frame(wire.RESULT, 1, bytes(BODY_LIMIT - HEADER.size - 1))
    assert len(whole_frame) == BODY_LIMIT - 1
    assert len(receive(reader, whole_frame + b"\0")) == 1
    assert len(reader.room) == BODY_LIMIT
    assert receive(reader, b"\0") == []
    assert len(reader.room) == MOST - 2


@pytest.mark.parametrize("length", [BODY_LIMIT + 1, 2**32 - 1])
def test_a_frame_that_there_is_no_room_for_is_refused(length):
    message = f"a frame of {length} bytes was announced, and {BODY_LIMIT} are the most"
    reader = FrameReader()
    first = frame(wire.RESULT, 1, b"value")
    header = HEADER.pack(length, wire.RESULT, 0, 0.0, 1)
    assert receive(reader, header[:-1]) == []
    with pytest.raises(ValueError, match=whole(message)):
        receive(reader, header[-1:])
    with pytest.raises(ValueError, match=whole(message)):
        receive(FrameReader(copies=False), first + header)


def test_the_largest_frame_is_read():
    body = bytes(BODY_LIMIT)
    for copies in (True, False):
        [(*_, found)] = read(frame(wire.CLOSED, 0, body), [100_000], copies=copies)
        assert found == body


@given(streams)
def test_whole_data_is_read_in_one_go(stream):
    data = b"".join(sent for sent, _ in stream)
    expected = [(kind & ~LARGE, *others) for _, (kind, *others) in stream]
    assert [
        (kind, number, took, target, bytes(body))
        for kind, number, took, target, body in read_frames(data)
    ] == expected
