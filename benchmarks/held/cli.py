"""Arguments of ``python -m benchmarks held``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..output.arguments import count, open_console
from ..output.display import open_display
from ..output.record import local_time, save
from .catalogue import rows
from .report import held_record, held_table, over_in_words
from .run import measure_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .event import Row


@dataclass(frozen=True, slots=True)
class Choice:
    """What to measure."""

    rows: list[Row]
    rounds: int
    is_list: bool
    output: Path | None


def parse(argv: Sequence[str]) -> Choice:
    """Return what the command line chooses."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks held",
        description="The CPU time of the longest step of the event loop, while payloads cross and "
        "things happen to pools where many requests wait. Exits with 1 if a step takes longer "
        "than it may, or an event fails.",
    )
    parser.add_argument(
        "row", nargs="*", metavar="ROW", help="only these; the beginning of a name chooses several"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes and one round each")
    parser.add_argument("--rounds", type=count, help="of each row; default: 5")
    parser.add_argument("--list", action="store_true", help="print only what rows there are")
    parser.add_argument(
        "--output", type=Path, help="the JSON; default: benchmarks/results/<timestamp>-held.json"
    )
    args = parser.parse_args(argv)
    try:
        chosen = rows(args.row, quick=args.quick)
    except LookupError as error:
        parser.error(f"no row {error.args[0]!r}; --list prints their names")
    rounds = args.rounds or (1 if args.quick else 5)
    return Choice(chosen, rounds, args.list, args.output)


def main(argv: Sequence[str]) -> int:
    """Measure; return 1 if anything is over its limit, or has failed."""
    choice = parse(argv)
    console = open_console()
    if choice.is_list:
        for row in choice.rows:
            console.print(f"{row.name:26}{row.what}", highlight=False)
        return 0
    started = local_time()
    with open_display(console) as display:
        measure_all(choice.rows, choice.rounds, display)
    console.print(held_table(choice.rows))
    console.print(over_in_words(choice.rows), highlight=False, soft_wrap=True)
    save(held_record(choice.rows, started), choice.output, console, "-held")
    return int(any(row.is_over or row.error for row in choice.rows))
