"""The contract of engines, held by each of them."""

import logging
import os
import pickle
import secrets
import signal
import threading

import pytest
import trio
import trio.lowlevel
import trio.testing
from apps_bad import DoesNotUnpickle, ExitsWhenUnpickled

from trio_dirty import AppLoadError, RemoteError, WorkerInfo
from trio_dirty._common import wire
from trio_dirty._common.credit import CHUNKS_AHEAD
from trio_dirty._common.wire import CANCELLED, SOFT_TIMEOUT
from trio_dirty._engines import processes
from trio_dirty._engines.contract import Blueprint, Chunks
from trio_dirty._engines.processes import ProcessEngine
from trio_dirty._rules.targets import AppPath
from trio_dirty.testing import Plan, SimEngine, Turn

APP = AppPath("apps", "Counter")


@pytest.fixture(params=[ProcessEngine, SimEngine])
def engine(request):
    return SimEngine(Long()) if request.param is SimEngine else ProcessEngine()


def blueprint(worker=5):
    return Blueprint(slot=3, worker=worker)


def paths(qualname="Counter", module="apps"):
    return [(0, AppPath(module, qualname))]


def ask(number, action, *args, kind=wire.REQUEST):
    target = pickle.dumps((0, action))
    return wire.frame(kind, number, pickle.dumps((args, {})), target=target)


class Long(Plan):
    """Simulated naps last; everything else takes no time."""

    def turn(self, call):
        return Turn(call.args[0] if call.action == "nap" else 0)


async def send(worker, frames):
    await worker.send_rest(worker.send_nowait(frames))


async def answers(worker, count):
    replies = []
    with trio.fail_after(30):
        while len(replies) < count:
            batch = await worker.receive()
            assert batch, "it ended early"
            replies += batch
    return replies


async def until_end(worker):
    replies = []
    with trio.fail_after(30):
        while batch := await worker.receive():
            replies += batch
    return replies


def stop(engine, worker):
    if isinstance(engine, SimEngine):
        assert engine.stall(3)
    else:
        os.kill(worker.pid, signal.SIGSTOP)
        os.waitpid(worker.pid, os.WUNTRACED)  # until it has stopped


def go_on(engine, worker):
    if isinstance(engine, SimEngine):
        assert engine.resume(3)
    else:
        os.kill(worker.pid, signal.SIGCONT)


async def test_requests_are_executed_in_order_by_one_instance(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        await send(worker, [ask(n, "add", 10) for n in range(5)])
        await send(worker, [ask(n, "add", 1) for n in range(5, 8)])
        replies = await answers(worker, 8)
    assert [r[0] for r in replies] == list(range(8))
    assert [r[3] for r in replies] == [10, 20, 30, 40, 50, 51, 52, 53]
    assert all(r[1] >= 0 and r[2] is None for r in replies)


async def test_an_action_knows_its_worker(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        await send(worker, [ask(0, "info")])
        ((_, _, _, info),) = await answers(worker, 1)
    assert WorkerInfo(*info) == WorkerInfo(3, 5, worker.pid)


async def test_an_exception_is_a_reply_with_the_remote_traceback(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        await send(worker, [ask(0, "fail", "lost key")])
        ((_, _, error, _),) = await answers(worker, 1)
    assert type(error) is LookupError
    assert str(error) == "lost key"
    assert "raise LookupError(text)\n" in str(error.__cause__)


@pytest.mark.parametrize(
    ("argument", "kind", "text"),
    [
        (DoesNotUnpickle, ValueError, "exploded while it was unpickled"),
        (ExitsWhenUnpickled, RemoteError, "SystemExit: 5"),
    ],
)
async def test_an_argument_that_cannot_be_unpickled_fails_its_request_only(
    engine, argument, kind, text
):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        await send(worker, [ask(0, "echo", argument()), ask(1, "add")])
        (_, seconds, error, _), (_, _, none, count) = await answers(worker, 2)
    assert (type(error), str(error)) == (kind, text)
    assert seconds is not None, "it has begun"
    assert (none, count) == (None, 1)


async def test_large_values_cross_in_both_directions(engine):
    value = {"bytes": b"x" * 3_000_000, "list": list(range(100_000)), "array": bytearray(100_000)}
    pickled = pickle.dumps(((value,), {}))
    frames = wire.large_frame(wire.REQUEST, 7, [pickled], target=pickle.dumps((0, "echo")))
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, worker, frames)
            ((number, _, error, result),) = await answers(worker, 1)
        await send(worker, [ask(8, "add", 1)])
        ((_, _, _, count),) = await answers(worker, 1)
    assert (number, error, count) == (7, None, 1)
    assert result == value


async def test_what_is_withdrawn_before_it_begins_is_skipped(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        await send(worker, [ask(0, "nap", 0.2), ask(1, "add", 1), ask(2, "add", 1)])
        await send(worker, [wire.frame(wire.WITHDRAW, 1)])
        replies = await answers(worker, 3)
    assert [(r[0], r[3]) for r in replies] == [(0, 0.2), (1, None), (2, 1)]
    assert replies[1][1] is None, "a skipped request has no execution time"


async def streamed(worker, count):
    """Receive so many chunks, or replies to what follows them."""
    found = []
    with trio.fail_after(30):
        while len(found) < count:
            batch = await worker.receive()
            assert batch, "it ended early"
            for reply in batch:
                found += reply.chunks if isinstance(reply, Chunks) else [reply]
    return found


async def test_a_stream_is_answered_chunk_by_chunk_and_then_at_its_end(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        await send(worker, [ask(0, "numbers", 3, kind=wire.STREAM), ask(1, "add")])
        *chunks, end, behind = await streamed(worker, 5)
    assert chunks == [(n, len(pickle.dumps(n, 5))) for n in range(3)]
    assert (end[0], end[2], end[3]) == (0, None, None)
    assert (behind[0], behind[3]) == (1, 4)


async def test_a_stream_waits_for_credit_and_goes_on_with_it(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        await send(worker, [ask(0, "numbers", 5_000, kind=wire.STREAM)])
        first = await streamed(worker, CHUNKS_AHEAD)
        await trio.testing.wait_all_tasks_blocked()
        assert not worker.unread()
        size = sum(size for _, size in first)
        await send(worker, [wire.pair_frame(wire.CREDIT, 0, CHUNKS_AHEAD, size)])
        second = await streamed(worker, CHUNKS_AHEAD)
    assert [n for n, _ in first + second] == [*range(2 * CHUNKS_AHEAD)]


async def test_a_stream_whose_reader_leaves_is_closed_and_the_next_is_served(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        await send(worker, [ask(0, "numbers", 5_000, kind=wire.STREAM)])
        await streamed(worker, CHUNKS_AHEAD)
        await send(worker, [wire.frame(wire.WITHDRAW, 0), ask(1, "add", 0)])
        end, count = await streamed(worker, 2)
        assert (end[0], end[2]) == (0, None)
        assert count[3] == CHUNKS_AHEAD, "so far it had run ahead"
        await send(worker, [ask(2, "numbers", 1, kind=wire.STREAM)])
        assert len(await streamed(worker, 2)) == 2


@pytest.mark.parametrize(
    ("reason", "kind"), [(SOFT_TIMEOUT, "SoftTimeout"), (CANCELLED, "RequestCancelled")]
)
async def test_an_interrupt_is_raised_in_the_action_that_it_names(engine, reason, kind):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        await send(worker, [ask(0, "nap", 1_000), ask(1, "add")])
        await trio.testing.wait_all_tasks_blocked()
        await send(worker, [wire.pair_frame(wire.INTERRUPT, 0, reason, 0)])
        worker.interrupt()
        (_, _, error, _), (_, _, none, count) = await answers(worker, 2)
        assert error.type_name == f"trio_dirty.{kind}"
        assert (none, count) == (None, 1), "its state is kept"


async def test_an_interrupt_for_another_request_hits_nobody(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        await send(worker, [ask(0, "add")])
        await answers(worker, 1)
        await send(
            worker, [wire.pair_frame(wire.INTERRUPT, 0, SOFT_TIMEOUT, 0), ask(1, "nap", 0.1)]
        )
        worker.interrupt()
        ((_, _, error, value),) = await answers(worker, 1)
    assert (error, value) == (None, 0.1)


async def test_held_it_answers_nothing_more_until_it_is_released(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        await send(worker, [ask(0, "add")])
        await answers(worker, 1)
        await worker.hold()
        await send(worker, [ask(1, "add")])
        await trio.testing.wait_all_tasks_blocked()
        assert not worker.unread()
        worker.release()
        ((_, _, _, count),) = await answers(worker, 1)
    assert count == 2


async def test_held_what_it_had_answered_can_be_read(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        await send(worker, [ask(0, "add")])
        with trio.fail_after(30):
            while not worker.unread():
                await trio.lowlevel.checkpoint()
        await worker.hold()
        ((_, _, _, count),) = await answers(worker, 1)
        assert count == 1
        assert not worker.unread()
        worker.kill()
        assert await until_end(worker) == []
        assert worker.exit().exitcode == -9


async def test_several_lanes_execute_at_a_time_and_close_together(engine):
    """All but the first are answered while that one is executed."""
    async with engine.start(Blueprint(slot=3, worker=5, lanes=2)) as worker:
        await worker.boot(paths())
        await send(worker, [ask(0, "nap", 0.5), *(ask(n, "add") for n in range(1, 6))])
        await send(worker, [wire.frame(wire.CLOSE)])
        replies = await until_end(worker)
        assert [(r[0], r[3]) for r in replies] == [*((n, n) for n in range(1, 6)), (0, 0.5)]
        assert worker.exit().exitcode == 0


async def test_each_lane_hears_what_is_said_of_its_request(engine):
    async with engine.start(Blueprint(slot=3, worker=5, lanes=3)) as worker:
        await worker.boot(paths())
        await send(worker, [ask(n, "numbers", 5_000, kind=wire.STREAM) for n in (0, 1)])
        found = await streamed(worker, 2 * CHUNKS_AHEAD)
        size = sum(size for _, size in found) // 2
        await send(worker, [wire.pair_frame(wire.CREDIT, 1, CHUNKS_AHEAD, size)])
        await streamed(worker, CHUNKS_AHEAD // 2)
        await send(worker, [wire.frame(wire.WITHDRAW, 0), ask(2, "echo", "there")])
        ends = []
        with trio.fail_after(30):
            while len(ends) < 2:
                batch = await worker.receive()
                ends += [reply for reply in batch if not isinstance(reply, Chunks)]
        assert {end[0]: end[3] for end in ends} == {0: None, 2: "there"}


async def test_told_to_close_it_serves_closes_and_exits_with_0(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        await send(worker, [ask(0, "add"), ask(1, "add"), wire.frame(wire.CLOSE)])
        replies = await until_end(worker)
        assert [r[3] for r in replies] == [1, 2]
        assert worker.exit().exitcode == 0


@pytest.mark.parametrize("requests", [0, 1])
async def test_stopped_it_neither_answers_nor_closes_until_it_goes_on(engine, requests):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        stop(engine, worker)
        await send(worker, [*(ask(n, "add") for n in range(requests)), wire.frame(wire.CLOSE)])
        with trio.move_on_after(0.05) as nothing_happens:
            await worker.receive()
        assert nothing_happens.cancelled_caught
        assert worker.exit().exitcode is None
        go_on(engine, worker)
        assert [r[3] for r in await until_end(worker)] == [1] * requests
        assert worker.exit().exitcode == 0


async def test_stopped_it_can_be_killed(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        stop(engine, worker)
        await send(worker, [ask(0, "add"), wire.frame(wire.CLOSE)])
        worker.kill()
        assert await until_end(worker) == []
        assert worker.exit().exitcode == -9


async def test_a_close_that_raises_is_logged_and_the_exit_code_is_0(
    engine, caplog, tmp_path, monkeypatch
):
    monkeypatch.setenv("BAD_LOG", str(tmp_path / "log"))
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths("CloseRaises", module="apps_bad"))
        pid = worker.pid
        await send(worker, [wire.frame(wire.CLOSE)])
        assert await until_end(worker) == []
        assert worker.exit().exitcode == 0
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("trio_dirty", logging.ERROR)
    first, second, *_, last = record.getMessage().splitlines()
    assert first == f"slot 3: close() raised in worker 5, process {pid}:"
    assert second == "Traceback (most recent call last):"
    assert last == "ZeroDivisionError: close is broken"


async def test_killed_it_ends_with_minus_9(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        pid = worker.pid
        worker.kill()
        assert await until_end(worker) == []
        assert (worker.exit().pid, worker.exit().exitcode) == (pid, -9)
        assert str(worker.exit()) == f"process {pid} was killed by SIGKILL"
        assert await until_end(worker) == [], "the end stays"


async def test_what_was_answered_before_the_end_is_read_before_it(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        await send(worker, [ask(n, "add") for n in range(20)])
        first = await answers(worker, 1)
        worker.kill()
        replies = first + await until_end(worker)
    assert [r[0] for r in replies] == list(range(len(replies))), "none is missing in between"


async def test_sending_to_the_dead_is_no_error(engine):
    async with engine.start(blueprint()) as worker:
        await worker.boot(paths())
        worker.kill()
        await until_end(worker)
        await send(worker, [ask(0, "add")])


async def test_an_app_that_cannot_boot(engine):
    async with engine.start(blueprint()) as worker:
        with pytest.raises(AppLoadError, match="the apps of slot 3 could not boot") as caught:
            await worker.boot(paths("FailsToBoot"))
    assert "OSError: no such model" in str(caught.value)


async def test_leaving_the_block_early_ends_a_booting_worker(engine):
    async with engine.start(blueprint()):
        pass
    async with engine.start(blueprint()) as worker:
        with trio.move_on_after(0):
            await worker.boot(paths())


async def test_cancelling_the_block_ends_the_worker(engine):
    with trio.CancelScope() as scope:
        async with engine.start(blueprint()) as worker:
            await worker.boot(paths())
            scope.cancel()
            await trio.sleep_forever()
    assert worker.exit().exitcode == -9


async def test_a_turn_to_start_is_kept_until_the_worker_has_connected(monkeypatch):
    monkeypatch.setattr(processes, "STARTS_AT_ONCE", 1)
    engine = ProcessEngine()
    second_is_in = trio.Event()

    async def start_second():
        async with engine.start(blueprint(6)) as worker:
            second_is_in.set()
            await worker.boot(paths())

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery, engine.start(blueprint()) as worker:
            nursery.start_soon(start_second)
            with trio.move_on_after(0):
                async with engine.start(blueprint(7)):
                    raise AssertionError("it was not its turn")
            await trio.testing.wait_all_tasks_blocked()
            assert not second_is_in.is_set()
            await worker.boot(paths())
            await second_is_in.wait()


@pytest.mark.parametrize("end", ["leaves", "cannot connect", "never connects"])
async def test_a_turn_to_start_is_given_back_at_the_end_of_one_that_never_connects(
    monkeypatch, end
):
    monkeypatch.setattr(processes, "STARTS_AT_ONCE", 1)
    engine = ProcessEngine()
    with trio.fail_after(30):
        async with engine.start(blueprint()) as worker:
            if end == "cannot connect":
                monkeypatch.setattr(secrets, "token_bytes", lambda size: threading.Lock())
                with pytest.raises(AppLoadError, match="could not start: its job raised TypeError"):
                    await worker.boot(paths())
                monkeypatch.undo()
            elif end == "never connects":
                monkeypatch.setattr(processes, "accept_worker", never_accept)
                with trio.move_on_after(0.1):
                    await worker.boot(paths())
                monkeypatch.undo()
        async with engine.start(blueprint(6)) as worker:
            await worker.boot(paths())


async def never_accept(listener, token, pid):
    await trio.sleep_forever()
