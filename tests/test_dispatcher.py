"""The dispatcher against a model: who gets which request, who waits, and nobody for nothing."""

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from messages import whole

from trio_dirty import NoWorkersAvailableError, PoolBusyError
from trio_dirty._dispatcher import Dispatcher
from trio_dirty._keys import OnlySlot
from trio_dirty._targets import AppPath, Target

CARRIES = [{0}, {0, 1}, {0, 1}, {1}]
"""The apps of each slot. The app None, of plain functions, every slot carries."""

APPS = [None, 0, 1]
SLOTS = range(len(CARRIES))

TARGETS = {
    None: Target(None, None, "function", b""),
    **{app: Target(app, AppPath("apps", f"App{app}"), "act", b"") for app in (0, 1)},
}


class Request:
    def __init__(self, number, app, key=None):
        self.number = number
        self.app = app
        self.target = TARGETS[app]
        self.key = key
        self.place = None

    def __repr__(self):
        return f"<{self.number} of {self.target}>"


class Slot:
    """A slot without a worker; it cannot let go of what it does not have."""

    def __init__(self, index, apps):
        self.index = index
        self.carries = frozenset(apps)
        self.queue = []

    @property
    def load(self):
        return len(self.queue)

    def has_room(self, max_queue):
        return len(self.queue) < max_queue

    def give(self, request):
        request.place = self
        self.queue.append(request)

    def unsent(self):
        return iter(self.queue)

    def take_back(self, requests):
        for request in requests:
            self.queue.remove(request)


def carriers(app):
    return [slot for slot in SLOTS if app is None or app in CARRIES[slot]]


def in_order(requests):
    return sorted(requests, key=lambda request: request.number)


class DispatcherMachine(RuleBasedStateMachine):
    """Requests come and leave, slots become ready, send, are lost and fail."""

    dispatcher_type = Dispatcher

    def __init__(self):
        super().__init__()
        self.left = []
        self.slots = [Slot(index, apps) for index, apps in enumerate(CARRIES)]
        self.dispatcher = self.dispatcher_type(self.slots, [0, 1], self.left.append)
        self.accepted = 0
        # The model.
        self.ready = set()
        self.causes = {}  # of the failed slots, in the order of failure
        self.queues = {slot: [] for slot in SLOTS}
        self.waiting = []
        self.withdrawn = []
        self.last = {}  # the slot that was given an app's last request
        self.given = {app: Counter() for app in APPS}  # since the app's ready slots changed

    def ready_carriers(self, app):
        return [slot for slot in carriers(app) if slot in self.ready]

    def is_hopeless(self, app):
        return all(slot in self.causes for slot in carriers(app))

    def ready_slots_change_by(self, slot):
        self.ready ^= {slot}
        for app in APPS:
            if slot in carriers(app):
                self.given[app].clear()

    def accept(self, request):
        app = request.app
        if ready := self.ready_carriers(app):
            behind = [slot for slot in ready if slot > self.last.get(app, -1)]
            turn = self.last[app] = (behind or ready)[0]
            self.given[app][turn] += 1
            self.queues[turn].append(request)
            self.dispatcher.accept(request)
        elif self.is_hopeless(app):
            cause = [self.causes[slot] for slot in self.causes if slot in carriers(app)][-1]
            message = (
                f"no worker is available for {request.target}: every slot that could take it "
                f"has failed; the last because: {cause}"
            )
            with pytest.raises(NoWorkersAvailableError, match=whole(message)) as caught:
                self.dispatcher.accept(request)
            assert caught.value.__cause__ is cause
        else:
            self.waiting.append(request)
            self.dispatcher.accept(request)

    @rule(app=st.sampled_from(APPS), count=st.integers(1, 10))
    def requests_come(self, app, count):
        for _ in range(count):
            self.accept(Request(self.accepted, app))
            self.accepted += 1

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def a_waiting_request_leaves(self, data):
        request = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
        self.withdrawn.append(request)
        self.dispatcher.withdraw(request)

    @precondition(lambda self: any(self.queues.values()))
    @rule(data=st.data())
    def a_slot_sends(self, data):
        slot = data.draw(st.sampled_from([slot for slot in SLOTS if self.queues[slot]]))
        assert self.slots[slot].queue.pop(0) is self.queues[slot].pop(0)

    @precondition(lambda self: len(self.ready) + len(self.causes) < len(SLOTS))
    @rule(data=st.data())
    def a_slot_becomes_ready(self, data):
        slot = data.draw(st.sampled_from(sorted({*SLOTS} - self.ready - {*self.causes})))
        apps = [app for app in APPS if slot in carriers(app)]
        taken = [request for request in self.waiting if request.app in apps]
        self.waiting = [request for request in self.waiting if request not in taken]
        for app in apps:
            others = self.ready_carriers(app)
            for other in others:
                present = [request for request in self.queues[other] if request.app == app]
                share = present[len(others) :: len(others) + 1]
                taken += share
                self.queues[other] = [r for r in self.queues[other] if r not in share]
        self.queues[slot] = in_order(taken)
        self.ready_slots_change_by(slot)
        self.dispatcher.ready(self.slots[slot])

    @precondition(lambda self: self.ready)
    @rule(data=st.data())
    def a_slot_is_lost(self, data):
        slot = data.draw(st.sampled_from(sorted(self.ready)))
        self.ready_slots_change_by(slot)
        self.dispatcher.lost(self.slots[slot])
        unbegun, self.queues[slot] = self.queues[slot], []
        self.slots[slot].queue.clear()
        for request in in_order(unbegun):
            self.accept(request)

    @precondition(lambda self: len(self.ready) + len(self.causes) < len(SLOTS))
    @rule(data=st.data())
    def a_lost_slot_fails(self, data):
        slot = data.draw(st.sampled_from(sorted({*SLOTS} - self.ready - {*self.causes})))
        cause = self.causes[slot] = OSError(f"slot {slot} is broken")
        hopeless = self.dispatcher.failed(self.slots[slot], cause)
        expected = [request for request in self.waiting if self.is_hopeless(request.app)]
        assert in_order(hopeless) == in_order(expected)
        self.waiting = [request for request in self.waiting if request not in expected]
        assert self.dispatcher.last_cause(None) is (cause if self.is_hopeless(None) else None)

    @rule()
    def let_go(self):
        assert in_order(self.dispatcher.let_go()) == in_order(self.waiting)
        self.waiting.clear()

    @invariant()
    def numbers_given_differ_by_at_most_one(self):
        for app in APPS:
            counts = [self.given[app][slot] for slot in self.ready_carriers(app)]
            assert not counts or max(counts) - min(counts) <= 1

    @invariant()
    def each_slot_has_what_the_rules_give_it(self):
        for slot in self.slots:
            assert slot.queue == self.queues[slot.index]
            assert all(request.place is slot for request in slot.queue)

    @invariant()
    def those_wait_that_no_slot_can_take_yet(self):
        waiting = [r for queue in self.dispatcher._waiting.values() for r in queue]
        assert in_order(waiting) == in_order(self.waiting)
        assert len(self.dispatcher) == len(self.waiting)
        assert all(request.place is self.dispatcher for request in self.waiting)
        assert not any(self.ready_carriers(request.app) for request in self.waiting)
        assert not any(self.is_hopeless(request.app) for request in self.waiting)

    @invariant()
    def each_that_leaves_is_told_of_once(self):
        assert self.left == self.withdrawn


test_dispatch_follows_its_rules = DispatcherMachine.TestCase


def test_a_lost_slot_gives_no_share_of_what_it_still_has():
    slots = [Slot(0, {0}), Slot(1, {0})]
    dispatcher = Dispatcher(slots, [0], list)
    dispatcher.ready(slots[0])
    for number in range(4):
        dispatcher.accept(Request(number, 0))
    dispatcher.lost(slots[0])
    dispatcher.ready(slots[1])
    assert [len(slot.queue) for slot in slots] == [4, 0]


def test_hopeless_are_those_of_an_app_that_nobody_left_carries():
    slots = [Slot(0, {0}), Slot(1, {1})]
    dispatcher = Dispatcher(slots, [0, 1], list)
    requests = [Request(number, app) for number, app in enumerate([0, 1, 0, None])]
    for request in requests:
        dispatcher.accept(request)
    assert dispatcher.failed(slots[0], RuntimeError("no")) == [requests[0], requests[2]]
    assert dispatcher.let_go() == [requests[3], requests[1]]
    assert dispatcher.let_go() == []


# Keys, broadcasts, loads


def three(**options):
    slots = [Slot(index, {0}) for index in range(3)]
    return slots, Dispatcher(slots, [0], list, **options)


def fill(slots, *counts):
    for slot, count in zip(slots, counts, strict=True):
        slot.queue = [f"{slot.index}, {number}" for number in range(count)]


def accept(dispatcher, **how):
    request = Request(99, 0, **how)
    dispatcher.accept(request)
    return request.place


def test_the_least_loaded_is_taken_and_turns_decide_between_equals():
    slots, dispatcher = three(routing="least_loaded")
    for slot in slots:
        dispatcher.ready(slot)
    fill(slots, 2, 1, 1)
    assert [accept(dispatcher).index for _ in range(6)] == [1, 2, 0, 1, 2, 0]


def test_those_that_are_not_ready_do_not_count():
    slots, dispatcher = three(routing="least_loaded")
    dispatcher.ready(slots[1])
    fill(slots, 0, 5, 0)
    assert accept(dispatcher) is slots[1]
    dispatcher.lost(slots[1])
    assert accept(dispatcher) is dispatcher


def test_full_ones_are_passed_over_and_when_all_are_full_the_pool_is_busy():
    slots, dispatcher = three(max_queue=2)
    for slot in slots:
        dispatcher.ready(slot)
    fill(slots, 2, 1, 0)
    assert [accept(dispatcher).index for _ in range(3)] == [1, 2, 2]
    message = (
        "the pool is busy: every slot that could take apps:App0.act has max_queue=2 requests "
        "that have not begun"
    )
    with pytest.raises(PoolBusyError, match=whole(message)):
        accept(dispatcher)
    assert [slot.load for slot in slots] == [2, 2, 2]


def test_those_that_lost_their_worker_are_never_refused():
    slots, dispatcher = three(max_queue=0)
    for slot in slots:
        dispatcher.ready(slot)
    for number in range(6):
        dispatcher.route(Request(number, 0))
    assert [slot.load for slot in slots] == [2, 2, 2]


def test_as_many_wait_in_the_pool_as_its_slots_could_take():
    slots, dispatcher = three(max_queue=1)
    dispatcher.failed(slots[2], RuntimeError("no"))
    assert [accept(dispatcher) for _ in range(2)] == [dispatcher] * 2
    with pytest.raises(PoolBusyError):
        accept(dispatcher)
    assert len(dispatcher) == 2


def test_a_key_waits_in_its_slot_though_others_are_ready():
    slots, dispatcher = three()
    place = accept(dispatcher, key="user")
    others = [slot for slot in slots if slot is not place]
    for slot in others:
        dispatcher.ready(slot)
    assert accept(dispatcher, key="user") is place
    assert [slot.load for slot in others] == [0, 0], "and is no part of a new slot's share"
    dispatcher.ready(place)
    assert accept(dispatcher, key="user") is place


def test_a_full_slot_refuses_its_keys():
    slots, dispatcher = three(max_queue=1)
    for slot in slots:
        dispatcher.ready(slot)
    accept(dispatcher, key="user")
    with pytest.raises(PoolBusyError):
        accept(dispatcher, key="user")


def test_a_key_moves_when_its_slot_has_failed():
    slots, dispatcher = three()
    place = accept(dispatcher, key="user")
    (request,) = place.queue
    dispatcher.failed(place, RuntimeError("no"))
    dispatcher.release(request)
    dispatcher.route(request)
    assert request.place is not place
    assert accept(dispatcher, key="user") is request.place
    for slot in slots:
        dispatcher.failed(slot, RuntimeError("no"))
    with pytest.raises(NoWorkersAvailableError, match="the last because: no"):
        accept(dispatcher, key="another")


def test_a_key_that_no_slot_can_take_is_hopeless_and_not_busy():
    slots, dispatcher = three(max_queue=0)
    for slot in slots:
        dispatcher.failed(slot, RuntimeError("no"))
    with pytest.raises(NoWorkersAvailableError, match="the last because: no"):
        accept(dispatcher, key="user")


def test_a_broadcast_goes_to_every_slot_that_has_not_failed():
    slots, dispatcher = three(max_queue=1)
    target = TARGETS[0]
    assert dispatcher.slots_for_broadcast(target) == [0, 1, 2]
    dispatcher.failed(slots[1], RuntimeError("no"))
    assert dispatcher.slots_for_broadcast(target) == [0, 2]
    part = Request(0, 0, key=OnlySlot(2))
    dispatcher.accept(part)
    assert part.place is slots[2]
    dispatcher.release(part)
    message = (
        "the pool is busy: slot 2, which is to take part in a broadcast of apps:App0.act, has "
        "max_queue=1 requests that have not begun"
    )
    with pytest.raises(PoolBusyError, match=whole(message)):
        dispatcher.slots_for_broadcast(target)
    with pytest.raises(NoWorkersAvailableError):
        dispatcher.route(Request(1, 0, key=OnlySlot(1)))
    dispatcher.failed(slots[0], RuntimeError("no"))
    dispatcher.failed(slots[2], RuntimeError("never"))
    with pytest.raises(NoWorkersAvailableError, match="the last because: never"):
        dispatcher.slots_for_broadcast(target)


def test_a_broadcast_may_be_unlimited():
    slots, dispatcher = three()
    fill(slots, 9, 9, 9)
    assert dispatcher.slots_for_broadcast(TARGETS[0]) == [0, 1, 2]


def test_what_waits_in_the_pool_has_no_worker_to_be_told_anything():
    _, dispatcher = three()
    assert accept(dispatcher).tell(None, b"") is None
