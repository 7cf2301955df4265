"""Run a program of `benchmarks.scripts` as a process."""

from __future__ import annotations

import json
import sys
from typing import Any

import trio


async def run_script(name: str, *args: object) -> dict[str, Any]:
    """Return what the program printed as JSON. Cancellation kills it."""
    command = [sys.executable, "-m", f"benchmarks.scripts.{name}", *map(str, args)]
    done = await trio.run_process(command, capture_stdout=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result
