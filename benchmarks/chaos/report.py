"""The table, and the JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ..output.record import machine
from ..output.report import verdict

if TYPE_CHECKING:
    from datetime import datetime

    from .run import Findings, Settings


def chaos_table(settings: Settings, findings: Findings) -> Table:
    """Return all figures with what they may be."""
    table = Table(title=f"Chaos, {settings.workers} workers, seed {settings.seed}")
    table.add_column("what")
    table.add_column("this run", justify="right", no_wrap=True)
    table.add_column("must be")
    table.add_column("reached")
    table.add_column("note")
    for figure in findings.figures:
        value = f"{figure.value:,.0f}" if not figure.unit else f"{figure.value:,.1f} {figure.unit}"
        table.add_row(figure.what, value, figure.target, verdict(figure.reached), figure.note)
    return table


def chaos_record(settings: Settings, findings: Findings, started: datetime) -> dict[str, Any]:
    """Return it as the JSON has it."""
    return {
        "timestamp": started.isoformat(timespec="seconds"),
        "chaos": {
            "settings": asdict(settings),
            "machine": machine(),
            "violated": findings.violated,
            "figures": [
                {**asdict(figure), "reached": figure.reached} for figure in findings.figures
            ],
            "problems": findings.problems,
        },
    }
