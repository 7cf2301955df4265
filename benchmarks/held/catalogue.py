"""All events, in the order of the table."""

from __future__ import annotations

from . import control, crowd_events, payload_events
from .event import Event, Row

KB, MB = 1_000, 1_000_000
_ARGUMENTS = (
    ("bytes", (64 * KB, MB, 10 * MB, 200 * MB)),
    ("str", (64 * KB, MB, 50 * MB, 200 * MB)),
    ("text", (MB, 60 * MB, 200 * MB)),
    ("bytearray", (MB, 80 * MB, 200 * MB)),
    ("array", (80 * MB, 200 * MB)),
    ("numpy", (80 * MB, 200 * MB)),
    ("int", (MB, 20 * MB)),
)
_OBJECTS = (
    ("strings", (100_000, 2_000_000)),
    ("nested", (100_000, 500_000)),
    ("objects", (100_000, 500_000)),
)


def _with_payloads() -> list[Event]:
    events = []
    for what, play in (
        ("an argument, {}, {}", payload_events.Argument),
        ("a result, {}, {}", payload_events.Result),
        ("an exception that carries {}, {}", payload_events.Raised),
    ):
        which = play.__name__.lower()
        for kind, sizes in _ARGUMENTS:
            events.append(
                Event(f"{which}-{kind}", what.format(kind, "{}"), sizes, 70 * KB, play(kind), "B")
            )
        for kind, sizes in _OBJECTS:
            events.append(
                Event(f"{which}-{kind}", what.format(kind, "{}"), sizes, 10_000, play(kind))
            )
    for kind in ("bytes", "str", "objects"):
        size, unit = (50 * MB, "B") if kind != "objects" else (100_000, "")
        events += [
            Event(
                f"chunks-{kind}",
                f"a stream of five chunks of {kind}, each {{}}",
                (size,),
                size // 700,
                payload_events.Chunks(kind, 5),
                unit,
            ),
            Event(
                f"broadcast-{kind}",
                f"a broadcast of {kind} to two workers, {{}}",
                (size,),
                size // 700,
                payload_events.Broadcast(kind),
                unit,
            ),
            Event(
                f"regretted-{kind}",
                f"a caller leaves while its {kind} are being sent, {{}}",
                (4 * size,),
                size // 700,
                payload_events.Regretted(kind),
                unit,
            ),
        ]
    return [
        *events,
        Event(
            "refused-argument",
            "an argument that does not pickle, behind {} strings",
            (10_000, 2_000_000),
            10_000,
            payload_events.Refused("unpicklable"),
        ),
        Event(
            "chunks", "a stream of {} small chunks", (100_000,), 1000, payload_events.many_chunks
        ),
        Event("flood", "{} callers of a no-op at once", (20_000,), 500, payload_events.flood),
        Event("block", "opening and leaving a pool of {} processes", (4,), 2, payload_events.block),
        Event(
            "served-block",
            "leaving a pool where {} callers wait for no-ops",
            (20_000,),
            500,
            payload_events.served_block,
        ),
    ]


def _with_crowds() -> list[Event]:
    many = (20_000, 50_000)
    few = 300
    return [
        Event(
            "crash",
            "a crash, {} waiting in its slot, another slot",
            (1000, 10_000, 50_000, 100_000),
            few,
            crowd_events.Crash(2),
        ),
        Event(
            "crash-alone",
            "a crash of the only worker, {} waiting",
            (10_000, 50_000, 100_000),
            few,
            crowd_events.Crash(1),
        ),
        Event(
            "crash-keys",
            "a crash, {} waiting in its slot with distinct keys",
            (8000, 50_000),
            few,
            crowd_events.CrashOfKeys(),
        ),
        Event("fail", "the only slot fails, {} waiting", many, few, crowd_events.fail, rounds=2),
        Event(
            "cancel",
            "{} callers are cancelled at once",
            many,
            few,
            crowd_events.cancel,
            control=control.cancel,
        ),
        Event(
            "deadlines",
            "deadlines of {} callers expire at once",
            many,
            few,
            crowd_events.deadlines,
            control=control.deadlines,
        ),
        Event(
            "leave-cancelled",
            "leaving a pool by cancellation, {} waiting outside of the scope",
            many,
            few,
            crowd_events.LeaveCancelled(with_callers=False),
        ),
        Event(
            "leave-cancelled-all",
            "leaving a pool by cancellation, {} callers cancelled with it",
            many,
            few,
            crowd_events.LeaveCancelled(with_callers=True),
            control=control.cancel,
        ),
        Event(
            "leave",
            "leaving a pool, its grace_period over, {} waiting",
            many,
            few,
            crowd_events.leave,
        ),
        Event(
            "resize-keys",
            "a slot leaves, {} waiting in both with distinct keys",
            (16_000, 100_000),
            few,
            crowd_events.Resize(2, 1, keys=True),
        ),
        Event(
            "resize-less",
            "resize from 2 to 1, {} waiting",
            (50_000,),
            few,
            crowd_events.Resize(2, 1),
        ),
        Event(
            "resize-more",
            "resize from 1 to 2, {} waiting",
            (50_000,),
            few,
            crowd_events.Resize(1, 2),
        ),
        Event(
            "resize-most",
            "resize from 2 to 16, {} waiting",
            (50_000,),
            few,
            crowd_events.Resize(2, 16),
        ),
        Event(
            "reload",
            "reload of two workers, {} waiting",
            (10_000, 50_000),
            few,
            crowd_events.reload,
        ),
        Event(
            "statistics",
            "statistics of 64 slots, {} waiting",
            (100_000,),
            few,
            crowd_events.statistics,
        ),
        Event(
            "statistics-slots",
            "statistics of {} slots that have completed 100 requests each",
            (64, 256),
            4,
            crowd_events.statistics_of_many,
        ),
        Event("broadcast-slots", "a broadcast to {} slots", (64, 256), 4, crowd_events.broadcast),
        Event(
            "broadcast-cancelled",
            "a broadcast to 64 slots is cancelled, {} waiting",
            (50_000,),
            few,
            crowd_events.cancel_broadcast,
        ),
        Event(
            "block-slots",
            "opening and leaving a pool of {} slots",
            (64, 256),
            4,
            crowd_events.block,
        ),
        Event(
            "refused",
            "a refused call, 64 slots with {} waiting each",
            (1000,),
            2,
            crowd_events.Refused(),
        ),
        Event(
            "refused-key",
            "the same with a key, {}",
            (1000,),
            2,
            crowd_events.Refused(key=1),
        ),
        Event(
            "refused-least-loaded",
            "the same by least_loaded, {}",
            (1000,),
            2,
            crowd_events.Refused(routing="least_loaded"),
        ),
    ]


EVENTS = (*_with_crowds(), *_with_payloads())


def rows(chosen: list[str], *, quick: bool) -> list[Row]:
    """Return the rows whose names are, or begin with, one of those that are chosen; or all.

    Raises:
        LookupError: there is no such row.
    """
    found = [
        Row(event, size) for event in EVENTS for size in ((event.quick,) if quick else event.sizes)
    ]
    for name in chosen:
        if not any(_is_called(row, name) for row in found):
            raise LookupError(name)
    return [row for row in found if not chosen or any(_is_called(row, name) for name in chosen)]


def _is_called(row: Row, name: str) -> bool:
    return f"{row.name}-".startswith(f"{name}-")
