"""Mistakes in the graph: missing or doubled edges, values that come at another step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import nir
import numpy as np

from msg_deploy.exporters.names import free_name
from msg_deploy.graph import plan
from msg_deploy.sim.diagnosis.hypotheses import Change, Setting, Values, Variant, hypothesis
from msg_deploy.sim.diagnosis.segments import BORDER, DELAY, Edge, Segment
from msg_deploy.sim.simulator import FloatArray


@hypothesis(cost=2)
def missing_edge(setting: Setting) -> Iterator[Change]:
    """A branch is missing: a shortcut, a recurrent edge, or one of several paths."""
    for edge in _branches(setting.segment):
        edges = [e for e in setting.segment.edges if e != edge]
        segment = _reached(setting.segment, edges)
        if segment:
            yield Variant(edge[1], f"the branch {_named(edge)} is missing", segment)


@hypothesis(cost=3)
def doubled_edge(setting: Setting) -> Iterator[Change]:
    """A branch is added twice."""
    segment = setting.segment
    shapes = plan(segment.deployment.graph).shapes
    for source, behind in _branches(segment):
        given = segment.deployment.graph.nodes
        twice = free_name("twice", given)
        nodes = {**given, twice: nir.Scale(np.full(shapes[source], 2.0))}
        edges = [e for e in segment.edges if e != (source, behind)]
        edges += [(source, twice), (twice, behind)]
        text = f"the branch {_named((source, behind))} is added twice"
        yield Variant(behind, text, segment.with_graph(nodes, edges))


@hypothesis(cost=2)
def recurrent_delay(setting: Setting) -> Iterator[Change]:
    """A recurrent edge is not delayed, or by two steps."""
    segment, dt = setting.segment, setting.segment.deployment.timing.dt
    for name, node in setting.nodes(nir.Delay):
        if name.startswith(DELAY):
            edge = name.removeprefix(DELAY)
            shape = np.shape(node.delay)
            for steps, text in ((0, "not delayed"), (2, "delayed by two steps")):
                delay = nir.Delay(np.full(shape, steps * dt))
                yield Variant(
                    edge, f"the recurrent edge {edge} is {text}", segment.with_nodes({name: delay})
                )


@hypothesis(cost=2)
def step_delay(setting: Setting) -> Iterator[Change]:
    """Spikes or inputs come one step later or earlier."""
    segment = setting.segment
    if segment.quantity == "score":
        return
    for border, source in segment.borders.items():
        text = f"what comes from {source!r} comes one step late"
        yield Variant(source, text, segment, _late(border))
    if len(segment.borders) > 1:
        text = "all that comes in comes one step late"
        yield Variant(segment.node, text, segment, lambda v: {n: _shift(x) for n, x in v.items()})
    yield Variant(segment.node, "its output comes one step late", segment, lead=-1)
    yield Variant(segment.node, "its output comes one step early", segment, lead=1)


@hypothesis(cost=2)
def delay(setting: Setting) -> Iterator[Change]:
    """A Delay is left out, or one step longer or shorter."""
    segment, dt = setting.segment, setting.segment.deployment.timing.dt
    for name, node in setting.nodes(nir.Delay):
        if name.startswith(DELAY):
            continue
        own = np.asarray(node.delay, np.float64)
        for text, value in (
            ("left out", own * 0),
            ("one step longer", own + dt),
            ("one step shorter", np.maximum(own - dt, 0)),
        ):
            segment_ = segment.with_nodes({name: nir.Delay(value)})
            yield Variant(name, f"the delay is {text}", segment_)


def _branches(segment: Segment) -> Iterator[Edge]:
    """Edges into nodes that several lead to."""
    entering = Counter(b for _, b in segment.edges)
    for edge in segment.edges:
        if entering[edge[1]] > 1:
            yield edge


def _reached(segment: Segment, edges: list[Edge]) -> Segment | None:
    """The segment with these edges, without nodes that lead nowhere any more; None if cut off."""
    nodes = dict(segment.deployment.graph.nodes)
    borders = set(segment.borders)
    ends = {n for n, node in nodes.items() if isinstance(node, nir.Output)}
    while True:
        fed = {b for _, b in edges} | borders
        used = {a for a, _ in edges} | borders | ends
        kept = [n for n in nodes if n in fed and n in used]
        if len(kept) == len(nodes):
            return segment.with_graph(nodes, edges)
        if not ends <= set(kept):
            return None
        nodes = {n: nodes[n] for n in kept}
        edges = [(a, b) for a, b in edges if a in nodes and b in nodes]


def _named(edge: Edge) -> str:
    source, behind = (name.removeprefix(DELAY).removeprefix(BORDER) for name in edge)
    return f"{source.split(' -> ')[0]} -> {behind.split(' -> ')[0]}"


def _late(border: str) -> Callable[[Values], Values]:
    return lambda values: {**values, border: _shift(values[border])}


def _shift(values: FloatArray) -> FloatArray:
    """(T, ...) one step later; nothing comes first."""
    later = np.zeros_like(values)
    later[1:] = values[:-1]
    return later
