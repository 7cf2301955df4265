"""`ProcessPoolExecutor`, with fork and with spawn, in a process of its own.

Run as ``python -m benchmarks.comparison.executors WORKERS``; answers a line of JSON for each on its
standard input. A process of its own, because one that runs trio may have threads, and must
not be forked then; and because its executors' threads would disturb trio's.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..harness.words import error_in_words
from ..work import FUNCTIONS, noop

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

METHODS = ("fork", "spawn")


def one_at_a_time(executor: ProcessPoolExecutor, requests: int) -> list[float]:
    """Return the seconds of each of a number of no-op requests."""
    latencies = []
    for _ in range(requests):
        began = perf_counter()
        executor.submit(noop).result()
        latencies.append(perf_counter() - began)
    return latencies


def flood(
    executor: ProcessPoolExecutor,
    function: Callable[..., None],
    args: list[float],
    *,
    outstanding: int,
    requests: int,
) -> tuple[float, list[float], list[str]]:
    """Keep a number of requests outstanding, until all have ended.

    The callback of one that has ended submits the next, in the executor's own thread: the
    way that costs it least.
    """
    tickets = iter(range(requests))
    latencies: list[float] = []
    errors: list[str] = []
    ended: list[None] = []
    everything = Event()

    def submit() -> None:
        if next(tickets, None) is None:
            return
        began = perf_counter()

        def done(future: Future[None]) -> None:
            if error := future.exception():
                errors.append(error_in_words(error))
            else:
                latencies.append(perf_counter() - began)
            ended.append(None)
            submit()
            if len(ended) == requests:
                everything.set()

        executor.submit(function, *args).add_done_callback(done)

    started = perf_counter()
    for _ in range(outstanding):
        submit()
    everything.wait()
    return perf_counter() - started, latencies, errors


def _answer(executor: ProcessPoolExecutor, question: dict[str, Any]) -> dict[str, Any]:
    if question["clients"] is None:
        return {"latencies": one_at_a_time(executor, question["requests"])}
    seconds, latencies, errors = flood(
        executor,
        FUNCTIONS[question["action"]],
        question["args"],
        outstanding=question["clients"],
        requests=question["requests"],
    )
    return {"seconds": seconds, "latencies": latencies, "errors": errors}


def main() -> None:
    """Serve until the standard input ends."""
    workers = int(sys.argv[1])
    executors = {}
    for method in METHODS:  # fork first, while there is one thread
        context = multiprocessing.get_context(method)
        executor = executors[method] = ProcessPoolExecutor(workers, mp_context=context)
        executor.submit(noop).result()
    print("ready", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(_answer(executors[question["method"]], question)), flush=True)
    for executor in executors.values():
        executor.shutdown()


if __name__ == "__main__":
    main()
