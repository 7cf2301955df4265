"""The JSON: the seed's shape, and more."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

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
            "timestamp": started.isoformat(timespec="seconds"),
            "results": [result.record() for result in self.scenarios],
            "measurements": {
                "machine": machine(),
                "peers": [peer.record() for peer in self.peers],
                "figures": [
                    {**asdict(figure), "reached": figure.reached} for figure in self.figures
                ],
            },
        }


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
    }


def default_path(started: datetime, suffix: str = "") -> Path:
    """Return where the record of a run goes that is not told otherwise."""
    return RESULTS / f"{started:%Y-%m-%dT%H%M%S}{suffix}.json"


def write(record: dict[str, Any], path: Path) -> None:
    """Write the record, and the directory that it goes to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
