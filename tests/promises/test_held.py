"""How long steps hold the loop: long ones are found, and every kind of event is played."""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path
from time import perf_counter, thread_time

import pytest
import trio
from rich.console import Console
from scripts.harness import PATIENCE, ROOT, environment, kill_session

import trio_dirty
from benchmarks.held.catalogue import EVENTS, rows
from benchmarks.held.cli import parse
from benchmarks.held.event import Event, Row
from benchmarks.held.payloads import MAKERS
from benchmarks.held.report import held_table, over_in_words
from benchmarks.held.run import measure_all
from benchmarks.held.watch import BETWEEN, Watch
from benchmarks.output.display import open_display

LONG = 0.1


def burn() -> None:
    """Use the processor, however busy it is."""
    end = thread_time() + LONG
    while thread_time() < end:
        pass


async def nothing(watch: Watch, size: int) -> None:
    """For an event that does not happen."""


async def failure(watch: Watch, size: int) -> None:
    raise ExceptionGroup("", [OSError("no such file")])


async def test_a_long_step_of_a_task_is_found() -> None:
    async def other() -> None:
        await trio.lowlevel.checkpoint()
        burn()

    watch = Watch()
    async with trio.open_nursery() as nursery, watch.span():
        nursery.start_soon(other)
    assert watch.step >= LONG
    assert watch.gap >= LONG
    assert watch.where == "caller"


async def test_the_steps_at_both_ends_of_a_span_count_from_and_to_them() -> None:
    watch = Watch()
    burn()
    async with watch.span():
        pass
    burn()
    assert watch.step < LONG
    async with watch.span():
        burn()
    assert watch.step >= LONG


async def test_what_goes_on_between_steps_is_found() -> None:
    class Slow(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            if watch.where != BETWEEN:
                burn()

    watch, slow = Watch(), Slow()
    async with watch.span():
        trio.lowlevel.add_instrument(slow)
        await trio.lowlevel.checkpoint()
        trio.lowlevel.remove_instrument(slow)
    assert watch.step >= LONG
    assert watch.where == BETWEEN


async def test_what_only_the_benchmark_needs_is_not_counted() -> None:
    watch = Watch()
    async with watch.span():
        await watch.until(lambda: burn() is None)
        with watch.uncounted():
            burn()
    assert watch.step < LONG


async def test_a_sleeping_thread_uses_no_time_of_the_processor() -> None:
    watch = Watch()
    began = perf_counter()
    async with watch.span():
        await trio.to_thread.run_sync(burn)
    assert watch.step < LONG <= perf_counter() - began


async def test_a_step_of_the_pool_says_whose_it_is() -> None:
    class Slow(trio_dirty.Instrument):
        def worker_ready(self, slot: int, worker: int, pid: int | None) -> None:
            burn()

    watch = Watch()
    async with (
        watch.span(),
        trio_dirty.open_pool([], workers=1, instruments=[Slow()]),
    ):
        pass
    assert watch.step >= LONG
    assert ", at " in watch.where  # and where in the pool


def test_rows_are_chosen_by_their_names() -> None:
    everything = rows([], quick=False)
    names = [row.name for row in everything]
    assert len(names) == len(set(names)) == sum(len(event.sizes) for event in EVENTS)
    assert [row.name for row in rows(["crash-10k"], quick=False)] == ["crash-10k"]
    assert {row.event.name for row in rows(["crash"], quick=False)} == {
        "crash",
        "crash-alone",
        "crash-keys",
    }
    assert len(rows([], quick=True)) == len(EVENTS)
    with pytest.raises(SystemExit):
        parse(["no-such-row"])
    assert "argument-bytes-200MB" in names
    assert {row.event.name.partition("-")[2] for row in everything} >= MAKERS.keys() - {
        "unpicklable"
    }


def test_rows_that_are_over_their_limits_are_named() -> None:
    event = Event("name", "what {}", (1,), 1, nothing)
    under, over = Row(event, 10), Row(event, 2_000_000)
    for row, seconds in ((under, 0.0199), (over, 0.0201), (over, 0.001)):
        watch = Watch()
        watch.step, watch.where = seconds, f"{seconds}"
        row.add(watch)
    assert not under.is_over
    assert over.is_over
    assert over.where == "0.0201"
    assert over_in_words([under, over]) == "1 of 2 rows are over their limits: name-2M"
    assert over_in_words([under]) == "none of 1 rows is over its limit"
    assert held_table([under, over]).row_count == 2
    failed = Row(event, 3, error="OSError: [text] no such file")
    assert over_in_words([under, failed]).endswith("; not measured: name-3")
    assert held_table([failed]).row_count == 1
    controlled = Row(event, 1, [100.0, 90.0], [81.0, 60.0])
    assert controlled.own == [19.0, 30.0]
    assert controlled.is_over
    assert not Row(event, 1, [100.0], [81.0]).is_over


def test_an_event_that_fails_ends_no_other() -> None:
    found = [Row(Event(play.__name__, "{}", (1,), 1, play), 1) for play in (failure, nothing)]
    with open_display(Console(file=StringIO())) as display:
        measure_all(found, 2, display)
    assert [row.error for row in found] == ["OSError: no such file", ""]
    assert [len(row.steps) for row in found] == [0, 2]


CHOSEN = [
    "crash",
    "crash-alone",
    "crash-keys",
    "cancel",
    "deadlines",
    "leave-cancelled",
    "leave-cancelled-all",
    "leave",
    "resize-keys",
    "resize-less",
    "resize-more",
    "reload",
    "statistics",
    "statistics-slots",
    "broadcast-slots",
    "broadcast-cancelled",
    "block-slots",
    "refused",
    "argument-str",
    "argument-objects",
    "result-int",
    "result-nested",
    "raised-bytes",
    "chunks-str",
    "broadcast-str",
    "regretted-bytes",
    "refused-argument",
    "flood",
    "block",
    "served-block",
]
"""Each kind of event, some of them several times."""


async def test_a_quick_run_measures_every_row_that_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "held.json"
    command = [sys.executable, "-m", "benchmarks", "held", "--quick", "--output", str(path)]
    with trio.fail_after(4 * PATIENCE):
        done = await trio.run_process(
            [*command, *CHOSEN],
            cwd=ROOT,
            env=environment(),
            check=False,
            capture_stdout=True,
            capture_stderr=True,
            start_new_session=True,
            deliver_cancel=kill_session,
        )
    assert done.returncode in (0, 1), done.stderr.decode()  # 1: a step was too long on this machine
    assert done.stderr == b""
    output = done.stdout.decode()
    record = json.loads(path.read_text())["held"]
    measured = {row["name"]: row for row in record["rows"]}
    assert set(measured) == {row.name for row in rows(CHOSEN, quick=True)}
    for name, row in measured.items():
        assert f"│ {name} " in output
        assert row["error"] == ""
        assert len(row["step_ms"]) == len(row["gap_ms"]) == 1, row
        assert row["step_ms"][0] > 0
        assert row["where"]
    over = [name for name, row in measured.items() if row["over"]]
    assert bool(over) == bool(done.returncode)
    assert ("over their limits: " + ", ".join(over) in output) or not over
