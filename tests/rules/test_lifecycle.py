"""The life of a slot: when its next worker is started, and why."""

import itertools

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trio_dirty import AppLoadError, WorkerCrashedError
from trio_dirty._rules.lifecycle import (
    _SHOWN,
    _TABLE,
    FAILURES_LIMIT,
    Backoff,
    Event,
    Lifecycle,
    State,
)

STARTING = {State.BOOTING, State.RENEWING, State.REVIVING}
SERVED = {State.READY, State.RENEWING}


class LifecycleMachine(RuleBasedStateMachine):
    """A slot whose workers boot or do not, die, are renewed and leave.

    The model: whether a worker serves, whether one is being started, whether one has died and is
    being settled, and how many in a row have completed nothing.
    """

    def __init__(self):
        super().__init__()
        self.changes = 0
        self.life = Lifecycle(self.change)
        self.expected = 0
        self.serves = self.settles = self.vacates = self.waits = False
        self.starts = True
        self.dead_beside = 0  # died while their successors were being started, or served
        self.fruitless = 0
        self.delay = 0.0
        self.failure = None
        self.has_booted = self.leaves = False
        self.errors = map(str, itertools.count())

    def change(self):
        self.changes += 1

    @precondition(lambda self: self.starts and not self.leaves)
    @rule()
    def a_worker_boots(self):
        self.life.booted()
        self.expected += 1
        if self.life.failure is None and self.failure is not None:
            self.fruitless = 0
        self.serves, self.starts, self.has_booted, self.failure = True, False, True, None

    @precondition(lambda self: self.starts)
    @rule()
    def a_worker_does_not_boot(self):
        error = AppLoadError(next(self.errors))
        has_failed = self.life.not_booted(error)
        self.expected += 1
        if self.leaves:
            assert not has_failed
            return
        self.starts = False
        if self.serves:
            assert not has_failed
        elif self.failure is not None:
            assert not has_failed
            self.failure = error
        else:
            assert self.life.cause == "boot_failed"
            assert has_failed == self.nothing_was_completed(error)

    def nothing_was_completed(self, error):
        """Return whether the slot has failed for that."""
        self.fruitless += 1
        if self.fruitless >= FAILURES_LIMIT or not self.has_booted:
            self.failure = error
            self.fruitless = 0
            return True
        self.waits = self.fruitless > 1
        self.delay = 0.1 * 2 ** (self.fruitless - 2)
        self.starts = not self.waits
        return False

    @precondition(lambda self: self.serves and not self.leaves)
    @rule()
    def the_worker_dies(self):
        self.life.lost()
        self.expected += 1
        self.serves = False
        if self.starts:
            self.dead_beside += 1
        else:
            self.settles = True

    @precondition(lambda self: self.settles and not self.leaves)
    @rule(completed=st.sampled_from([0, 0, 0, 1]))
    def it_is_settled(self, completed):
        error = WorkerCrashedError(next(self.errors))
        has_failed = self.life.died(error, "killed", completed=completed)
        self.expected += 1
        self.settles = False
        assert self.life.cause == "killed"
        if completed:
            self.fruitless = 0
            self.starts = True
            assert not has_failed
        else:
            assert has_failed == self.nothing_was_completed(error)

    @precondition(lambda self: self.dead_beside)
    @rule(completed=st.sampled_from([0, 0, 0, 1]))
    def one_is_settled_that_died_beside_its_successor(self, completed):
        """It counts, but decides nothing: a successor is there, or has its own fate."""
        self.dead_beside -= 1
        state, cause = self.life.state, self.life.cause
        is_latest = state is State.BOOTING
        assert not self.life.died(
            WorkerCrashedError("beside"), "crashed", completed=completed, is_latest=is_latest
        )
        assert self.life.state is state
        assert self.life.cause == ("crashed" if is_latest else cause)
        self.fruitless = 0 if completed else self.fruitless + 1

    @precondition(lambda self: self.life.state in (State.READY, State.FAILED))
    @rule()
    def a_fresh_one_is_wanted(self):
        self.life.renew(overlaps=True)
        self.expected += 1
        self.starts = True

    @precondition(lambda self: self.life.state is State.READY)
    @rule()
    def a_fresh_one_is_wanted_in_its_place(self):
        self.life.renew(overlaps=False)
        self.expected += 1
        self.serves, self.vacates = False, True

    @precondition(lambda self: self.vacates and not self.leaves)
    @rule()
    def the_old_one_is_gone(self):
        self.life.gone()
        self.expected += 1
        self.vacates, self.starts = False, True

    @precondition(lambda self: self.waits and not self.leaves)
    @rule()
    def the_delay_is_over(self):
        assert self.life.delay == self.delay
        self.life.due()
        self.expected += 1
        self.waits, self.starts = False, True

    @rule()
    def the_slot_leaves(self):
        self.life.leave()
        self.expected += 1
        self.leaves = True

    @precondition(lambda self: self.leaves)
    @rule(event=st.sampled_from(["lost", "gone"]))
    def its_workers_end(self, event):
        getattr(self.life, event)()
        self.expected += 1

    @invariant()
    def it_is_as_the_model_says(self):
        life = self.life
        assert self.changes == self.expected
        assert life.failure is self.failure
        assert life.has_booted == self.has_booted
        assert life.is_leaving == self.leaves
        assert repr(life) == f"<Lifecycle {life.state.name}>"
        if self.leaves:
            assert life.shown == ("draining" if self.failure is None else "failed")
            return
        assert (life.state in STARTING) == self.starts
        assert (life.state in SERVED) == self.serves
        assert (life.state is State.BACKING_OFF) == self.waits
        assert life.is_lost == (self.failure is not None and not self.starts)
        if self.serves:
            assert life.shown == "ready"
        elif self.waits:
            assert life.shown == "backing_off"
        elif life.is_lost:
            assert life.shown == "failed"
        else:
            assert life.shown == "booting"


test_the_life_of_a_slot = LifecycleMachine.TestCase


def test_the_table_has_every_state_and_only_events_that_there_are():
    assert set(_TABLE) == set(_SHOWN) == set(State)
    assert {event for row in _TABLE.values() for event in row} == set(Event)


def test_every_state_can_be_reached_and_left():
    reached = {State.BOOTING}
    while more := {after for state in reached for after in _TABLE[state].values()} - reached:
        reached |= more
    assert reached == set(State)
    assert all(Event.LEFT in row for row in _TABLE.values())


def test_what_cannot_happen_is_noticed():
    life = Lifecycle(lambda: None)
    with pytest.raises(KeyError):
        life.lost()  # no worker has served


def test_a_slot_whose_first_worker_does_not_boot_has_failed():
    life = Lifecycle(lambda: None)
    error = AppLoadError("never")
    assert life.cause is None
    assert life.not_booted(error)
    assert (life.state, life.failure, life.cause) == (State.FAILED, error, "boot_failed")


def test_at_first_a_worker_is_started_at_once():
    life = Lifecycle(lambda: None)
    assert (life.state, life.cause, life.delay, life.failure) == (State.BOOTING, None, 0.0, None)


def ready():
    life = Lifecycle(lambda: None)
    life.booted()
    return life


def test_a_worker_that_dies_is_replaced_at_once_if_it_had_served():
    life = ready()
    for _ in range(20):
        life.lost()
        assert (life.state, life.shown) == (State.SETTLING, "booting")
        assert not life.died(WorkerCrashedError("again"), "crashed", completed=1)
        assert (life.state, life.cause) == (State.BOOTING, "crashed")
        life.booted()
    assert (life.state, life.shown) == (State.READY, "ready")


def test_workers_that_die_without_having_served_are_replaced_later_and_later_and_then_not():
    life, delays = ready(), []
    error = WorkerCrashedError("again")
    for _ in range(FAILURES_LIMIT - 1):
        life.lost()
        assert not life.died(error, "killed", completed=0)
        if life.state is State.BACKING_OFF:
            assert life.shown == "backing_off"
            delays.append(life.delay)
            life.due()
        life.booted()
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6]
    life.lost()
    assert life.died(error, "killed", completed=0)
    assert (life.state, life.shown, life.failure) == (State.FAILED, "failed", error)
    life.leave()
    assert (life.state, life.shown, life.is_leaving) == (State.LEAVING, "failed", True)


def test_a_worker_that_dies_while_its_successor_is_started_leaves_the_next_step_to_that():
    life = ready()
    life.renew(overlaps=True)
    life.lost()
    assert life.state is State.BOOTING
    assert not life.died(WorkerCrashedError("beside"), "crashed", completed=0)
    assert (life.state, life.cause) == (State.BOOTING, "crashed")
    life.booted()
    late = WorkerCrashedError("late")
    assert not life.died(late, "killed", completed=0, is_latest=False)
    assert (life.state, life.cause) == (State.READY, "crashed")
    life.lost()
    assert not life.died(late, "killed", completed=0, is_latest=False)
    assert (life.state, life.cause) == (State.SETTLING, "crashed"), "whose death is still to come"


def test_one_that_does_not_boot_counts_as_one_that_has_completed_nothing():
    life = ready()
    life.lost()
    assert not life.died(WorkerCrashedError("once"), "crashed", completed=1)
    assert not life.not_booted(AppLoadError("first"))
    assert (life.state, life.cause) == (State.BOOTING, "boot_failed"), "the first costs nothing"
    assert not life.not_booted(AppLoadError("second"))
    assert (life.state, life.delay) == (State.BACKING_OFF, 0.1)


def test_one_that_dies_beside_its_successor_counts_too():
    life = ready()
    life.renew(overlaps=True)
    life.lost()
    life.booted()
    assert not life.died(WorkerCrashedError("beside"), "crashed", completed=0, is_latest=False)
    life.lost()
    assert not life.died(WorkerCrashedError("again"), "crashed", completed=0)
    assert (life.state, life.delay) == (State.BACKING_OFF, 0.1)


def test_a_slot_that_is_revived_counts_anew():
    life = ready()
    for _ in range(FAILURES_LIMIT):
        life.lost()
        life.died(WorkerCrashedError("again"), "crashed", completed=0)
        if life.state is State.BACKING_OFF:
            life.due()
        if life.state is State.BOOTING:
            life.booted()
    life.renew(overlaps=True)
    life.booted()
    life.lost()
    assert not life.died(WorkerCrashedError("once more"), "crashed", completed=0)
    assert life.state is State.BOOTING


def test_where_there_is_no_room_for_two_the_next_is_started_when_the_old_one_is_gone():
    life = ready()
    life.renew(overlaps=False)
    assert (life.state, life.shown) == (State.VACATING, "booting")
    life.gone()
    assert life.state is State.BOOTING


def test_a_successor_that_does_not_boot_leaves_the_old_worker_where_it_is():
    life = ready()
    life.renew(overlaps=True)
    assert not life.not_booted(AppLoadError("no"))
    assert (life.state, life.failure) == (State.READY, None)


def test_a_slot_that_leaves_shows_that_it_drains():
    life = ready()
    assert not life.is_leaving
    life.leave()
    life.lost()
    assert not life.not_booted(AppLoadError("late"))
    life.gone()
    assert (life.shown, life.is_leaving, repr(life)) == ("draining", True, "<Lifecycle LEAVING>")


def test_a_failed_slot_that_cannot_be_revived_has_failed_for_the_latest_reason():
    life = Lifecycle(lambda: None)
    life.not_booted(AppLoadError("first"))
    life.renew(overlaps=True)
    assert (life.state, life.shown, life.is_lost) == (State.REVIVING, "booting", False)
    second = AppLoadError("second")
    assert not life.not_booted(second)
    assert (life.state, life.failure, life.is_lost) == (State.FAILED, second, True)


def test_back_off_counts_only_workers_that_completed_nothing():
    backoff = Backoff()
    delays = [backoff.died(completed=0) for _ in range(FAILURES_LIMIT)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, None]
    backoff = Backoff()
    for _ in range(1000):
        assert backoff.died(completed=1) == 0.0
    assert backoff.died(completed=0) == 0.0
    assert backoff.died(completed=0) > 0.0
