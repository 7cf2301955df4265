"""What is to be done about requests that have begun, and when."""

import math
from types import SimpleNamespace

import pytest

from trio_dirty._common.wire import CANCELLED, SOFT_TIMEOUT
from trio_dirty._rules.deadlines import EARLY_SECONDS, KILL_PATIENCE, TIMEOUT, Order, Oversight
from trio_dirty._rules.limits import Limits

GRACE = 5.0


def request(number=0, **limits):
    return SimpleNamespace(number=number, limits=Limits(**limits))


def orders(oversight, until):
    """Return what is ordered when, until then; a kill is ordered only once more."""
    found = []
    now = 0.0
    while (at := max(now, oversight.next_time())) <= until:
        now = at
        while (order := oversight.order(now)) is not None:
            found.append((now, order))
            if order.action == "kill":
                oversight.ended(order.request.number)
    return found


def test_nothing_is_to_be_done_about_nothing():
    oversight = Oversight(GRACE)
    assert oversight.next_time() == math.inf
    assert oversight.order(1e9) is None


def test_a_time_out_kills_when_it_has_passed():
    oversight, timed = Oversight(GRACE), request(timeout=2.0)
    oversight.begun(timed, 10.0)
    assert oversight.order(11.9) is None
    assert oversight.next_time() == 12.0
    assert oversight.order(12.0) == Order(timed, "kill", TIMEOUT)
    assert oversight.order(12.0) == Order(timed, "kill", TIMEOUT), "as long as it has not ended"
    oversight.ended(0)
    assert oversight.order(12.0) is None


def test_a_moment_too_early_is_in_time():
    oversight, timed = Oversight(GRACE), request(timeout=2.0)
    oversight.begun(timed, 0.0)
    assert oversight.order(2.0 - EARLY_SECONDS / 2) is not None


@pytest.mark.parametrize(
    ("limits", "action", "reason"),
    [
        ({"timeout": EARLY_SECONDS}, "kill", TIMEOUT),
        ({"soft_timeout": EARLY_SECONDS}, "interrupt", SOFT_TIMEOUT),
    ],
)
def test_as_much_too_early_as_may_be_is_in_time(limits, action, reason):
    oversight, timed = Oversight(GRACE), request(**limits)
    oversight.begun(timed, 0.0)
    assert oversight.order(0.0) == Order(timed, action, reason)


def test_an_interrupt_may_be_as_much_too_early():
    oversight, cancelled = Oversight(GRACE), request(on_cancel="interrupt")
    oversight.left(cancelled, EARLY_SECONDS)
    assert oversight.order(0.0) == Order(cancelled, "interrupt", CANCELLED)


def test_a_soft_time_out_interrupts_once_and_the_hard_one_kills_later():
    oversight, timed = Oversight(GRACE), request(timeout=3.0, soft_timeout=1.0)
    oversight.begun(timed, 0.0)
    assert orders(oversight, 10) == [
        (1.0, Order(timed, "interrupt", SOFT_TIMEOUT)),
        (3.0, Order(timed, "kill", TIMEOUT)),
    ]


def test_to_begin_again_changes_nothing():
    oversight, timed = Oversight(GRACE), request(timeout=2.0)
    oversight.begun(timed, 0.0)
    oversight.begun(timed, 1.0)
    assert oversight.next_time() == 2.0


def test_each_step_of_a_stream_has_its_own_time():
    oversight, timed = Oversight(GRACE), request(timeout=3.0, soft_timeout=1.0)
    oversight.begun(timed, 0.0)
    assert oversight.order(1.0) == Order(timed, "interrupt", SOFT_TIMEOUT, steps=0)
    oversight.stepped(0, 4, 1.5)
    assert oversight.order(2.4) is None
    assert oversight.order(2.5) == Order(timed, "interrupt", SOFT_TIMEOUT, steps=4)
    assert oversight.next_time() == 4.5
    oversight.stepped(0, 3, 4.0)
    assert oversight.order(5.0) == Order(timed, "interrupt", SOFT_TIMEOUT, steps=7)


def test_the_time_of_its_reader_does_not_count():
    oversight, timed = Oversight(GRACE), request(timeout=3.0, soft_timeout=1.0)
    oversight.begun(timed, 0.0)
    oversight.stepped(0, 1, math.inf)
    assert oversight.next_time() == math.inf
    oversight.resumed(0, 100.0)
    assert oversight.next_time() == 101.0
    oversight.resumed(0, 100.5)
    assert oversight.next_time() == 101.0, "it goes on already"


@pytest.mark.parametrize("number", [0, 7])
def test_steps_of_what_is_not_watched_are_nothing(number):
    oversight = Oversight(GRACE)
    oversight.stepped(number, 1, 0.0)
    oversight.resumed(number, 0.0)
    oversight.ended(number)
    assert oversight.next_time() == math.inf


@pytest.mark.parametrize("on_cancel", ["abandon", "wait"])
def test_what_may_go_on_goes_on(on_cancel):
    oversight, free = Oversight(GRACE), request(on_cancel=on_cancel)
    oversight.left(free, 1.0)
    assert oversight.next_time() == math.inf


@pytest.mark.parametrize("on_cancel", ["abandon", "wait"])
def test_its_limits_hold_all_the_same(on_cancel):
    oversight, timed = Oversight(GRACE), request(timeout=3.0, on_cancel=on_cancel)
    oversight.begun(timed, 0.0)
    oversight.left(timed, 1.0)
    assert orders(oversight, 10) == [(3.0, Order(timed, "kill", TIMEOUT))]


@pytest.mark.parametrize("on_cancel", ["abandon", "wait"])
def test_a_stream_that_its_reader_leaves_has_the_time_of_a_step_to_end(on_cancel):
    oversight, timed = Oversight(GRACE), request(timeout=3.0, on_cancel=on_cancel)
    oversight.begun(timed, 0.0)
    oversight.stepped(0, 1, math.inf)
    oversight.left(timed, 100.0)
    assert orders(oversight, 1000) == [(103.0, Order(timed, "kill", TIMEOUT))]


def test_an_interrupt_comes_at_once_and_a_kill_when_it_was_ignored():
    oversight, cancelled = Oversight(GRACE), request(on_cancel="interrupt")
    oversight.left(cancelled, 1.0)
    assert orders(oversight, 10) == [
        (1.0, Order(cancelled, "interrupt", CANCELLED)),
        (1.0 + GRACE, Order(cancelled, "kill", CANCELLED)),
    ]


def test_without_a_limit_what_is_interrupted_may_take_for_ever():
    oversight, cancelled = Oversight(math.inf), request(on_cancel="interrupt")
    oversight.left(cancelled, 1.0)
    assert orders(oversight, 1e9) == [(1.0, Order(cancelled, "interrupt", CANCELLED))]


def test_a_kill_has_a_little_patience():
    oversight, cancelled = Oversight(GRACE), request(on_cancel="kill")
    oversight.left(cancelled, 1.0)
    assert orders(oversight, 10) == [(1.0 + KILL_PATIENCE, Order(cancelled, "kill", CANCELLED))]


def test_a_time_out_is_the_reason_where_both_are_due():
    oversight, both = Oversight(GRACE), request(timeout=1.0, on_cancel="kill")
    oversight.begun(both, 0.0)
    oversight.left(both, 0.0)
    assert oversight.order(2.0) == Order(both, "kill", TIMEOUT)


def test_several_lanes_are_watched_together():
    oversight = Oversight(GRACE)
    first, second = request(1, timeout=2.0), request(2, timeout=1.0)
    oversight.begun(first, 0.0)
    oversight.begun(second, 0.0)
    assert orders(oversight, 10) == [
        (1.0, Order(second, "kill", TIMEOUT)),
        (2.0, Order(first, "kill", TIMEOUT)),
    ]


# Time that is no execution


def test_the_time_in_which_its_arguments_move_does_not_count():
    oversight, timed = Oversight(GRACE), request(timeout=2.0, soft_timeout=1.0)
    oversight.begun(timed, 0.0)
    oversight.transferred(0, 500, 0.5)
    assert oversight.next_time() == 1.5
    oversight.transferred(0, 0, 1.4)
    assert oversight.next_time() == 2.4
    assert oversight.order(2.4) == Order(timed, "interrupt", SOFT_TIMEOUT)


def test_what_has_stopped_moving_has_as_long_as_an_execution():
    oversight, timed = Oversight(GRACE), request(timeout=2.0)
    oversight.begun(timed, 0.0)
    oversight.transferred(0, 500, 1.0)
    oversight.transferred(0, 500, 2.5)
    assert oversight.next_time() == 3.0
    assert oversight.order(3.0) == Order(timed, "kill", TIMEOUT)


def test_what_moves_for_a_caller_who_has_left_is_killed_for_unless_it_is_the_answer():
    oversight, left = Oversight(GRACE), request(on_cancel="kill")
    oversight.left(left, 0.0)
    oversight.transferred(0, 500, 1.0)
    assert oversight.order(1.0) == Order(left, "kill", CANCELLED)
    oversight.transferred(0, 400, 1.0, is_answer=True)
    assert oversight.order(1.0) is None
    assert oversight.next_time() == 1.0 + KILL_PATIENCE


def test_a_held_step_is_not_begun_by_what_moves_nor_a_caller_taken_to_have_left():
    oversight, timed = Oversight(GRACE), request(timeout=2.0, on_cancel="kill")
    oversight.begun(timed, 0.0)
    oversight.stepped(0, 1, math.inf)
    oversight.transferred(0, 500, 1.0, is_answer=True)
    oversight.paused(100.0, 200.0)
    assert oversight.next_time() == math.inf


def test_what_moves_of_a_request_that_is_not_watched_is_nothing():
    oversight = Oversight(GRACE)
    oversight.transferred(0, 500, 1.0)
    assert not oversight
    assert oversight.watched == []


def test_a_pause_of_everything_does_not_count():
    oversight, timed = Oversight(GRACE), request(timeout=4.0, on_cancel="kill")
    oversight.begun(timed, 0.0)
    other = request(number=1, on_cancel="interrupt")
    oversight.begun(other, 0.0)
    oversight.paused(6.0, 7.0)
    assert oversight
    assert oversight.watched == [timed, other]
    assert oversight.next_time() == 6.0 + 4.0
    oversight.left(timed, 8.0)
    oversight.paused(0.5, 9.0)
    assert oversight.next_time() == 8.5 + KILL_PATIENCE


def test_a_pause_is_not_longer_than_it_has_been_watched():
    oversight, timed = Oversight(GRACE), request(timeout=4.0)
    oversight.begun(timed, 5.0)
    oversight.paused(6.0, 7.0)
    assert oversight.next_time() == 7.0 + 4.0
    left = request(number=1, on_cancel="kill")
    oversight.left(left, 6.5)
    oversight.paused(6.0, 7.0)
    assert oversight.kill(1, 7.0 + KILL_PATIENCE) == Order(left, "kill", CANCELLED)
    assert oversight.kill(1, 7.0) is None
