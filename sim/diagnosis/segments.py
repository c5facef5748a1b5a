"""A graph cut between its spiking layers, each piece a graph of its own.

A segment computes one spiking layer, the currents of the output layer, or the scores, from the
spiking layers and inputs that it reads. It has no cycle through a spiking layer: an edge that
closes one carries the previous step's value, here by a Delay of one step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import nir
import numpy as np

from msg_deploy.deployment import OUTPUT, Deployment, InputSpec, Readout, Shape
from msg_deploy.graph import Incoming, Plan, plan
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.diagnosis.findings import Quantity
from msg_deploy.sim.simulator import FloatArray
from msg_deploy.sim.verdict import READOUT
from msg_deploy.terminals import join

Edge = tuple[str, str]
BORDER = "from "
"""Prefix of the Input nodes that stand for what a segment reads."""
CURRENT = f"{BORDER}current"
DELAY = "previous "
"""Prefix of the Delay nodes that stand for edges which closed a cycle."""


@dataclass(frozen=True)
class Segment:
    """One layer with everything that leads to it.

    Attributes:
        node: the layer.
        quantity: what it gives.
        deployment: its graph; Input nodes are its borders.
        borders: nodes of the whole graph that it reads, by Input node.
        shapes: of its Input nodes, in the order of their names.
    """

    node: str
    quantity: Quantity
    deployment: Deployment
    borders: Mapping[str, str]
    shapes: Mapping[str, Shape]

    def with_nodes(self, nodes: Mapping[str, nir.NIRNode]) -> Segment:
        """A copy in which some nodes are replaced."""
        return self.with_graph({**self.deployment.graph.nodes, **nodes})

    def with_graph(
        self,
        nodes: Mapping[str, nir.NIRNode],
        edges: Sequence[Edge] | None = None,
    ) -> Segment:
        """A copy with other nodes, and other edges if given."""
        graph = _graph(nodes, self.edges if edges is None else edges)
        return replace(self, deployment=self.deployment.with_graph(graph))

    @property
    def nodes(self) -> dict[str, nir.NIRNode]:
        """Its nodes without the borders and the Output."""
        ends = (nir.Input, nir.Output)
        graph = self.deployment.graph
        return {name: node for name, node in graph.nodes.items() if not isinstance(node, ends)}

    @property
    def edges(self) -> list[Edge]:
        """Its edges."""
        return [(str(x), str(y)) for x, y in self.deployment.graph.edges]


def segments(deployment: Deployment, currents: bool = True) -> tuple[Segment, ...]:
    """All segments of a graph in the order of execution, the scores last.

    Args:
        deployment: whose graph is valid.
        currents: whether the currents of the output layer are a border; otherwise the scores are
            computed from spikes.
    """
    known, nodes = plan(deployment.graph), deployment.graph.nodes
    spiking = [name for name in known.order if primitive_of(nodes[name]).spiking]
    found = [_cut(deployment, known, [n], [(n, OUTPUT)], "spike") for n in spiking]
    readout = deployment.readout
    if readout is None:
        layer = _cut(deployment, known, known.outputs, [], "current")
    else:
        start = [] if readout.source in _borders(deployment) else [readout.source]
        layer = _cut(deployment, known, start, [(readout.source, OUTPUT)], "current")
    if currents:
        return (*found, layer, _decoder(deployment, layer))
    decoded = replace(layer.deployment, readout=_on_host(deployment))
    return (*found, Segment(READOUT, "score", decoded, layer.borders, layer.shapes))


def _on_host(deployment: Deployment) -> Readout | None:
    return deployment.readout and replace(deployment.readout, fold="host", source=OUTPUT)


def _borders(deployment: Deployment) -> set[str]:
    """Nodes whose values are recorded or given: inputs and spiking layers."""
    nodes = deployment.graph.nodes
    return {n for n, x in nodes.items() if isinstance(x, nir.Input) or primitive_of(x).spiking}


def _cut(
    deployment: Deployment,
    known: Plan,
    start: Sequence[str],
    ends: Sequence[Edge],
    quantity: Quantity,
) -> Segment:
    """The nodes from which `start` is reached without passing a border.

    Args:
        deployment: the whole graph.
        known: its plan.
        start: the nodes that the segment is for.
        ends: edges into Output nodes to be added.
        quantity: what it gives.
    """
    borders = _borders(deployment)
    inside, entering = _inside(known, borders, start)

    def source(edge: Incoming) -> str:
        return f"{BORDER}{edge.source}" if edge.source in borders else edge.source

    edges = [(source(edge), name) for name, edge in entering]
    outward = [(x if x in inside else f"{BORDER}{x}", name) for x, name in ends]
    nodes: dict[str, nir.NIRNode] = {
        n: deployment.graph.nodes[n] for n in known.order if n in inside
    }
    read = {x.removeprefix(BORDER): x for x, _ in (*edges, *outward) if x not in inside}
    nodes |= {x: nir.Input({"input": np.array(known.shapes[n])}) for n, x in read.items()}
    nodes |= {n: nir.Output({"output": np.array(known.shapes[x])}) for x, n in ends}
    for name, edge in entering:
        if edge.previous and not _leads(name, source(edge), edges):
            # The cycle is cut; what closed it still carries the previous step's value.
            delay = f"{DELAY}{edge.source} -> {name}"
            nodes[delay] = nir.Delay(np.full(known.shapes[edge.source], deployment.timing.dt))
            edges.remove((source(edge), name))
            edges += [(source(edge), delay), (delay, name)]
    graph = _graph(nodes, [*edges, *outward])
    target = start[0] if start else ends[0][0]
    shapes = {x: known.shapes[n] for n, x in read.items()}
    return Segment(
        target,
        quantity,
        _deployed(deployment, graph),
        {x: n for n, x in read.items()},
        dict(sorted(shapes.items())),
    )


def _inside(
    known: Plan, borders: set[str], start: Sequence[str]
) -> tuple[set[str], list[tuple[str, Incoming]]]:
    """The nodes of a segment, and all edges into them by the node that they enter."""
    inside: set[str] = set()
    entering: list[tuple[str, Incoming]] = []
    open_nodes = list(start)
    while open_nodes:
        name = open_nodes.pop()
        if name in inside:
            continue
        inside.add(name)
        entering += [(name, edge) for edge in known.incoming[name]]
        open_nodes += [e.source for e in known.incoming[name] if e.source not in borders]
    return inside, entering


def _leads(start: str, end: str, edges: Sequence[Edge]) -> bool:
    """Whether edges lead from one node to another."""
    reached, open_nodes = {start}, [start]
    while open_nodes:
        node = open_nodes.pop()
        following = {b for a, b in edges if a == node} - reached
        reached |= following
        open_nodes += following
    return end in reached


def _decoder(deployment: Deployment, layer: Segment) -> Segment:
    """From currents to scores."""
    shapes = _output_shape(layer)
    nodes: dict[str, nir.NIRNode] = {
        CURRENT: nir.Input({"input": np.array(shapes)}),
        OUTPUT: nir.Output({"output": np.array(shapes)}),
    }
    decoded = _deployed(deployment, _graph(nodes, [(CURRENT, OUTPUT)]))
    decoded = replace(decoded, readout=_on_host(deployment))
    return Segment(READOUT, "score", decoded, {CURRENT: CURRENT}, {CURRENT: shapes})


def _output_shape(layer: Segment) -> Shape:
    known = plan(layer.deployment.graph)
    sample = [np.zeros((1, *known.shapes[name])) for name in known.outputs]
    return tuple(join(sample, 1).shape[1:])


def _deployed(deployment: Deployment, graph: nir.NIRGraph) -> Deployment:
    spec = InputSpec(plan(graph).input_shape, "frames")
    return Deployment(graph, deployment.timing, spec)


def _graph(nodes: Mapping[str, nir.NIRNode], edges: Sequence[Edge]) -> nir.NIRGraph:
    return nir.NIRGraph(dict(nodes), list(edges), metadata={}, type_check=False)


def feed(segment: Segment, values: Mapping[str, FloatArray]) -> FloatArray:
    """What a segment takes, (T, B, *its input shape), from values by border."""
    shaped = [
        np.asarray(values[name], np.float64).reshape(*values[name].shape[:2], *shape)
        for name, shape in segment.shapes.items()
    ]
    return join(shaped, 2)
