"""The promises of the pool, searched for counter-examples: one test for each."""

import os
import subprocess
import sys
import threading

import apps
import play
import promises
import trio
from hypothesis import HealthCheck, given, settings, strategies as st
from scripts.harness import TESTS
from seeds import seed_of_sources

import trio_dirty
from trio_dirty.testing import Boot


def simulated(examples=100):
    """Search the scripts, on simulated workers, with a schedule of trio's drawn for each."""

    def decorate(test):
        test = settings(max_examples=examples, deadline=None)(test)
        return given(script=play.scripts, seed=st.random_module())(test)

    return decorate


@simulated()
def test_order(script, seed):
    promises.judge_order(play.play_simulated(script))


@simulated()
def test_fairness(script, seed):
    log = play.play_simulated(script)
    promises.judge_fairness(log)
    promises.judge_share(log)


@simulated()
def test_one_outcome(script, seed):
    log = play.play_simulated(script)
    promises.judge_one_outcome(log)
    promises.judge_no_service_without_cause(log)


@simulated()
def test_at_most_once(script, seed):
    promises.judge_at_most_once(play.play_simulated(script))


@simulated()
def test_nothing_lost_that_never_began(script, seed):
    log = play.play_simulated(script)
    promises.judge_nothing_lost(log)
    promises.judge_rerouting(log)


@simulated()
def test_isolation(script, seed):
    promises.judge_isolation(play.play_simulated(script))


@simulated()
def test_no_orphans(script, seed):
    log = play.play_simulated(script)
    promises.judge_no_orphans(log)
    promises.judge_leaving(log)


async def test_does_not_hold_the_loop():
    """How long anything takes is the benchmark's to say; here, what the loop's thread does not do.

    Of an argument or a result it pickles or unpickles as much as fits two of pickle's segments,
    however large it is, and leaves the rest to a thread.
    """
    segments = 2 * 64 * 1024
    async with trio_dirty.open_pool([apps.Counter], workers=1) as pool:
        for count in (1, 10, 100, 1_000, 5_000):
            for size in (1, 100, 10_000):
                probes = [apps.Probe(size) for _ in range(count)]
                apps.THREADS.clear()
                echoed = await pool.run_sync(apps.Counter.echo, probes)
                assert [probe.size for probe in echoed] == [size] * count
                here = apps.THREADS.count(threading.get_ident())
                fits = segments // size + 1
                assert here <= 2 * min(count, fits), f"{count} of {size} bytes"
                assert len(apps.THREADS) >= 2 * count


@simulated()
def test_limits_are_kept_and_hit_nobody_else(script, seed):
    promises.judge_limits(play.play_simulated(script))


@simulated()
def test_a_key_keeps_its_slot_and_its_order(script, seed):
    promises.judge_keys(play.play_simulated(script))


@simulated()
def test_a_broadcast_reaches_every_slot(script, seed):
    promises.judge_broadcasts(play.play_simulated(script))


@simulated()
def test_a_pool_is_busy_when_its_slots_are_full_and_not_before(script, seed):
    promises.judge_max_queue(play.play_simulated(script))


@simulated()
def test_what_is_cancelled_in_time_does_not_begin(script, seed):
    promises.judge_cancellation(play.play_simulated(script))


@simulated()
def test_one_is_sent_ahead_of_a_long_request(script, seed):
    promises.judge_window(play.play_simulated(script))


@simulated()
def test_apps_are_carried_by_as_many_slots_as_they_may_be_and_always_by_one(script, seed):
    promises.judge_allocation(play.play_simulated(script))


@simulated()
def test_a_resize_returns_when_it_is_so_and_renewal_leaves_no_gap(script, seed):
    log = play.play_simulated(script)
    promises.judge_resizes(log)
    promises.judge_renewal(log)


@simulated()
def test_back_off_counts_only_workers_that_completed_nothing(script, seed):
    promises.judge_back_off(play.play_simulated(script))


@given(script=play.real_scripts, seed=st.random_module())
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_promises_with_real_processes(script, seed, tmp_path, monkeypatch):
    path = tmp_path / "begun"
    monkeypatch.setenv(apps.LOG_VARIABLE, str(path))
    log = play.play_really(script, path)
    for promise in promises.SAFETY:
        promise(log)


@given(script=play.scripts, seed=st.integers(0, 1 << 30))
@settings(max_examples=50, deadline=None)
def test_the_same_seed_gives_the_same_run_event_for_event(script, seed):
    logs = []
    for _ in range(2):
        trio._core._run._r.seed(seed)  # as Hypothesis and pytest-trio do it
        logs.append(play.play_simulated(script))
    first, second = logs
    assert [*map(str, first.events)] == [*map(str, second.events)]
    assert first.begun == second.begun
    assert first.outcomes == second.outcomes


@simulated()
def test_whenever_nothing_is_left_to_do_nobody_waits_for_what_is_there(script, seed):
    promises.judge_liveness(play.play_simulated(script))


@simulated()
def test_statistics_are_what_the_instruments_were_told(script, seed):
    log = play.play_simulated(script)
    promises.judge_statistics(log)
    promises.judge_utilisation(log)


def regret(**how):
    return "regret", play.Ask(0, 0, **how)


CALL = ("submit", 1, 0, 0, False)


def test_what_another_took_out_of_the_channel_wakes_the_consumer_all_the_same():
    """A script that was found: a stream of the old worker is left, while the new one is sent to."""
    stream = play.Ask(0, 3, on_cancel="interrupt", key=0, chunks=1, takes=1)
    operations = [
        ("submit", 1, 1, 2, False),
        ("ask", stream, 1),
        ("submit", 1, 1, 0, False),
        regret(),
        CALL,
        CALL,
        ("reload", True),
        regret(),
        ("submit", 1, 0, 2, False),
        regret(),
        ("submit", 3, 0, 2, False),
        ("resize", 1),
        CALL,
    ]
    for seed in range(30):
        trio._core._run._r.seed(seed)
        script = play.Script(operations, leave="serve", threads=2)
        promises.judge_limits(play.play_simulated(script))


def test_an_answer_of_another_worker_is_no_part_of_what_a_lost_slot_leaves():
    """A script that was found: what waited for a key of another slot may move just then."""
    stream = play.Ask(2, 0, key=0, stubborn=True, chunks=0)
    operations = [
        ("ask", play.Ask(0, 0), 1),
        ("crash", 1),
        ("stall", 6),
        ("ask", stream, 2),
        *[("crash", 0)] * 3,
        ("regret", play.Ask(0, 3, stubborn=True, chunks=0)),
        ("resize", 2),
        ("submit", 5, 2, 0, False),
        ("advance", 2),
        CALL,
        ("crash", 0),
        ("submit", 5, 1, 3, False),
        ("submit", 5, 0, 0, False),
        ("submit", 3, 0, 0, False),
        ("ask", play.Ask(0, 0, chunks=0), 1),
        ("regret", play.Ask(0, 3, key=2, chunks=0)),
        ("submit", 5, 0, 0, False),
        ("submit", 8, 0, 0, False),
        ("boot badly", 0, [Boot(0.5, exitcode=7)]),
        CALL,
        CALL,
        ("crash", 0),
        ("boot badly", 0, [Boot(0.5, exitcode=7)]),
        ("ask", play.Ask(0, 0), 1),
    ]
    for seed in range(30):
        trio._core._run._r.seed(seed)
        script = play.Script(operations, leave="serve", max_requests=1)
        promises.judge(play.play_simulated(script))


def judge_all(operations, **options):
    """Play a script with some schedules, and judge each play."""
    for seed in range(5):
        trio._core._run._r.seed(seed)
        promises.judge(play.play_simulated(play.Script(operations, **options)))


def test_a_result_that_comes_with_many_chunks_of_another_lane_wakes_the_queue():
    operations = [
        ("resize", 1),
        ("ask", play.Ask(0, 3, soft_timeout=1.5), 2),
        ("ask", play.Ask(0, 0, chunks=14, calls=True), 1),
        ("advance", 1),
        regret(),
    ]
    judge_all(operations, threads=2, lowered=True)


def test_a_new_worker_does_not_wait_until_the_old_one_has_read_a_large_argument():
    operations = [
        ("ask", play.Ask(0, 4), 3),
        ("ask", play.Ask(0, 0, where="argument", size=5), 2),
        ("advance", 2),
        ("ask", play.Ask(0, 0), 2),
    ]
    judge_all(operations, max_requests=1, lowered=True, slow=1.5)


def test_streams_of_thousands_of_chunks_beside_calls_in_other_lanes():
    operations = [
        ("ask", play.Ask(0, 0, chunks=2_500, calls=True), 2),
        ("ask", play.Ask(1, 0, chunks=1_200, takes=1_001, where="result", size=4), 1),
        *[("submit", 5, 0, 1, False), ("advance", 1)] * 3,
        ("crash", 0),
        ("ask", play.Ask(2, 0, chunks=1_100, key=1, fails=True), 2),
    ]
    for lag in (0, 40):
        trio._core._run._r.seed(lag)
        promises.judge(play.play_simulated(play.Script(operations, threads=3, lag=lag)))


SEARCHES = 2
EXAMPLES = 5_000


def test_ten_thousand_fault_scripts():
    """The long search, all promises at once, beside itself on two processors."""
    command = [sys.executable, str(TESTS / "support" / "search.py"), str(EXAMPLES)]
    seed = seed_of_sources()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    searches = [
        subprocess.Popen(
            [*command, str(seed + n)], stdout=subprocess.PIPE, text=True, env=environment
        )
        for n in range(SEARCHES)
    ]
    try:
        outputs = [process.communicate()[0] for process in searches]
    finally:
        for process in searches:
            process.kill()
            process.wait()
    for process, output in zip(searches, outputs, strict=True):
        assert process.returncode == 0, output
        played = int(output.split()[0])
        assert played >= EXAMPLES
