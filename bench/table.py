"""Rows to a table a person reads: medians, and ratios to one row of the same run."""

import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

Row = dict[str, float]


def median(rounds: Sequence[Row], column: str) -> float | None:
    """The median of a figure over the rounds that have it."""
    values = [row[column] for row in rounds if row.get(column, -1) >= 0]
    return statistics.median(values) if values else None


def show(
    console: Console,
    title: str,
    results: dict[str, list[Row]],
    columns: dict[str, str],
    *,
    ratio: tuple[str, Sequence[str]],
) -> None:
    """One table: a row per target, medians of ``columns`` (figure → heading), and ratios to peers."""
    table = Table(title=title, title_justify="left")
    table.add_column("through")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    figure, peers = ratio
    for peer in peers:
        table.add_column(f"× {peer}", justify="right")
    for name, rounds in results.items():
        cells = [text(median(rounds, column)) for column in columns]
        mine = median(rounds, figure)
        for peer in peers:
            base = median(results[peer], figure) if peer in results else None
            cells.append(f"{mine / base:.2f}" if mine and base else "–")
        table.add_row(name, *cells, style="bold" if name == "inventiv-mesh" else None)
    console.print(table)


def text(value: float | None) -> str:
    """A number with as many digits as mean something."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
