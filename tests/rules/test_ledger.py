"""What a worker is sent of its slot's queue, in which order, and what of it may have begun."""

from types import SimpleNamespace

import pytest
from hypothesis import given, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trio_dirty._rules.ledger import AHEAD_BYTES, AHEAD_LIMIT, Ledger, Queue, Window

WORKER = object()


class Request(SimpleNamespace):
    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other

    def __repr__(self):
        return f"<{self.number}>"


def request(number, size=100, *, large=False, streams=False):
    return Request(
        number=number,
        size=size,
        large=large,
        frames=[f"frame {number}"] if not large else [f"head {number}", f"segment {number}"],
        cancelled=False,
        streams=streams,
        place=None,
    )


def queue_of(*requests):
    queue = Queue()
    queue.put(requests)
    return queue


def take(ledger, queue, *notices):
    return [*ledger.take(queue, [*notices], WORKER)]


class LedgerMachine(RuleBasedStateMachine):
    """A queue and a ledger, against a worker that takes up in order and answers before it does."""

    ledger_type = Ledger

    def __init__(self):
        super().__init__()
        self.lanes = 2
        self.ledger = self.ledger_type(self.lanes)
        self.queue = Queue()
        self.number = 0
        self.queued, self.sent, self.begun = [], [], []
        self.ahead = 1

    @rule(
        count=st.integers(1, 5),
        large=st.sampled_from([False] * 9 + [True]),
        size=st.sampled_from([1] * 9 + [AHEAD_BYTES]),
        streams=st.sampled_from([False] * 9 + [True]),
    )
    def come(self, count, large, size, streams):
        for _ in range(count):
            self.queued.append(request(self.number, size, large=large, streams=streams))
            self.queue[self.queued[-1]] = None
            self.number += 1

    @rule(notices=st.sampled_from([[], ["notice"]]))
    def send(self, notices):
        expected = [*notices]
        before = len(self.sent)
        while self.queued:
            ahead = 0 if any(r.streams for r in self.sent) else self.ahead
            is_full = sum(r.size for r in self.sent) >= AHEAD_BYTES
            if len(self.sent) >= self.lanes + ahead or (is_full and len(self.sent) >= self.lanes):
                break
            first = self.queued[0]
            if first.large and (len(self.sent) >= self.lanes or expected):
                break
            self.sent.append(self.queued.pop(0))
            expected += first.frames
            if first.large:
                break
        assert take(self.ledger, self.queue, *notices) == expected
        assert [*self.ledger.begun_since(before)] == self.sent[before : self.lanes]
        assert all(r.place is WORKER for r in self.sent)

    @precondition(lambda self: len(self.begun) < min(self.lanes, len(self.sent)))
    @rule()
    def begin(self):
        self.begun.append(next(r for r in self.sent if r not in self.begun))

    @precondition(lambda self: self.begun)
    @rule(data=st.data(), seconds=st.sampled_from([None, 0.0, 1.0]))
    def answer(self, data, seconds):
        one = data.draw(st.sampled_from(self.begun))
        assert self.ledger.answered(one.number, seconds) is one
        self.sent.remove(one)
        self.begun.remove(one)
        self.ahead = self.ledger.window.ahead

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def leave_the_queue(self, data):
        some = data.draw(st.lists(st.sampled_from(self.queued), unique_by=id))
        self.queued = [r for r in self.queued if r not in some]
        self.queue.remove(some)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_caller_leaves(self, data):
        data.draw(st.sampled_from(self.sent)).cancelled = True

    @rule()
    def die(self):
        """Queue first what the worker had not begun."""
        begun, unbegun = self.ledger.settle()
        assert set(self.begun) <= set(begun)
        assert len(begun) <= self.lanes
        assert [*begun, *unbegun] == self.sent
        self.queue.put_first(unbegun)
        self.queued = unbegun + self.queued
        self.ledger = self.ledger_type(self.lanes)
        self.sent, self.begun, self.ahead = [], [], 1

    @rule()
    def let_go_of_the_queue(self):
        assert self.queue.take_all() == self.queued
        self.queued = []

    @invariant()
    def each_is_in_its_place(self):
        ledger = self.ledger
        assert [*self.queue] == self.queued
        assert [*ledger.entries.values()] == self.sent
        may = ledger.may_have_begun()
        assert may == self.sent[: self.lanes]
        assert set(self.begun) <= set(may)
        assert ledger.latest_sent() is (self.sent[-1:] or [None])[0]
        assert ledger.waiting == sum(not r.cancelled for r in self.sent[self.lanes :])
        assert ledger.size == sum(r.size for r in self.sent)
        assert ledger.streams == sum(r.streams for r in self.sent)
        assert repr(ledger) == f"<Ledger: {len(self.sent)} sent>"


test_at_most_once_by_the_ledger = LedgerMachine.TestCase


def test_a_ledger_that_is_settled_counts_anew():
    ledger = Ledger(1)
    for number in range(2):
        take(ledger, queue_of(request(number, streams=True)))
        ledger.settle()
        assert (ledger.size, ledger.streams) == (0, 0)


def test_an_answer_to_nothing_is_noticed():
    ledger = Ledger(1)
    take(ledger, queue_of(request(1)))
    ledger.answered(1)
    with pytest.raises(KeyError):
        ledger.answered(1)


def test_what_comes_back_goes_before_all_that_is_queued():
    first, second, third, fourth = map(request, range(4))
    queue = queue_of(third, fourth)
    queue.put_first([first, second])
    assert [*queue] == [first, second, third, fourth]
    queue.put_first([])
    assert len(queue) == 4


def test_as_many_are_sent_as_lanes_and_window_allow():
    ledger, queue = Ledger(1), queue_of(*map(request, range(5)))
    assert take(ledger, queue) == ["frame 0", "frame 1"]
    assert take(ledger, queue) == []
    ledger.answered(0, 1.0)
    assert take(ledger, queue) == ["frame 2"]


def test_many_tiny_ones_are_sent_ahead():
    ledger, queue = Ledger(1), queue_of(*map(request, range(200)))
    take(ledger, queue)
    for number in range(40):
        ledger.answered(number, 1e-6)
        take(ledger, queue)
    assert len(ledger.entries) == 1 + AHEAD_LIMIT


def test_what_is_skipped_says_nothing_about_how_long_requests_take():
    ledger = Ledger(1)
    take(ledger, queue_of(*map(request, range(3))))
    ledger.answered(0, None)
    assert ledger.window.ahead == 1
    assert ledger.window._average == Window()._average


def test_a_large_one_is_sent_alone_and_to_an_idle_worker_only():
    ledger = Ledger(1)
    queue = queue_of(request(0), request(1, 200_000, large=True), request(2))
    assert take(ledger, queue) == ["frame 0"]
    assert take(ledger, queue) == []
    ledger.answered(0, 1.0)
    assert take(ledger, queue) == ["head 1", "segment 1"]
    assert take(ledger, queue) == [], "so much is with the worker that nothing is sent ahead"
    ledger.answered(1, 1.0)
    assert take(ledger, queue) == ["frame 2"]


def test_with_several_lanes_a_large_one_is_sent_when_one_is_free():
    ledger = Ledger(2)
    large = (request(number, 200_000, large=True) for number in range(3))
    queue = queue_of(*large, request(3))
    assert take(ledger, queue) == ["head 0", "segment 0"]
    assert take(ledger, queue) == ["head 1", "segment 1"], "however large the other is"
    assert take(ledger, queue) == []
    ledger.answered(1, 1.0)
    assert take(ledger, queue) == ["head 2", "segment 2"]
    assert take(ledger, queue) == []
    ledger.answered(0, 1.0)
    assert take(ledger, queue) == ["frame 3"]


def test_a_notice_goes_before_a_large_one():
    ledger, queue = Ledger(1), queue_of(request(3, 200_000, large=True))
    assert take(ledger, queue, "notice") == ["notice"]
    assert take(ledger, queue) == ["head 3", "segment 3"]


def test_a_large_request_forgets_its_segments_when_they_are_handed_out():
    """Whose buffers they are may resize them as soon as they are sent."""
    large = request(1, large=True)
    ledger = Ledger(1)
    assert take(ledger, queue_of(large)) == ["head 1", "segment 1"]
    assert large.frames == ()


@pytest.mark.parametrize(
    ("size", "sent"), [(AHEAD_BYTES - 1, ["frame 0", "frame 1"]), (AHEAD_BYTES, ["frame 0"])]
)
def test_only_so_many_bytes_are_sent_ahead(size, sent):
    assert take(Ledger(1), queue_of(request(0, size), request(1))) == sent


def test_nothing_is_sent_ahead_behind_a_stream():
    ledger = Ledger(1)
    queue = queue_of(request(0), request(1, streams=True), request(2))
    assert take(ledger, queue) == ["frame 0", "frame 1"], "the stream itself is"
    ledger.answered(0, 1.0)
    assert take(ledger, queue) == []
    ledger.answered(1, 1.0)
    assert take(ledger, queue) == ["frame 2"]


@given(st.lists(st.floats(0, 10), min_size=1))
def test_the_window_is_at_least_one_and_bounded(durations):
    window = Window()
    assert window.ahead == 1
    for seconds in durations:
        window.observe(seconds)
        assert 1 <= window.ahead <= AHEAD_LIMIT
        if seconds >= 0.002:
            assert window.ahead == 1, "one ahead of a long one, at once"


def test_the_window_believes_short_requests_little_by_little():
    window = Window()
    for number in range(1, 100):
        window.observe(0.0)
        assert window.ahead == min(int((8 / 7) ** number), AHEAD_LIMIT)


@pytest.mark.parametrize(
    ("seconds", "ahead"),
    [(1e-6, AHEAD_LIMIT), (0.002 / 65, AHEAD_LIMIT), (0.002 / 5.5, 5), (0.0011, 1), (9.0, 1)],
)
def test_two_milliseconds_of_requests_are_sent_ahead(seconds, ahead):
    window = Window()
    for _ in range(200):
        window.observe(seconds)
    assert window.ahead == ahead
