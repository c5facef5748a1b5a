"""How close it was: differences of membranes beside their tolerance, and margins of decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from msg_deploy.report import words
from msg_deploy.sim.verdict import MARGIN_EDGES, Comparison, Layer, Verdict

DISTANCES = tuple(edge for edge in MARGIN_EDGES if 0.9e-7 < edge < 1.1e-2)
"""Shares of the largest threshold within which decisions are counted."""


@dataclass(frozen=True)
class Row:
    """One spiking layer.

    Attributes:
        node: its name.
        difference: largest difference of membranes; None if a side has not recorded them.
        tolerance: of membranes, relative to the largest magnitude in the layer, at least 1.
        needed: the smallest tolerance by which the membranes would be equal.
        used: what share of the tolerance is used; above 1, membranes differ unless the certificate
            or a folding explains it.
        bound: the largest certified bound of a rounding error; None without a certificate.
        smallest_margin: the smallest |v - v_threshold|.
        within: decisions whose |v - v_threshold| is at most so large a share of the largest
            |v_threshold|, for each of `DISTANCES`; empty if no membranes are known.
    """

    node: str
    difference: float | None
    tolerance: float | None
    needed: float | None
    used: float | None
    bound: float | None
    smallest_margin: float | None
    within: Mapping[str, int]


def rows(comparison: Comparison) -> tuple[Row, ...]:
    """All layers of a comparison."""
    return tuple(_row(layer) for layer in comparison.layers)


def _row(layer: Layer) -> Row:
    used = None
    if layer.needed is not None and layer.tolerance:
        used = layer.needed / layer.tolerance
    return Row(
        layer.node,
        layer.membrane_difference,
        layer.tolerance,
        layer.needed,
        used,
        layer.bound,
        layer.smallest_margin,
        _within(layer.margins) if layer.margins else {},
    )


def _within(margins: tuple[int, ...]) -> dict[str, int]:
    """Cumulative counts; the first bin is for margins of 0, the next one ends at the first edge."""
    counts = dict(zip(MARGIN_EDGES, np.cumsum(margins)[1:].tolist(), strict=False))
    return {f"{distance:.0e}": counts[distance] for distance in DISTANCES}


def as_data(verdict: Verdict) -> list[dict[str, Any]]:
    """All comparisons, by field."""
    return [{"a": c.a, "b": c.b, "layers": rows(c)} for c in verdict.comparisons]


def tables(verdict: Verdict) -> list[Table]:
    """Two tables a comparison, each narrow enough for a terminal."""
    compared = [c for c in verdict.comparisons if not c.missing]
    return [table for c in compared for table in (_differences(c), _decisions(c))]


def _differences(comparison: Comparison) -> Table:
    headings = ("membrane |d|", "needed", "tolerance", "used", "bound")
    table = _empty(f"{words.pair(comparison)}: membranes and their tolerance", headings)
    for row in rows(comparison):
        table.add_row(
            row.node,
            *map(_short, (row.difference, row.needed, row.tolerance)),
            "" if row.used is None else f"{row.used:.2%}",
            _short(row.bound),
        )
    return table


def _decisions(comparison: Comparison) -> Table:
    headings = ("smallest", *(f"<={distance:.0e}" for distance in DISTANCES))
    table = _empty(
        f"{words.pair(comparison)}: decisions by |v - v_threshold|, as a share of the threshold",
        headings,
    )
    for row in rows(comparison):
        table.add_row(row.node, _short(row.smallest_margin), *map(str, row.within.values()))
    return table


def _empty(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("layer")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"
