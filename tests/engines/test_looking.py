"""What is known of the other end of a socket, and when it is received_at at."""

import os
import socket
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from trio_dirty import RequestCancelled
from trio_dirty._common import wire
from trio_dirty._engines.socket import FrameSocket
from trio_dirty._worker.lane import Lane
from trio_dirty._worker.socket import WorkerSocket


@contextmanager
def linked():
    ours, theirs = socket.socketpair()
    lifeline, pool_end = os.pipe()
    link = WorkerSocket(theirs, lifeline)
    try:
        yield ours, link
    finally:
        ours.close()
        link.close()
        os.close(lifeline)
        os.close(pool_end)


def test_a_look_that_finds_nothing_counts_as_one():
    with linked() as (_, link):
        link.receive_nowait()
        received_at = link.lane.received_at
        assert received_at > 0
        link.receive_nowait()
        assert link.lane.received_at > received_at


def test_a_caller_that_leaves_is_seen_when_it_is_received_at_for():
    with linked() as (ours, link):
        link.lane.begin(7)
        link.lane.check_cancelled()
        ours.sendall(wire.frame(wire.WITHDRAW, 7))
        link.lane.received_at = 0.0
        with pytest.raises(RequestCancelled):
            link.lane.check_cancelled()


def test_a_large_request_that_is_withdrawn_in_the_same_moment_blocks_nothing():
    """All of it has arrived, and nobody will read its segments."""
    with linked() as (ours, link):
        frames = wire.large_frame(wire.REQUEST, 5, [bytes(100_000)], target=b"target")
        ours.sendall(b"".join(frames) + wire.frame(wire.WITHDRAW, 5))
        assert link.take_up(link.lane)[1] == 5
        assert link.lane.abandoned
        ours.sendall(wire.frame(wire.REQUEST, 6, b"arguments", target=b"target"))
        link.receive_nowait()
        assert link._queue, "it is not parsed"
        assert link.take_up(link.lane) == (wire.REQUEST, 6, 0.0, b"target", b"arguments")


def test_another_thread_does_not_read_what_the_worker_reads():
    looks = []
    lane = Lane(lambda: looks.append(threading.get_ident()))
    thread = threading.Thread(target=lane.check_cancelled)
    thread.start()
    thread.join()
    assert looks == []
    lane.check_cancelled()
    assert looks == [threading.get_ident()]


@contextmanager
def frames():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield theirs, FrameSocket(ours, print)


def test_what_can_be_received_is_unread():
    with frames() as (worker, socket_of_pool):
        assert not socket_of_pool.unread()
        worker.sendall(b"x")
        assert socket_of_pool.unread()


def test_a_large_reply_that_a_thread_has_received_whole_is_about_to_be_returned():
    with frames() as (_, socket_of_pool):
        socket_of_pool._segments = SimpleNamespace(remaining=0)
        assert [socket_of_pool.unread() for _ in range(3)] == [True] * 3


def test_a_large_reply_whose_rest_does_not_come_is_not():
    """It takes two looks: at the first, the thread may have received and not counted yet."""
    with frames() as (_, socket_of_pool):
        reader = socket_of_pool._segments = SimpleNamespace(remaining=500)
        assert [socket_of_pool.unread() for _ in range(3)] == [True, False, False]
        reader.remaining = 400
        assert [socket_of_pool.unread() for _ in range(2)] == [True, False]
