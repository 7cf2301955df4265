"""The control: bare processes that do the same work with no pool."""

from __future__ import annotations

import multiprocessing
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

from ..work import FUNCTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from .catalogue import Job


class Control:
    """Processes that are started and ready, and wait for work."""

    def __init__(self, connections: list[Connection]) -> None:
        self._connections = connections

    def run(self, jobs: list[int]) -> tuple[float, list[float]]:
        """Let process ``i`` do ``jobs[i]`` jobs; block until the last has ended.

        Returns:
            The seconds from the release to the last end, and those of each job. A process
            reports when it ended by the clock of the whole machine, so that reading the
            reports is not counted.
        """
        released = perf_counter()
        for connection, number in zip(self._connections, jobs, strict=True):
            connection.send(number)
        ended = released
        durations: list[float] = []
        for connection in self._connections:
            end, each = connection.recv()
            ended = max(ended, end)
            durations += each
        return ended - released, durations


@contextmanager
def open_control(job: Job, processes: int) -> Iterator[Control]:
    """Start the processes, and enter the block when all of them are ready."""
    spawn = multiprocessing.get_context("spawn")
    started = []
    connections: list[Connection] = []
    try:
        for _ in range(processes):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(theirs, job.action, job.args), daemon=True)
            process.start()
            started.append(process)
            theirs.close()
            connections.append(ours)
        for connection in connections:
            connection.recv()
        yield Control(connections)
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.join()
        for connection in connections:
            connection.close()


def _serve(connection: Connection, action: str, args: tuple[float, ...]) -> None:
    function = FUNCTIONS[action]
    connection.send(None)
    while True:
        number: int = connection.recv()
        durations = []
        ended = perf_counter()
        for _ in range(number):
            began = perf_counter()
            function(*args)
            ended = perf_counter()
            durations.append(ended - began)
        connection.send((ended, durations))
