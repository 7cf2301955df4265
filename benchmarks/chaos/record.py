"""The JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..output.record import machine, stamp

if TYPE_CHECKING:
    from datetime import datetime

    from .run import Findings, Settings


def chaos_record(settings: Settings, findings: Findings, started: datetime) -> dict[str, Any]:
    """Return it as the JSON has it."""
    return {
        **stamp(started),
        "chaos": {
            "settings": asdict(settings),
            "machine": machine(),
            "violated": findings.violated,
            "figures": [figure.record() for figure in findings.figures],
            "problems": findings.problems,
        },
    }
