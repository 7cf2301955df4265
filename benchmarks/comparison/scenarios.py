"""The scenarios of gunicorn's dirty arbiter on a pool, each beside its control.

The machine drifts, so the control brackets the pool: half of its work is done right before
the pool's run and half right after it, and its rate is that of both halves together. The
pool's own run is in one piece, since every interruption would be a ramp that gunicorn's
latencies do not have. Processes and workers are all started before either begins.

Where the requests cannot be divided equally among the workers, some have one more than
others, in the pool as in the control: ``ceil(requests / workers)`` rounds are the ideal of
both. Such an end lowers both rates and hardly the share.

The first client's call to the last client's end is the pool's time. A process of the control
counts from the release to its last job's end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trio_dirty import open_pool

from ..harness.figures import percentile, summary_ms
from ..harness.load import drive, shares
from ..work import Work
from .control import open_control

if TYPE_CHECKING:
    from ..harness.load import Load
    from ..output.display import Stage
    from .catalogue import Scenario
    from .control import Control

STEPS = 3
MOST_ERRORS = 10
SHARE = 0.985
OVER_BARE_SLEEP_MS = 0.6


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """A scenario's run on the pool and on bare processes.

    Attributes:
        scenario: what was run.
        workers: of the pool.
        load: what became of the pool's requests.
        control_seconds: what the bare processes took for as many jobs.
        control_latencies: seconds of each of their jobs.
    """

    scenario: Scenario
    workers: int
    load: Load
    control_seconds: float
    control_latencies: list[float]

    @property
    def control_rate(self) -> float:
        """Jobs a second of the bare processes."""
        return self.scenario.requests / self.control_seconds

    @property
    def share(self) -> float:
        """The pool's rate as a share of the control's."""
        return self.load.rate / self.control_rate

    @property
    def over_control_ms(self) -> float:
        """The pool's p50 over that of the bare job."""
        pool = percentile(self.load.latencies, 50)
        return 1000 * (pool - percentile(self.control_latencies, 50))

    @property
    def alone(self) -> bool:
        """Whether one client waits for each answer: then latency is judged, not the share."""
        return self.scenario.clients == 1

    @property
    def reached(self) -> bool:
        """Whether none failed and the target is reached."""
        good = self.over_control_ms <= OVER_BARE_SLEEP_MS if self.alone else self.share >= SHARE
        return good and not self.load.errors

    def record(self) -> dict[str, Any]:
        """Return it in the shape of gunicorn's record, with the control's figures added."""
        scenario, load = self.scenario, self.load
        return {
            "scenario": scenario.name,
            "config": {
                "dirty_workers": self.workers,
                "dirty_threads": 1,
                "task_action": scenario.job.action,
                "task_args": list(scenario.job.args),
                "concurrency": scenario.clients,
            },
            "total_requests": scenario.requests,
            "successful": len(load.latencies),
            "failed": len(load.errors),
            "errors": sorted(set(load.errors))[:MOST_ERRORS],
            "duration_sec": load.seconds,
            "requests_per_sec": load.rate,
            "latency_ms": summary_ms(load.latencies),
            "control_requests_per_sec": self.control_rate,
            "control_latency_ms": summary_ms(self.control_latencies),
            "share_of_control": self.share,
            "p50_over_control_ms": self.over_control_ms,
            "reached": self.reached,
        }


async def run_scenario(scenario: Scenario, *, workers: int, stage: Stage) -> ScenarioResult:
    """Run half of the control, the pool, and the other half of the control."""
    processes = min(workers, scenario.clients)
    jobs = shares(scenario.requests, processes)
    first = [number // 2 for number in jobs]
    second = [number - half for number, half in zip(jobs, first, strict=True)]
    action = getattr(Work, scenario.job.action)
    async with open_pool([Work], workers=workers) as pool:
        with open_control(scenario.job, processes) as control:
            before, latencies = await _run(control, first)
            stage.advance()
            call = partial(pool.run_sync, action, *scenario.job.args)
            load = await drive(call, clients=scenario.clients, requests=scenario.requests)
            stage.advance()
            after, more = await _run(control, second)
            stage.advance()
    return ScenarioResult(scenario, workers, load, before + after, latencies + more)


async def _run(control: Control, jobs: list[int]) -> tuple[float, list[float]]:
    return await trio.to_thread.run_sync(control.run, jobs, abandon_on_cancel=True)
