"""Pools that are broken on purpose: the judgement of the promises must find each of them.

Each variant alters one decision, and says which judge must find it. The search plays the
same scripts as the promises' own tests, more of them, and always the same. A variant that it
misses is a promise that nobody checks.
"""

import math
import pickle
import unittest
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace

import play
import promises
import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from trio_dirty import WorkerCrashedError
from trio_dirty._common import wire
from trio_dirty._engines.contract import Pong
from trio_dirty._pool import scaling, slot, slots
from trio_dirty._pool.calls import Call
from trio_dirty._pool.enforcement import Enforcement
from trio_dirty._pool.renewal import Renewal
from trio_dirty._pool.replacement import Replacement
from trio_dirty._pool.scaling import Scaling
from trio_dirty._pool.slot import Slot
from trio_dirty._pool.slots import Slots
from trio_dirty._pool.streams import StreamRequest
from trio_dirty._pool.supervisor import Supervisor
from trio_dirty._pool.worker import SlotWorker
from trio_dirty._rules import dispatcher, lifecycle, settlement
from trio_dirty._rules.deadlines import Deadlines
from trio_dirty._rules.dispatcher import Dispatcher, no_workers
from trio_dirty._rules.ledger import Ledger, Queue, Window
from trio_dirty._rules.lifecycle import Backoff, Event, Lifecycle, State
from trio_dirty._rules.request import Request
from trio_dirty._rules.routing import Key, Keys, Rotation, number as by_number
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


THREADS_OF_KEYS = [("ask", play.Ask(len(play.APPS), 4, key=key), 3) for key in range(3)]

CRASHES = [("crash", slot) for slot in range(play.SLOTS)]

KEYS_THAT_MOVE = [*THREADS_OF_KEYS, ("resize", 1), ("advance", 1), *THREADS_OF_KEYS]
"""What has keys leave slots in which they are still being executed, and others wait for that."""

WAITING_FOR_A_BOOT = [
    *THREADS_OF_KEYS,
    *[("boot badly", slot, [play.Boot(5.0)]) for slot in range(play.SLOTS)],
    *CRASHES,
    ("advance", 1),
    *[("cancel", number) for number in range(9)],
]
"""What has callers leave while their requests wait for the next worker of their slot."""

TWO_SLOTS_FAIL = [("ruin", 0), ("ruin", 1), ("advance", 5), ("advance", 5)]
"""What leaves one of three slots."""


def caught_by(judge, *opening, **options):
    """Say which judge must find a variant, and with which options of scripts it is to be met.

    Most need none of those that make other things likely, and are rarer with them. For what is
    very rare, each script begins with the operations of an opening.
    """

    def register(variant):
        VARIANTS[variant] = judge, opening, {**PLAIN, **options}
        return variant

    return register


class CaughtError(unittest.SkipTest):
    """A variant was caught. Hypothesis passes this on at once, and does not play it once more."""


def forget(request):
    """Let nobody ever end a request, and its caller wait until the play is ended."""
    request.place = SimpleNamespace(withdraw=lambda request: True)


def take_note(worker, request):
    """Take note that a caller has left, and tell the worker nothing of it."""
    worker._instruments.request_cancelled(request.number)
    if request in worker.ledger.may_have_begun():
        worker.deadlines.left(request, worker._slot.now())
    return False


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
    def take_in(slot, count):
        slot._in_channel -= count
        for _ in range(count):
            slot.queue.put_first([slot._given.receive_nowait()])

    patch.setattr(Slot, "_take_in", take_in)


@caught_by(promises.judge_order)
def one_app_first(patch):
    """Those that queue are sorted, if only a little."""
    take_in = Slot._take_in

    def take_in_and_sort(slot, count):
        take_in(slot, count)
        slot.queue.put(sorted(slot.queue.take_all(), key=lambda r: r.app is None))

    patch.setattr(Slot, "_take_in", take_in_and_sort)


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
    patch.setattr(Slot, "unsent", lambda slot: slot.queue)


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
        dispatcher.load_changed(slot)

    patch.setattr(Dispatcher, "ready", ready)


@caught_by(HANG)
def the_hopeless_wait_for_ever(patch):
    def failed(dispatcher, slot, cause):
        dispatcher._failed.add(slot.index)
        dispatcher._carriers_changed()

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
    async def serve_rest(supervisor):
        supervisor.scaling.stop()
        for replacement in supervisor.slots.replacements:
            replacement.close()

    patch.setattr(Supervisor, "serve_rest", serve_rest)


@caught_by(promises.judge_no_service_without_cause, *TWO_SLOTS_FAIL)
def new_calls_are_refused_when_two_of_three_have_failed(patch):
    def accept(dispatcher, request):
        failed = dispatcher._failed
        if len(failed) < 2:
            accept_all(dispatcher, request)
        else:
            raise no_workers(request.target, None)

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
        for each in supervisor.slots.all:
            for requests in each.let_go():
                for request in requests:
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
    patch.setattr(settlement, "number", lambda request: -request.number)


@caught_by(promises.judge_rerouting)
def rerouted_as_they_lay(patch):
    """First what was sent and queued, as the slot had it: what it took over comes too late."""
    patch.setattr(settlement, "number", lambda request: 0)


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
    """The worker is lost after a request was put into the channel, and before the consumer ran."""

    def take_unsent(slot):
        while slot._in_channel:
            slot._in_channel -= 1
            forget(slot._given.receive_nowait())
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
    settle_exit = SlotWorker.settle_exit

    def settle_all(worker, exit_):
        slot = worker._slot
        for other in slot.dispatcher._slots.values():
            if other is not slot and other.current is not None:
                for request in other.current.ledger.may_have_begun():
                    request.fail(WorkerCrashedError("a neighbour died", slot=slot.index))
        return settle_exit(worker, exit_)

    patch.setattr(SlotWorker, "settle_exit", settle_all)


@caught_by(promises.judge_isolation)
def a_crash_kills_the_neighbours(patch):
    settle_exit = SlotWorker.settle_exit

    def kill_all(worker, exit_):
        slot = worker._slot
        for other in slot.dispatcher._slots.values():
            if other is not slot and other.current is not None:
                other.current.worker.kill()
        return settle_exit(worker, exit_)

    patch.setattr(SlotWorker, "settle_exit", kill_all)


@caught_by(promises.judge_isolation)
def every_worker_dies_after_its_fifth(patch):
    def settle(worker, replies):
        settle_replies(worker, replies)
        if worker._slot.completed >= 5:
            worker.worker.kill()

    settle_replies = SlotWorker._settle
    patch.setattr(SlotWorker, "_settle", settle)


@caught_by(promises.judge_isolation)
def a_busy_neighbour_is_waited_for(patch):
    def next_frames(worker):
        slot = worker._slot
        others = [each for each in slot.dispatcher._slots.values() if each is not slot]
        busy = [each for each in others if each.current is not None and each.current.ledger.entries]
        return [] if len(busy) == 2 else next_frames_alone(worker)

    next_frames_alone = SlotWorker._next_frames
    patch.setattr(SlotWorker, "_next_frames", next_frames)


# Cancellation


@caught_by(promises.judge_cancellation)
def a_cancelled_request_is_still_sent(patch):
    def withdraw(place, request):
        place.instruments.request_cancelled(request.number)
        return False

    patch.setattr(Slot, "withdraw", withdraw)
    patch.setattr(SlotWorker, "withdraw", lambda worker, r: withdraw(worker._slot, r))


@caught_by(promises.judge_cancellation)
def only_the_queue_is_withdrawn_from(patch):
    patch.setattr(SlotWorker, "withdraw", take_note)


# Limits


@caught_by(promises.judge_isolation)
def killed_without_a_look_at_what_it_has_answered(patch):
    async def kill(enforcement, due):
        enforcement._worker.killed_for = due
        enforcement._worker.worker.kill()
        await trio.sleep_forever()

    patch.setattr(Enforcement, "_kill", kill)


@caught_by(promises.judge_limits)
def time_counts_from_acceptance(patch):
    begun = Deadlines.begun
    patch.setattr(
        Deadlines,
        "begun",
        lambda deadlines, request, now: begun(deadlines, request, request.accepted),
    )


@caught_by(promises.judge_limits)
def what_was_sent_ahead_is_not_timed(patch):
    def settle(worker, replies):
        promoting.append(worker)
        behind = settle_replies(worker, replies)
        promoting.clear()
        return behind

    def begin(worker, request, now):
        if promoting:
            request.began = now
            worker._instruments.request_begun(request.number, worker._slot.index, worker.number)
        else:
            watch(worker, request, now)

    promoting = []
    settle_replies, watch = SlotWorker._settle, SlotWorker._begin
    patch.setattr(SlotWorker, "_settle", settle)
    patch.setattr(SlotWorker, "_begin", begin)


@caught_by(promises.judge_limits)
def no_time_out_at_all(patch):
    patch.setattr(Deadlines, "_timeout_at", lambda deadlines, record: math.inf)


@caught_by(promises.judge_limits)
def an_interrupt_without_a_signal(patch):
    patch.setattr(SimWorker, "interrupt", lambda worker: None)


@caught_by(promises.judge_limits)
def the_signal_before_the_frame(patch):
    def send(worker, frame, *, is_urgent=False):
        if is_urgent:
            worker.worker.interrupt()
        notify(worker, frame)

    notify = SlotWorker.notify
    patch.setattr(SlotWorker, "notify", send)


@caught_by(promises.judge_limits)
def killed_at_once_instead_of_interrupted(patch):
    timeout_at, kill_at = Deadlines._timeout_at, Deadlines._kill_at

    def timed_out_at(deadlines, record):
        return min(timeout_at(deadlines, record), deadlines._soft_at(record))

    def killed_at(deadlines, record):
        return min(kill_at(deadlines, record), deadlines._interrupt_at(record))

    patch.setattr(Deadlines, "_timeout_at", timed_out_at)
    patch.setattr(Deadlines, "_kill_at", killed_at)


@caught_by(promises.judge_limits)
def a_stubborn_request_goes_on(patch):
    init = Deadlines.__init__
    patch.setattr(
        Deadlines,
        "__init__",
        lambda deadlines, cancel_grace, changed: init(deadlines, math.inf, changed),
    )


@caught_by(promises.judge_limits)
def the_cancelled_are_told_of_only_when_they_begin(patch):
    def withdraw(worker, request):
        worker._instruments.request_cancelled(request.number)
        worker.notify(wire.frame(wire.WITHDRAW, request.number))
        return False

    patch.setattr(SlotWorker, "withdraw", withdraw)


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
    died = Lifecycle.died

    def count(life, error, cause, *, completed, is_latest):
        completed -= cause == "killed"
        return died(life, error, cause, completed=completed, is_latest=is_latest)

    patch.setattr(Lifecycle, "died", count)


# Keys, broadcasts, overload, streams


@caught_by(promises.judge_keys)
def a_key_moves_when_its_worker_dies(patch):
    def settle(slot, requests, *, keeps_keys=False, keeps_pinned=False):
        requests = [*requests]
        keyed = [request for request in requests if request.key is not None]
        others = [each for each in slot.dispatcher._slots.values() if each is not slot]
        if keeps_keys and others:
            for request in keyed:
                others[0].give(request)
            requests = [request for request in requests if request.key is None]
        settle_in_order(slot, requests, keeps_keys=keeps_keys, keeps_pinned=keeps_pinned)

    settle_in_order = Slot.settle
    patch.setattr(Slot, "settle", settle)


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
    withdraw = SlotWorker.withdraw

    def withdraw_calls(worker, request):
        return take_note(worker, request) if request.streams else withdraw(worker, request)

    patch.setattr(SlotWorker, "withdraw", withdraw_calls)


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
            slot._take_in(slot._in_channel)
            for worker in slot.workers:
                worker.send()
            await slot._consumer.wait()

    patch.setattr(Slot, "consume", consume)


@caught_by(HANG)
def what_a_leaving_slot_had_waiting_is_dropped(patch):
    def drop(slot, **keeps):
        if slot.life.is_leaving:
            for request in slot.take_unsent():
                forget(request)
        else:
            settle_queue(slot, **keeps)

    settle_queue = Slot.settle_queue
    patch.setattr(Slot, "settle_queue", drop)


@caught_by(promises.judge_order)
def what_lost_its_worker_goes_behind_what_came_later(patch):
    patch.setattr(Queue, "put_first", Queue.put)


@caught_by(promises.judge_isolation)
def the_old_worker_is_killed_when_the_new_one_is_ready(patch):
    def retire(worker, cause):
        retire_in_order(worker, cause)
        if cause == "reload":
            worker.worker.die(-15)

    retire_in_order = SlotWorker.retire
    patch.setattr(SlotWorker, "retire", retire)


@caught_by(promises.judge_renewal)
def the_old_worker_goes_before_the_new_one_is_ready(patch):
    init = Renewal.__init__

    def in_haste(renewal, cause, apps=None, *, overlaps=True, worn=None):
        init(renewal, cause, apps, overlaps=False, worn=worn)

    patch.setattr(Renewal, "__init__", in_haste)


@caught_by(promises.judge_allocation)
def every_slot_carries_every_app(patch):
    def allocate(limits, staying, new):
        return {slot: frozenset(range(len(limits))) for slot in [*staying, *new]}

    patch.setattr(slots, "allocate", allocate)


@caught_by(promises.judge_allocation)
def the_last_carrier_leaves_and_nobody_takes_over(patch):
    patch.setattr(scaling, "gains", lambda limits, able, kept: {})


@caught_by(promises.judge_resizes)
def a_resize_returns_at_once(patch):
    patch.setattr(Scaling, "_is_so", lambda scaling: True)


@caught_by(promises.judge_keys, *KEYS_THAT_MOVE)
def a_key_moves_before_its_slot_is_done_with_it(patch):
    choose = Keys.choose

    def choose_of_those_that_stay(keys, app, key, slots):
        slot = choose(keys, app, key, slots)
        return slot if slot in slots else slots[0]

    patch.setattr(Keys, "choose", choose_of_those_that_stay)


@caught_by(promises.judge_isolation)
def whatever_does_not_answer_is_killed(patch):
    """As if the time that a request takes told whether its worker stands still."""

    def look_after(worker):
        if worker.ledger.entries:
            worker.worker.kill()

    patch.setattr(SlotWorker, "look_after", look_after)


# Lanes, streams and large arguments that meet


@caught_by(promises.judge_liveness, threads=2, lowered=True)
def the_queue_sleeps_where_a_result_comes_with_many_chunks(patch):
    def settle(worker, replies):
        slot = worker._slot
        progressed = slot.progressed
        slot.wake_consumer = slot.progressed = lambda: None
        behind = settle_replies(worker, replies)
        del slot.wake_consumer
        slot.progressed = progressed
        if behind is None:
            slot.wake_consumer()
            slot.progressed()
        return behind

    settle_replies = SlotWorker._settle
    patch.setattr(SlotWorker, "_settle", settle)


@caught_by(promises.judge_liveness, lowered=True, slow=1.5, max_requests=1)
def the_consumer_waits_for_the_socket_of_one_worker(patch):
    async def consume(slot):
        while True:
            slot._has_news = False
            slot._take_in(slot._in_channel)
            for worker in slot.workers:
                worker.send()
                while worker.worker.unsent:  # noqa: ASYNC110  it has no event for that
                    await trio.sleep(0.1)
                if worker is not slot.current and worker.ledger.waiting:
                    break
            if slot._has_news:
                await trio.lowlevel.checkpoint()
            else:
                await slot._consumer.wait()

    patch.setattr(Slot, "consume", consume)


@caught_by(promises.judge_limits, lowered=True, slow=1.5)
def the_way_of_an_argument_counts_as_execution(patch):
    patch.setattr(Deadlines, "transferred", lambda *args, **kwargs: None)


@caught_by(promises.judge_liveness)
def a_sign_of_life_wakes_nobody(patch):
    def settle(worker, replies):
        if any(type(reply) is Pong for reply in replies):
            worker.health.ponged()
        return settle_replies(worker, [reply for reply in replies if type(reply) is not Pong])

    settle_replies = SlotWorker._settle
    patch.setattr(SlotWorker, "_settle", settle)


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


# Settlement


def settled_otherwise(patch, change):
    """Have something changed of what becomes of requests that cannot have begun."""
    settle = slot.settle

    def settle_otherwise(requests, **keeps):
        requests = [*requests]
        return change(settle(requests, **keeps), requests, **keeps)

    patch.setattr(slot, "settle", settle_otherwise)


@caught_by(HANG)
def those_with_a_key_stay_in_a_slot_that_has_failed(patch):
    def keep(settled, requests, *, keeps_keys, keeps_pinned):
        kept = [request for request in settled.moved if request.key is not None]
        moved = [request for request in settled.moved if request.key is None]
        return replace(settled, kept=sorted([*kept, *settled.kept], key=by_number), moved=moved)

    settled_otherwise(patch, keep)


@caught_by(promises.judge_keys, max_requests=1)
def those_with_a_key_are_routed_again_though_their_slot_stays(patch):
    def move(settled, requests, *, keeps_keys, keeps_pinned):
        kept = [request for request in settled.kept if request.key is None]
        moved = [request for request in settled.kept if request.key is not None]
        return replace(settled, kept=kept, moved=sorted([*moved, *settled.moved], key=by_number))

    settled_otherwise(patch, move)


@caught_by(promises.judge_fairness)
def those_without_a_key_wait_for_the_next_worker_as_well(patch):
    def keep(settled, requests, *, keeps_keys, keeps_pinned):
        if not keeps_keys:
            return settled
        kept = sorted([*settled.kept, *settled.moved], key=by_number)
        return replace(settled, kept=kept, moved=[])

    settled_otherwise(patch, keep)


@caught_by(promises.judge_one_outcome)
def the_end_of_what_was_withdrawn_is_forgotten(patch):
    def forget_withdrawn(settled, requests, **keeps):
        return replace(settled, withdrawn=[])

    settled_otherwise(patch, forget_withdrawn)


@caught_by(promises.judge_cancellation)
def what_was_withdrawn_is_routed_again(patch):
    def route(settled, requests, **keeps):
        moved = sorted([*settled.moved, *settled.withdrawn], key=by_number)
        return replace(settled, moved=moved, withdrawn=[])

    settled_otherwise(patch, route)


@caught_by(HANG)
def the_stranded_parts_of_a_broadcast_are_forgotten(patch):
    def forget_stranded(settled, requests, **keeps):
        for request in settled.stranded:
            forget(request)
        return replace(settled, stranded=[])

    settled_otherwise(patch, forget_stranded)


@caught_by(promises.judge_no_service_without_cause)
def a_broadcast_is_given_up_where_its_worker_dies(patch):
    def strand(settled, requests, **keeps):
        stranded = [request for request in settled.kept if request.pinned is not None]
        kept = [request for request in settled.kept if request.pinned is None]
        return replace(settled, kept=kept, stranded=[*settled.stranded, *stranded])

    settled_otherwise(patch, strand)


@caught_by(HANG, *WAITING_FOR_A_BOOT)
def what_stays_is_taken_to_be_with_the_dead_worker(patch):
    def settle(slot, requests, **keeps):
        places = {request: request.place for request in requests}
        settle_in_order(slot, places, **keeps)
        for request in slot.queue:
            request.place = places.get(request, slot)

    settle_in_order = Slot.settle
    patch.setattr(Slot, "settle", settle)


@caught_by(HANG, *KEYS_THAT_MOVE, *CRASHES)
def what_has_waited_for_a_key_is_forgotten(patch):
    def release_all(dispatcher, requests):
        for request in requests:
            dispatcher._keys.end(request.app, request.key)

    patch.setattr(Dispatcher, "release_all", release_all)


@caught_by(promises.judge_keys, *KEYS_THAT_MOVE, *CRASHES)
def what_has_waited_for_a_key_goes_before_what_lost_its_slot(patch):
    def release_all(dispatcher, requests):
        for request in requests:
            dispatcher.release(request)

    patch.setattr(Dispatcher, "release_all", release_all)


# The consumer, and workers that are succeeded


@caught_by(HANG, lowered=True)
def what_the_consumer_leaves_in_the_channel_is_forgotten(patch):
    def take_some_in(slot, count):
        take_in(slot, count)
        while slot._in_channel:
            slot._in_channel -= 1
            forget(slot._given.receive_nowait())

    take_in = Slot._take_in
    patch.setattr(Slot, "_take_in", take_some_in)


@caught_by(promises.judge_order)
def a_worker_that_has_stepped_down_still_takes_from_the_queue(patch):
    patch.setattr(SlotWorker, "step_down", lambda worker: None)


@caught_by(promises.judge_liveness)
def a_successor_is_not_woken_when_its_predecessor_is_gone(patch):
    def forget_worker(slot, worker):
        slot.workers = tuple(each for each in slot.workers if each is not worker)

    patch.setattr(Slot, "forget", forget_worker)


# The life of a slot


@caught_by(promises.judge_back_off)
def a_worker_that_does_not_boot_counts_as_none(patch):
    not_booted = Lifecycle.not_booted

    def try_again(life, error):
        if life.state is not State.BOOTING or not life.has_booted:
            return not_booted(life, error)
        life._move(Event.NOT_BOOTED)
        return False

    patch.setattr(Lifecycle, "not_booted", try_again)


@caught_by(BREAKDOWN)
def the_end_of_an_old_worker_is_taken_for_that_of_the_current(patch):
    def ended(replacement, worker, failure):
        replacement._latest = worker
        ended_in_order(replacement, worker, failure)

    ended_in_order = Replacement._ended
    patch.setattr(Replacement, "_ended", ended)


@caught_by(promises.judge_renewal)
def the_new_worker_starts_though_the_old_one_has_to_be_gone_first(patch):
    patch.setitem(lifecycle._TABLE[State.READY], Event.VACATED, State.BOOTING)
    patch.setitem(lifecycle._TABLE[State.BOOTING], Event.GONE, State.BOOTING)


@caught_by(HANG, max_requests=1)
def the_end_of_a_worker_is_ignored_while_its_successor_boots(patch):
    patch.setitem(lifecycle._TABLE[State.RENEWING], Event.LOST, State.RENEWING)


@caught_by(HANG)
def the_death_of_a_worker_that_was_to_go_first_is_ignored(patch):
    def ended(replacement, worker, failure):
        if failure is None or not worker.is_retired:
            ended_in_order(replacement, worker, failure)

    ended_in_order = Replacement._ended
    patch.setattr(Replacement, "_ended", ended)


@caught_by(HANG)
def whoever_wants_a_worker_is_not_told_that_it_does_not_boot(patch):
    def end(renewal, error=None):
        if error is None:
            end_in_order(renewal)

    end_in_order = Renewal.end
    patch.setattr(Renewal, "end", end)


# Statistics


@caught_by(promises.judge_statistics)
def those_count_as_queued_whose_callers_have_left(patch):
    def waiting(ledger):
        return max(0, len(ledger.entries) - ledger.lanes)

    patch.setattr(Ledger, "waiting", property(waiting))


@caught_by(promises.judge_statistics)
def what_slots_have_done_that_have_left_is_forgotten(patch):
    async def forget_all(slots, replacement):
        replacement.slot.completed = 0
        await forget_slot(slots, replacement)

    forget_slot = Slots._forget
    patch.setattr(Slots, "_forget", forget_all)


@caught_by(promises.judge_utilisation)
def what_died_of_its_execution_was_not_executed(patch):
    patch.setattr(Durations, "add_unfinished", lambda durations, seconds: None)


@caught_by(promises.judge_utilisation, lowered=True)
def a_stream_that_is_held_counts_as_executed(patch):
    patch.setattr(StreamRequest, "_held", lambda request, now: 0.0)


@caught_by(promises.judge_utilisation)
def what_is_executed_counts_from_the_last_answer(patch):
    def take_over(slot, worker, apps):
        settled[worker] = slot.now()
        take_over_in_order(slot, worker, apps)

    def settle(worker, replies):
        settled[worker] = worker._slot.now()
        return settle_replies(worker, replies)

    def executed(request, now):
        return max(0.0, now - max(settled[request.place], request.accepted))

    settled = {}
    take_over_in_order, settle_replies = Slot.take_over, SlotWorker._settle
    patch.setattr(Slot, "take_over", take_over)
    patch.setattr(SlotWorker, "_settle", settle)
    patch.setattr(Request, "executed", executed)
    patch.setattr(StreamRequest, "executed", executed)


BROKEN_DOWN = []
"""What plays have ended with, and so what is left of them. Where trio itself has broken down, its
tasks are still there: freed during another test, they would complain there."""


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.__name__)
def test_variant_is_caught(variant, monkeypatch):
    variant(monkeypatch)
    judge, opening, options = VARIANTS[variant]

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
            operations = [*opening, *script.operations]
            log = play.play_simulated(replace(script, operations=operations, **options))
            if judge not in (HANG, BREAKDOWN):
                judge(log)
        except trio.TooSlowError as error:
            BROKEN_DOWN.append(error)
            if judge is HANG:
                raise CaughtError from None
        except AssertionError:
            raise CaughtError from None
        except Exception as error:
            BROKEN_DOWN.append(error)
            if judge is not BREAKDOWN:
                raise
            raise CaughtError from None

    with pytest.raises(CaughtError):
        search()
