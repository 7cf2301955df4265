"""How many slots a pool has, and the renewal of their workers.

One task for each pool: `Scaling.run` opens and removes slots until there are as many as are
wanted. Whoever wants another number only says so, and waits.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from .._common.errors import AppLoadError
from .._rules.allocation import choose_leaving, gains
from .wish import Wish

if TYPE_CHECKING:
    from collections.abc import Collection

    from .succession import Succession
    from .supervisor import Supervisor


class Scaling:
    """Changes the number of a pool's slots, and renews their workers."""

    def __init__(self, supervisor: Supervisor, count: int) -> None:
        self._supervisor = supervisor
        self._wanted = count
        # How often the number that is wanted was given up, and why the last time.
        self._failures = 0
        self._error: Exception | None = None
        self._reloading = trio.Lock()
        self._scope = trio.CancelScope()
        self._changed = trio.lowlevel.ParkingLot()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Open and remove slots, whenever another number of them is wanted."""
        with self._scope:
            while True:
                while len(self._supervisor.staying) == self._wanted and not self._booting:
                    await self._changed.park()
                # A pool that is being closed has fewer slots that stay; that may be this task's
                # first look at them.
                await trio.lowlevel.checkpoint_if_cancelled()
                wanted = self._wanted
                try:
                    await self._approach()
                except AppLoadError as error:
                    if self._wanted == wanted:  # else another number is to be tried
                        self._wanted = len(self._supervisor.staying)
                        self._error = error
                        self._failures += 1
                self._supervisor.progress.unpark_all()

    def stop(self) -> None:
        """Change nothing more."""
        self._scope.cancel()
        self._supervisor.progress.unpark_all()

    async def resize(self, count: int) -> None:
        """Wait until there are so many slots, or as many as somebody has wanted since.

        Raises:
            AppLoadError: a worker could not boot that was needed for it.
            trio.ClosedResourceError: the pool is being closed.
        """
        supervisor = self._supervisor
        self._check_open()
        self._wanted = count
        self._changed.unpark_all()
        supervisor.progress.unpark_all()  # boots may have become needless
        failures = self._failures
        await trio.lowlevel.checkpoint()
        while self._failures == failures and not self._is_so():
            self._check_open()
            await supervisor.progress.park()
        # Also where it is so: once its number has been given up, what there is is wanted.
        if self._failures > failures and self._error is not None:
            raise self._error

    def _is_so(self) -> bool:
        staying = self._supervisor.staying
        return len(staying) == self._wanted == len(self._supervisor.successions) and all(
            succession.has_booted for succession in staying
        )

    def _check_open(self) -> None:
        if not self._supervisor.is_open:
            raise trio.ClosedResourceError("this pool is closed")

    async def _approach(self) -> None:
        """Open the slots that are missing, or remove those that are too many."""
        supervisor = self._supervisor
        excess = len(supervisor.staying) - self._wanted
        if excess > 0:
            await self._shrink(excess)
        else:
            supervisor.open_slots(-excess)
            await self._until_booted()

    async def _shrink(self, count: int) -> None:
        supervisor = self._supervisor
        staying = {succession.slot.index: succession for succession in supervisor.staying}
        leaving = choose_leaving(
            count,
            {index: succession.slot.carries for index, succession in staying.items()},
            [index for index, each in staying.items() if each.slot.failure is not None],
        )
        await self._hand_over(leaving)  # and from then on they have to leave
        for index in leaving:
            supervisor.remove(staying[index])

    async def _hand_over(self, leaving: Collection[int]) -> None:
        """Have those that stay carry what only those carry that leave.

        Raises:
            AppLoadError: one could not boot with it.
        """
        supervisor = self._supervisor
        left = {
            each.slot.index: each for each in supervisor.staying if each.slot.index not in leaving
        }
        ready = [index for index, each in left.items() if each.slot.current is not None]
        takers = ready or [index for index, each in left.items() if not each.is_lost]
        able = {index: left[index].slot.carries for index in takers}
        # What others carry waits for their return.
        kept = frozenset[int]().union(*(left[index].slot.carries for index in left.keys() - able))
        moves = [
            left[index].want(Wish("resize", supervisor.paths(able[index] | gained)))
            for index, gained in gains(supervisor.app_limits, able, kept).items()
        ]
        for move in moves:
            await move.granted()

    @property
    def _booting(self) -> list[Succession]:
        """The slots that are new, and whose first worker is not ready."""
        return [each for each in self._supervisor.staying if not each.has_booted]

    async def _until_booted(self) -> None:
        """Wait for the first workers of new slots, as long as these are wanted.

        Raises:
            AppLoadError: one could not boot. Those that have not are removed.
        """
        supervisor = self._supervisor
        while booting := self._booting:
            failures = [each.slot.failure for each in booting if each.slot.failure is not None]
            if failures:
                with suppress(AppLoadError):
                    await self._hand_over([each.slot.index for each in booting])
                for succession in booting:
                    if not succession.has_booted:
                        supervisor.remove(succession)
                raise failures[0]
            if len(supervisor.staying) != self._wanted:
                return  # somebody has thought better of it
            await supervisor.progress.park()

    async def reload(self, *, overlap: bool) -> None:
        """Replace the worker of each slot that there is, one after the other.

        Raises:
            AppLoadError: one could not boot.
            trio.ClosedResourceError: the pool is being closed.
        """
        self._check_open()
        async with self._reloading:
            for succession in self._supervisor.staying:
                self._check_open()
                if succession.slot.is_leaving:
                    continue
                apps = self._supervisor.next_apps(succession)
                paths = self._supervisor.paths(apps) if apps != succession.slot.carries else None
                if succession.is_lost and paths is not None:
                    succession.slot.assign(paths)
                wish = succession.want(Wish("reload", paths, overlaps=overlap))
                try:
                    await wish.granted()
                except trio.ClosedResourceError:
                    self._check_open()  # else the slot alone has left
