"""When a request that a worker executes is interrupted, or its worker killed for it."""

import math
from types import SimpleNamespace

import pytest

from trio_dirty._common.wire import CANCELLED, SOFT_TIMEOUT
from trio_dirty._rules.deadlines import EARLY_SECONDS, KILL_PATIENCE, TIMEOUT, Deadlines, Due
from trio_dirty._rules.limits import Limits

GRACE = 5.0


def watching(grace):
    return Deadlines(grace, lambda: None)


def request(number=0, **limits):
    return SimpleNamespace(number=number, limits=Limits(**limits))


def all_due(deadlines, until):
    """Return what is ordered when, until then; a kill is ordered only once more."""
    found = []
    now = 0.0
    while (at := max(now, deadlines.next_time())) <= until:
        now = at
        while (due := deadlines.due(now)) is not None:
            found.append((now, due))
            if due.action == "kill":
                deadlines.ended(due.request.number)
    return found


def test_nothing_is_to_be_done_about_nothing():
    deadlines = watching(GRACE)
    assert deadlines.next_time() == math.inf
    assert deadlines.due(1e9) is None


def test_a_time_out_kills_when_it_has_passed():
    deadlines, timed = watching(GRACE), request(timeout=2.0)
    deadlines.begun(timed, 10.0)
    assert deadlines.due(11.9) is None
    assert deadlines.next_time() == 12.0
    assert deadlines.due(12.0) == Due(timed, "kill", TIMEOUT)
    assert deadlines.due(12.0) == Due(timed, "kill", TIMEOUT), "as long as it has not ended"
    deadlines.ended(0)
    assert deadlines.due(12.0) is None


def test_a_moment_too_early_is_in_time():
    deadlines, timed = watching(GRACE), request(timeout=2.0)
    deadlines.begun(timed, 0.0)
    assert deadlines.due(2.0 - EARLY_SECONDS / 2) is not None


@pytest.mark.parametrize(
    ("limits", "action", "reason"),
    [
        ({"timeout": EARLY_SECONDS}, "kill", TIMEOUT),
        ({"soft_timeout": EARLY_SECONDS}, "interrupt", SOFT_TIMEOUT),
    ],
)
def test_as_much_too_early_as_may_be_is_in_time(limits, action, reason):
    deadlines, timed = watching(GRACE), request(**limits)
    deadlines.begun(timed, 0.0)
    assert deadlines.due(0.0) == Due(timed, action, reason)


def test_an_interrupt_may_be_as_much_too_early():
    deadlines, cancelled = watching(GRACE), request(on_cancel="interrupt")
    deadlines.left(cancelled, EARLY_SECONDS)
    assert deadlines.due(0.0) == Due(cancelled, "interrupt", CANCELLED)


def test_a_soft_time_out_interrupts_once_and_the_hard_one_kills_later():
    deadlines, timed = watching(GRACE), request(timeout=3.0, soft_timeout=1.0)
    deadlines.begun(timed, 0.0)
    assert all_due(deadlines, 10) == [
        (1.0, Due(timed, "interrupt", SOFT_TIMEOUT)),
        (3.0, Due(timed, "kill", TIMEOUT)),
    ]


def test_to_begin_again_changes_nothing():
    deadlines, timed = watching(GRACE), request(timeout=2.0)
    deadlines.begun(timed, 0.0)
    deadlines.begun(timed, 1.0)
    assert deadlines.next_time() == 2.0


def test_each_step_of_a_stream_has_its_own_time():
    deadlines, timed = watching(GRACE), request(timeout=3.0, soft_timeout=1.0)
    deadlines.begun(timed, 0.0)
    assert deadlines.due(1.0) == Due(timed, "interrupt", SOFT_TIMEOUT, steps=0)
    deadlines.stepped(0, 4, 1.5)
    assert deadlines.due(2.4) is None
    assert deadlines.due(2.5) == Due(timed, "interrupt", SOFT_TIMEOUT, steps=4)
    assert deadlines.next_time() == 4.5
    deadlines.stepped(0, 3, 4.0)
    assert deadlines.due(5.0) == Due(timed, "interrupt", SOFT_TIMEOUT, steps=7)


def test_the_time_of_its_reader_does_not_count():
    deadlines, timed = watching(GRACE), request(timeout=3.0, soft_timeout=1.0)
    deadlines.begun(timed, 0.0)
    deadlines.stepped(0, 1, math.inf)
    assert deadlines.next_time() == math.inf
    deadlines.resumed(0, 100.0)
    assert deadlines.next_time() == 101.0
    deadlines.resumed(0, 100.5)
    assert deadlines.next_time() == 101.0, "it goes on already"


@pytest.mark.parametrize("number", [0, 7])
def test_steps_of_what_is_not_watched_are_nothing(number):
    deadlines = watching(GRACE)
    deadlines.stepped(number, 1, 0.0)
    deadlines.resumed(number, 0.0)
    deadlines.ended(number)
    assert deadlines.next_time() == math.inf


@pytest.mark.parametrize("on_cancel", ["abandon", "wait"])
def test_what_may_go_on_goes_on(on_cancel):
    deadlines, free = watching(GRACE), request(on_cancel=on_cancel)
    deadlines.left(free, 1.0)
    assert deadlines.next_time() == math.inf


@pytest.mark.parametrize("on_cancel", ["abandon", "wait"])
def test_its_limits_hold_all_the_same(on_cancel):
    deadlines, timed = watching(GRACE), request(timeout=3.0, on_cancel=on_cancel)
    deadlines.begun(timed, 0.0)
    deadlines.left(timed, 1.0)
    assert all_due(deadlines, 10) == [(3.0, Due(timed, "kill", TIMEOUT))]


@pytest.mark.parametrize("on_cancel", ["abandon", "wait"])
def test_a_stream_that_its_reader_leaves_has_the_time_of_a_step_to_end(on_cancel):
    deadlines, timed = watching(GRACE), request(timeout=3.0, on_cancel=on_cancel)
    deadlines.begun(timed, 0.0)
    deadlines.stepped(0, 1, math.inf)
    deadlines.left(timed, 100.0)
    assert all_due(deadlines, 1000) == [(103.0, Due(timed, "kill", TIMEOUT))]


def test_an_interrupt_comes_at_once_and_a_kill_when_it_was_ignored():
    deadlines, cancelled = watching(GRACE), request(on_cancel="interrupt")
    deadlines.left(cancelled, 1.0)
    assert all_due(deadlines, 10) == [
        (1.0, Due(cancelled, "interrupt", CANCELLED)),
        (1.0 + GRACE, Due(cancelled, "kill", CANCELLED)),
    ]


def test_without_a_limit_what_is_interrupted_may_take_for_ever():
    deadlines, cancelled = watching(math.inf), request(on_cancel="interrupt")
    deadlines.left(cancelled, 1.0)
    assert all_due(deadlines, 1e9) == [(1.0, Due(cancelled, "interrupt", CANCELLED))]


def test_a_kill_has_a_little_patience():
    deadlines, cancelled = watching(GRACE), request(on_cancel="kill")
    deadlines.left(cancelled, 1.0)
    assert all_due(deadlines, 10) == [(1.0 + KILL_PATIENCE, Due(cancelled, "kill", CANCELLED))]


def test_a_time_out_is_the_reason_where_both_are_due():
    deadlines, both = watching(GRACE), request(timeout=1.0, on_cancel="kill")
    deadlines.begun(both, 0.0)
    deadlines.left(both, 0.0)
    assert deadlines.due(2.0) == Due(both, "kill", TIMEOUT)


def test_several_lanes_are_watched_together():
    deadlines = watching(GRACE)
    first, second = request(1, timeout=2.0), request(2, timeout=1.0)
    deadlines.begun(first, 0.0)
    deadlines.begun(second, 0.0)
    assert all_due(deadlines, 10) == [
        (1.0, Due(second, "kill", TIMEOUT)),
        (2.0, Due(first, "kill", TIMEOUT)),
    ]


# Time that is no execution


def test_the_time_in_which_its_arguments_move_does_not_count():
    deadlines, timed = watching(GRACE), request(timeout=2.0, soft_timeout=1.0)
    deadlines.begun(timed, 0.0)
    deadlines.transferred(0, 500, 0.5)
    assert deadlines.next_time() == 1.5
    deadlines.transferred(0, 0, 1.4)
    assert deadlines.next_time() == 2.4
    assert deadlines.due(2.4) == Due(timed, "interrupt", SOFT_TIMEOUT)


def test_what_has_stopped_moving_has_as_long_as_an_execution():
    deadlines, timed = watching(GRACE), request(timeout=2.0)
    deadlines.begun(timed, 0.0)
    deadlines.transferred(0, 500, 1.0)
    deadlines.transferred(0, 500, 2.5)
    assert deadlines.next_time() == 3.0
    assert deadlines.due(3.0) == Due(timed, "kill", TIMEOUT)


def test_what_moves_for_a_caller_who_has_left_is_killed_for_unless_it_is_the_answer():
    deadlines, left = watching(GRACE), request(on_cancel="kill")
    deadlines.left(left, 0.0)
    deadlines.transferred(0, 500, 1.0)
    assert deadlines.due(1.0) == Due(left, "kill", CANCELLED)
    deadlines.transferred(0, 400, 1.0, is_answer=True)
    assert deadlines.due(1.0) is None
    assert deadlines.next_time() == 1.0 + KILL_PATIENCE


def test_a_held_step_is_not_begun_by_what_moves_nor_a_caller_taken_to_have_left():
    deadlines, timed = watching(GRACE), request(timeout=2.0, on_cancel="kill")
    deadlines.begun(timed, 0.0)
    deadlines.stepped(0, 1, math.inf)
    deadlines.transferred(0, 500, 1.0, is_answer=True)
    deadlines.paused(100.0, 200.0)
    assert deadlines.next_time() == math.inf


def test_what_moves_of_a_request_that_is_not_watched_is_nothing():
    deadlines = watching(GRACE)
    deadlines.transferred(0, 500, 1.0)
    assert deadlines.watched == []
    assert deadlines.watched == []


def test_a_pause_of_everything_does_not_count():
    deadlines, timed = watching(GRACE), request(timeout=4.0, on_cancel="kill")
    deadlines.begun(timed, 0.0)
    other = request(number=1, on_cancel="interrupt")
    deadlines.begun(other, 0.0)
    deadlines.paused(6.0, 7.0)
    assert deadlines.watched
    assert deadlines.watched == [timed, other]
    assert deadlines.next_time() == 6.0 + 4.0
    deadlines.left(timed, 8.0)
    deadlines.paused(0.5, 9.0)
    assert deadlines.next_time() == 8.5 + KILL_PATIENCE


def test_a_pause_is_not_longer_than_it_has_been_watched():
    deadlines, timed = watching(GRACE), request(timeout=4.0)
    deadlines.begun(timed, 5.0)
    deadlines.paused(6.0, 7.0)
    assert deadlines.next_time() == 7.0 + 4.0
    left = request(number=1, on_cancel="kill")
    deadlines.left(left, 6.5)
    deadlines.paused(6.0, 7.0)
    assert deadlines.kill(1, 7.0 + KILL_PATIENCE) == Due(left, "kill", CANCELLED)
    assert deadlines.kill(1, 7.0) is None


def test_what_is_forgotten_with_the_worker_is_watched_no_more():
    changes = []
    deadlines = Deadlines(GRACE, lambda: changes.append(None))
    deadlines.begun(request(0, timeout=1.0), 0.0)
    deadlines.begun(request(1, timeout=1.0), 0.0)
    assert deadlines.are_there
    deadlines.ended(0)
    assert deadlines.are_there
    assert len(changes) == 3
    deadlines.clear()
    assert not deadlines.are_there
    assert (deadlines.watched, deadlines.next_time()) == ([], math.inf)
