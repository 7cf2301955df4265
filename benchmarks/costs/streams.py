"""Chunks a second, latency of a chunk and of the first one, and how far a generator runs ahead.

The machine drifts, so rounds of a stream and of a bare relay take turns, and the best round of
each is compared: a wake-up can only be hindered, never hurried.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING

from trio_dirty import open_pool

from ..harness.figures import Figure, percentile
from ..harness.notes import open_note
from ..harness.polling import wait_steady
from ..work import STAMP_SECONDS, Work
from .relay import open_relay

if TYPE_CHECKING:
    from trio_dirty import Pool

    from ..output.display import Stage

SMALL, LARGE = 16, 64 << 10

CHUNKS_PER_SECOND = 150_000
GUNICORN_CHUNKS_PER_SECOND = 21_000
OF_A_RELAY = 2
FIRST_US = 250
GUNICORN_FIRST_US = 776
CHUNKS_AHEAD = 1_000
BYTES_AHEAD = 1 << 20

LATENCY_ROUNDS = 10
SMALL_STOPS = (0, 1, 600, 1_500)
LARGE_STOPS = (0, 1, 9, 30)
"""After how many chunks a reader stops: before anything, within a window, and beyond one."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        rounds: of chunks at full speed.
        chunks: of one such round.
        stamps: chunks of one round of latencies.
        firsts: streams of which the first chunk is timed.
    """

    rounds: int
    chunks: int
    stamps: int
    firsts: int

    @property
    def steps(self) -> int:
        """How many rounds there are in all."""
        return self.rounds + LATENCY_ROUNDS + 1 + 2


FULL = Effort(rounds=10, chunks=200_000, stamps=40, firsts=1_000)
QUICK = Effort(rounds=3, chunks=30_000, stamps=10, firsts=100)


async def read_all(pool: Pool, number: int) -> float:
    """Return the chunks a second of one stream and its reader."""
    began = perf_counter()
    taken = 0
    async with pool.stream(Work.chunks, number, SMALL) as chunks:
        async for _ in chunks:
            taken += 1
    seconds = perf_counter() - began
    assert taken == number
    return number / seconds


async def latencies(pool: Pool, number: int) -> list[float]:
    """Return the seconds from ``yield`` to the reader, of so many chunks."""
    seconds = []
    async with pool.stream(Work.stamps, number) as stamps:
        async for stamp in stamps:
            seconds.append(perf_counter() - stamp)
    return seconds


async def first_chunk(pool: Pool) -> float:
    """Return the seconds from entering a stream, on an idle worker, to its first chunk."""
    began = perf_counter()
    async with pool.stream(Work.chunks, 1, SMALL) as chunks:
        await chunks.receive()
        seconds = perf_counter() - began
        async for _ in chunks:  # to its end, so that the worker is idle again
            pass
    return seconds


async def run_ahead(pool: Pool, size: int, stops: tuple[int, ...]) -> int:
    """Return by how many chunks at most a generator is ahead when it has come to rest.

    The reader takes so many chunks, stops until the generator has, and goes on. The generator
    always gets one chunk further than the reader: before that it has not come to rest.
    """
    most = taken = 0
    with open_note() as note:
        async with pool.stream(Work.counted_chunks, note.path, size) as chunks:
            for stop in stops:
                while taken < stop:
                    await chunks.receive()
                    taken += 1
                await note.wait_above(taken)
                yielded = int(await wait_steady(note.read))
                most = max(most, yielded - taken)
    return most


async def measure_streams(*, effort: Effort, stage: Stage) -> list[Figure]:
    """Measure one stream at a time, on a pool of one worker."""
    async with open_pool([Work], workers=1) as pool:
        figures = [await measure_rate(pool, effort, stage)]
        figures.append(await measure_latency(pool, effort, stage))
        firsts = [1e6 * await first_chunk(pool) for _ in range(effort.firsts)]
        stage.advance()
        small = await run_ahead(pool, SMALL, SMALL_STOPS)
        stage.advance()
        large = LARGE * await run_ahead(pool, LARGE, LARGE_STOPS)
        stage.advance()
    return [
        *figures,
        Figure(
            "first chunk of a stream, p50",
            percentile(firsts, 50),
            "µs",
            at_most=FIRST_US,
            note=f"of {len(firsts)}, p99 {percentile(firsts, 99):.0f}; "
            f"gunicorn {GUNICORN_FIRST_US}",
        ),
        Figure(
            f"ahead of a reader that has stopped, {SMALL}-byte chunks",
            small,
            "chunks",
            at_most=CHUNKS_AHEAD,
            note=f"the most of {len(SMALL_STOPS)} stops",
        ),
        Figure(
            f"ahead of a reader that has stopped, {LARGE >> 10} KiB chunks",
            large,
            "bytes",
            at_most=BYTES_AHEAD,
            note=f"the most of {len(LARGE_STOPS)} stops",
        ),
    ]


async def measure_rate(pool: Pool, effort: Effort, stage: Stage) -> Figure:
    """Measure small chunks at full speed."""
    await read_all(pool, effort.chunks // 10)  # warms up
    rates = []
    computed = process_time()
    for _ in range(effort.rounds):
        rates.append(await read_all(pool, effort.chunks))
        stage.advance()
    each = 1e6 * (process_time() - computed) / (effort.rounds * effort.chunks)
    return Figure(
        f"{SMALL}-byte chunks, one stream",
        median(rates),
        "a second",
        at_least=CHUNKS_PER_SECOND,
        note=f"median of {len(rates)}, {min(rates):,.0f} to {max(rates):,.0f}; {each:.1f} µs of "
        f"this process's own for each; gunicorn {GUNICORN_CHUNKS_PER_SECOND:,}",
    )


async def measure_latency(pool: Pool, effort: Effort, stage: Stage) -> Figure:
    """Measure single chunks and those of a bare relay in turn."""
    ours, bare = [], []
    with open_relay() as relay:
        await relay.latencies(1)  # waits until it is there
        for _ in range(LATENCY_ROUNDS):
            ours.append(1e6 * percentile(await latencies(pool, effort.stamps), 50))
            bare.append(1e6 * percentile(await relay.latencies(effort.stamps), 50))
            stage.advance()
    return Figure(
        f"chunk each {1000 * STAMP_SECONDS:.0f} ms, yield to reader, p50, of a bare relay's",
        min(ours) / min(bare),
        "times",
        at_most=OF_A_RELAY,
        note=f"the best of {LATENCY_ROUNDS} rounds, {min(ours):.0f} µs against {min(bare):.0f} µs",
    )
