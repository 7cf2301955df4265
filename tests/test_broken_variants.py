"""Pools that are broken on purpose: the judgement of the promises must find each of them."""

import play
import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from trio_dirty import _slot
from trio_dirty._dispatcher import Dispatcher
from trio_dirty._ledger import Ledger
from trio_dirty._routing import Rotation
from trio_dirty._slot import Slot
from trio_dirty.testing import SimWorker


def starts_two_at_once(patch):
    """The worker takes up a request without having answered the one before."""
    execute = SimWorker._execute_requests

    async def execute_in_two_tasks(worker, apps):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(execute, worker, apps)
            nursery.start_soon(execute, worker, apps)

    patch.setattr(SimWorker, "_execute_requests", execute_in_two_tasks)


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


def rerouted_in_reverse(patch):
    patch.setattr(_slot, "number", lambda request: -request.number)


def the_queue_of_a_lost_slot_is_dropped(patch):
    let_go = Slot.let_go
    patch.setattr(Slot, "let_go", lambda slot: (let_go(slot)[0], []))


def what_the_channel_has_handed_over_is_forgotten(patch):
    """The worker is lost after the consumer was handed a request, and before it ran."""

    def let_go(slot):
        slot._drain_channel(slot._given.statistics().current_buffer_used)
        begun, unbegun = slot._ledger.settle()
        unbegun += slot._queue
        slot._queue.clear()
        slot._arriving.clear()
        return begun, unbegun

    patch.setattr(Slot, "let_go", let_go)


def a_cancelled_request_is_still_sent(patch):
    patch.setattr(Slot, "withdraw", lambda slot, request: None)


def newest_first(patch):
    enqueue = Slot._enqueue

    def enqueue_in_front(slot, request):
        enqueue(slot, request)
        if request in slot._queue:
            slot._queue.move_to_end(request, last=False)

    patch.setattr(Slot, "_enqueue", enqueue_in_front)


def waiting_requests_stay_waiting(patch):
    def ready(dispatcher, slot):
        for app in dispatcher._apps_of(slot):
            dispatcher._rotations[app].add(slot.index)
        dispatcher._ready.add(slot.index)

    patch.setattr(Dispatcher, "ready", ready)


VARIANTS = [
    starts_two_at_once,
    rotation_resets_on_a_crash,
    rotation_forgets_who_was_last,
    always_the_first_ready_slot,
    what_may_have_begun_is_served_again,
    one_too_many_may_have_begun,
    all_that_was_sent_fails,
    rerouted_in_reverse,
    the_queue_of_a_lost_slot_is_dropped,
    what_the_channel_has_handed_over_is_forgotten,
    a_cancelled_request_is_still_sent,
    newest_first,
    waiting_requests_stay_waiting,
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.__name__)
def test_variant_is_caught(variant, monkeypatch):
    variant(monkeypatch)

    @given(script=play.scripts, flaky=st.booleans(), seed=st.random_module())
    @settings(
        max_examples=1000,
        deadline=None,
        phases=[Phase.generate],
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    def search(script, flaky, seed):
        play.judge(play.play_simulated(script, flaky=flaky))

    # TooSlowError: somebody waits for ever. An error of the variant's own would not count.
    with pytest.raises((AssertionError, trio.TooSlowError)):
        search()
