"""Rounds of events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..harness.words import error_in_words
from .watch import Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..output.display import Display
    from .event import Row


def measure(row: Row, rounds: int, display: Display) -> None:
    """Play a row's event so many times, each in a run of trio of its own."""
    rounds = min(rounds, row.event.rounds)
    stage = display.stage(row.name, rounds)
    for _ in range(rounds):
        watch, control = Watch(), None
        try:
            trio.run(row.event.play, watch, row.size)
            if row.event.control is not None:
                control = Watch()
                trio.run(row.event.control, control, row.size)
        except Exception as error:
            row.error = error_in_words(error)
            return
        row.add(watch, control)
        stage.advance()


def measure_all(rows: Sequence[Row], rounds: int, display: Display) -> None:
    """Measure one row after the other."""
    for row in rows:
        measure(row, rounds, display)
