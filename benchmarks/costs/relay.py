"""A bare relay: another process writes stamps to a socket, and this one reads them with trio.

What a wake-up between two processes takes varies by the minute and the machine, so the latency
of a stream's chunks is compared with it.
"""

from __future__ import annotations

import multiprocessing
import socket
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

import trio

from ..work import NUMBER, relay_stamps

if TYPE_CHECKING:
    from collections.abc import Iterator


class Relay:
    """This end of a socket whose other end is served by another process."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    async def latencies(self, number: int) -> list[float]:
        """Return the seconds that each of so many stamps took to arrive."""
        latencies = []
        self._socket.sendall(NUMBER.pack(number))
        for _ in range(number):
            await trio.lowlevel.wait_readable(self._socket)
            (stamp,) = NUMBER.unpack(self._socket.recv(NUMBER.size))
            latencies.append(perf_counter() - stamp)
        return latencies


@contextmanager
def open_relay() -> Iterator[Relay]:
    """Run the other process during the block."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = multiprocessing.get_context("spawn").Process(
                target=relay_stamps, args=(theirs,), daemon=True
            )
            process.start()
        try:
            yield Relay(ours)
        finally:
            process.kill()
            process.join()
