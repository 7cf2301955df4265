"""Progress, shown between measured spans.

No thread redraws it: that would disturb what is measured. A bar moves only when the measurement
says so.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from rich.console import Console
    from rich.progress import TaskID

TERMINAL_SECONDS = 0.5
ELSEWHERE_SECONDS = 10.0
"""From one line to the next."""


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


class Countdown:
    """Shows a run of so many seconds: on a terminal a bar, elsewhere a line now and then.

    Attributes:
        interval: how many seconds there should be between two calls of `show`.
    """

    def __init__(self, console: Console, name: str, seconds: float) -> None:
        self._console = console
        self._seconds = seconds
        self._bar = Progress(
            TextColumn(name),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
        )
        self._task = self._bar.add_task("starting", total=seconds)
        self.interval = TERMINAL_SECONDS if console.is_terminal else ELSEWHERE_SECONDS

    def __enter__(self) -> Countdown:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def tell(self, what: str, seconds: float | None = None) -> None:
        """Tell what is going on."""
        if self._console.is_terminal:
            completed = self._seconds if seconds is None else seconds
            self._bar.update(self._task, description=what, completed=completed)
            self._bar.refresh()
        else:
            self._console.print(what, highlight=False)
