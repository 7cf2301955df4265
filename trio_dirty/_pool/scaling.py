"""How many slots a pool has, and the renewal of their workers.

One task for each pool: `Scaling.run` opens and removes slots until there are as many as are
wanted. `Scaling.resize` only sets that number, and waits.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from .._common.errors import AppLoadError
from .._rules.allocation import choose_leaving, gains
from .renewal import Renewal
from .waiting import Waiters

if TYPE_CHECKING:
    from collections.abc import Collection

    from .replacement import Replacement
    from .slots import Slots


class Scaling:
    """Changes the number of a pool's slots, and renews their workers."""

    def __init__(self, slots: Slots, count: int) -> None:
        self._slots = slots
        self._wanted = count
        # How often the number that is wanted was given up, and why the last time.
        self._failures = 0
        self._error: Exception | None = None
        self._reloading = trio.Lock()
        self._scope = trio.CancelScope()
        self._changed = Waiters()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Open and remove slots, whenever another number of them is wanted."""
        with self._scope:
            while True:
                await self._changed.until(self._has_to_change)
                # A pool that is being closed has fewer slots that stay; that may be this task's
                # first look at them.
                await trio.lowlevel.checkpoint_if_cancelled()
                wanted = self._wanted
                try:
                    await self._approach()
                except AppLoadError as error:
                    if self._wanted == wanted:  # else another number is to be tried
                        self._wanted = len(self._slots.staying)
                        self._error = error
                        self._failures += 1
                self._slots.progress.wake()

    def stop(self) -> None:
        """Change nothing more."""
        self._scope.cancel()
        self._slots.progress.wake()

    async def resize(self, count: int) -> None:
        """Wait until there are so many slots, or as many as another call has asked for since.

        Raises:
            AppLoadError: a worker could not boot that was needed for it.
            trio.ClosedResourceError: the pool is being closed.
        """
        slots = self._slots
        self._check_open()
        self._wanted = count
        self._changed.wake()
        slots.progress.wake()  # boots may have become needless
        failures = self._failures
        await trio.lowlevel.checkpoint()
        await slots.progress.until(lambda: self._failures > failures or self._is_so())
        # Also where it is so: once its number has been given up, what there is is wanted.
        if self._failures > failures and self._error is not None:
            raise self._error

    def _has_to_change(self) -> bool:
        return len(self._slots.staying) != self._wanted or bool(self._booting)

    def _is_so(self) -> bool:
        """Whether there are as many slots as are wanted, each with a worker.

        Raises:
            trio.ClosedResourceError: the pool is being closed.
        """
        self._check_open()
        staying = self._slots.staying
        return len(staying) == self._wanted == len(self._slots.replacements) and all(
            replacement.slot.life.has_booted for replacement in staying
        )

    def _check_open(self) -> None:
        if not self._slots.is_open:
            raise trio.ClosedResourceError("this pool is closed")

    async def _approach(self) -> None:
        """Open the slots that are missing, or remove those that are too many."""
        slots = self._slots
        excess = len(slots.staying) - self._wanted
        if excess > 0:
            await self._shrink(excess)
        else:
            slots.open(-excess)
            await self._until_booted()

    async def _shrink(self, count: int) -> None:
        slots = self._slots
        staying = {replacement.slot.index: replacement for replacement in slots.staying}
        leaving = choose_leaving(
            count,
            {index: replacement.slot.carries for index, replacement in staying.items()},
            [index for index, each in staying.items() if each.slot.life.failure is not None],
        )
        await self._hand_over(leaving)  # and from then on they have to leave
        for index in leaving:
            slots.remove(staying[index])

    async def _hand_over(self, leaving: Collection[int]) -> None:
        """Have those that stay carry what only those carry that leave.

        Raises:
            AppLoadError: one could not boot with it.
        """
        slots = self._slots
        left = {each.slot.index: each for each in slots.staying if each.slot.index not in leaving}
        ready = [index for index, each in left.items() if each.slot.current is not None]
        takers = ready or [index for index, each in left.items() if not each.is_lost]
        able = {index: left[index].slot.carries for index in takers}
        # What others carry waits for their return.
        kept = frozenset[int]().union(*(left[index].slot.carries for index in left.keys() - able))
        moves = [
            left[index].want(Renewal("resize", slots.paths(able[index] | gained)))
            for index, gained in gains(slots.app_limits, able, kept).items()
        ]
        for move in moves:
            await move.wait()

    @property
    def _booting(self) -> list[Replacement]:
        """The slots that are new, and whose first worker is not ready."""
        return [each for each in self._slots.staying if not each.slot.life.has_booted]

    async def _until_booted(self) -> None:
        """Wait for the first workers of new slots, as long as these are wanted.

        Raises:
            AppLoadError: one could not boot. Those that have not are removed.
        """
        slots = self._slots
        while booting := self._booting:
            failures = [
                each.slot.life.failure for each in booting if each.slot.life.failure is not None
            ]
            if failures:
                with suppress(AppLoadError):
                    await self._hand_over([each.slot.index for each in booting])
                for replacement in booting:
                    if not replacement.slot.life.has_booted:
                        slots.remove(replacement)
                raise failures[0]
            if len(slots.staying) != self._wanted:
                return  # the number was changed in the meantime
            await slots.progress.wait()

    async def reload(self, *, overlap: bool) -> None:
        """Replace the worker of each slot that there is, one after the other.

        Raises:
            AppLoadError: one could not boot.
            trio.ClosedResourceError: the pool is being closed.
        """
        self._check_open()
        async with self._reloading:
            for replacement in self._slots.staying:
                self._check_open()
                if replacement.slot.life.is_leaving:
                    continue
                apps = self._slots.next_apps(replacement)
                paths = self._slots.paths(apps) if apps != replacement.slot.carries else None
                if replacement.is_lost and paths is not None:
                    replacement.slot.assign(paths)
                renewal = replacement.want(Renewal("reload", paths, overlaps=overlap))
                try:
                    await renewal.wait()
                except trio.ClosedResourceError:
                    self._check_open()  # else the slot alone has left
