"""Pools that are broken on purpose: the judgement of the promises must find each of them.

Each variant alters one decision. The search is the one of the promises' own tests; a
variant that it misses would be a promise that nobody checks.
"""

import math
from collections import OrderedDict
from types import SimpleNamespace

import play
import promises
import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from trio_dirty import WorkerCrashedError, _dispatcher, _slot
from trio_dirty._backlog import Backlog
from trio_dirty._backoff import Backoff
from trio_dirty._dispatcher import Dispatcher
from trio_dirty._ledger import Ledger, Window
from trio_dirty._pool import Pool
from trio_dirty._request import Request
from trio_dirty._routing import Rotation
from trio_dirty._slot import Slot
from trio_dirty.testing import SimWorker


def forget(request):
    """Let nobody ever end a request, and its caller wait until the play is ended."""
    request.place = SimpleNamespace(withdraw=lambda request: None)


# Order


def starts_two_at_once(patch):
    """The worker takes up a request without having answered the one before."""
    execute = SimWorker._execute_requests

    async def execute_in_two_tasks(worker, apps):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(execute, worker, apps)
            nursery.start_soon(execute, worker, apps)

    patch.setattr(SimWorker, "_execute_requests", execute_in_two_tasks)


def newest_first(patch):
    def take_in(backlog):
        for request in backlog._arrived:
            backlog._queue[request] = None
            backlog._queue.move_to_end(request, last=False)
        backlog._arrived.clear()

    patch.setattr(Backlog, "take_in", take_in)


def one_app_first(patch):
    """Those that queue are sorted, if only a little."""

    def take_in(backlog):
        queue = [*backlog._queue, *backlog._arrived]
        backlog._queue = OrderedDict.fromkeys(sorted(queue, key=lambda r: r.app is None))
        backlog._arrived.clear()

    patch.setattr(Backlog, "take_in", take_in)


def the_order_of_completion(patch):
    """The worker takes up first what is done soonest."""
    execute = SimWorker._not_stalled

    async def sort_the_inbox(worker):
        await execute(worker)
        inbox = sorted(worker._inbox, key=lambda request: len(request[2]))
        worker._inbox.clear()
        worker._inbox.extend(inbox)

    patch.setattr(SimWorker, "_not_stalled", sort_the_inbox)
    patch.setattr(Window, "observe", lambda window, _: setattr(window, "ahead", 3))


def window_ignored(patch):
    init = Window.__init__

    def ahead_of_everything(window):
        init(window)
        window.ahead = 1000

    patch.setattr(Window, "__init__", ahead_of_everything)
    patch.setattr(Window, "observe", lambda window, seconds: None)


def window_never_shrinks(patch):
    observe = Window.observe

    def grow(window, seconds):
        ahead = window.ahead
        observe(window, seconds)
        window.ahead = max(ahead, window.ahead, 2)

    patch.setattr(Window, "observe", grow)


# Fairness


def rotation_resets_on_a_crash(patch):
    remove = Rotation.remove

    def remove_and_reset(rotation, slot):
        remove(rotation, slot)
        rotation._last, rotation._next = -1, 0

    patch.setattr(Rotation, "remove", remove_and_reset)


def rotation_forgets_who_was_last(patch):
    def add(rotation, slot):
        rotation._ready = sorted([*rotation._ready, slot])

    patch.setattr(Rotation, "add", add)


def always_the_first_ready_slot(patch):
    patch.setattr(Rotation, "take", lambda rotation: next(iter(rotation._ready), None))


def a_lost_slot_stays_in_the_rotation(patch):
    def ready(dispatcher, slot):
        if slot.index not in dispatcher._ready:
            become_ready(dispatcher, slot)

    become_ready = Dispatcher.ready
    patch.setattr(Dispatcher, "ready", ready)
    patch.setattr(Dispatcher, "lost", lambda dispatcher, slot: None)


def no_share_for_a_new_slot(patch):
    patch.setattr(_dispatcher, "fair_share", lambda queues, carriers: [])


def a_new_slot_takes_everything(patch):
    patch.setattr(
        _dispatcher, "fair_share", lambda queues, carriers: [r for queue in queues for r in queue]
    )


def what_is_still_in_the_channel_is_not_shared(patch):
    patch.setattr(Slot, "unsent", lambda slot: slot._backlog.unsent())


def the_share_is_taken_queue_by_queue(patch):
    patch.setattr(_dispatcher, "number", lambda request: 0)


# One outcome


def a_waiter_left_unsettled(patch):
    fail = Request.fail

    def fail_unless_crashed(request, error):
        if isinstance(error, WorkerCrashedError):
            forget(request)
        else:
            fail(request, error)

    patch.setattr(Request, "fail", fail_unless_crashed)


def waiting_requests_stay_waiting(patch):
    def ready(dispatcher, slot):
        for app in dispatcher._apps_of(slot):
            dispatcher._rotations[app].add(slot.index)
        dispatcher._ready.add(slot.index)

    patch.setattr(Dispatcher, "ready", ready)


def the_hopeless_wait_for_ever(patch):
    def failed(dispatcher, slot, cause):
        dispatcher._failed[slot.index] = cause
        return []

    patch.setattr(Dispatcher, "failed", failed)


def results_are_mixed_up(patch):
    """The worker's answer goes to whoever was sent last."""

    def answered(ledger, number, seconds):
        request = ledger.entries.pop(max(ledger.entries))
        ledger.size -= request.size
        return request

    patch.setattr(Ledger, "answered", answered)


def leaving_serves_only_what_was_sent(patch):
    async def serve_rest(pool):
        for slot in pool._slots:
            slot._scope.cancel()

    patch.setattr(Pool, "_serve_rest", serve_rest)


def leaving_forgets_the_rest(patch):
    patch.setattr(Pool, "_settle_rest", lambda pool: None)


def grace_period_ignored(patch):
    init = Pool.__init__

    def wait_for_ever(pool, options, engine):
        object.__setattr__(options, "grace_period", math.inf)
        init(pool, options, engine)

    patch.setattr(Pool, "__init__", wait_for_ever)


def boot_timeout_ignored(patch):
    async def wait_ready(slot, worker):
        await worker.wait_ready()

    patch.setattr(Slot, "_wait_ready", wait_ready)


# At most once, and nothing lost


def what_may_have_begun_is_served_again(patch):
    def settle(ledger):
        entries = list(ledger.entries.values())
        ledger.entries.clear()
        return [], entries

    patch.setattr(Ledger, "settle", settle)


def one_too_many_may_have_begun(patch):
    def settle(ledger):
        entries = list(ledger.entries.values())
        ledger.entries.clear()
        return entries[: ledger.lanes + 1], entries[ledger.lanes + 1 :]

    patch.setattr(Ledger, "settle", settle)


def all_that_was_sent_fails(patch):
    def settle(ledger):
        entries = list(ledger.entries.values())
        ledger.entries.clear()
        return entries, []

    patch.setattr(Ledger, "settle", settle)


def the_last_that_was_sent_fails(patch):
    def settle(ledger):
        entries = list(ledger.entries.values())
        ledger.entries.clear()
        return entries[-1:], entries[:-1]

    patch.setattr(Ledger, "settle", settle)


def rerouted_in_reverse(patch):
    patch.setattr(_slot, "number", lambda request: -request.number)


def rerouted_as_they_lay(patch):
    """First what was sent and queued, as the slot had it: what it took over comes too late."""
    patch.setattr(_slot, "number", lambda request: 0)


def the_queue_of_a_lost_slot_is_dropped(patch):
    def let_go(slot):
        begun, unbegun = let_go_of_all(slot)
        for request in unbegun:
            forget(request)
        return begun, []

    let_go_of_all = Slot.let_go
    patch.setattr(Slot, "let_go", let_go)


def what_has_just_arrived_is_forgotten(patch):
    """The worker is lost after the consumer was handed a request, and before it ran."""

    def let_go(backlog):
        for request in backlog._arrived:
            forget(request)
        backlog._arrived.clear()
        return let_go_of_all(backlog)

    let_go_of_all = Backlog.let_go
    patch.setattr(Slot, "let_go", lambda slot: let_go(slot._backlog))


def answers_before_the_end_are_not_read(patch):
    async def receive(worker):
        replies = await receive_all(worker)
        return [] if worker._exit is not None else replies

    receive_all = SimWorker.receive
    patch.setattr(SimWorker, "receive", receive)


# Isolation


def a_crash_fails_the_neighbours(patch):
    settle_exit = Slot._settle_exit

    def settle_all(slot, dispatcher, exit_):
        for other in dispatcher._slots:
            if other is not slot:
                for request in other._backlog.executing():
                    request.fail(WorkerCrashedError("a neighbour died", slot=slot.index))
        return settle_exit(slot, dispatcher, exit_)

    patch.setattr(Slot, "_settle_exit", settle_all)


def a_busy_neighbour_is_waited_for(patch):
    def next_frames(slot):
        busy = [other for other in slots if other is not slot and other._backlog.executing()]
        return [] if len(busy) == 2 else next_frames_alone(slot)

    def ready(dispatcher, slot):
        slots[:] = dispatcher._slots
        become_ready(dispatcher, slot)

    slots = []
    next_frames_alone, become_ready = Slot._next_frames, Dispatcher.ready
    patch.setattr(Slot, "_next_frames", next_frames)
    patch.setattr(Dispatcher, "ready", ready)


# Cancellation


def a_cancelled_request_is_still_sent(patch):
    patch.setattr(Slot, "withdraw", lambda slot, request: None)


def only_the_queue_is_withdrawn_from(patch):
    def withdraw(backlog, request):
        if request in backlog._queue:
            del backlog._queue[request]
            return True
        return False

    patch.setattr(Backlog, "withdraw", withdraw)


# Back-off


def back_off_skipped(patch):
    patch.setattr(Backoff, "died", lambda backoff, completed: 0.0)


def back_off_though_it_served(patch):
    died = Backoff.died
    patch.setattr(Backoff, "died", lambda backoff, completed: died(backoff, completed=0))


def back_off_never_forgets(patch):
    def died(backoff, completed):
        failures = backoff.failures
        delay = count(backoff, completed=completed)
        backoff.failures = max(failures, backoff.failures)
        return delay

    count = Backoff.died
    patch.setattr(Backoff, "died", died)


def given_up_too_soon(patch):
    died = Backoff.died

    def give_up(backoff, completed):
        delay = died(backoff, completed=completed)
        return None if backoff.failures == 3 else delay

    patch.setattr(Backoff, "died", give_up)


VARIANTS = [
    starts_two_at_once,
    newest_first,
    one_app_first,
    the_order_of_completion,
    window_ignored,
    window_never_shrinks,
    rotation_resets_on_a_crash,
    rotation_forgets_who_was_last,
    always_the_first_ready_slot,
    a_lost_slot_stays_in_the_rotation,
    no_share_for_a_new_slot,
    a_new_slot_takes_everything,
    what_is_still_in_the_channel_is_not_shared,
    the_share_is_taken_queue_by_queue,
    a_waiter_left_unsettled,
    waiting_requests_stay_waiting,
    the_hopeless_wait_for_ever,
    results_are_mixed_up,
    leaving_serves_only_what_was_sent,
    leaving_forgets_the_rest,
    grace_period_ignored,
    boot_timeout_ignored,
    what_may_have_begun_is_served_again,
    one_too_many_may_have_begun,
    all_that_was_sent_fails,
    the_last_that_was_sent_fails,
    rerouted_in_reverse,
    rerouted_as_they_lay,
    the_queue_of_a_lost_slot_is_dropped,
    what_has_just_arrived_is_forgotten,
    answers_before_the_end_are_not_read,
    a_crash_fails_the_neighbours,
    a_busy_neighbour_is_waited_for,
    a_cancelled_request_is_still_sent,
    only_the_queue_is_withdrawn_from,
    back_off_skipped,
    back_off_though_it_served,
    back_off_never_forgets,
    given_up_too_soon,
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.__name__)
def test_variant_is_caught(variant, monkeypatch):
    variant(monkeypatch)

    @given(script=play.scripts, seed=st.random_module())
    @settings(
        max_examples=1000,
        deadline=None,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    def search(script, seed):
        promises.judge(play.play_simulated(script))

    # TooSlowError: somebody waits for ever. An error of the variant's own would not count.
    with pytest.raises((AssertionError, trio.TooSlowError)):
        search()
