"""Clients that call and cancel requests, and check what they get."""

from __future__ import annotations

import errno
import math
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import trio

from trio_dirty import (
    NoWorkersAvailableError,
    RemoteError,
    RequestTimeoutError,
    WorkerCrashedError,
)

from .journal import Ending
from .plan import LARGEST, Order, plan_orders
from .work import Witness, own

if TYPE_CHECKING:
    from trio_dirty import Pool

    from .journal import Book

MOST_PROBLEMS = 10


class Shortage:
    """When workers were starved: what fails during this may fail because of it."""

    def __init__(self) -> None:
        self._now = 0
        self._last = -math.inf

    def begin(self) -> None:
        """Note that a worker is short of memory."""
        self._now += 1

    def end(self) -> None:
        """Note that a worker is not short of memory any more."""
        self._now -= 1
        self._last = trio.current_time()

    def since(self, time: float) -> bool:
        """Whether any worker was, now or after that time."""
        return self._now > 0 or self._last >= time


class Clients:
    """Clients at full speed.

    Attributes:
        shortage: of memory, as the agents tell.
        stopping: set to True, it has each client end with the request that it makes.
        given_up: set when every slot of the pool has failed.
        crashes: how many crash errors named each process.
        overdue: how many times each process was killed since a request had timed out.
        problems: what the first few requests ended with that may not.
    """

    def __init__(self, pool: Pool, book: Book, seed: int) -> None:
        self.shortage = Shortage()
        self.stopping = False
        self.given_up = trio.Event()
        self.crashes: Counter[int] = Counter()
        self.overdue: Counter[int] = Counter()
        self.problems: list[str] = []
        self._pool = pool
        self._book = book
        self._seed = seed
        self._data = Random(f"data {seed}").randbytes(2 * LARGEST)

    async def client(self, index: int) -> None:
        """Make one request after the other."""
        for order in plan_orders(self._seed, index):
            if self.stopping:
                break
            await self.request(order)

    async def request(self, order: Order) -> None:
        """Make a request, and write down how it ended.

        Cancelled from outside, it writes nothing: the request has had no answer.
        """
        number = self._book.send()
        called = trio.current_time()
        # It takes the memory of the other lanes of its worker, too.
        is_hog = order.action == "hog"
        if is_hog:
            self.shortage.begin()
        try:
            if order.leaves is None:
                good = await self._call(number, order)
            else:
                with trio.move_on_after(order.leaves) as patience:
                    good = await self._call(number, order)
                if patience.cancelled_caught:
                    self._book.end(number, Ending.CANCELLED)
                    return
        except _LeftError:
            ending = Ending.CANCELLED
        except WorkerCrashedError as error:
            self.crashes[error.pid or 0] += 1
            ending = Ending.CRASHED
        except RequestTimeoutError as error:
            if not error.soft:
                self.overdue[error.pid or 0] += 1
            ending = Ending.TIMED_OUT
        except NoWorkersAvailableError:
            self.stopping = True
            self.given_up.set()
            ending = Ending.REFUSED
        except Exception as error:
            ending = Ending.UNEXPLAINED
            if is_hog or self.shortage.since(called):
                ending = Ending.NO_MEMORY if _wants_memory(error) else ending
            if ending is Ending.UNEXPLAINED:
                self._problem(number, order, repr(error))
        else:
            ending = Ending.SERVED if good else Ending.FOREIGN
            if not good:
                self._problem(number, order, "a result that is not its own")
        finally:
            if is_hog:
                self.shortage.end()
        self._book.end(number, ending)

    async def _call(self, number: int, order: Order) -> bool:
        """Make a request; return whether its result is its own."""
        pool = self._pool
        if order != _plain(order):
            pool = pool.with_options(
                timeout=order.timeout,
                soft_timeout=order.soft_timeout,
                on_cancel=order.on_cancel,
                key=order.key,
            )
        call = pool.run_sync
        match order.action:
            case "count":
                return await self._read(pool, number, order)
            case "touch":
                return await call(Witness.touch, number) == own(number)
            case "nap":
                return await call(Witness.nap, number, order.amount) == own(number)
            case "spin":
                return await call(Witness.spin, number, order.amount) == own(number)
            case "echo":
                start = number % LARGEST
                data = self._data[start : start + int(order.amount)]
                return await call(Witness.echo, number, data) == (own(number), data)
            case "exit":
                await call(Witness.exit, number, order.amount)
                return False
            case _:
                await call(Witness.hog, number)
                return False

    async def _read(self, pool: Pool, number: int, order: Order) -> bool:
        """Read a stream, or the beginning of it; return whether its chunks are its own."""
        count = int(order.amount)
        taken = 0
        async with pool.stream(Witness.count, number, count) as chunks:
            if order.takes == 0:
                # It may have been left before it began, and counts as cancelled.
                raise _LeftError
            async for chunk in chunks:
                if chunk != (own(number), taken):
                    return False
                taken += 1
                if taken == order.takes:
                    raise _LeftError
        return taken == count

    def _problem(self, number: int, order: Order, what: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(f"request {number}, {order.action}({order.amount:g}): {what}")


class _LeftError(Exception):
    """A client has taken as many chunks of a stream as it wanted."""


def _plain(order: Order) -> Order:
    """Return the same request without any options."""
    return Order(order.action, order.amount, order.leaves, takes=order.takes)


def _wants_memory(error: Exception) -> bool:
    """Whether an error can mean that memory is short. A failure to pickle is a `RemoteError`."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, (MemoryError, RemoteError))
