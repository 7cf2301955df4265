"""A slot's backlog: in order in, in order out, and each request in one place."""

from types import SimpleNamespace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trio_dirty._common import wire
from trio_dirty._rules.backlog import Backlog
from trio_dirty._rules.ledger import AHEAD_BYTES, AHEAD_LIMIT
from trio_dirty._rules.limits import Limits


class Request(SimpleNamespace):
    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other

    def __repr__(self):
        return f"<{self.number}>"


def request(number, size=100, large=False):
    return Request(
        number=number,
        size=size,
        large=large,
        frames=[f"frame {number}"] if not large else [f"head {number}", f"segment {number}"],
        cancelled=False,
        key=None,
        streams=False,
        is_special=False,
        limits=Limits(),
    )


def nobody(request):
    raise AssertionError("nobody is to be told")


def quiet():
    return Backlog(1, nobody, tells_all=False)


def given(backlog, *requests):
    for one in requests:
        backlog.arrive(one)
    backlog.take_in()
    return backlog


class BacklogMachine(RuleBasedStateMachine):
    """A backlog against lists: what has arrived, is queued, is sent; and who was told of.

    When it is handed over, the next worker's has what has not been sent, and the former one's
    only ends what it has.
    """

    def __init__(self):
        super().__init__()
        self.lanes = 2
        self.told, self.ever_begun = [], []
        self.backlog = Backlog(self.lanes, self.told.append)
        self.number = 0
        self.arrived, self.queue, self.sent, self.begun = [], [], [], []
        self.notices = []
        self.ahead = 1
        self.former = []

    @rule(
        count=st.integers(1, 5),
        large=st.sampled_from([False] * 9 + [True]),
        size=st.sampled_from([1] * 9 + [AHEAD_BYTES]),
    )
    def arrive(self, count, large, size):
        for _ in range(count):
            self.arrived.append(request(self.number, size, large))
            self.backlog.arrive(self.arrived[-1])
            self.number += 1

    @rule()
    def take_in(self):
        self.backlog.take_in()
        self.queue += self.arrived
        self.arrived = []

    def begin(self):
        while len(self.begun) < min(self.lanes, len(self.sent)):
            self.begun.append(self.sent[len(self.begun)])
            self.ever_begun.append(self.begun[-1])

    @rule()
    def send(self):
        expected, self.notices = self.notices, []
        while self.queue and len(self.sent) < self.lanes + self.ahead:
            is_full = sum(r.size for r in self.sent) >= AHEAD_BYTES
            if is_full and len(self.sent) >= self.lanes:
                break
            first = self.queue[0]
            if first.large and (len(self.sent) >= self.lanes or expected):
                break
            self.sent.append(self.queue.pop(0))
            expected += first.frames
            if first.large:
                break
        self.begin()
        assert list(self.backlog.next_frames()) == expected

    @precondition(lambda self: self.begun)
    @rule(data=st.data(), seconds=st.sampled_from([None, 0.0, 1.0]))
    def answer(self, data, seconds):
        one = data.draw(st.sampled_from(self.begun))
        assert self.backlog.answered(one.number, seconds) is one
        self.backlog.begin_next()
        self.sent.remove(one)
        self.begun.remove(one)
        self.begin()
        self.ahead = self.backlog._ledger.window.ahead

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def leave_the_queue(self, data):
        one = data.draw(st.sampled_from(self.queue))
        self.queue.remove(one)
        one.cancelled = True
        assert self.backlog.withdraw(one) is True

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def leave_when_sent(self, data):
        one = data.draw(st.sampled_from(self.sent))
        if not one.cancelled:
            one.cancelled = True
            assert self.backlog.withdraw(one) is False
            self.notices.append(wire.frame(wire.WITHDRAW, one.number))

    @rule()
    def come_back(self):
        """Queue first what a lost worker had not begun, before what has arrived since."""
        self.take_in()
        begun, unbegun = self.backlog.let_go()
        assert begun == self.begun
        self.sent, self.begun, self.queue, self.notices = [], [], [], []
        self.ahead = 1
        self.arrive(2, large=False, size=1)
        self.take_in()
        back = [one for one in unbegun if not one.cancelled]
        self.backlog.put_first(iter(back))
        self.queue = back + self.queue

    @rule()
    def send_notices_only(self):
        assert list(self.backlog.next_notices()) == self.notices
        self.notices = []

    @rule()
    def hand_over(self):
        told = []
        former, arrive = self.backlog, self.backlog.arrive
        self.backlog = former.hand_over(told.append)
        assert former.arrive != arrive, "nothing more arrives there"
        assert self.backlog.arrive == arrive, "what may have been looked up is still right"
        told_then = self.told + self.sent[len(self.begun) :]
        self.former.append((former, self.told, told_then, self.sent, self.notices))
        self.told, self.ever_begun = told, []
        self.sent, self.begun, self.notices = [], [], []
        self.ahead = 1

    @precondition(lambda self: self.former)
    @rule()
    def a_former_worker_ends(self):
        former, told, told_then, sent, notices = self.former.pop(0)
        assert list(former.unsent()) == []
        assert list(former.next_frames()) == notices
        while sent:
            assert former.busy
            former.answered(sent.pop(0).number, 1.0)
            former.begin_next()
            assert former.executing() == sent[: self.lanes]
        assert not former.busy
        assert told == told_then
        assert former.let_go() == ([], [])

    @rule(data=st.data())
    def give_a_share(self, data):
        share = data.draw(st.lists(st.sampled_from(self.queue), unique_by=id)) if self.queue else []
        self.backlog.take_back(share)
        self.queue = [r for r in self.queue if r not in share]

    @rule()
    def let_go(self):
        self.take_in()
        begun, unbegun = self.backlog.let_go()
        assert begun == self.begun
        assert unbegun == [r for r in self.sent if r not in begun] + self.queue
        self.sent, self.begun, self.queue, self.notices = [], [], [], []
        self.ahead = 1

    @invariant()
    def each_is_in_its_place(self):
        backlog = self.backlog
        assert list(backlog.unsent()) == self.queue
        assert backlog.arrived == len(self.arrived)
        assert backlog.executing() == self.begun
        assert self.told == self.ever_begun
        ahead = [r for r in self.sent if r not in self.begun and not r.cancelled]
        assert backlog.queued == len(self.arrived) + len(self.queue) + len(ahead)
        assert backlog.busy == bool(self.arrived or self.queue or self.sent)
        assert repr(backlog) == (
            f"<Backlog: {len(self.arrived)} arrived, {len(self.queue)} queued, "
            f"{len(self.sent)} sent>"
        )


test_a_backlog_is_in_order = BacklogMachine.TestCase


def test_what_is_handed_over_is_all_that_was_not_sent():
    told = []
    former = given(Backlog(1, nobody, tells_all=False), *map(request, range(3)))
    former.next_frames()
    late, too_late = request(3), request(4)
    former.arrive(late)
    arrive = former.arrive
    backlog = former.hand_over(told.append)
    arrive(too_late)
    assert (former.load, backlog.load) == (2, 3)
    assert [one.number for one in backlog.unsent()] == [2]
    assert backlog.arrived == 2
    backlog.take_in()
    assert backlog.next_frames() == ["frame 2", "frame 3"]
    assert told == [], "it tells no more than the former one"
    assert given(former, request(5)).load == 3
    assert backlog.load == 3


def test_a_backlog_that_tells_of_all_is_handed_over_as_one():
    told = []
    backlog = given(Backlog(2, nobody).hand_over(told.append), *map(request, range(3)))
    backlog.next_frames()
    assert [one.number for one in told] == [0, 1]


def test_what_comes_back_goes_before_all_that_is_queued():
    backlog = given(quiet(), request(2), request(3))
    backlog.put_first(map(request, range(2)))
    assert [one.number for one in backlog.unsent()] == [0, 1, 2, 3]
    backlog.put_first([])
    assert backlog.load == 4


def test_notices_alone_are_sent_once_and_nothing_else():
    backlog = given(quiet(), request(0))
    assert list(backlog.next_notices()) == []
    backlog.notify("notice")
    backlog.notify("another")
    assert backlog.next_notices() == ["notice", "another"]
    assert backlog.next_notices() == []
    assert backlog.next_frames() == ["frame 0"]


def test_when_its_worker_has_ended_nobody_is_told():
    backlog = given(Backlog(1, nobody), request(0))
    backlog.tell_nobody()
    assert backlog.next_frames() == ["frame 0"]
    backlog.begin_next()


def test_as_many_are_sent_as_lanes_and_window_allow():
    backlog = given(quiet(), *map(request, range(5)))
    assert backlog.next_frames() == ["frame 0", "frame 1"]
    assert backlog.next_frames() == []
    backlog.answered(0, 1.0)
    assert backlog.next_frames() == ["frame 2"]


def test_many_tiny_ones_are_sent_ahead():
    backlog = given(quiet(), *map(request, range(200)))
    backlog.next_frames()
    for number in range(40):
        backlog.answered(number, 1e-6)
        backlog.next_frames()
    assert len(backlog._ledger.entries) == 1 + AHEAD_LIMIT


def test_what_is_skipped_says_nothing_about_how_long_requests_take():
    backlog = given(quiet(), *map(request, range(3)))
    backlog.next_frames()
    backlog.answered(0, None)
    assert backlog._ledger.window.ahead == 1
    assert backlog._ledger.window._average == quiet()._ledger.window._average


def test_a_large_one_is_sent_alone_and_to_an_idle_worker_only():
    backlog = given(quiet(), request(0), request(1, 200_000, large=True), request(2))
    assert backlog.next_frames() == ["frame 0"]
    assert backlog.next_frames() == []
    backlog.answered(0, 1.0)
    assert backlog.next_frames() == ["head 1", "segment 1"]
    assert backlog.next_frames() == [], "so much is with the worker that nothing is sent ahead"
    backlog.answered(1, 1.0)
    assert backlog.next_frames() == ["frame 2"]


def test_with_several_lanes_a_large_one_is_sent_when_one_is_free():
    backlog = Backlog(2, nobody, tells_all=False)
    given(backlog, *(request(number, 200_000, large=True) for number in range(3)), request(3))
    assert backlog.next_frames() == ["head 0", "segment 0"]
    assert backlog.next_frames() == ["head 1", "segment 1"], "however large the other is"
    assert backlog.next_frames() == []
    backlog.answered(1, 1.0)
    assert backlog.next_frames() == ["head 2", "segment 2"]
    assert backlog.next_frames() == []
    backlog.answered(0, 1.0)
    assert backlog.next_frames() == ["frame 3"]


def test_a_notice_goes_before_a_large_one():
    backlog = given(quiet(), request(0), request(1))
    backlog.next_frames()
    backlog.answered(0, 1.0)
    backlog.answered(1, 1.0)
    given(backlog, request(2), request(3, 200_000, large=True))
    backlog.next_frames()
    backlog.withdraw(next(iter(backlog.executing())))
    backlog.answered(2, None)
    assert backlog.next_frames() == [wire.frame(wire.WITHDRAW, 2)]
    assert backlog.next_frames() == ["head 3", "segment 3"]


def test_an_answer_to_nothing_is_noticed():
    with pytest.raises(KeyError):
        quiet().answered(0, 1.0)


def test_who_may_have_begun_since_an_answer_is_told_of():
    told = []
    backlog = given(Backlog(1, told.append), request(0), request(1))
    backlog.next_frames()
    assert [r.number for r in told] == [0]
    for _ in range(2):
        backlog.answered(len(told) - 1, 1.0)
        backlog.begin_next()
    assert [r.number for r in told] == [0, 1]


def test_nobody_needs_to_be_told():
    backlog = given(quiet(), request(0), request(1))
    assert backlog.next_frames() == ["frame 0", "frame 1"]
    backlog.answered(0, 1.0)
    assert not backlog.attentive


def test_what_has_limits_is_told_of_even_so():
    told = []
    backlog = Backlog(1, told.append, tells_all=False)
    timed = request(1)
    timed.is_special = True
    timed.limits = Limits(timeout=1.0, is_timed=True)
    given(backlog, request(0), timed, request(2))
    backlog.next_frames()
    assert backlog.attentive
    for number in range(3):
        backlog.answered(number, 1.0)
        backlog.begin_next()
        backlog.next_frames()
    assert timed in told
    assert not backlog.attentive


def test_what_is_withdrawn_when_it_was_sent_is_told_of_if_it_begins():
    told = []
    backlog = Backlog(1, told.append, tells_all=False)
    first, second = request(0), request(1)
    given(backlog, first, second)
    backlog.next_frames()
    second.cancelled = True
    assert not backlog.withdraw(second)
    assert backlog.attentive
    backlog.answered(0, 1.0)
    backlog.begin_next()
    assert told == [second]


@pytest.mark.parametrize(
    ("size", "sent"), [(AHEAD_BYTES - 1, ["frame 0", "frame 1"]), (AHEAD_BYTES, ["frame 0"])]
)
def test_only_so_many_bytes_are_sent_ahead(size, sent):
    backlog = given(quiet(), request(0, size), request(1))
    assert backlog.next_frames() == sent


def test_nothing_is_sent_ahead_behind_a_stream():
    stream = request(1)
    stream.streams = stream.is_special = True
    backlog = given(quiet(), request(0), stream, request(2))
    assert backlog.next_frames() == ["frame 0", "frame 1"], "the stream itself is"
    backlog.answered(0, 1.0)
    assert backlog.next_frames() == []
    backlog.answered(1, 1.0)
    assert backlog.next_frames() == ["frame 2"]


@pytest.mark.parametrize("max_queue", [0, 1, 3])
def test_there_is_room_for_as_many_as_may_wait(max_queue):
    backlog = Backlog(2, nobody, tells_all=False)
    for number in range(2 + max_queue):
        assert backlog.has_room(max_queue)
        given(backlog, request(number))
        if number % 2:
            backlog.next_frames()
    assert not backlog.has_room(max_queue)
    backlog.next_frames()
    assert not backlog.has_room(max_queue)
    assert backlog.load == 2 + max_queue


@pytest.mark.parametrize("max_queue", [0, 1, 3])
def test_what_a_free_lane_will_take_up_takes_no_room(max_queue):
    backlog = Backlog(2, nobody, tells_all=False)
    for number in range(2 + max_queue):
        assert backlog.has_room(max_queue)
        given(backlog, request(number))
    assert not backlog.has_room(max_queue)


def test_what_has_left_takes_no_room_though_the_worker_has_it():
    backlog = given(quiet(), request(0), request(1))
    backlog.next_frames()
    assert not backlog.has_room(1)
    ahead = backlog.sent(1)
    ahead.cancelled = True
    backlog.withdraw(ahead)
    assert backlog.has_room(1)
    assert not backlog.has_room(0), "the lane is taken"


def test_a_large_request_forgets_its_segments_when_they_are_handed_out():
    """Whose buffers they are may resize them as soon as they are sent."""
    large, small = request(1, large=True), request(2)
    backlog = given(quiet(), large, small)
    assert backlog.next_frames() == ["head 1", "segment 1"]
    assert large.frames == ()
    assert backlog.next_frames() == ["frame 2"]


def test_many_are_queued_behind_what_is_and_let_go_of_at_once():
    first, *others = (request(number) for number in range(4))
    backlog = given(quiet(), first)
    backlog.put_last(others)
    assert [*backlog.unsent()] == [first, *others]
    assert [*backlog.take_back_all()] == [first, *others]
    assert [*backlog.unsent()] == []
    assert not backlog.busy


def test_what_was_sent_last():
    backlog = Backlog(3, nobody, tells_all=False)
    assert backlog.latest_sent() is None
    first, second = request(0), request(1)
    given(backlog, first, second).next_frames()
    assert backlog.latest_sent() is second
    backlog.answered(1)
    assert backlog.latest_sent() is first
