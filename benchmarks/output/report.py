"""The tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from ..comparison.noop import FLOODS
from ..harness.words import number_in_words

if TYPE_CHECKING:
    from ..comparison.noop import PeerResult
    from ..comparison.scenarios import ScenarioResult
    from ..harness.figures import Figure


def verdict(reached: bool | None) -> str:
    """Return yes or no, in colour; nothing if there is no target."""
    return {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[reached]


def scenario_table(results: list[ScenarioResult]) -> Table:
    """Return this run beside its control and gunicorn's figures."""
    table = Table(title=f"Scenarios, {results[0].workers} workers")
    table.add_column("scenario", no_wrap=True)
    for column in ("clients", "requests", "failed", "req/s", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for column in ("control req/s", "of control", "reached", "gunicorn req/s"):
        table.add_column(column, justify="right")
    for result in results:
        latency = result.record()["latency_ms"]
        share = f"{100 * result.share:.2f} %"
        if result.alone:
            share = f"p50 {result.over_control_ms:+.3f} ms"
        table.add_row(
            result.scenario.name,
            str(result.scenario.clients),
            str(result.scenario.requests),
            str(len(result.load.errors)),
            f"{result.load.rate:.1f}",
            f"{latency['p50']:.2f}",
            f"{latency['p99']:.2f}",
            f"{result.control_rate:.1f}",
            share,
            verdict(result.reached),
            f"{result.scenario.published:.1f}",
        )
    table.caption = (
        "must reach: none failed and 98.5 % of the control; with one client, p50 at most "
        "0.6 ms over the bare job. gunicorn's figures are from another machine."
    )
    return table


def peer_table(results: list[PeerResult]) -> Table:
    """Return no-op requests and throughput_10ms of trio_dirty and its peers."""
    table = Table(title="No-op requests, and throughput_10ms")
    table.add_column("system", no_wrap=True)
    for column in ("one at a time p50 µs", "p99 µs"):
        table.add_column(column, justify="right")
    for clients in FLOODS:
        for column in (f"{clients:,} clients req/s", "p50 ms", "p99 ms"):
            table.add_column(column, justify="right")
    table.add_column("throughput_10ms req/s", justify="right")
    for result in results:
        row = [result.name, f"{result.single_us(50):.0f}", f"{result.single_us(99):.0f}"]
        for clients in FLOODS:
            row += [
                f"{result.flood_rate(clients):,.0f}",
                f"{result.flood_ms(clients, 50):.2f}",
                f"{result.flood_ms(clients, 99):.2f}",
            ]
        table.add_row(*row, f"{result.sleep_rate:.1f}")
    return table


def figure_table(figures: list[Figure], title: str, *, digits: int = 3) -> Table:
    """Return figures with their targets."""
    table = Table(title=title)
    table.add_column("what")
    table.add_column("this run", justify="right", no_wrap=True)
    table.add_column("must be")
    table.add_column("reached")
    table.add_column("note")
    for figure in figures:
        value = f"{number_in_words(figure.value, digits)} {figure.unit}".strip()
        table.add_row(figure.what, value, figure.target, verdict(figure.reached), figure.note)
    return table
