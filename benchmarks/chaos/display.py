"""Progress: on a terminal a line that moves, elsewhere a line every now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

TERMINAL_SECONDS = 0.5
ELSEWHERE_SECONDS = 10.0


class Watch:
    """Shows a run of so many seconds. No thread redraws it: the run's own threads are counted.

    Attributes:
        interval: how many seconds there should be between two calls of `show`.
    """

    def __init__(self, console: Console, seconds: float) -> None:
        self._console = console
        self._seconds = seconds
        self._last = (0.0, 0)
        self._bar = Progress(
            TextColumn("chaos"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            auto_refresh=False,
        )
        self._task = self._bar.add_task("starting", total=seconds)
        self.interval = TERMINAL_SECONDS if console.is_terminal else ELSEWHERE_SECONDS

    def __enter__(self) -> Watch:
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

    def show(self, seconds: float, requests: int, kills: int) -> None:
        """Tell how many requests have ended and how many kills there have been."""
        before, ended = self._last
        self._last = seconds, requests
        rate = (requests - ended) / (seconds - before)
        left = max(0.0, self._seconds - seconds)
        self.tell(
            f"{requests:,} requests, {rate:,.0f}/s; {kills:,} kills; {left:.0f} s left", seconds
        )

    def tell(self, what: str, seconds: float | None = None) -> None:
        """Tell what is going on."""
        if self._console.is_terminal:
            completed = self._seconds if seconds is None else seconds
            self._bar.update(self._task, description=what, completed=completed)
            self._bar.refresh()
        else:
            self._console.print(what, highlight=False)
