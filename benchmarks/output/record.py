"""The JSON: the shape of gunicorn's record, and more."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from ..comparison.noop import PeerResult
    from ..comparison.scenarios import ScenarioResult
    from ..harness.figures import Figure

RESULTS = Path(__file__).parent.parent / "results"


@dataclass(slots=True)
class Run:
    """Everything that one run of the benchmark measured."""

    scenarios: list[ScenarioResult] = field(default_factory=list)
    peers: list[PeerResult] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def record(self, started: datetime) -> dict[str, Any]:
        """Return it as the JSON has it."""
        return {
            **stamp(started),
            "results": [result.record() for result in self.scenarios],
            "measurements": {
                "machine": machine(),
                "peers": [peer.record() for peer in self.peers],
                "figures": [figure.record() for figure in self.figures],
            },
        }


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
    }


def local_time() -> datetime:
    """Return the time of this place, without its zone."""
    return datetime.now().astimezone().replace(tzinfo=None)


def stamp(started: datetime) -> dict[str, Any]:
    """Return how every record begins: with when its run was started."""
    return {"timestamp": started.isoformat(timespec="seconds")}


def save(record: dict[str, Any], path: Path | None, console: Console, suffix: str = "") -> None:
    """Write a record, to a file named after its time unless told otherwise, and say where."""
    started = datetime.fromisoformat(record["timestamp"])
    path = path or RESULTS / f"{started:%Y-%m-%dT%H%M%S}{suffix}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    console.print(f"written to {path}", soft_wrap=True)
