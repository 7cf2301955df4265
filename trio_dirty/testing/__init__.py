"""Simulated workers, for the tests of programs that use a pool, and for this library's own.

With ``open_pool(..., engine=SimEngine())`` the apps run in the same process, on trio's clock:
under `trio.testing.MockClock` a test of hours of work takes milliseconds. Everything but
the processes and sockets is the real thing: routing, queues, ledgers, pickling, and the
code that executes requests in a worker. Synchronous code takes no virtual time of its own;
how long an action takes, and what goes wrong, is what a `Plan` says (`RandomPlan` by a seed),
or what the test does by hand with `SimEngine.crash`, `SimEngine.stall` and `SimEngine.resume`.

``open_pool(..., instruments=[log])`` with an `EventLog` writes down what happened. Where
trio's scheduler is seeded, as Hypothesis and pytest-trio do it, the same seed gives the same
run, event for event. (One thing no seed decides: several deadlines that expire at the very
same moment, and several tasks that one cancellation reaches, trio takes in the order of
their memory addresses.)

    _plans       how boots and executions go
    _simulation  the engine, and one simulated worker
    _event_log   an instrument that remembers
"""

from __future__ import annotations

from ._event_log import Event, EventLog
from ._plans import Boot, Call, Plan, RandomPlan, Turn
from ._simulation import SimEngine, SimWorker

__all__ = [
    "Boot",
    "Call",
    "Event",
    "EventLog",
    "Plan",
    "RandomPlan",
    "SimEngine",
    "SimWorker",
    "Turn",
]

for _public in (Boot, Call, Event, EventLog, Plan, RandomPlan, SimEngine, SimWorker, Turn):
    _public.__module__ = __name__
