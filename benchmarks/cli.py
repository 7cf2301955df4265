"""Arguments, and which measurements they choose."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from .chaos.cli import main as chaos
from .comparison import noop, scenarios
from .comparison.catalogue import SCENARIOS
from .costs import boot, many, streams, waiting
from .costs.crash import measure_crash
from .costs.leaving import measure_leaving
from .costs.loop import measure_loop
from .endurance import run as months
from .held.cli import main as held
from .limits import run as limits
from .output import report
from .output.arguments import count, open_console
from .output.display import open_display
from .output.record import Run, local_time, save

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .comparison.catalogue import Scenario
    from .output.display import Display

PARTS = (
    "scenarios",
    "noop",
    "boot",
    "leaving",
    "crash",
    "loop",
    "waiting",
    "streams",
    "limits",
    "months",
    "many",
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What to run."""

    parts: tuple[str, ...]
    scenarios: tuple[Scenario, ...]
    workers: int
    quick: bool
    output: Path | None


def parse(argv: Sequence[str]) -> Choice:
    """Return what the command line chooses."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="The scenarios of gunicorn's dirty arbiter on a pool beside bare processes, "
        "no-op requests beside other libraries, streams, limits, what a pool bears for months, and "
        "the costs of starting, crashing, leaving, waiting and many slots.",
        epilog="Instead: python -m benchmarks chaos --help, workers that die at full speed; "
        "python -m benchmarks held --help, how long single steps hold the event loop.",
    )
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument(
        "scenario",
        nargs="*",
        metavar="SCENARIO",
        help=f"only these, and no other measurement unless --only: {', '.join(names)}",
    )
    parser.add_argument("--quick", action="store_true", help="all in less than a minute")
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="measure this part; may be repeated"
    )
    parser.add_argument("--workers", type=count, default=4, help="default: 4")
    parser.add_argument("--clients", type=count, help="of scenarios; default: each its own")
    parser.add_argument("--requests", type=count, help="of scenarios; default: each its own")
    parser.add_argument(
        "--output", type=Path, help="the JSON; default: benchmarks/results/<timestamp>.json"
    )
    args = parser.parse_args(argv)
    if unknown := [name for name in args.scenario if name not in names]:
        parser.error(f"no scenario {unknown[0]!r}; there are {', '.join(names)}")
    parts = tuple(args.only or (["scenarios"] if args.scenario else PARTS))
    if args.scenario and "scenarios" not in parts:
        parts = ("scenarios", *parts)
    return Choice(
        parts=parts,
        scenarios=tuple(
            scenario.changed(quick=args.quick, clients=args.clients, requests=args.requests)
            for scenario in SCENARIOS
            if not args.scenario or scenario.name in args.scenario
        ),
        workers=args.workers,
        quick=args.quick,
        output=args.output,
    )


async def measure(choice: Choice, run: Run, display: Display) -> None:
    """Measure what is chosen, one thing at a time."""
    workers, quick = choice.workers, choice.quick
    for part in PARTS:
        if part not in choice.parts:
            continue
        match part:
            case "scenarios":
                for scenario in choice.scenarios:
                    stage = display.stage(scenario.name, scenarios.STEPS)
                    run.scenarios.append(
                        await scenarios.run_scenario(scenario, workers=workers, stage=stage)
                    )
            case "noop":
                effort = noop.QUICK if quick else noop.FULL
                stage = display.stage("no-op and peers", effort.steps)
                run.peers = await noop.measure_peers(workers, effort=effort, stage=stage)
                run.figures += noop.judge(run.peers)
            case "boot":
                times = 1 if quick else 10
                stage = display.stage("boot and memory", boot.STEPS)
                run.figures += await boot.measure_boot(workers, times=times, stage=stage)
            case "leaving":
                times = 2 if quick else 10
                stage = display.stage("leaving", times)
                run.figures += await measure_leaving(workers, times=times, stage=stage)
            case "crash":
                times = 5 if quick else 30
                stage = display.stage("crashes", times)
                run.figures += await measure_crash(workers, times=times, stage=stage)
            case "loop":
                times = 2 if quick else 10
                stage = display.stage("loop held", 2 * times + 1)
                run.figures += await measure_loop(times=times, stage=stage)
            case "waiting":
                number = 10_000 if quick else 1_000_000
                stage = display.stage("requests waiting", waiting.STEPS)
                run.figures += await waiting.measure_waiting(workers, number=number, stage=stage)
            case "streams":
                pace = streams.QUICK if quick else streams.FULL
                stage = display.stage("streams", pace.steps)
                run.figures += await streams.measure_streams(effort=pace, stage=stage)
            case "limits":
                care = limits.QUICK if quick else limits.FULL
                stage = display.stage("limits", limits.STEPS)
                run.figures += await limits.measure_limits(effort=care, stage=stage)
            case "months":
                wear = months.QUICK if quick else months.FULL
                stage = display.stage("months", wear.steps)
                run.figures += await months.measure_months(effort=wear, stage=stage)
            case "many":
                width = many.QUICK if quick else many.FULL
                stage = display.stage("many slots", width.steps)
                run.figures += await many.measure_many(effort=width, stage=stage)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark, or another mode; return 1 if any request of a scenario failed."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["chaos"]:
        return chaos(argv[1:])
    if argv[:1] == ["held"]:
        return held(argv[1:])
    choice = parse(argv)
    console = open_console()
    started = local_time()
    run = Run()
    with open_display(console) as display:
        trio.run(measure, choice, run, display)
    if run.scenarios:
        console.print(report.scenario_table(run.scenarios))
    if run.peers:
        console.print(report.peer_table(run.peers))
    if run.figures:
        console.print(report.figure_table(run.figures, "Further measures"))
    save(run.record(started), choice.output, console)
    return int(any(result.load.errors for result in run.scenarios))
