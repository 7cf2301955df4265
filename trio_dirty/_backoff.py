"""When the next worker of a slot may start, after one has died.

Decisions only: nothing here waits, and nothing here knows of trio.
"""

from __future__ import annotations

FIRST_DELAY = 0.1
FAILURES_LIMIT = 7


class Backoff:
    """Counts a slot's consecutive workers that died before completing any request.

    The first such death costs nothing: the next worker starts at once. The further ones
    cost 0.1, 0.2, 0.4, ... seconds, and the seventh fails the slot. A worker that
    completed a request, however it died, starts the count anew.
    """

    __slots__ = ("failures",)

    def __init__(self) -> None:
        self.failures = 0

    def died(self, *, completed: int) -> float | None:
        """Return the seconds to wait before the next worker, or None for no other."""
        if completed:
            self.failures = 0
            return 0.0
        self.failures += 1
        if self.failures == 1:
            return 0.0
        if self.failures >= FAILURES_LIMIT:
            return None
        return float(FIRST_DELAY * 2 ** (self.failures - 2))
