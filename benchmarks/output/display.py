"""Progress, shown between measured spans.

Nothing is drawn while something is measured: there is no thread that redraws, and `Stage`
moves only when a round has ended.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.progress import TaskID


class Stage:
    """One measurement's bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def advance(self) -> None:
        """Tell that a round has ended."""
        self._progress.advance(self._task)
        self._progress.refresh()


class Display:
    """The bars of all measurements."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def stage(self, name: str, steps: int) -> Stage:
        """Begin a measurement of so many rounds."""
        task = self._progress.add_task(name, total=steps)
        self._progress.refresh()
        return Stage(self._progress, task)


@contextmanager
def open_display(console: Console) -> Iterator[Display]:
    """Show bars during the block."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        yield Display(progress)
