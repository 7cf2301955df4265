"""The six scenarios of gunicorn's dirty arbiter, and the figures published for it."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Job:
    """One request's work: a name in `benchmarks.work` and its arguments."""

    action: str
    args: tuple[float, ...] = ()


NOOP = Job("noop")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load. ``clients`` tasks make ``requests`` requests between them.

    Attributes:
        name: as in gunicorn's record.
        job: what each request does.
        clients: how many requests there are at a time.
        requests: how many there are in all.
        quick_requests: how many with ``--quick``.
        published: gunicorn's requests a second, on another machine.
    """

    name: str
    job: Job
    clients: int
    requests: int
    quick_requests: int
    published: float

    def changed(self, *, quick: bool, clients: int | None, requests: int | None) -> Scenario:
        """Return the scenario as the command line wants it.

        There are never more clients than requests: such clients would have nothing to do.
        """
        requests = requests or (self.quick_requests if quick else self.requests)
        return replace(self, requests=requests, clients=min(clients or self.clients, requests))


BASELINE = Scenario("baseline_10ms", Job("sleep_task", (10,)), 1, 1000, 80, 81.5)
THROUGHPUT = Scenario("throughput_10ms", Job("sleep_task", (10,)), 100, 5000, 400, 334.4)

SCENARIOS = (
    BASELINE,
    THROUGHPUT,
    Scenario("cpu_bound_100ms", Job("cpu_task", (100,)), 20, 500, 40, 39.8),
    Scenario("io_bound_500ms", Job("sleep_task", (500,)), 50, 200, 16, 7.9),
    Scenario("mixed_50_50", Job("mixed_task", (50, 50)), 30, 500, 40, 38.5),
    Scenario("overload_10ms", Job("sleep_task", (10,)), 200, 2000, 400, 334.1),
)
