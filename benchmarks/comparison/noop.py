"""No-op requests, and throughput_10ms, on trio_dirty and its peers.

The machine drifts, so the peers take turns: many short rounds, each of them with every peer,
the first one of a round being another each time. Rates are medians over the rounds; the
comparison with trio_parallel, one at a time, is the median of the rounds' own ratios.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from statistics import median
from typing import TYPE_CHECKING

from ..harness.figures import Figure, percentile
from .catalogue import NOOP, THROUGHPUT
from .peers import open_peers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..harness.load import Load
    from ..output.display import Stage
    from .peers import Peer

FLOODS = (100, 1000)
BATCH = 200


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure.

    Attributes:
        batches: of one request at a time.
        rounds: of each flood.
        seconds: that one peer's part of a round should take.
        sleep_rounds: of throughput_10ms.
        sleep_requests: of one round of it.
    """

    batches: int
    rounds: int
    seconds: float
    sleep_rounds: int
    sleep_requests: int

    @property
    def steps(self) -> int:
        """How many rounds there are in all."""
        return self.batches + len(FLOODS) * (self.rounds + 1) + self.sleep_rounds


FULL = Effort(batches=30, rounds=7, seconds=1.0, sleep_rounds=5, sleep_requests=1000)
QUICK = Effort(batches=20, rounds=3, seconds=0.12, sleep_rounds=2, sleep_requests=160)


@dataclass(slots=True)
class PeerResult:
    """What was measured of one peer.

    Attributes:
        name: the peer's.
        batches: for each batch, seconds of each no-op request, one at a time.
        floods: for each number of clients, the no-op loads.
        sleeps: the loads of throughput_10ms.
    """

    name: str
    batches: list[list[float]] = field(default_factory=list)
    floods: dict[int, list[Load]] = field(default_factory=dict)
    sleeps: list[Load] = field(default_factory=list)

    def single_us(self, q: float) -> float:
        """A percentile of the requests made one at a time, in microseconds."""
        return 1e6 * percentile([value for batch in self.batches for value in batch], q)

    def flood_rate(self, clients: int) -> float:
        """No-op requests a second."""
        return _rate(self.floods[clients])

    def flood_ms(self, clients: int, q: float) -> float:
        """A percentile of the no-op requests' latencies, in milliseconds."""
        return 1e3 * median(percentile(load.latencies, q) for load in self.floods[clients])

    @property
    def sleep_rate(self) -> float:
        """Sleeps of 10 ms a second."""
        return _rate(self.sleeps)

    @property
    def failed(self) -> int:
        """How many requests failed."""
        floods = [load for loads in self.floods.values() for load in loads]
        return sum(len(load.errors) for load in floods + self.sleeps)

    def record(self) -> dict[str, object]:
        """Return it for the JSON."""
        return {
            "name": self.name,
            "failed": self.failed,
            "one_at_a_time_us": {"p50": self.single_us(50), "p99": self.single_us(99)},
            "floods": [
                {
                    "clients": clients,
                    "requests_per_sec": self.flood_rate(clients),
                    "p50_ms": self.flood_ms(clients, 50),
                    "p99_ms": self.flood_ms(clients, 99),
                }
                for clients in self.floods
            ],
            "throughput_10ms_requests_per_sec": self.sleep_rate,
        }


def _rate(loads: list[Load]) -> float:
    return median(load.rate for load in loads) if loads else nan


def _turns(peers: list[Peer], rounds: int) -> Iterator[list[Peer]]:
    for index in range(rounds):
        first = index % len(peers)
        yield peers[first:] + peers[:first]


async def measure_peers(workers: int, *, effort: Effort, stage: Stage) -> list[PeerResult]:
    """Measure trio_dirty, the first of the results, and its peers."""
    async with open_peers(workers) as peers:
        results = {peer.name: PeerResult(peer.name) for peer in peers}
        for peer in peers:
            await peer.one_at_a_time(BATCH)
        for turn in _turns(peers, effort.batches):
            for peer in turn:
                results[peer.name].batches.append(await peer.one_at_a_time(BATCH))
            stage.advance()
        for clients in FLOODS:
            requests = {}
            for peer in peers:  # warms up, and tells how many requests fill a round
                rate = (await peer.flood(NOOP, clients=clients, requests=4 * clients)).rate
                requests[peer.name] = max(4, int(rate * effort.seconds / clients)) * clients
            stage.advance()
            for turn in _turns(peers, effort.rounds):
                for peer in turn:
                    load = await peer.flood(NOOP, clients=clients, requests=requests[peer.name])
                    results[peer.name].floods.setdefault(clients, []).append(load)
                stage.advance()
        for turn in _turns(peers, effort.sleep_rounds):
            for peer in turn:
                load = await peer.flood(
                    THROUGHPUT.job, clients=THROUGHPUT.clients, requests=effort.sleep_requests
                )
                results[peer.name].sleeps.append(load)
            stage.advance()
    return list(results.values())


def judge(results: list[PeerResult]) -> list[Figure]:
    """Compare trio_dirty with its peers."""
    ours, parallel, fork, *_ = results
    ratios = [
        percentile(own, 50) / percentile(theirs, 50)
        for own, theirs in zip(ours.batches, parallel.batches, strict=True)
    ]
    best = max(results[1:], key=lambda peer: peer.sleep_rate)
    clients = FLOODS[0]
    return [
        Figure(
            "no-op, one at a time, p50, of trio_parallel's",
            median(ratios),
            "",
            at_most=0.65,
            note=f"{len(ratios)} batches of {BATCH}, {min(ratios):.2f} to {max(ratios):.2f}",
        ),
        Figure(
            f"no-op flood by {clients} clients, of ProcessPoolExecutor's (fork)",
            ours.flood_rate(clients) / fork.flood_rate(clients),
            "times",
            at_least=5,
        ),
        Figure(
            "throughput_10ms, behind the best peer",
            100 * (1 - ours.sleep_rate / best.sleep_rate),
            "%",
            at_most=0.5,
            note=f"{ours.sleep_rate:.1f}/s; {best.name} {best.sleep_rate:.1f}/s",
        ),
        Figure("requests failed, peers included", sum(r.failed for r in results), "", at_most=0),
    ]
