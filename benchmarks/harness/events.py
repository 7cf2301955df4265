"""What a pool reports of its workers while it is measured."""

from __future__ import annotations

from time import perf_counter

import trio

from trio_dirty import Instrument


class WorkerEvents(Instrument):
    """Notices when workers are ready, and how many there are.

    Attributes:
        ready_at: when the latest worker was ready, by `time.perf_counter`.
        ready: how many have ever been.
        present: how many have been started and have not ended.
    """

    def __init__(self) -> None:
        self.ready_at = 0.0
        self.ready = 0
        self.present = 0
        self._changed = trio.lowlevel.ParkingLot()

    def worker_started(self, slot: int, worker: int) -> None:
        """Count it."""
        self.present += 1

    def worker_ready(self, slot: int, worker: int, pid: int | None) -> None:
        """Note when that was."""
        self.ready_at = perf_counter()
        self.ready += 1
        self._changed.unpark_all()

    def worker_exited(self, slot: int, worker: int, pid: int | None, exitcode: int | None) -> None:
        """Count it off."""
        self.present -= 1
        self._changed.unpark_all()

    async def wait_ready(self, number: int) -> None:
        """Wait until so many workers have been ready."""
        with trio.fail_after(60):
            while self.ready < number:
                await self._changed.park()

    async def wait_present(self, number: int) -> None:
        """Wait until there are only so many workers, those that boot or close included."""
        with trio.fail_after(60):
            while self.present > number:
                await self._changed.park()
