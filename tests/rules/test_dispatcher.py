"""The dispatcher against a model: who gets which request, who waits, and nobody for nothing."""

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from messages import whole

from trio_dirty import NoWorkersAvailableError, PoolBusyError
from trio_dirty._rules.dispatcher import Dispatcher, no_workers
from trio_dirty._rules.routing import Loads, highest_random_weight
from trio_dirty._rules.targets import AppPath, Target

CARRIES = [{0}, {0, 1}, {0, 1}, {1}]
"""The apps of each slot at first. The app None, of plain functions, every slot carries."""

APPS = [None, 0, 1]
KEYS = ["a", "b"]
INDICES = range(len(CARRIES) + 2)

TARGETS = {
    None: Target(None, None, "function", b""),
    **{app: Target(app, AppPath("apps", f"App{app}"), "act", b"") for app in (0, 1)},
}


def never(request, error):
    raise AssertionError(f"{request} was hopeless: {error}")


class Request:
    def __init__(self, number, app, key=None, pinned=None):
        self.number = number
        self.pinned = pinned
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

    def give_all(self, requests):
        for request in requests:
            self.give(request)

    def unsent(self):
        return iter(self.queue)

    def take_back(self, requests):
        for request in requests:
            self.queue.remove(request)


def told(dispatcher):
    """Route what is displaced; return what turns out to be hopeless."""
    hopeless = []
    dispatcher.end_hopeless = lambda request, error: hopeless.append(request)
    dispatcher.route_displaced(1_000)
    return hopeless


def in_order(requests):
    return sorted(requests, key=lambda request: request.number)


class DispatcherMachine(RuleBasedStateMachine):
    """Requests come and leave; slots become ready, send, are lost, fail, are revived, gain an
    app, come and go.
    """

    def __init__(self):
        super().__init__()
        self.left = []
        self.slots = {index: Slot(index, apps) for index, apps in enumerate(CARRIES)}
        self.dispatcher = Dispatcher(
            self.slots.values(), [0, 1], self.left.append, self.end_hopeless
        )
        self.accepted = 0
        # The model.
        self.ready = set()
        self.failed = set()
        self.causes = {}  # by app, of the latest failure
        self.queues = {slot: [] for slot in self.slots}
        self.waiting = []
        self.withdrawn = []
        self.last = {}  # the slot that was given an app's last request
        self.given = {app: Counter() for app in APPS}  # since the app's ready slots changed
        # Of each app and key: where it is, what of it has not ended, and what is to follow it.
        self.places = {}
        self.begun = []
        self.moving = []
        self.displaced = []  # what has lost its slot and has not been routed again
        self.hopeless = []
        self.latest_begun = {}

    def end_hopeless(self, request, error):
        self.hopeless.append((request, error))

    def carriers(self, app):
        return [
            index
            for index, slot in sorted(self.slots.items())
            if (app is None or app in slot.carries) and index not in self.failed
        ]

    def ready_carriers(self, app):
        return [slot for slot in self.carriers(app) if slot in self.ready]

    def apps_of(self, index):
        return [None, *sorted(self.slots[index].carries)]

    def not_ready(self):
        return sorted(self.slots.keys() - self.ready - self.failed)

    def ready_slots_change(self, apps):
        for app in apps:
            self.given[app].clear()

    def message(self, request):
        why = "the only slot that could take it leaves the pool"
        cause = self.causes.get(request.app)
        if cause is not None:
            why = f"every slot that could take it has failed; the last because: {cause}"
        return f"no worker is available for {request.target}: {why}"

    def accept(self, request):
        if request.key is not None and any(r.key is not None for r in self.displaced):
            self.displaced.append(request)
        elif not self.carriers(request.app):
            with pytest.raises(NoWorkersAvailableError, match=whole(self.message(request))) as e:
                self.dispatcher.accept(request)
            assert e.value.__cause__ is self.causes.get(request.app)
            return
        else:
            self.route(request)
        self.dispatcher.accept(request)

    def route(self, request):
        app = request.app
        if request.key is not None:
            self.route_by_key(request)
        elif ready := self.ready_carriers(app):
            behind = [slot for slot in ready if slot > self.last.get(app, -1)]
            turn = self.last[app] = (behind or ready)[0]
            self.given[app][turn] += 1
            self.queues[turn].append(request)
        else:
            self.waiting.append(request)

    def route_by_key(self, request):
        way = request.app, request.key
        several = self.carriers(request.app)
        slot, _ = self.places.get(way) or (None, None)
        if slot is None:
            slot = self.slots[highest_random_weight(hash(request.key), several)]
        if self.slots.get(slot.index) is not slot or slot.index not in several:
            self.moving.append(request)
            return
        followers = [r for r in self.moving if (r.app, r.key) == way]
        self.moving = [r for r in self.moving if r not in followers]
        for each in in_order([*followers, request]):
            self.places.setdefault(way, (slot, []))[1].append(each)
            self.queues[slot.index].append(each)

    def unplace(self, request):
        """Return what has waited for that."""
        way = request.app, request.key
        self.places[way][1].remove(request)
        freed = []
        if not self.places[way][1]:
            del self.places[way]
            freed = in_order(r for r in self.moving if (r.app, r.key) == way)
            self.moving = [r for r in self.moving if r not in freed]
        return freed

    def release(self, request):
        way = request.app, request.key
        self.places[way][1].remove(request)
        if not self.places[way][1]:
            del self.places[way]
            followers = in_order(r for r in self.moving if (r.app, r.key) == way)
            self.moving = [r for r in self.moving if r not in followers]
            for each in followers:
                self.route_by_key(each)
        self.dispatcher.release(request)

    def pass_on(self, slot, keeps, ended=()):
        """Do what a slot does with what it has been given and has not sent."""
        moving = []
        freed = []
        for request in ended:
            freed += self.unplace(request)
        self.dispatcher.release_all(ended)
        unbegun, self.queues[slot.index] = self.queues[slot.index], []
        kept = [request for request in unbegun if keeps and request.key is not None]
        self.queues[slot.index] = kept
        slot.queue = [*kept]
        for request in unbegun:
            if request in kept:
                continue
            if request.key is not None:
                freed += self.unplace(request)
            moving.append(request)
        self.dispatcher.release_all([request for request in moving if request.key is not None])
        self.dispatcher.displace(in_order(moving))
        self.displaced = in_order(self.displaced + moving + freed)

    @precondition(lambda self: self.displaced)
    @rule(count=st.integers(1, 10) | st.just(1_000))
    def displaced_are_routed(self, count):
        self.dispatcher.route_displaced(count)
        routed, self.displaced = self.displaced[:count], self.displaced[count:]
        for request in routed:
            if self.carriers(request.app):
                self.route(request)
                continue
            hopeless, error = self.hopeless.pop(0)
            assert (hopeless, str(error)) == (request, self.message(request))
        assert self.hopeless == []

    def take_part(self, index, apps):
        """Give a slot its share of what already waits."""
        taken = [request for request in self.waiting if request.app in apps]
        self.waiting = [request for request in self.waiting if request not in taken]
        for app in apps:
            others = [other for other in self.ready_carriers(app) if other != index]
            for other in others:
                present = [r for r in self.queues[other] if r.app == app and r.key is None]
                share = present[len(others) :: len(others) + 1]
                taken += share
                self.queues[other] = [r for r in self.queues[other] if r not in share]
        self.queues[index] += in_order(taken)
        self.ready_slots_change(apps)

    def the_hopeless_are_displaced(self):
        """They are told so when they are routed, unless there is hope again by then."""
        hopeless = [r for r in self.waiting + self.moving if not self.carriers(r.app)]
        self.waiting = [request for request in self.waiting if request not in hopeless]
        self.moving = [request for request in self.moving if request not in hopeless]
        self.displaced = in_order(self.displaced + hopeless)

    # Requests

    @initialize(ready=st.sets(st.sampled_from(range(len(CARRIES)))))
    def the_pool_is_opened(self, ready):
        for index in sorted(ready):
            self.ready.add(index)
            self.dispatcher.ready(self.slots[index])

    @rule(app=st.sampled_from(APPS), count=st.integers(1, 10))
    def requests_come(self, app, count):
        self.come(app, None, count)

    @rule(app=st.sampled_from([None, 0]), key=st.sampled_from(KEYS), count=st.integers(1, 5))
    def requests_with_a_key_come(self, app, key, count):
        self.come(app, key, count)

    def come(self, app, key, count):
        for _ in range(count):
            self.accept(Request(self.accepted, app, key))
            self.accepted += 1

    @precondition(lambda self: self.waiting or self.moving or self.displaced)
    @rule(data=st.data())
    def a_waiting_request_leaves(self, data):
        request = data.draw(st.sampled_from(self.waiting + self.moving + self.displaced))
        for queue in (self.waiting, self.moving, self.displaced):
            if request in queue:
                queue.remove(request)
        self.withdrawn.append(request)
        assert self.dispatcher.withdraw(request)

    @precondition(lambda self: any(self.queues[slot] for slot in self.ready))
    @rule(data=st.data(), count=st.integers(1, 5))
    def a_slot_sends(self, data, count):
        self.send(data, count)

    @precondition(lambda self: any(r.key for i in self.ready for r in self.queues[i]))
    @rule(data=st.data())
    def a_slot_sends_all(self, data):
        self.send(data, 1000)

    def send(self, data, count):
        index = data.draw(st.sampled_from([i for i in sorted(self.ready) if self.queues[i]]))
        slot = self.slots[index]
        for _ in range(min(count, len(slot.queue))):
            request = slot.queue.pop(0)
            assert request is self.queues[index].pop(0)
            if request.key is not None:
                way = request.app, request.key
                assert self.latest_begun.get(way, -1) < request.number
                self.latest_begun[way] = request.number
                self.begun.append(request)

    @precondition(lambda self: self.begun)
    @rule(data=st.data())
    def a_request_with_a_key_ends(self, data):
        request = data.draw(st.sampled_from(self.begun))
        self.begun.remove(request)
        self.release(request)

    @precondition(lambda self: any(r.key for queue in self.queues.values() for r in queue))
    @rule(data=st.data())
    def a_request_with_a_key_leaves(self, data):
        queued = [r for queue in self.queues.values() for r in queue if r.key is not None]
        request = data.draw(st.sampled_from(in_order(queued)))
        self.queues[request.place.index].remove(request)
        request.place.queue.remove(request)
        self.release(request)

    @rule()
    def let_go(self):
        present = self.waiting + self.moving + self.displaced
        assert in_order(self.dispatcher.let_go()) == in_order(present)
        self.displaced.clear()
        self.waiting.clear()
        self.moving.clear()

    # Slots

    @precondition(lambda self: self.not_ready())
    @rule(data=st.data(), gained=st.sets(st.sampled_from([0, 1]), max_size=1))
    def a_slot_becomes_ready(self, data, gained):
        index = data.draw(st.sampled_from(self.not_ready()))
        slot = self.slots[index]
        slot.carries |= gained
        self.take_part(index, self.apps_of(index))
        self.ready.add(index)
        self.dispatcher.ready(slot)

    @precondition(lambda self: self.ready)
    @rule(data=st.data(), app=st.sampled_from([0, 1]))
    def a_ready_slot_gains_an_app(self, data, app):
        index = data.draw(st.sampled_from(sorted(self.ready)))
        slot = self.slots[index]
        gained = {app} - slot.carries
        slot.carries |= gained
        self.take_part(index, gained)
        self.dispatcher.gained(slot, gained)

    @precondition(lambda self: self.ready)
    @rule(data=st.data(), dies=st.booleans())
    def a_slot_is_lost(self, data, dies):
        index = data.draw(st.sampled_from(sorted(self.ready)))
        slot = self.slots[index]
        self.ready.remove(index)
        self.ready_slots_change(self.apps_of(index))
        self.dispatcher.lost(slot)
        ended = [request for request in self.begun if dies and request.place is slot]
        self.begun = [request for request in self.begun if request not in ended]
        self.pass_on(slot, keeps=True, ended=ended)

    @precondition(lambda self: self.not_ready())
    @rule(data=st.data())
    def a_lost_slot_fails(self, data):
        index = data.draw(st.sampled_from(self.not_ready()))
        slot = self.slots[index]
        cause = OSError(f"slot {index} is broken")
        self.failed.add(index)
        self.causes.update(dict.fromkeys(self.apps_of(index), cause))
        self.dispatcher.failed(slot, cause)
        self.the_hopeless_are_displaced()
        self.pass_on(slot, keeps=False)

    @precondition(lambda self: self.failed)
    @rule(data=st.data(), gained=st.sets(st.sampled_from([0, 1]), max_size=1))
    def a_failed_slot_is_revived(self, data, gained):
        index = data.draw(st.sampled_from(sorted(self.failed)))
        self.failed.remove(index)
        self.slots[index].carries |= gained
        self.dispatcher.revive(self.slots[index])

    @precondition(lambda self: len(self.slots) < len(INDICES))
    @rule(data=st.data(), apps=st.sets(st.sampled_from([0, 1])))
    def a_slot_is_added(self, data, apps):
        # The index of one that has been removed is free when nothing of that is left.
        taken = self.slots.keys() | {slot.index for slot, _ in self.places.values()}
        free = [index for index in INDICES if index not in taken]
        if free:
            index = data.draw(st.sampled_from(free))
            slot = self.slots[index] = Slot(index, apps)
            self.queues[index] = []
            self.dispatcher.add(slot)

    @precondition(lambda self: len(self.slots) > 1)
    @rule(data=st.data())
    def a_slot_is_removed(self, data):
        index = data.draw(st.sampled_from(sorted(self.slots)))
        self.ready_slots_change(self.apps_of(index) if index in self.ready else [])
        self.ready.discard(index)
        self.failed.discard(index)
        slot = self.slots.pop(index)
        self.dispatcher.remove(slot)
        self.the_hopeless_are_displaced()
        self.pass_on(slot, keeps=False)
        assert slot.queue == self.queues.pop(index) == []

    # What holds

    @invariant()
    def numbers_given_differ_by_at_most_one(self):
        for app in APPS:
            counts = [self.given[app][slot] for slot in self.ready_carriers(app)]
            assert not counts or max(counts) - min(counts) <= 1

    @invariant()
    def each_slot_has_what_the_rules_give_it(self):
        for index, slot in self.slots.items():
            assert slot.queue == self.queues[index]
            assert all(request.place is slot for request in slot.queue)

    @invariant()
    def those_wait_that_no_slot_can_take_yet(self):
        waiting = [r for queue in self.dispatcher._waiting.values() for r in queue]
        assert in_order(waiting) == in_order(self.waiting)
        present = self.waiting + self.moving + self.displaced
        assert len(self.dispatcher) == len(present)
        assert self.dispatcher.has_displaced == bool(self.displaced)
        assert all(r.place is self.dispatcher for r in present)
        assert not any(self.ready_carriers(request.app) for request in self.waiting)
        assert all(self.carriers(request.app) for request in self.waiting + self.moving)

    @invariant()
    def what_follows_waits_for_the_end_of_what_it_follows(self):
        for way, queue in self.dispatcher._moving.items():
            assert [*queue] == in_order(r for r in self.moving if (r.app, r.key) == way)
        assert all((r.app, r.key) in self.places for r in self.moving)
        assert len(self.dispatcher._keys) == len(self.places)

    @invariant()
    def each_that_leaves_is_told_of_once(self):
        assert self.left == self.withdrawn


test_dispatch_follows_its_rules = DispatcherMachine.TestCase


def test_a_lost_slot_gives_no_share_of_what_it_still_has():
    slots = [Slot(0, {0}), Slot(1, {0})]
    dispatcher = Dispatcher(slots, [0], list, never)
    dispatcher.ready(slots[0])
    for number in range(4):
        dispatcher.accept(Request(number, 0))
    dispatcher.lost(slots[0])
    dispatcher.ready(slots[1])
    assert [len(slot.queue) for slot in slots] == [4, 0]


def test_hopeless_are_those_of_an_app_that_nobody_left_carries():
    slots = [Slot(0, {0}), Slot(1, {1})]
    dispatcher = Dispatcher(slots, [0, 1], list, never)
    requests = [Request(number, app) for number, app in enumerate([0, 1, 0, None])]
    for request in requests:
        dispatcher.accept(request)
    dispatcher.failed(slots[0], RuntimeError("no"))
    assert told(dispatcher) == [requests[0], requests[2]]
    assert dispatcher.let_go() == [requests[3], requests[1]]
    assert dispatcher.let_go() == []


# Keys, broadcasts, loads


def three(**options):
    slots = [Slot(index, {0}) for index in range(3)]
    return slots, Dispatcher(slots, [0], list, never, **options)


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
    for slot in slots:
        dispatcher.load_changed(slot)
    assert [accept(dispatcher).index for _ in range(6)] == [1, 2, 0, 1, 2, 0]


class LoadMachine(RuleBasedStateMachine):
    """Loads change and slots come and go: it is always the least of those that are ready."""

    slots_of = st.integers(0, 69)

    def __init__(self):
        super().__init__()
        self.slots = [Slot(index, {0} if index % 3 else {0, 1}) for index in range(70)]
        self.dispatcher = Dispatcher(self.slots, [0, 1], list, never, routing="least_loaded")
        self.ready = set()
        self.last = {0: -1, 1: -1}

    @rule(index=slots_of)
    def comes_or_goes(self, index):
        (self.dispatcher.lost if index in self.ready else self.dispatcher.ready)(self.slots[index])
        self.ready ^= {index}

    @rule(index=slots_of, load=st.integers(0, 3))
    def has_another_load(self, index, load):
        self.slots[index].queue = [Request(0, None, "stays")] * load
        self.dispatcher.load_changed(self.slots[index])

    @precondition(lambda self: any(index % 3 == 0 for index in self.ready))
    @rule(app=st.sampled_from([0, 1]), times=st.integers(1, 9))
    def is_chosen(self, app, times):
        for _ in range(times):
            able = sorted(each for each in self.ready if app in self.slots[each].carries)
            in_turn = sorted(able, key=lambda index: index <= self.last[app])
            chosen = min(in_turn, key=lambda index: self.slots[index].load)
            request = Request(0, app)
            self.dispatcher.accept(request)
            assert request.place is self.slots[chosen]
            request.key = "stays"  # so that nobody who comes takes it away
            self.last[app] = chosen


test_the_least_loaded_is_found_among_many = LoadMachine.TestCase


def test_of_a_slot_that_leaves_no_load_is_remembered():
    slots, dispatcher = three(routing="least_loaded")
    for slot in slots:
        dispatcher.ready(slot)
    assert accept(dispatcher) is slots[0]
    dispatcher.load_changed(slots[2])
    dispatcher.remove(slots[2])
    dispatcher.load_changed(slots[2])  # it ends what it has been given
    assert accept(dispatcher) is slots[1]
    assert dispatcher._loads._loads == {0: 1, 1: 0}


def test_those_that_are_not_ready_do_not_count():
    slots, dispatcher = three(routing="least_loaded")
    dispatcher.ready(slots[1])
    fill(slots, 0, 5, 0)
    for slot in slots:
        dispatcher.load_changed(slot)
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


def test_only_the_carriers_of_its_app_have_room_for_a_key():
    slots = [Slot(0, {0}), Slot(1, {1})]
    dispatcher = Dispatcher(slots, [0, 1], list, never, max_queue=20)
    assert all(accept(dispatcher, key=key) is slots[0] for key in range(20))


def test_a_key_moves_when_its_slot_has_failed():
    slots, dispatcher = three()
    place = accept(dispatcher, key="user")
    (request,) = place.queue
    dispatcher.failed(place, RuntimeError("no"))
    dispatcher.release_all([request])
    assert not dispatcher.has_displaced
    dispatcher.route(request)
    assert request.place is not place
    assert accept(dispatcher, key="user") is request.place
    for slot in slots:
        dispatcher.failed(slot, RuntimeError("no"))
    with pytest.raises(NoWorkersAvailableError, match="the last because: no"):
        accept(dispatcher, key="another")


def test_what_moves_is_begun_in_order_whatever_comes_back_in_between():
    _, dispatcher = three()
    first, late, early = (Request(number, 0, "user") for number in (0, 2, 1))
    dispatcher.accept(first)
    home = first.place
    home.queue.clear()
    dispatcher.remove(home)
    for request in (late, early):
        dispatcher.route(request)
        assert request.place is dispatcher
    dispatcher.release(first)
    assert early.place is late.place is not home
    assert late.place.queue == [early, late]


def test_what_waits_to_move_waits_for_the_end_of_all_that_it_follows():
    _, dispatcher = three()
    first, second, third = (Request(number, 0, "user") for number in range(3))
    dispatcher.accept(first)
    dispatcher.accept(second)
    dispatcher.remove(first.place)
    dispatcher.accept(third)
    dispatcher.release(first)
    assert third.place is dispatcher
    dispatcher.release(second)
    assert third.place is not dispatcher


def test_what_waits_to_move_goes_before_what_comes_when_its_slot_is_revived():
    _, dispatcher = three()
    requests = [Request(number, 0, "user") for number in range(3)]
    dispatcher.accept(requests[0])
    home = requests[0].place
    home.queue.clear()
    dispatcher.failed(home, RuntimeError("no"))
    dispatcher.accept(requests[1])
    assert requests[1].place is dispatcher, "its slot still executes one, but takes no more"
    dispatcher.revive(home)
    dispatcher.accept(requests[2])
    assert home.queue == requests[1:]


def test_a_slot_that_has_left_cannot_fail_the_one_that_has_its_index_now():
    slots, dispatcher = three()
    dispatcher.remove(slots[2])
    dispatcher.failed(slots[2], RuntimeError("no"))
    assert told(dispatcher) == []
    successor = Slot(2, {0})
    dispatcher.add(successor)
    dispatcher.failed(slots[2], RuntimeError("no"))
    assert told(dispatcher) == []
    assert dispatcher.carriers(0) == [0, 1, 2]


def test_what_waits_to_move_is_hopeless_when_the_last_slot_fails():
    slots, dispatcher = three()
    place = accept(dispatcher, key="user")
    dispatcher.remove(place)
    request = Request(100, 0, "user")
    dispatcher.accept(request)
    one, other = (slot for slot in slots if slot is not place)
    dispatcher.failed(one, RuntimeError("no"))
    assert told(dispatcher) == []
    dispatcher.failed(other, RuntimeError("no"))
    assert told(dispatcher) == [request]
    assert len(dispatcher) == 0


def test_what_waits_to_move_is_hopeless_when_only_others_are_left():
    slots = [Slot(0, {0}), Slot(1, {0}), Slot(2, {1})]
    dispatcher = Dispatcher(slots, [0, 1], list, never)
    place = accept(dispatcher, key="user")
    dispatcher.remove(place)
    request = Request(100, 0, "user")
    dispatcher.accept(request)
    dispatcher.failed(slots[1 - place.index], RuntimeError("no"))
    assert told(dispatcher) == [request]
    assert len(dispatcher) == 0


def test_what_waits_to_move_takes_room():
    _, dispatcher = three(max_queue=2)
    place = accept(dispatcher, key="user")
    dispatcher.remove(place)
    assert [accept(dispatcher, key="user") for _ in range(2)] == [dispatcher] * 2
    message = (
        "the pool is busy: every slot that could take apps:App0.act has max_queue=2 requests "
        "that have not begun"
    )
    with pytest.raises(PoolBusyError, match=whole(message)):
        accept(dispatcher, key="user")


def test_what_is_removed_when_all_the_others_have_failed_leaves_nobody_waiting():
    slots, dispatcher = three()
    dispatcher.failed(slots[0], RuntimeError("no"))
    dispatcher.failed(slots[1], RuntimeError("never"))
    request = Request(0, 0)
    dispatcher.accept(request)
    dispatcher.remove(slots[2])
    assert told(dispatcher) == [request]
    assert len(dispatcher) == 0


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
    part = Request(0, 0, pinned=2)
    dispatcher.accept(part)
    assert part.place is slots[2]
    message = (
        "the pool is busy: slot 2, which is to take part in a broadcast of apps:App0.act, has "
        "max_queue=1 requests that have not begun"
    )
    with pytest.raises(PoolBusyError, match=whole(message)):
        dispatcher.slots_for_broadcast(target)
    with pytest.raises(NoWorkersAvailableError):
        dispatcher.route(Request(1, 0, pinned=1))
    dispatcher.failed(slots[0], RuntimeError("no"))
    dispatcher.failed(slots[2], RuntimeError("never"))
    with pytest.raises(NoWorkersAvailableError, match="the last because: never"):
        dispatcher.slots_for_broadcast(target)


def test_a_broadcast_goes_to_the_carriers_of_its_app():
    dispatcher = Dispatcher([Slot(0, {0}), Slot(1, {1})], [0, 1], list, never)
    assert [dispatcher.slots_for_broadcast(TARGETS[app]) for app in APPS] == [[0, 1], [0], [1]]


def test_a_broadcast_may_be_unlimited():
    slots, dispatcher = three()
    fill(slots, 9, 9, 9)
    assert dispatcher.slots_for_broadcast(TARGETS[0]) == [0, 1, 2]


def test_what_waits_to_move_may_leave():
    left = []
    slots = [Slot(index, {0}) for index in range(3)]
    dispatcher = Dispatcher(slots, [0], left.append, never)
    for slot in slots:
        dispatcher.ready(slot)
    first, second = Request(0, 0, key="user"), Request(1, 0, key="user")
    dispatcher.accept(first)
    dispatcher.remove(first.place)
    assert told(dispatcher) == []
    dispatcher.accept(second)
    assert second.place is dispatcher
    assert len(dispatcher) == 1
    assert dispatcher.withdraw(second)
    assert left == [second]
    assert len(dispatcher) == 0
    dispatcher.release(first)
    assert not any(second in slot.queue for slot in slots)


def test_where_no_slot_has_failed_the_error_says_so():
    error = no_workers(TARGETS[0], None)
    assert str(error) == (
        f"no worker is available for {TARGETS[0]}: the only slot that could take it leaves the pool"
    )
    assert error.__cause__ is None


def test_loads_show_what_they_are():
    loads = Loads()
    loads.put(3, 1)
    assert repr(loads) == "<Loads {3: 1}>"


def test_a_slot_that_was_forgotten_is_not_found_by_its_former_load():
    loads = Loads()
    loads.put(1, 1)
    loads.put(2, 1)
    for _ in range(2):
        loads.remove(2)
        assert repr(loads) == "<Loads {1: 1}>"
    loads.put(2, 3)
    assert loads.least(0b110) == 0b010
    assert loads.least(0b100) == 0b100


def test_loads_matter_to_the_least_loaded_only():
    assert Dispatcher([], [], list, never, routing="least_loaded").weighs
    assert not Dispatcher([], [], list, never).weighs


def test_what_waits_to_move_back_takes_room():
    _, dispatcher = three(max_queue=2)
    first, *others = (Request(number, 0, "user") for number in range(4))
    dispatcher.accept(first)
    home = first.place
    home.queue.clear()
    dispatcher.failed(home, RuntimeError("no"))
    for request in others[:2]:
        dispatcher.accept(request)
        assert request.place is dispatcher
    dispatcher.revive(home)
    with pytest.raises(PoolBusyError):
        dispatcher.accept(others[2])
    dispatcher.release(first)
    assert home.queue == others[:2]


def test_a_pool_that_nobody_can_serve_is_not_busy():
    slots, dispatcher = three(max_queue=0)
    for slot in slots:
        dispatcher.failed(slot, RuntimeError("no"))
    with pytest.raises(NoWorkersAvailableError):
        accept(dispatcher)


def test_what_waits_for_a_key_waits_for_all_that_leave_and_have_it():
    _, dispatcher = three()
    first, second, third = (Request(number, 0, "user") for number in range(3))
    dispatcher.accept(first)
    dispatcher.accept(second)
    dispatcher.remove(first.place)
    dispatcher.accept(third)
    dispatcher.release_all([first])
    assert not dispatcher.has_displaced
    dispatcher.release_all([second])
    assert dispatcher.has_displaced


def test_of_many_that_leave_their_slot_those_that_waited_for_them_follow():
    _, dispatcher = three()
    first, second, third = (Request(number, 0, "user") for number in range(3))
    dispatcher.accept(first)
    dispatcher.accept(second)
    dispatcher.remove(first.place)
    dispatcher.accept(third)
    dispatcher.release_all([first, second])
    assert dispatcher.has_displaced
    assert told(dispatcher) == []
    assert third.place is not dispatcher
