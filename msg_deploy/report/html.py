"""A verdict as one HTML page that needs nothing else: no network, no script, no other file.

The page is the template templates/report.html with the style templates/report.css. Everything that
a model names is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from msg_deploy import __version__
from msg_deploy.report import words
from msg_deploy.sim.diagnosis import told
from msg_deploy.sim.illustration import Illustration, Raster
from msg_deploy.sim.verdict import MARGIN_EDGES, Difference, Kind, Layer, Verdict

if TYPE_CHECKING:
    from markupsafe import Markup

SYMBOLS = {
    Kind.PROVEN: "✓✓",
    Kind.IDENTICAL: "✓",
    Kind.TIES: "≈",
    Kind.DIVERGENT: "✗",
    Kind.INCOMPARABLE: "?",
}
"""So that color alone says nothing."""
LISTED = 50
"""Differences of a layer in its table."""
TONES = {
    Kind.PROVEN: "good",
    Kind.IDENTICAL: "good",
    Kind.TIES: "fair",
    Kind.DIVERGENT: "bad",
    Kind.INCOMPARABLE: "fair",
}


@dataclass(frozen=True)
class Panel:
    """The rasters of one layer.

    Attributes:
        raster: what is shown.
        opened: whether it is shown at once.
        plots: of the left and the right side.
        differences: where both sides differ: step, neuron, and the side that spikes.
    """

    raster: Raster
    opened: bool
    plots: tuple[Markup, Markup]
    differences: tuple[tuple[int, str, str], ...]


def verdict_as_html(verdict: Verdict) -> str:
    """One page. The same verdict gives the same bytes.

    Args:
        verdict: to report; with `illustration` rasters, kernels and graphs are shown as well.
    """
    return rendered("report.html", _content(verdict))


def rendered(template: str, content: dict[str, Any]) -> str:
    """A template of ours, filled in; what is not marked as markup is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("msg_deploy.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": words.percent,
        "number": _number,
        "rate": _rate,
        "code": _code,
    }
    return environment.get_template(template).render(content)


def _content(verdict: Verdict) -> dict[str, Any]:
    """What the template shows."""
    from markupsafe import Markup

    from msg_deploy.report import plots

    shown = _with_short_names(verdict.illustration)
    compared = [c for c in verdict.comparisons if not c.missing]
    layers = compared[0].layers if compared else ()
    measured = [layer for layer in layers if layer.margins]
    return {
        "verdict": verdict,
        "version": __version__,
        "illustration": shown,
        "title": f"{shown.a} against {shown.b}" if shown else "Two models",
        "symbol": SYMBOLS[verdict.kind],
        "tone": TONES[verdict.kind],
        "symbols": SYMBOLS,
        "tones": TONES,
        "meaning": words.meaning(verdict),
        "advice": words.advice(verdict),
        "pair": words.pair,
        "firsts": _firsts(verdict),
        "samples": max((c.samples for c in compared), default=0),
        "compared": compared,
        "difference": _difference,
        "faults": verdict.diagnosis.faulty if verdict.diagnosis else (),
        "cause": told.cause,
        "side": told.SIDES[verdict.diagnosis.subject] if verdict.diagnosis else "",
        "reduced": _reduced(verdict),
        "panels": _panels(shown, verdict) if shown else (),
        "max_listed": LISTED,
        "measured": measured,
        "bins": _bins(),
        "margins": Markup(plots.margins(measured, verdict.precision)) if measured else "",
        "rates": Markup(plots.rates(layers)) if layers else "",
        "kernel": Markup(plots.kernel(shown.kernel)) if shown and shown.kernel else "",
        "graphs": [(side, Markup(svg)) for side, svg in shown.graphs] if shown else [],
        "sections": dict(_sections(verdict, layers, measured)),
    }


def _sections(
    verdict: Verdict, layers: Sequence[Layer], measured: Sequence[Layer]
) -> Iterator[tuple[str, str]]:
    """Anchors and headings of what the page has."""
    shown = verdict.illustration
    differs = verdict.problems or verdict.parameters or verdict.diagnosis
    if differs or any(c.first or c.missing for c in verdict.comparisons):
        yield "why", "What differs, and why"
    if any(not c.missing for c in verdict.comparisons):
        yield "layers", "Layer by layer"
    if shown and shown.rasters:
        yield "spikes", "Spikes of one sample"
    if measured:
        yield "margins", "How close to the threshold"
    if layers:
        yield "rates", "Firing rates"
    if shown and shown.kernel:
        yield "two", "TWO: weights and kernel"
    if shown and shown.graphs:
        yield "graph", "The graphs"


def _panels(shown: Illustration, verdict: Verdict) -> list[Panel]:
    """Rasters; open is the first layer that differs, or the first of all."""
    from markupsafe import Markup

    from msg_deploy.report import plots

    firsts = [c.first.node for c in verdict.comparisons if c.first]
    differing = [raster.node for raster in shown.rasters if raster.differing]
    names = [raster.node for raster in shown.rasters]
    opened = next((n for n in (*firsts, *differing, *names) if n in names), "")
    return [
        Panel(
            raster,
            raster.node == opened,
            (Markup(plots.raster(raster, "a")), Markup(plots.raster(raster, "b"))),
            tuple(_differences(raster))[:LISTED],
        )
        for raster in shown.rasters
    ]


def _differences(raster: Raster) -> Iterator[tuple[int, str, str]]:
    """In the order of time, of the neurons that are shown."""
    for step, neuron in np.argwhere(raster.a != raster.b).tolist():
        place = ", ".join(map(str, raster.neurons[neuron]))
        side = "left" if raster.a[step, neuron] > raster.b[step, neuron] else "right"
        yield raster.start + step, place, side


def _with_short_names(shown: Illustration | None) -> Illustration | None:
    """Files without their folders, if that tells them apart."""
    if shown is None:
        return None
    a, b = (PurePath(name).name for name in (shown.a, shown.b))
    return replace(shown, a=a, b=b) if a != b else shown


def _firsts(verdict: Verdict) -> list[tuple[str, Difference]]:
    """First differences with the simulators that have them; those at the same place once."""
    found: dict[tuple[object, ...], tuple[list[str], str, Difference]] = {}
    for c in verdict.comparisons:
        if c.first:
            d = c.first
            place = (c.a, d.node, d.quantity, d.step, d.sample, d.neuron)
            found.setdefault(place, ([], c.a, d))[0].append(c.b)
    return [(f"{a} against {' and '.join(others)}", d) for others, a, d in found.values()]


def _difference(d: Difference) -> list[tuple[str, str]]:
    """The first difference as terms and values."""
    facts = [("Layer", d.node), ("Sample", str(d.sample))]
    if d.quantity not in ("score", "decision"):
        facts.append(("Step", str(d.step)))
    place = ", ".join(map(str, d.neuron))
    facts.append(("Class" if d.quantity == "decision" else "Neuron", place))
    digits = 1 if d.quantity == "spike" else 9
    name = "score" if d.quantity == "decision" else d.quantity
    facts.append((f"{name} left / right".capitalize(), f"{d.a:.{digits}g} / {d.b:.{digits}g}"))
    if d.quantity == "spike":
        sides = (d.membrane_a, d.membrane_b)
        membranes = " / ".join("unknown" if v is None else f"{v:.9g}" for v in sides)
        facts.append(("Membrane left / right", membranes))
        if d.threshold is not None:
            facts.append(("Threshold", f"{d.threshold:.9g}"))
        if d.margin is not None:
            facts.append(("Margin", f"{d.margin:.2g}"))
    return facts


def _reduced(verdict: Verdict) -> str:
    """The smallest input in a sentence."""
    found = verdict.diagnosis and verdict.diagnosis.reduced
    return told.reduced(found) if found else ""


def _bins() -> list[str]:
    """Headings of a table of margins."""
    edges = [f"{edge:.0e}".replace("e-0", "e-").replace("e+0", "e") for edge in MARGIN_EDGES]
    return ["0", *(f"≤ {edge}" for edge in edges), f"> {edges[-1]}"]


def _code(text: str) -> Markup:
    """Options set as code."""
    from markupsafe import Markup, escape

    return Markup(
        re.sub(r"(?<![\w-])(--[a-z]+(?:-[a-z]+)*)", r"<code>\1</code>", str(escape(text)))
    )


def _number(value: float | None) -> str:
    if value is None:
        return "\u2013"
    return f"{value:.1e}" if value else "0"


def _rate(fired: int | None, spikes: int) -> str:
    return "\u2013" if fired is None else f"{fired / max(spikes, 1):.3f}"
