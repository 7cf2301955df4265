"""The table and the JSON."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ..record import machine
from ..report import verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from .event import Row

CAPTION = (
    "step: CPU time of the loop's thread in the longest step of a task, or between steps, of each "
    "round. gap: wall time between two turns of a task that is always ready; it tells of threads "
    "that hold the interpreter lock, where the machine is quiet, and of how many tasks became "
    "ready at once."
)


def held_table(rows: Sequence[Row]) -> Table:
    """Return all rows."""
    table = Table(title="Longest steps", caption=CAPTION)
    table.add_column("row", no_wrap=True)
    for column in ("step ms, median", "worst", "at most"):
        table.add_column(column, justify="right")
    table.add_column("reached")
    for column in ("gap ms, median", "worst"):
        table.add_column(column, justify="right")
    table.add_column("whose step")
    for row in rows:
        event = row.event
        if not row.steps:
            table.add_row(row.name, "", "", "", "", "", "", row.error)
            continue
        limit = "" if event.limit is None else f"{event.limit:.0f}"
        reached = None if event.limit is None else not row.is_over
        table.add_row(
            row.name,
            f"{median(row.steps):.1f}",
            f"{max(row.steps):.1f}",
            limit,
            verdict(reached),
            f"{median(row.gaps):.1f}",
            f"{max(row.gaps):.1f}",
            row.where,
        )
    return table


def over_in_words(rows: Sequence[Row]) -> str:
    """Say which rows have steps that took longer than they may."""
    over = [row.name for row in rows if row.is_over]
    if not over:
        return f"none of {len(rows)} rows is over its limit"
    return f"{len(over)} of {len(rows)} rows are over their limits: {', '.join(over)}"


def held_record(rows: Sequence[Row], started: datetime) -> dict[str, Any]:
    """Return it as the JSON has it."""
    return {
        "timestamp": started.isoformat(timespec="seconds"),
        "held": {"machine": machine(), "rows": [row.record() for row in rows]},
    }
