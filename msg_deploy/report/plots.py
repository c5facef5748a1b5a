"""Plots as SVG that is part of a page: its colours are the page's, its text is text."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from msg_deploy.options import Precision
from msg_deploy.sim.illustration import Kernel, Raster, Spikes
from msg_deploy.sim.verdict import MARGIN_EDGES, Layer

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 3.7
"""Inches. Fits a small screen without being scaled down; wide ones show two beside each other."""
COLORS = {
    "ink": "#000001",
    "muted": "#000002",
    "line": "#000003",
    "left": "#000004",
    "right": "#000005",
    "bad": "#000006",
}
"""What stands for the page's colours while matplotlib draws."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "path.simplify": False,
    "font.size": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.linewidth": 0.8,
    "axes.edgecolor": COLORS["line"],
    "axes.labelcolor": COLORS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": COLORS["ink"],
    "xtick.color": COLORS["line"],
    "ytick.color": COLORS["line"],
    "xtick.labelcolor": COLORS["muted"],
    "ytick.labelcolor": COLORS["muted"],
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handletextpad": 0.3,
    "hatch.linewidth": 0.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
LONGEST = 18
"""Characters of a layer's name."""


def rates(layers: Sequence[Layer]) -> str:
    """Firing rates of both sides, a row for each layer."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        rows = np.arange(len(layers))
        sides = ([s.fired for s in layers], [s.fired_b for s in layers])
        sizes = np.array([max(s.spikes, 1) for s in layers])
        for fired, name in zip(sides, ("left", "right"), strict=True):
            axes.plot(
                np.array(fired, np.float64) / sizes,
                rows,
                **_marker(name),
                linestyle="none",
                label=name,
            )
        axes.set_yticks(rows, [_short(s.node) for s in layers])
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.margins(x=0.1)
        axes.grid(axis="y", color=COLORS["line"], linewidth=0.4)
        axes.set_xlabel("share of steps in which a neuron spikes")
        _legend(axes)

    return _svg("rates", 0.24 * len(layers) + 0.9, draw, "Firing rates of both sides by layer")


def margins(layers: Sequence[Layer], precision: Precision) -> str:
    """Histograms of the distances from the threshold, a row for each layer that has one."""
    known = [(layer.node, layer.margins) for layer in layers if layer.margins]
    bins = np.arange(len(MARGIN_EDGES) + 2)
    most = max(max(counts) for _, counts in known)
    # Behind the bin whose upper edge it nearly is.
    distances = np.abs(np.log10(MARGIN_EDGES) - np.log10(np.finfo(precision).eps))
    rounding = float(distances.argmin()) + 1.5

    def draw(figure: Figure) -> None:
        rows = figure.subplots(len(known), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (node, counts) in zip(rows, known, strict=True):
            # From below 1, so that a single decision is a bar as well.
            heights = [np.log10(2 * count) if count else 0 for count in counts]
            axes.bar(bins, heights, width=0.86, color=COLORS["left"])
            axes.set_ylim(0, np.log10(2 * most) * 1.05)
            axes.set_yticks([])
            axes.spines["left"].set_visible(False)
            axes.text(0, 0.97, _short(node), transform=axes.transAxes, va="top", fontsize=8)
            if rounding > 1.5:
                axes.axvline(rounding, color=COLORS["bad"], linestyle=":", linewidth=1.2)
        rows[-1].set_xticks(
            [0, 1.5, 4.5, 7.5, 10.5, 13.5], ["0", "1e-12", "1e-9", "1e-6", "1e-3", "1"]
        )
        rows[-1].set_xlabel("distance from the threshold / largest threshold")

    label = "Histograms of the margins by layer"
    return _svg("margins", 0.42 * len(known) + 0.5, draw, label)


def kernel(shown: Kernel) -> str:
    """TWO's weights and what was made of them, step by step."""
    from matplotlib.ticker import MaxNLocator

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        steps = np.arange(len(shown.weights))
        for values, name, line, label in (
            (shown.weights, "left", "-", "f, as trained"),
            (shown.realized, "right", "--", "as realized"),
        ):
            axes.plot(steps, values, **_marker(name), linestyle=line, linewidth=1.2, label=label)
        axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
        values = (*shown.weights, *shown.realized)
        axes.set_ylim(1.1 * min(0, *values), 1.1 * max(1e-9, *values))
        axes.set_xlabel("step")
        axes.set_ylabel("weight")
        _legend(axes)

    return _svg("kernel", 2.3, draw, "TWO's weights as trained and as realized, by step")


def raster(shown: Raster, side: str) -> str:
    """Spikes of one side: bars; steps in which both sides differ: squares around them.

    Args:
        shown: of both sides.
        side: "a" or "b".
    """
    from matplotlib.ticker import MaxNLocator

    spikes: Spikes = shown.a if side == "a" else shown.b
    name = "left" if side == "a" else "right"
    count = len(shown.neurons)
    labels = [",".join(map(str, place)) for place in shown.neurons]
    height = 0.135 * count + 0.55

    def draw(figure: Figure) -> None:
        # By hand: there may be a hundred of them, and finding a layout takes longer than drawing.
        figure.set_layout_engine("none")
        left = 0.12 + 0.062 * max(map(len, labels))
        box = (left / WIDTH, 0.44 / height, 1 - (left + 0.05) / WIDTH, 1 - 0.49 / height)
        axes = figure.add_axes(box)
        steps, neurons = np.nonzero(spikes)
        marks = min(10.0, 170 / max(len(spikes), 1))
        # One path for all bars: apart they would be a thousand elements.
        gap = np.full(len(steps), np.nan)
        x = np.stack([steps, steps, gap], 1).ravel() + shown.start
        y = np.stack([neurons - 0.34, neurons + 0.34, gap], 1).ravel()
        axes.plot(x, y, color=COLORS[name], linewidth=max(1.2, marks / 3.2), solid_capstyle="butt")
        steps, neurons = np.nonzero(shown.a != shown.b)
        axes.plot(
            steps + shown.start,
            neurons,
            "s",
            markersize=min(8.0, max(marks, 3.0)),
            markerfacecolor="none",
            markeredgecolor=COLORS["bad"],
            markeredgewidth=1.3,
        )
        axes.set_xlim(shown.start - 0.6, shown.start + len(spikes) - 0.4)
        axes.set_ylim(count - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
        axes.set_yticks(range(count), labels, fontsize=7)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("step")

    label = f"Spikes of {shown.node} on the {name} side, {count} neurons by step"
    return _svg(f"raster-{shown.node}-{side}", height, draw, label)


def _marker(side: str) -> dict[str, Any]:
    """Both sides are told apart by form: a dot, and a diamond that leaves room for it."""
    color = COLORS[side]
    if side == "left":
        return {"marker": "o", "markersize": 4, "color": color}
    return {
        "marker": "D",
        "markersize": 8,
        "color": color,
        "markerfacecolor": "none",
        "markeredgewidth": 1.4,
    }


def _legend(axes: Axes) -> None:
    """Above the axes, where nothing is covered."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=2, columnspacing=1.2)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _svg(name: str, height: float, draw: Callable[[Figure], None], label: str) -> str:
    """Draw and write as an element of a page.

    Args:
        name: other plots of the page have other names, and so other ids.
        height: in inches.
        draw: onto an empty figure.
        label: for those who do not see it.
    """
    import matplotlib
    from matplotlib.figure import Figure

    written = StringIO()
    with warnings.catch_warnings(), matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        # The page's font has the glyphs that the font lacks by which matplotlib measures.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(written.getvalue(), label)


def _inline(document: str, label: str) -> str:
    """An SVG document of matplotlib's as an element of an HTML page."""
    from markupsafe import escape

    text = document[document.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"|\s+version="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    linked = set(re.findall(r"#([\w.-]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in linked else "", text)
    text = re.sub(r" ?font-family: [^;\"]*;?", "", text)
    # Its rule is for every element of the page; ours is in report.css.
    text = re.sub(r"<defs>\s*<style.*?</defs>\s*", "", text, count=1, flags=re.DOTALL)
    for variable, color in COLORS.items():
        text = re.sub(rf"((?:fill|stroke|color): ?){color}", rf"\1var(--{variable})", text)
    text = re.sub(r"(\d+\.\d\d)\d+", r"\1", text)
    text = re.sub(r"\s*\n\s*(?=[LMz\"])", " ", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).strip()
