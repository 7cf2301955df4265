"""The chaos run: that it finds what there is to find, and a short one that finds nothing."""

from __future__ import annotations

import json
import sys
from array import array
from collections import Counter
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import trio
from scripts.harness import PATIENCE, environment, kill_session

from benchmarks.chaos.census import Census, Memory, compare, compare_memory
from benchmarks.chaos.journal import ENDING_BITS, Book, Ending, read_words
from benchmarks.chaos.judge import ending_of, judge, offenders, places, weigh
from benchmarks.chaos.plan import DEADLY, LIMITS, NEAR, Kind, plan_faults, plan_orders
from benchmarks.chaos.work import BEGUN, BOOTED, EXITING, HOGGING, KIND_SHIFT
from benchmarks.harness.figures import Figure

# A log that has everything, and nothing wrong: 9 requests, two workers that died. Worker 7,
# process 70, was killed from outside; worker 8, process 80, exited in an action.

ENDED = [
    (0, Ending.SERVED),
    (1, Ending.CRASHED),
    (3, Ending.CANCELLED),
    (2, Ending.SERVED),
    (4, Ending.CANCELLED),
    (5, Ending.NO_MEMORY),
    (6, Ending.NO_MEMORY),
    (7, Ending.CRASHED),
    (8, Ending.SERVED),
]
WRITTEN = [
    (BOOTED, 70, 7),
    (BOOTED, 80, 8),
    (BEGUN, 0, 7),
    (BEGUN, 2, 8),
    (BEGUN, 1, 7),
    (BEGUN, 3, 8),
    (HOGGING, 80, 8),
    (BEGUN, 5, 8),
    (BEGUN, 7, 8),
    (EXITING, 80, 8),
    (BOOTED, 90, 9),
    (BEGUN, 8, 9),
]
CRASHES = {70: 1, 80: 1}
FAULTS = {70: 1}


def ended(*pairs: tuple[int, Ending]) -> list[array[int]]:
    return [array("Q", [number << ENDING_BITS | ending for number, ending in pairs])]


def written(*records: tuple[int, int, int]) -> list[array[int]]:
    words = array("Q")
    for kind, value, worker in records:
        words.extend([kind << KIND_SHIFT | value, 3 << 32 | worker])
    return [words]


def verdict(
    endings: list[tuple[int, Ending]] = ENDED,
    records: list[tuple[int, int, int]] = WRITTEN,
    crashes: dict[int, int] = CRASHES,
    faults: dict[int, int] = FAULTS,
) -> list[Figure]:
    evidence = weigh(len(ENDED), ended(*endings), written(*records))
    return judge(evidence, Counter(crashes), Counter(faults))


def violations(figures: list[Figure]) -> dict[str, float]:
    return {figure.what: figure.value for figure in figures if figure.reached is False}


def without(number: int) -> list[tuple[int, Ending]]:
    return [pair for pair in ENDED if pair[0] != number]


def test_what_is_right_is_counted_and_accepted() -> None:
    figures = verdict()
    assert violations(figures) == {}
    assert {figure.what: figure.value for figure in figures if figure.value} == {
        "requests sent": 9,
        "served": 3,
        "failed by crash": 2,
        "failed for want of memory": 2,
        "cancelled by their clients": 2,
    }


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        pytest.param(
            {"records": [*WRITTEN, (BEGUN, 2, 9)]}, {"begun twice": 1}, id="served, begun twice"
        ),
        pytest.param(
            {"records": [*WRITTEN, (BEGUN, 1, 9)]}, {"begun twice": 1}, id="crashed, begun twice"
        ),
        pytest.param(
            {"records": [*WRITTEN, (BEGUN, 3, 9), (BEGUN, 3, 9)]},
            {"begun twice": 1},
            id="cancelled, begun three times",
        ),
        pytest.param(
            {"records": [*WRITTEN, *[(BEGUN, 0, 9)] * 300]}, {"begun twice": 1}, id="begun often"
        ),
        pytest.param(
            {"records": WRITTEN[:-1]}, {"served and never begun": 1}, id="served out of nothing"
        ),
        pytest.param(
            {"records": [*WRITTEN, (BEGUN, 9, 9)]},
            {"begun and never sent, or refused": 1},
            id="begun and never sent",
        ),
        pytest.param(
            {"endings": without(2)}, {"lost: without an outcome": 1}, id="lost, having begun"
        ),
        pytest.param(
            {"endings": without(4)}, {"lost: without an outcome": 1}, id="lost, not having begun"
        ),
        pytest.param(
            {"endings": [*without(2), (2, Ending.FOREIGN)]},
            {"lost: with a result not their own": 1},
            id="another's result",
        ),
        pytest.param(
            {"endings": [*without(2), (2, Ending.UNEXPLAINED)]},
            {"lost: by an error that no fault explains": 1},
            id="an error of no fault",
        ),
        pytest.param(
            {"endings": [*without(4), (4, Ending.REFUSED)]},
            {"refused, every slot having failed": 1},
            id="refused",
        ),
        pytest.param(
            {"endings": [*without(3), (3, Ending.REFUSED)]},
            {"refused, every slot having failed": 1, "begun and never sent, or refused": 1},
            id="refused and yet begun",
        ),
        pytest.param(
            {"endings": [*ENDED, (0, Ending.CRASHED)]}, {"ended twice": 1}, id="ended twice"
        ),
        pytest.param(
            {"crashes": {70: 2, 80: 1}, "faults": {70: 2}},
            {"crash errors beyond one for each lane and death": 1},
            id="a death that costs two",
        ),
        pytest.param(
            {"crashes": {70: 1, 80: 2}},
            {
                "crash errors beyond one for each lane and death": 1,
            },
            id="an exit that costs two",
        ),
        pytest.param(
            {"faults": {}},
            {"crash errors of workers that no fault met": 1},
            id="a crash that nobody made",
        ),
        pytest.param(
            {"crashes": {70: 1, 80: 1, 99: 1}, "faults": {70: 1, 99: 1}},
            {"crash errors beyond one for each lane and death": 1},
            id="a crash of a worker that never lived",
        ),
    ],
)
def test_what_is_wrong_is_found(changed: dict[str, Any], found: dict[str, float]) -> None:
    assert violations(verdict(**changed)) == found


def test_a_death_may_cost_one_request_of_each_lane() -> None:
    evidence = weigh(len(ENDED), ended(*ENDED), written(*WRITTEN))
    crashes, faults = Counter({70: 2, 80: 2}), Counter(FAULTS)
    assert violations(judge(evidence, crashes, faults, threads=2)) == {}
    crashes[80] = 3
    found = violations(judge(evidence, crashes, faults, threads=2))
    assert found == {"crash errors beyond one for each lane and death": 1}


def test_what_has_timed_out_may_have_begun_once() -> None:
    endings = [*without(2), (2, Ending.TIMED_OUT)]
    assert violations(verdict(endings)) == {}
    assert violations(verdict(endings, [*WRITTEN, (BEGUN, 2, 9)])) == {"begun twice": 1}


def test_the_same_process_number_may_die_once_for_each_life() -> None:
    again = [*WRITTEN, (BOOTED, 70, 10)]
    assert violations(verdict(records=again, crashes={70: 2, 80: 1}, faults={70: 2})) == {}


def test_it_tells_where_an_offender_began() -> None:
    log = written(*WRITTEN, (BEGUN, 2, 9))
    evidence = weigh(len(ENDED), ended(*without(4)), log)
    assert offenders(evidence, 5) == [2, 4]
    assert offenders(evidence, 1) == [2]
    assert [ending_of(evidence.states[number]) for number in (2, 4)] == [1, 0]
    assert [*places([2, 4], log)] == [(2, 3, 8), (2, 3, 9)]


def test_a_leak_is_found() -> None:
    before = Census(processes=1, descriptors=12, threads=1)
    assert violations(compare(before, before)) == {}
    assert violations(compare(before, Census(2, 13, 3))) == {
        "processes of this program, after": 2,
        "descriptors, after": 13,
        "threads, after": 3,
    }


def test_memory_that_grows_is_found_in_a_run_that_is_long_enough() -> None:
    level = [Memory(60, 50_000_000), Memory(300, 70_000_000), Memory(600, 60_000_000)]
    grown = [Memory(60, 50_000_000), Memory(300, 55_000_000), Memory(600, 80_000_000)]
    short = [Memory(1, 50_000_000), Memory(5, 80_000_000)]
    assert violations(compare_memory(level)) == {}
    assert violations(compare_memory(grown)) == {"resident memory after 600 s, at the end": 80}
    assert violations(compare_memory(short)) == {}


def test_the_book_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = BytesIO()
    book = Book(file)
    numbers = [book.send() for _ in range(20_000)]
    for number in numbers:
        book.end(number, Ending(number % 8))
    book.flush()
    path = tmp_path / "ended"
    path.write_bytes(file.getvalue())
    words = [word for chunk in read_words(path) for word in chunk]
    assert words == [number << ENDING_BITS | number % 8 for number in range(20_000)]
    assert book.endings.total() == book.sent == 20_000


def test_the_same_seed_means_the_same_decisions() -> None:
    faults = [*islice(plan_faults(1, 4.0), 1000)]
    assert faults == [*islice(plan_faults(1, 4.0), 1000)]
    assert faults != [*islice(plan_faults(2, 4.0), 1000)]
    assert {fault.kind for fault in faults} == set(Kind)
    deadly = sum(fault.kind in DEADLY for fault in faults)
    assert deadly / sum(fault.after for fault in faults) == pytest.approx(4.0, rel=0.1)
    orders = [*islice(plan_orders(1, 2), 1000)]
    assert orders == [*islice(plan_orders(1, 2), 1000)]
    assert orders != [*islice(plan_orders(1, 3), 1000)]


def test_clients_ask_for_all_that_there_is() -> None:
    orders = [*islice(plan_orders(1, 2), 20_000)]
    assert {order.action for order in orders} == {"touch", "spin", "nap", "echo", "count"}
    assert {order.on_cancel for order in orders} == {"abandon", "interrupt", "wait"}
    sizes = [order.amount for order in orders if order.action == "echo"]
    for limit in LIMITS:
        assert any(limit - NEAR <= size <= limit for size in sizes)
        assert any(limit < size <= limit + NEAR for size in sizes)
    for chosen in ("key", "timeout", "soft_timeout", "takes", "leaves"):
        assert any(getattr(order, chosen) is not None for order in orders), chosen


@pytest.mark.skipif(sys.platform != "linux", reason="chaos needs process descriptors and prlimit")
async def test_a_short_chaos_violates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "chaos.json"
    command = [sys.executable, "-m", "benchmarks", "chaos", "--minutes", "0.05", "--seed", "2"]
    with trio.fail_after(2 * PATIENCE):
        done = await trio.run_process(
            [*command, "--kills-per-second", "8", "--workers", "3", "--output", str(path)],
            check=False,
            capture_stdout=True,
            capture_stderr=True,
            env=environment(),
            start_new_session=True,
            deliver_cancel=kill_session,
        )
    output = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b""), output
    record = json.loads(path.read_text())["chaos"]
    figures = {figure["what"]: figure for figure in record["figures"]}
    assert record["settings"]["seed"] == 2
    assert not record["violated"]
    assert record["problems"] == []
    for what in ("requests sent", "served", "kills", "failed by crash"):
        assert figures[what]["value"] > 0
        assert f"│ {what} " in output
    judged = {what for what, figure in figures.items() if figure["reached"] is not None}
    assert judged >= {"begun twice", "lost: without an outcome", "descriptors, after"}
