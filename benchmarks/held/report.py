"""The table and the JSON."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from ..output.record import machine, stamp
from ..output.report import verdict
from .event import LIMIT_MS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from .event import Row

CAPTION = (
    "step: CPU time of the loop's thread in the longest step of a task, or between steps, of each "
    "round. trio alone: the same for as many tasks that only sleep; the pool's part is what it "
    "takes beyond that. gap: wall time between two turns of a task that is always ready; it tells "
    "of threads that hold the interpreter lock, where the machine is quiet, and of how many tasks "
    "became ready at once."
)


def held_table(rows: Sequence[Row]) -> Table:
    """Return all rows."""
    table = Table(title="Longest steps", caption=CAPTION)
    table.add_column("row", no_wrap=True)
    for column in ("step ms, median", "worst", "trio alone", "at most"):
        table.add_column(column, justify="right")
    table.add_column("reached")
    for column in ("gap ms, median", "worst"):
        table.add_column(column, justify="right")
    table.add_column("whose step")
    for row in rows:
        if row.error:
            table.add_row(row.name, *[""] * 7, escape(row.error))
            continue
        table.add_row(
            row.name,
            f"{median(row.steps):.1f}",
            f"{max(row.steps):.1f}",
            f"{median(row.bare):.1f}" if row.bare else "",
            f"{LIMIT_MS:.0f}",
            verdict(not row.is_over),
            f"{median(row.gaps):.1f}",
            f"{max(row.gaps):.1f}",
            row.where,
        )
    return table


def over_in_words(rows: Sequence[Row]) -> str:
    """Say which rows have steps that took longer than they may, and which have failed."""
    over = [row.name for row in rows if row.is_over]
    text = f"none of {len(rows)} rows is over its limit"
    if over:
        text = f"{len(over)} of {len(rows)} rows are over their limits: {', '.join(over)}"
    failed = [row.name for row in rows if row.error]
    return text + (f"; not measured: {', '.join(failed)}" if failed else "")


def held_record(rows: Sequence[Row], started: datetime) -> dict[str, Any]:
    """Return it as the JSON has it."""
    return {
        **stamp(started),
        "held": {"machine": machine(), "rows": [row.record() for row in rows]},
    }
