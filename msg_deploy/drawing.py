"""A graph as SVG: from top to bottom in the order of execution, one row per depth."""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape

import nir

from msg_deploy.deployment import Deployment
from msg_deploy.graph import Plan, plan
from msg_deploy.primitives import primitive_of

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 190, 46, 40, 34, 30
Place = tuple[float, float]
"""Left and top of a box."""

HEAD = """<svg xmlns="http://www.w3.org/2000/svg" class="{scope}" viewBox="0 0 {width:g} {height:g}"
 width="{width:g}" height="{height:g}" role="img" aria-label="{label}"
 font-family="system-ui, sans-serif" font-size="12">
<style>
{style}
@media (prefers-color-scheme: dark) {{
{dark}
}}
</style>
<defs><marker id="{scope}-tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7"
 orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>
"""
STYLE = {
    "rect": "fill: #eef2f7; stroke: #4a5568;",
    ".spiking": "fill: #fde7d3;",
    ".state": "fill: #e3f3e6;",
    ".terminal": "fill: #fff;",
    "text": "fill: #1a202c; text-anchor: middle;",
    ".kind": "fill: #4a5568;",
    "path": "fill: none; stroke: #4a5568; marker-end: url(#{scope}-tip);",
    ".previous": "stroke-dasharray: 5 4;",
    ".tip": "fill: #4a5568; stroke: none; marker-end: none;",
}
DARK = {
    "rect": "fill: #232b38; stroke: #a3b1c6;",
    ".spiking": "fill: #4a3018;",
    ".state": "fill: #1c3d27;",
    ".terminal": "fill: #14181f;",
    "text": "fill: #e8edf4;",
    ".kind": "fill: #b8c4d6;",
    "path": "stroke: #a3b1c6;",
    ".tip": "fill: #a3b1c6; stroke: none;",
}
"""Where the reader prefers it."""


def draw(deployment: Deployment, scope: str = "graph") -> str:
    """An SVG document. Spiking nodes are orange, others with state green; dashed: a step later.

    Args:
        deployment: to draw.
        scope: class of the drawing, to which its style is limited; several in one page have others.
    """
    known = plan(deployment.graph)
    places = layout(known)
    width = max(x for x, _ in places.values()) + WIDTH + MARGIN + GAP_X
    height = max(y for _, y in places.values()) + HEIGHT + MARGIN
    label = escape(deployment.provenance.source or "graph", {'"': "&quot;"})
    style, dark = (_rules(rules, scope) for rules in (STYLE, DARK))
    parts = [
        HEAD.format(width=width, height=height, label=label, scope=scope, style=style, dark=dark)
    ]
    parts += [
        _edge(places[edge.source], places[name], edge.previous, places)
        for name in known.order
        for edge in known.incoming[name]
    ]
    for name in known.order:
        shape = "x".join(map(str, known.shapes[name]))
        parts.append(_box(name, deployment.graph.nodes[name], shape, places[name]))
    return "\n".join([*parts, "</svg>", ""])


def layout(known: Plan) -> dict[str, Place]:
    """Boxes that do not overlap: a row for each depth, the longest way from the input."""
    depth: dict[str, int] = {}
    for name in known.order:
        before = [depth[e.source] for e in known.incoming[name] if not e.previous]
        depth[name] = 1 + max(before, default=-1)
    rows: dict[int, list[str]] = {}
    for name in known.order:
        rows.setdefault(depth[name], []).append(name)
    widest = max(len(names) for names in rows.values())
    places: dict[str, Place] = {}
    for row, names in rows.items():
        left = MARGIN + GAP_X + (widest - len(names)) * (WIDTH + GAP_X) / 2
        for i, name in enumerate(names):
            places[name] = (left + i * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
    return places


def _rules(rules: Mapping[str, str], scope: str) -> str:
    return "\n".join(
        f" .{scope} {selector} {{ {rule.replace('{scope}', scope)} }}"
        for selector, rule in rules.items()
    )


def _box(name: str, node: nir.NIRNode, shape: str, place: Place) -> str:
    x, y = place
    primitive = primitive_of(node)
    kind = "spiking" if primitive.spiking else "state" if primitive.stateful else ""
    if isinstance(node, (nir.Input, nir.Output)):
        kind = "terminal"
    shown = name if len(name) <= 26 else f"{name[:25]}…"
    middle = x + WIDTH / 2
    return (
        f'<g><title>{escape(name)}</title><rect class="{kind}" x="{x:g}" y="{y:g}" '
        f'width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{middle:g}" y="{y + 19:g}" font-weight="600">{escape(shown)}</text>'
        f'<text class="kind" x="{middle:g}" y="{y + 36:g}">{type(node).__name__} {shape}</text></g>'
    )


def _edge(start: Place, end: Place, previous: bool, places: Mapping[str, Place]) -> str:
    """Straight down, around what lies between, or dashed and back up on the left."""
    x1, y1 = start[0] + WIDTH / 2, start[1] + HEIGHT
    x2, y2 = end[0] + WIDTH / 2, end[1]
    if previous:
        left = min(start[0], end[0]) - GAP_X
        path = (
            f"M{start[0]:g} {start[1] + HEIGHT / 2:g}H{left:g}V{end[1] + HEIGHT / 2:g}H{end[0]:g}"
        )
        return f'<path class="previous" d="{path}"/>'
    between = [x for x, y in places.values() if y1 < y < y2 - HEIGHT]
    if any(min(x1, x2) - WIDTH < x < max(x1, x2) for x in between):
        sides = (min(between) - GAP_X / 2, max(between) + WIDTH + GAP_X / 2)
        side = min(sides, key=lambda x: abs(x - x1) + abs(x - x2) - 1e-6 * x)
        down, up = y1 + GAP_Y / 2, y2 - GAP_Y / 2
        return f'<path d="M{x1:g} {y1:g}V{down:g}H{side:g}V{up:g}H{x2:g}V{y2:g}"/>'
    return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>'
