"""Arguments of ``python -m benchmarks chaos``."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ..output.arguments import count, open_console
from ..output.display import Countdown
from ..output.record import local_time, save
from ..output.report import figure_table
from .record import chaos_record
from .run import Settings, run_chaos

if TYPE_CHECKING:
    from collections.abc import Sequence


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
    return number


def parse(argv: Sequence[str]) -> tuple[Settings, Path | None]:
    """Return what the command line wants, and where the JSON is to go."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks chaos",
        description="Clients at full speed on a real pool, whose workers are killed, stopped and "
        "starved at random moments. Exits with 1 if a request is lost or begun twice, a death "
        "costs more than one request for each thread, or anything is left behind. Linux only.",
    )
    parser.add_argument("--minutes", type=_positive, default=1.0, help="default: 1; may be 0.1")
    parser.add_argument(
        "--seed", type=int, help="of all decisions of clients and agents; default: a random one"
    )
    parser.add_argument("--kills-per-second", type=_positive, default=4.0, help="default: 4")
    parser.add_argument("--workers", type=count, default=4, help="default: 4")
    parser.add_argument("--threads", type=count, default=2, help="of each worker; default: 2")
    parser.add_argument("--clients", type=count, default=64, help="default: 64")
    parser.add_argument(
        "--output", type=Path, help="the JSON; default: benchmarks/results/<timestamp>-chaos.json"
    )
    args = parser.parse_args(argv)
    if sys.platform != "linux":
        parser.error("needs Linux: processes are held by descriptors, and starved by prlimit")
    settings = Settings(
        seconds=60 * args.minutes,
        seed=random.randrange(1 << 32) if args.seed is None else args.seed,
        kills_per_second=args.kills_per_second,
        workers=args.workers,
        threads=args.threads,
        clients=args.clients,
    )
    return settings, args.output


def main(argv: Sequence[str]) -> int:
    """Run chaos; return 1 if anything is violated."""
    settings, output = parse(argv)
    console = open_console()
    started = local_time()
    console.print(
        f"chaos with --seed {settings.seed}, for {settings.seconds:.0f} s", highlight=False
    )
    with Countdown(console, "chaos", settings.seconds) as display:
        findings = trio.run(run_chaos, settings, display)
    title = f"Chaos, {settings.workers} workers, seed {settings.seed}"
    console.print(figure_table(findings.figures, title, digits=4))
    for problem in findings.problems:
        console.print(problem, markup=False, highlight=False, soft_wrap=True)
    save(chaos_record(settings, findings, started), output, console, "-chaos")
    return int(findings.violated)
