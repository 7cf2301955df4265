"""What kills, stops and starves workers, at the moments that the plan says."""

from __future__ import annotations

import resource
import signal
from collections import Counter
from typing import TYPE_CHECKING

import trio

from trio_dirty import AppLoadError

from ..harness.process import children
from .plan import CHANGES, DEADLY, Kind, Order
from .processes import hold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_dirty import Pool

    from .clients import Clients
    from .plan import Fault
    from .processes import Process


class Agents:
    """Each fault is a task, which has its process to itself until the fault is over.

    So none is killed twice, and each kill that is counted was one.

    Attributes:
        done: how many faults of each kind were done to workers that had booted. Those of
            `Kind.EXIT` and `Kind.HOG` are requests, and whether they began is in the log.
        booting: the same, to workers that had not.
        met: how many times each process number was given a fault that may end a worker.
    """

    def __init__(
        self, pool: Pool, clients: Clients, requests: trio.Nursery, others: set[int]
    ) -> None:
        """Requests are made in the nursery ``requests``; ``others`` are no workers."""
        self.done: Counter[Kind] = Counter()
        self.booting: Counter[Kind] = Counter()
        self.met: Counter[int] = Counter()
        self._pool = pool
        self._clients = clients
        self._requests = requests
        self._others = others
        self._held: set[int] = set()
        self._slots = len(pool.statistics().workers)

    @property
    def kills(self) -> int:
        """How many workers have been killed so far, or told to exit."""
        return sum(self.done[kind] + self.booting[kind] for kind in DEADLY)

    async def run(self, faults: Iterator[Fault]) -> None:
        """Do one fault after the other. Cancellation ends those that last."""
        time = trio.current_time()
        async with trio.open_nursery() as nursery:
            for fault in faults:
                time += fault.after
                await trio.sleep_until(time)
                if fault.kind in (Kind.EXIT, Kind.HOG):
                    self.done[fault.kind] += 1
                    self._requests.start_soon(self._clients.request, _order(fault))
                elif fault.kind in CHANGES:
                    nursery.start_soon(self._change, fault)
                else:
                    nursery.start_soon(self._do, fault)

    async def _do(self, fault: Fault) -> None:
        pids = sorted(children() - self._others - self._held)
        if not pids:
            return
        pid = pids[int(fault.whom * len(pids))]
        ready = {worker.pid for worker in self._pool.statistics().workers}
        if pid not in ready and fault.spares:
            return
        with hold(pid) as process:
            if process is None:
                return
            self._held.add(pid)
            try:
                if await self._treat(process, fault):
                    (self.done if pid in ready else self.booting)[fault.kind] += 1
            finally:
                self._held.remove(pid)

    async def _change(self, fault: Fault) -> None:
        try:
            if fault.kind is Kind.RESIZE:
                await self._pool.resize(1 + int(fault.whom * 2 * self._slots))
            else:
                await self._pool.reload(overlap=fault.spares)
        except AppLoadError:  # a worker was killed that booted for it
            self.booting[fault.kind] += 1
        else:
            self.done[fault.kind] += 1

    async def _treat(self, process: Process, fault: Fault) -> bool:
        """Do the fault to the process; return whether the process lived until its end."""
        match fault.kind:
            case Kind.KILL:
                return await self._kill(process)
            case Kind.STARVE:
                return await self._starve(process, fault)
        if not process.signal(signal.SIGSTOP):
            return False
        try:
            await trio.sleep(fault.seconds)
            return fault.kind is Kind.STOP or await self._kill(process)
        finally:
            process.signal(signal.SIGCONT)

    async def _kill(self, process: Process) -> bool:
        if not process.signal(signal.SIGKILL):
            return False
        self.met[process.pid] += 1
        await process.exited()
        return True

    async def _starve(self, process: Process, fault: Fault) -> bool:
        if not process.limit(int(process.size() * fault.share)):
            return False
        self.met[process.pid] += 1
        self._clients.shortage.begin()
        try:
            await trio.sleep(fault.seconds)
        finally:
            process.limit(resource.RLIM_INFINITY)
            self._clients.shortage.end()
        return True


def _order(fault: Fault) -> Order:
    return Order("exit" if fault.kind is Kind.EXIT else "hog", fault.seconds)
