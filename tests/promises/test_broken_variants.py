"""Pools that are broken on purpose: the judgement of the promises must find each of them.

Each variant alters one decision, and says which judge must find it. The search plays the
same scripts as the promises' own tests, more of them, and always the same. A variant that it
misses is a promise that nobody checks.
"""

import itertools
import math
import pickle
import unittest
from collections import OrderedDict, deque
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import play
import promises
import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from trio_dirty._pool.wish import Wish
from trio_dirty._rules.backlog import Backlog

from trio_dirty import WorkerCrashedError
from trio_dirty._pool import scaling, slot, supervisor
from trio_dirty._pool.calls import Call
from trio_dirty._pool.scaling import Scaling
from trio_dirty._pool.slot import Slot
from trio_dirty._pool.streams import StreamRequest
from trio_dirty._pool.supervisor import Supervisor
from trio_dirty._pool.worker import Incarnation
from trio_dirty._rules import dispatcher
from trio_dirty._rules.deadlines import Order, Oversight
from trio_dirty._rules.dispatcher import Dispatcher
from trio_dirty._rules.ledger import Ledger, Window
from trio_dirty._rules.recycling import Backoff
from trio_dirty._rules.routing import Key, Keys, Rotation
from trio_dirty._rules.statistics import Durations
from trio_dirty.testing import SimEngine, SimWorker

HANG = None
"""The judge of those that keep somebody waiting for ever: a play of theirs does not end."""

BREAKDOWN = object()
"""The judge of those that end the pool of all: a play of theirs raises something."""

VARIANTS = {}


WITHIN = 10_000
"""How many scripts are enough to catch each. The rarest needs 700 on average; which are drawn
differs between machines."""


PLAIN = {"lowered": False, "pieces": False, "lag": 0, "slow": 0.0, "hurry": None}


def caught_by(judge, **options):
    """Say which judge must find a variant, and with which options of scripts it is to be met.

    Most need none of those that make other things likely, and are rarer with them.
    """

    def register(variant):
        VARIANTS[variant] = judge, {**PLAIN, **options}
        return variant

    return register


class CaughtError(unittest.SkipTest):
    """A variant was caught. Hypothesis passes this on at once, and does not play it once more."""


def forget(request):
    """Let nobody ever end a request, and its caller wait until the play is ended."""
    request.place = SimpleNamespace(withdraw=lambda request: True)


# Order


@caught_by(promises.judge_order)
def starts_two_at_once(patch):
    """The worker takes up a request without having answered the one before."""
    execute = SimWorker._execute_requests

    async def execute_in_two_tasks(worker, apps, lane):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(execute, worker, apps, lane)
            nursery.start_soon(execute, worker, apps, lane)

    patch.setattr(SimWorker, "_execute_requests", execute_in_two_tasks)


@caught_by(promises.judge_order)
def newest_first(patch):
    def take_in(backlog):
        for request in backlog._arrived:
            backlog._queue[request] = None
            backlog._queue.move_to_end(request, last=False)
        backlog._arrived.clear()

    patch.setattr(Backlog, "take_in", take_in)


@caught_by(promises.judge_order)
def one_app_first(patch):
    """Those that queue are sorted, if only a little."""

    def take_in(backlog):
        queue = [*backlog._queue, *backlog._arrived]
        backlog._queue = OrderedDict.fromkeys(sorted(queue, key=lambda r: r.app is None))
        backlog._arrived.clear()

    patch.setattr(Backlog, "take_in", take_in)


@caught_by(promises.judge_order)
def the_order_of_completion(patch):
    """The worker takes up first, of what it has been sent, what is done soonest."""
    not_stalled = SimWorker._not_stalled

    async def sort_the_inbox(worker):
        def seconds(request):
            _, number, _, _, pickled = request
            return 0 if number in worker._withdrawn else pickle.loads(pickled)[0][1]

        await not_stalled(worker)
        worker._inbox = deque(sorted(worker._inbox, key=seconds))

    patch.setattr(SimWorker, "_not_stalled", sort_the_inbox)


@caught_by(promises.judge_window)
def window_ignored(patch):
    init = Window.__init__

    def ahead_of_everything(window):
        init(window)
        window.ahead = 1000

    patch.setattr(Window, "__init__", ahead_of_everything)
    patch.setattr(Window, "observe", lambda window, seconds: None)


@caught_by(promises.judge_window)
def window_never_shrinks(patch):
    observe = Window.observe

    def grow(window, seconds):
        ahead = window.ahead
        observe(window, seconds)
        window.ahead = max(ahead, window.ahead, 2)

    patch.setattr(Window, "observe", grow)


# Fairness


@caught_by(promises.judge_fairness)
def rotation_resets_on_a_crash(patch):
    remove = Rotation.remove

    def remove_and_reset(rotation, slot):
        remove(rotation, slot)
        rotation._last, rotation._next = -1, 0

    patch.setattr(Rotation, "remove", remove_and_reset)


@caught_by(promises.judge_fairness)
def rotation_forgets_who_was_last(patch):
    def add(rotation, slot):
        rotation._ready = sorted([*rotation._ready, slot])
        rotation.bits |= 1 << slot

    patch.setattr(Rotation, "add", add)


@caught_by(promises.judge_fairness)
def always_the_first_ready_slot(patch):
    patch.setattr(Rotation, "take", lambda rotation: next(iter(rotation._ready), None))


@caught_by(promises.judge_fairness)
def a_lost_slot_stays_in_the_rotation(patch):
    def ready(dispatcher, slot):
        if slot.index not in dispatcher._ready:
            become_ready(dispatcher, slot)

    def remove(dispatcher, slot):
        if slot.index in dispatcher._ready:
            lose(dispatcher, slot)
        return remove_slot(dispatcher, slot)

    become_ready, lose, remove_slot = Dispatcher.ready, Dispatcher.lost, Dispatcher.remove
    patch.setattr(Dispatcher, "ready", ready)
    patch.setattr(Dispatcher, "lost", lambda dispatcher, slot: None)
    patch.setattr(Dispatcher, "remove", remove)


@caught_by(promises.judge_share)
def no_share_for_a_new_slot(patch):
    patch.setattr(dispatcher, "fair_share", lambda queue, carriers: [])


@caught_by(promises.judge_share)
def a_new_slot_takes_everything(patch):
    def everything(queue, carriers):
        return [r for r in queue if r.app in carriers and r.key is None]

    patch.setattr(dispatcher, "fair_share", everything)


@caught_by(promises.judge_share, boot=1.0)
def what_is_still_in_the_channel_is_not_shared(patch):
    patch.setattr(Slot, "unsent", lambda slot: slot.backlog.unsent())


@caught_by(promises.judge_share)
def the_share_is_taken_queue_by_queue(patch):
    patch.setattr(dispatcher, "number", lambda request: 0)


# One outcome


@caught_by(HANG)
def a_waiter_left_unsettled(patch):
    fail = Call.fail

    def fail_unless_crashed(request, error):
        if isinstance(error, WorkerCrashedError):
            forget(request)
        else:
            fail(request, error)

    patch.setattr(Call, "fail", fail_unless_crashed)


@caught_by(promises.judge_share)
def waiting_requests_stay_waiting(patch):
    def ready(dispatcher, slot):
        dispatcher._carriers_changed()
        for app in dispatcher._apps_of(slot):
            dispatcher._rotations[app].add(slot.index)
        dispatcher._ready.add(slot.index)

    patch.setattr(Dispatcher, "ready", ready)


@caught_by(HANG)
def the_hopeless_wait_for_ever(patch):
    def failed(dispatcher, slot, cause):
        dispatcher._failed.add(slot.index)
        dispatcher._carriers_changed()
        return []

    patch.setattr(Dispatcher, "failed", failed)


@caught_by(promises.judge_one_outcome)
def results_are_mixed_up(patch):
    """The worker's answer goes to whoever was sent last."""

    def answered(ledger, number, seconds):
        request = ledger.entries.pop(max(ledger.entries))
        ledger.size -= request.size
        return request

    patch.setattr(Ledger, "answered", answered)


@caught_by(promises.judge_one_outcome)
def leaving_serves_only_what_was_sent(patch):
    async def serve_rest(pool):
        pool.scaling.stop()
        for succession in pool.successions:
            succession.close()

    patch.setattr(Supervisor, "serve_rest", serve_rest)


@caught_by(promises.judge_no_service_without_cause)
def new_calls_are_refused_when_two_of_three_have_failed(patch):
    def accept(dispatcher, request):
        failed = dispatcher._failed
        if len(failed) < 2:
            accept_all(dispatcher, request)
        else:
            raise dispatcher.no_workers(request.target, None)

    accept_all = Dispatcher.accept
    patch.setattr(Dispatcher, "accept", accept)


@caught_by(promises.judge_leaving)
def leaving_by_cancellation_takes_its_time(patch):
    @asynccontextmanager
    async def start(engine, blueprint):
        async with start_worker(engine, blueprint) as worker:
            try:
                yield worker
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(50)

    start_worker = SimEngine.start
    patch.setattr(SimEngine, "start", start)


@caught_by(promises.judge_no_orphans)
def a_worker_outlives_the_block(patch):
    @asynccontextmanager
    async def start(engine, blueprint):
        async with start_worker(engine, blueprint) as worker:
            yield worker
        engine._workers.append(worker)

    start_worker = SimEngine.start
    patch.setattr(SimEngine, "start", start)


@caught_by(HANG)
def leaving_forgets_the_rest(patch):
    async def settle_rest(supervisor):
        for each in supervisor.slots:
            for request in itertools.chain(*each.let_go()):
                forget(request)

    patch.setattr(Supervisor, "settle_rest", settle_rest)


@caught_by(HANG)
def grace_period_ignored(patch):
    init = Supervisor.__init__

    def wait_for_ever(supervisor, options, engine):
        object.__setattr__(options, "grace_period", math.inf)
        init(supervisor, options, engine)

    # Else those that are stopped are found before.
    patch.setattr(SimWorker, "stands_still", lambda worker, *, busy: False)
    patch.setattr(Supervisor, "__init__", wait_for_ever)


@caught_by(HANG)
def boot_timeout_ignored(patch):
    init = Supervisor.__init__

    def wait_for_ever(supervisor, options, engine):
        object.__setattr__(options, "boot_timeout", math.inf)
        init(supervisor, options, engine)

    patch.setattr(Supervisor, "__init__", wait_for_ever)


# At most once, and nothing lost


@caught_by(promises.judge_at_most_once)
def what_may_have_begun_is_served_again(patch):
    def settle(ledger):
        entries = list(ledger.entries.values())
        ledger.entries.clear()
        return [], entries

    patch.setattr(Ledger, "settle", settle)


@caught_by(promises.judge_nothing_lost)
def one_too_many_may_have_begun(patch):
    def settle(ledger):
        entries = list(ledger.entries.values())
        ledger.entries.clear()
        return entries[: ledger.lanes + 1], entries[ledger.lanes + 1 :]

    patch.setattr(Ledger, "settle", settle)


@caught_by(promises.judge_nothing_lost)
def all_that_was_sent_fails(patch):
    def settle(ledger):
        entries = list(ledger.entries.values())
        ledger.entries.clear()
        return entries, []

    patch.setattr(Ledger, "settle", settle)


@caught_by(promises.judge_nothing_lost)
def the_last_that_was_sent_fails(patch):
    def settle(ledger):
        entries = list(ledger.entries.values())
        ledger.entries.clear()
        return entries[-1:], entries[:-1]

    patch.setattr(Ledger, "settle", settle)


@caught_by(promises.judge_rerouting)
def rerouted_in_reverse(patch):
    patch.setattr(slot, "number", lambda request: -request.number)


@caught_by(promises.judge_rerouting)
def rerouted_as_they_lay(patch):
    """First what was sent and queued, as the slot had it: what it took over comes too late."""
    patch.setattr(slot, "number", lambda request: 0)


@caught_by(HANG)
def the_queue_of_a_lost_slot_is_dropped(patch):
    def take_unsent(slot):
        for request in take(slot):
            forget(request)
        return []

    take = Slot.take_unsent
    patch.setattr(Slot, "take_unsent", take_unsent)


@caught_by(HANG)
def what_has_just_arrived_is_forgotten(patch):
    """The worker is lost after the consumer was handed a request, and before it ran."""

    def take_unsent(slot):
        for request in slot.backlog._arrived:
            forget(request)
        slot.backlog._arrived.clear()
        return take(slot)

    take = Slot.take_unsent
    patch.setattr(Slot, "take_unsent", take_unsent)


@caught_by(promises.judge_at_most_once)
def answers_before_the_end_are_not_read(patch):
    async def receive(worker):
        replies = await receive_all(worker)
        return [] if worker._exit is not None else replies

    receive_all = SimWorker.receive
    patch.setattr(SimWorker, "receive", receive)


# Isolation


@caught_by(promises.judge_nothing_lost)
def a_crash_fails_the_neighbours(patch):
    settle_exit = Incarnation.settle_exit

    def settle_all(incarnation, exit_):
        slot = incarnation._slot
        for other in slot.dispatcher._slots.values():
            if other is not slot:
                for request in other.backlog.executing():
                    request.fail(WorkerCrashedError("a neighbour died", slot=slot.index))
        return settle_exit(incarnation, exit_)

    patch.setattr(Incarnation, "settle_exit", settle_all)


@caught_by(promises.judge_isolation)
def a_crash_kills_the_neighbours(patch):
    settle_exit = Incarnation.settle_exit

    def kill_all(incarnation, exit_):
        slot = incarnation._slot
        for other in slot.dispatcher._slots.values():
            if other is not slot and other.current is not None:
                other.current.worker.kill()
        return settle_exit(incarnation, exit_)

    patch.setattr(Incarnation, "settle_exit", kill_all)


@caught_by(promises.judge_isolation)
def every_worker_dies_after_its_fifth(patch):
    def settle(incarnation, replies):
        settle_replies(incarnation, replies)
        if incarnation._slot.completed >= 5:
            incarnation.worker.kill()

    settle_replies = Incarnation._settle
    patch.setattr(Incarnation, "_settle", settle)


@caught_by(promises.judge_isolation)
def a_busy_neighbour_is_waited_for(patch):
    def next_frames(incarnation):
        slot = incarnation._slot
        others = [each for each in slot.dispatcher._slots.values() if each is not slot]
        if len([other for other in others if other.backlog.executing()]) == 2:
            return []
        return next_frames_alone(incarnation)

    next_frames_alone = Incarnation._next_frames
    patch.setattr(Incarnation, "_next_frames", next_frames)


# Cancellation


@caught_by(promises.judge_cancellation)
def a_cancelled_request_is_still_sent(patch):
    def withdraw(slot, request):
        slot.instruments.request_cancelled(request.number)
        return False

    patch.setattr(Slot, "withdraw", withdraw)


@caught_by(promises.judge_cancellation)
def only_the_queue_is_withdrawn_from(patch):
    def withdraw(backlog, request):
        if request in backlog._queue:
            del backlog._queue[request]
            return True
        return False

    patch.setattr(Backlog, "withdraw", withdraw)


# Limits


@caught_by(promises.judge_isolation)
def killed_without_a_look_at_what_it_has_answered(patch):
    async def kill(incarnation, order):
        incarnation._killed_for = order
        incarnation.worker.kill()
        await trio.sleep_forever()

    patch.setattr(Incarnation, "_kill", kill)


@caught_by(promises.judge_limits)
def time_counts_from_acceptance(patch):
    begun = Oversight.begun
    patch.setattr(
        Oversight,
        "begun",
        lambda oversight, request, now: begun(oversight, request, request.accepted),
    )


@caught_by(promises.judge_limits)
def what_was_sent_ahead_is_not_timed(patch):
    def begin_next(backlog):
        promoting.append(backlog)
        begin(backlog)
        promoting.clear()

    def begun(incarnation, request):
        if promoting:
            slot = incarnation._slot
            slot.instruments.request_begun(request.number, slot.index, incarnation.number)
        else:
            watch(incarnation, request)

    promoting = []
    begin, watch = Backlog.begin_next, Incarnation._begun
    patch.setattr(Backlog, "begin_next", begin_next)
    patch.setattr(Incarnation, "_begun", begun)


@caught_by(promises.judge_limits)
def no_time_out_at_all(patch):
    patch.setattr(Oversight, "_timeout_at", lambda oversight, record: math.inf)


@caught_by(promises.judge_limits)
def an_interrupt_without_a_signal(patch):
    patch.setattr(SimWorker, "interrupt", lambda worker: None)


@caught_by(promises.judge_limits)
def the_signal_before_the_frame(patch):
    def send_urgently(incarnation, frame):
        incarnation.worker.interrupt()
        incarnation.backlog.notify(frame)
        incarnation._slot.wake_consumer()

    patch.setattr(Incarnation, "send_urgently", send_urgently)


@caught_by(promises.judge_limits)
def killed_at_once_instead_of_interrupted(patch):
    order = Oversight.order

    def kill(oversight, now):
        found = order(oversight, now)
        return found and Order(found.request, "kill", found.reason)

    patch.setattr(Oversight, "order", kill)


@caught_by(promises.judge_limits)
def a_stubborn_request_goes_on(patch):
    init = Oversight.__init__
    patch.setattr(Oversight, "__init__", lambda oversight, grace: init(oversight, math.inf))


@caught_by(promises.judge_limits)
def the_cancelled_are_told_of_only_when_they_begin(patch):
    patch.setattr(Incarnation, "left", lambda incarnation, request: None)


@caught_by(promises.judge_one_outcome)
def who_is_cancelled_leaves_though_it_wants_to_wait(patch):
    def abort(call, raise_cancel):
        call.cancelled = True
        call.awaited = False
        call.place.withdraw(call)
        return trio.lowlevel.Abort.SUCCEEDED

    patch.setattr(Call, "abort", abort)


@caught_by(promises.judge_back_off)
def a_time_out_counts_as_a_failure_of_the_worker(patch):
    patch.setattr(Incarnation, "is_deliberate", False)


# Keys, broadcasts, overload, streams


@caught_by(promises.judge_keys)
def a_key_moves_when_its_worker_dies(patch):
    def pass_on(slot, requests, *, keeps, freed=()):
        keyed = [request for request in requests if request.key is not None]
        others = [each for each in slot.dispatcher._slots.values() if each is not slot]
        if keeps and others:
            for request in keyed:
                others[0].give(request)
            requests = [request for request in requests if request.key is None]
        pass_on_in_order(slot, requests, keeps=keeps, freed=freed)

    pass_on_in_order = Slot.pass_on
    patch.setattr(Slot, "pass_on", pass_on)


@caught_by(promises.judge_keys)
def a_key_takes_turns(patch):
    patch.setattr(Keys, "choose", lambda keys, app, key, slots: len(keys) % play.SLOTS)


@caught_by(promises.judge_broadcasts)
def a_broadcast_skips_what_boots(patch):
    def slots(dispatcher, target):
        return sorted(dispatcher._ready) or slots_of_all(dispatcher, target)

    slots_of_all = Dispatcher.slots_for_broadcast
    patch.setattr(Dispatcher, "slots_for_broadcast", slots)


@caught_by(promises.judge_max_queue)
def one_more_may_wait(patch):
    has_room = Slot.has_room
    patch.setattr(Slot, "has_room", lambda slot, most: has_room(slot, most + 1))


@caught_by(promises.judge_max_queue)
def the_pool_is_busy_too_soon(patch):
    has_room = Slot.has_room
    patch.setattr(Slot, "has_room", lambda slot, most: most > 0 and has_room(slot, most - 1))


@caught_by(promises.judge_one_outcome)
def the_last_chunk_is_dropped(patch):
    def end(request, error):
        if request.arrived and error is None:
            request.arrived.pop()
        end_in_order(request, error)

    end_in_order = StreamRequest._end
    patch.setattr(StreamRequest, "_end", end)


@caught_by(promises.judge_one_outcome)
def an_error_overtakes_the_chunks_before_it(patch):
    def end(request, error):
        if error is not None:
            request.arrived.clear()
        end_in_order(request, error)

    end_in_order = StreamRequest._end
    patch.setattr(StreamRequest, "_end", end)


@caught_by(promises.judge_window)
def requests_are_sent_ahead_behind_a_stream(patch):
    patch.setattr(StreamRequest, "streams", False)


@caught_by(promises.judge_limits)
def leaving_a_stream_lets_it_run_on(patch):
    withdraw = Backlog.withdraw

    def withdraw_calls(backlog, request):
        if request.streams and request.number in backlog._ledger.entries:
            return False
        return withdraw(backlog, request)

    patch.setattr(Backlog, "withdraw", withdraw_calls)


# Back-off


@caught_by(promises.judge_back_off)
def back_off_skipped(patch):
    patch.setattr(Backoff, "died", lambda backoff, completed: 0.0)


@caught_by(promises.judge_back_off)
def back_off_though_it_served(patch):
    died = Backoff.died
    patch.setattr(Backoff, "died", lambda backoff, completed: died(backoff, completed=0))


@caught_by(promises.judge_back_off)
def back_off_never_forgets(patch):
    def died(backoff, completed):
        failures = backoff.failures
        delay = count(backoff, completed=completed)
        backoff.failures = max(failures, backoff.failures)
        return delay

    count = Backoff.died
    patch.setattr(Backoff, "died", died)


@caught_by(promises.judge_back_off)
def given_up_too_soon(patch):
    died = Backoff.died

    def give_up(backoff, completed):
        delay = died(backoff, completed=completed)
        return None if backoff.failures == 3 else delay

    patch.setattr(Backoff, "died", give_up)


# Slots that come and go, workers that take over


@caught_by(promises.judge_order)
def a_successor_does_not_wait_for_its_predecessor(patch):
    async def consume(slot):
        while True:
            await slot._given.receive()
            slot._stale -= 1
            slot._take_in(slot.backlog.arrived + slot._stale)
            for incarnation in slot.incarnations:
                incarnation.send()

    patch.setattr(Slot, "consume", consume)


@caught_by(HANG)
def what_a_leaving_slot_had_waiting_is_dropped(patch):
    def pass_on_unsent(slot, *, keeps):
        unsent = [*slot.unsent()]
        slot.take_back(unsent)
        for request in unsent:
            forget(request)

    patch.setattr(Slot, "pass_on_unsent", pass_on_unsent)


@caught_by(promises.judge_order)
def what_lost_its_worker_goes_behind_what_came_later(patch):
    def put_last(backlog, requests):
        backlog._queue = OrderedDict.fromkeys([*backlog._queue, *requests])

    patch.setattr(Backlog, "put_first", put_last)


@caught_by(promises.judge_isolation)
def the_old_worker_is_killed_when_the_new_one_is_ready(patch):
    def retire(incarnation, cause):
        retire_in_order(incarnation, cause)
        if cause == "reload":
            incarnation.worker.die(-15)

    retire_in_order = Incarnation.retire
    patch.setattr(Incarnation, "retire", retire)


@caught_by(promises.judge_renewal)
def the_old_worker_goes_before_the_new_one_is_ready(patch):
    init = Wish.__init__

    def in_haste(wish, cause, apps=None, *, overlaps=True, worn=None):
        init(wish, cause, apps, overlaps=False, worn=worn)

    patch.setattr(Wish, "__init__", in_haste)


@caught_by(promises.judge_allocation)
def every_slot_carries_every_app(patch):
    def allocate(limits, staying, new):
        return {slot: frozenset(range(len(limits))) for slot in [*staying, *new]}

    patch.setattr(supervisor, "allocate", allocate)


@caught_by(promises.judge_allocation)
def the_last_carrier_leaves_and_nobody_takes_over(patch):
    patch.setattr(scaling, "gains", lambda limits, able, kept: {})


@caught_by(promises.judge_resizes)
def a_resize_returns_at_once(patch):
    patch.setattr(Scaling, "_is_so", lambda scaling: True)


@caught_by(promises.judge_keys)
def a_key_moves_before_its_slot_is_done_with_it(patch):
    choose = Keys.choose

    def choose_of_those_that_stay(keys, app, key, slots):
        slot = choose(keys, app, key, slots)
        return slot if slot in slots else slots[0]

    patch.setattr(Keys, "choose", choose_of_those_that_stay)


@caught_by(promises.judge_isolation)
def whatever_does_not_answer_is_killed(patch):
    """As if the time that a request takes told whether its worker stands still."""

    def look_after(incarnation):
        if incarnation.backlog.executing():
            incarnation.worker.kill()

    patch.setattr(Incarnation, "look_after", look_after)


# Lanes, streams and large arguments that meet


@caught_by(promises.judge_liveness, threads=2, lowered=True)
def the_queue_sleeps_where_a_result_comes_with_many_chunks(patch):
    def settle(incarnation, replies):
        slot = incarnation._slot
        slot.made_progress = lambda: None
        behind = settle_replies(incarnation, replies)
        del slot.made_progress
        if behind is None:
            slot.made_progress()
        return behind

    settle_replies = Incarnation._settle
    patch.setattr(Incarnation, "_settle", settle)


@caught_by(promises.judge_liveness, lowered=True, slow=1.5, max_requests=1)
def the_consumer_waits_for_the_socket_of_one_worker(patch):
    async def consume(slot):
        while True:
            await slot._given.receive()
            slot._stale -= 1
            slot._take_in(slot.backlog.arrived + slot._stale)
            for incarnation in slot.incarnations:
                incarnation.send()
                while incarnation.worker.unsent:  # noqa: ASYNC110  it has no event for that
                    await trio.sleep(0.1)
                if incarnation.retired_for is not None and incarnation.backlog.queued:
                    break

    patch.setattr(Slot, "consume", consume)


@caught_by(promises.judge_limits, lowered=True, slow=1.5)
def the_way_of_an_argument_counts_as_execution(patch):
    patch.setattr(Oversight, "transferred", lambda *args, **kwargs: None)


@caught_by(promises.judge_liveness)
def a_sign_of_life_wakes_nobody(patch):
    def ponged(incarnation):
        incarnation._is_pinged = False

    patch.setattr(Incarnation, "_ponged", ponged)


@caught_by(BREAKDOWN)
def the_hash_of_a_key_is_taken_again_and_again(patch):
    patch.setattr(Key, "__hash__", lambda key: hash(key._value))


@caught_by(promises.judge_one_outcome)
def what_a_key_raises_when_it_is_compared_reaches_the_pool(patch):
    patch.setattr(Key, "__eq__", lambda key, other: key._value == getattr(other, "_value", other))


@caught_by(HANG, pieces=True)
def only_the_first_of_what_a_lost_slot_had_are_routed_again(patch):
    async def route_none(supervisor):
        await trio.sleep_forever()

    patch.setattr(Supervisor, "_route_displaced", route_none)


# Statistics


@caught_by(promises.judge_statistics)
def those_count_as_queued_whose_callers_have_left(patch):
    def queued(backlog):
        entries = len(backlog._ledger.entries)
        waiting = len(backlog._arrived) + len(backlog._queue)
        return waiting + max(0, entries - backlog._ledger.lanes)

    patch.setattr(Backlog, "queued", property(queued))


@caught_by(promises.judge_statistics)
def what_slots_have_done_that_have_left_is_forgotten(patch):
    async def forget_all(supervisor, succession):
        succession.slot.completed = 0
        await forget_slot(supervisor, succession)

    forget_slot = Supervisor._forget
    patch.setattr(Supervisor, "_forget", forget_all)


@caught_by(promises.judge_utilisation)
def what_died_of_its_execution_was_not_executed(patch):
    patch.setattr(Durations, "add_unfinished", lambda durations, seconds: None)


@caught_by(promises.judge_utilisation, lowered=True)
def a_stream_that_is_held_counts_as_executed(patch):
    patch.setattr(StreamRequest, "held", lambda request, now: 0.0)


@caught_by(promises.judge_utilisation)
def what_is_executed_counts_from_the_last_answer(patch):
    def executed(incarnation, request, now):
        return max(0.0, now - max(incarnation.settled, request.accepted))

    patch.setattr(Incarnation, "executed", executed)


# What the pool of all was to do stays undone where one breaks down.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.__name__)
def test_variant_is_caught(variant, monkeypatch):
    variant(monkeypatch)
    judge, options = VARIANTS[variant]

    @given(script=play.scripts, seed=st.random_module())
    @settings(
        max_examples=WITHIN,
        deadline=None,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def search(script, seed):
        try:
            log = play.play_simulated(replace(script, **options))
            if judge not in (HANG, BREAKDOWN):
                judge(log)
        except trio.TooSlowError:
            if judge is HANG:
                raise CaughtError from None
        except AssertionError:
            raise CaughtError from None
        except Exception:
            if judge is not BREAKDOWN:
                raise
            raise CaughtError from None

    with pytest.raises(CaughtError):
        search()
