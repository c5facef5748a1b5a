"""From a NIR graph to an order of execution: structure, shapes and cycles are settled here.

NIR 1.0.8's own type check is not used: it takes a non-square kernel's last dimension for both
axes and a grouped convolution's weight for its input channels.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import nir
import numpy as np

from msg_deploy.deployment import Shape
from msg_deploy.errors import GraphError
from msg_deploy.primitives import primitive_of
from msg_deploy.primitives.terminals import declared_shape


@dataclass(frozen=True)
class Incoming:
    """One edge into a node.

    Attributes:
        source: name of the node it comes from.
        previous: the edge closes a cycle and carries the previous step's value.
    """

    source: str
    previous: bool


@dataclass(frozen=True)
class Plan:
    """How to execute a graph, step by step.

    Attributes:
        order: node names, each after all sources of its same-step edges.
        incoming: the edges into each node, in the order of the file.
        input_shapes: shape without batch of the summed input of each node.
        shapes: shape without batch of the output of each node.
        inputs: names of the Input nodes, sorted.
        outputs: names of the Output nodes, sorted.
    """

    order: tuple[str, ...]
    incoming: Mapping[str, tuple[Incoming, ...]]
    input_shapes: Mapping[str, Shape]
    shapes: Mapping[str, Shape]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def input_shape(self) -> Shape:
        """Shape without batch of what enters, see `msg_deploy.terminals`."""
        return _joined([self.shapes[name] for name in self.inputs])

    @property
    def output(self) -> str:
        """Name of the only Output node.

        Raises:
            GraphError: there are several.
        """
        if len(self.outputs) > 1:
            raise GraphError(
                f"the graph has several Output nodes ({', '.join(self.outputs)}); here only one "
                "is accepted."
            )
        return self.outputs[0]


def _joined(shapes: Sequence[Shape]) -> Shape:
    return shapes[0] if len(shapes) == 1 else (sum(math.prod(shape) for shape in shapes),)


def plan(graph: nir.NIRGraph) -> Plan:
    """Check a graph and order its execution.

    Raises:
        GraphError: naming the node or edge: unknown primitive, edge to a missing node, no Input or
            no Output, a node that nothing reaches, a cycle without state, a non-finite number,
            parameters that do not fit each other or the input.
    """
    for name, node in graph.nodes.items():
        _check_node(name, node)
    order, incoming, starts = structure(graph)
    ends = _terminals(graph, nir.Output)
    input_shapes, shapes = _infer_shapes(graph, order, incoming)
    return Plan(order, incoming, input_shapes, shapes, starts, ends)


def structure(
    graph: nir.NIRGraph,
) -> tuple[tuple[str, ...], dict[str, tuple[Incoming, ...]], tuple[str, ...]]:
    """The order of execution, the edges into each node, and the Input nodes; shapes aside.

    Raises:
        GraphError: as `plan`, for what concerns nodes and edges.
    """
    edges = [(str(a), str(b)) for a, b in graph.edges]
    _check_edges(graph, edges)
    starts = _terminals(graph, nir.Input)
    _check_cycles(graph, edges)
    closing = _closing_edges(starts, edges)
    order = _topological(graph.nodes, [e for e in edges if e not in closing])
    incoming = {
        name: tuple(Incoming(a, (a, b) in closing) for a, b in edges if b == name) for name in order
    }
    for name in order:
        if not incoming[name] and name not in starts:
            raise GraphError(f"node {name!r}: nothing leads into it.")
        if incoming[name] and name in starts:
            raise GraphError(f"node {name!r} (Input): an edge leads into it.")
    return order, incoming, starts


def _check_edges(graph: nir.NIRGraph, edges: list[tuple[str, str]]) -> None:
    for edge in edges:
        for end in edge:
            if end not in graph.nodes:
                raise GraphError(f"edge {edge[0]!r} -> {edge[1]!r}: there is no node {end!r}.")
    for edge, count in Counter(edges).items():
        if count > 1:
            raise GraphError(f"edge {edge[0]!r} -> {edge[1]!r} is given {count} times.")


def _check_node(name: str, node: nir.NIRNode) -> None:
    try:
        primitive_of(node)
        for field in dataclasses.fields(node):
            value = getattr(node, field.name, None)
            if isinstance(value, (np.ndarray, np.generic, float)):
                _check_numbers(field.name, np.asarray(value))
    except GraphError as error:
        raise GraphError(f"node {name!r} ({type(node).__name__}): {error}") from None


def _check_numbers(field: str, value: np.ndarray) -> None:
    if value.dtype.kind not in "fiub":
        raise GraphError(f"{field} must be numbers, not {value.dtype}.")
    bad = np.argwhere(~np.isfinite(value))
    if len(bad):
        place = tuple(int(i) for i in bad[0])
        raise GraphError(
            f"{field}{list(place)} is {value[place]}; every number must be finite "
            f"({len(bad)} of {value.size} are not)."
        )


def _terminals(graph: nir.NIRGraph, kind: type[nir.NIRNode]) -> tuple[str, ...]:
    names = sorted(name for name, node in graph.nodes.items() if isinstance(node, kind))
    if not names:
        raise GraphError(f"the graph has no {kind.__name__} node; at least one is needed.")
    return tuple(names)


def _check_cycles(graph: nir.NIRGraph, edges: list[tuple[str, str]]) -> None:
    """Every cycle must pass a node with state: without these nodes nothing may be cyclic."""
    instant = {n for n, node in graph.nodes.items() if not primitive_of(node).stateful}
    among = [(a, b) for a, b in edges if a in instant and b in instant]
    on_cycles = _on_cycles(instant, among)
    if on_cycles:
        cycle = ", ".join(sorted(on_cycles))
        raise GraphError(
            f"the cycle through {cycle} has no node with state, so its value is not defined; "
            "a cycle must pass a LIF, IF, LI or another node with state."
        )


def _on_cycles(nodes: set[str], edges: list[tuple[str, str]]) -> set[str]:
    """Nodes on or between cycles: what neither order from the front nor from the back reaches."""
    behind = nodes - set(_topological_prefix(nodes, edges))
    backwards = [(b, a) for a, b in edges if a in behind and b in behind]
    return behind - set(_topological_prefix(behind, backwards))


def _closing_edges(starts: tuple[str, ...], edges: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """Edges that lead back to a node being explored, depth first from the inputs."""
    successors: dict[str, list[str]] = {}
    for a, b in edges:
        successors.setdefault(a, []).append(b)
    closing: set[tuple[str, str]] = set()
    done = set[str]()
    for start in starts:
        open_nodes = {start}
        stack = [(start, iter(successors.get(start, [])))]
        while stack:
            node, following = stack[-1]
            successor = next(following, None)
            if successor is None:
                stack.pop()
                open_nodes.discard(node)
                done.add(node)
            elif successor in open_nodes:
                closing.add((node, successor))
            elif successor not in done:
                open_nodes.add(successor)
                stack.append((successor, iter(successors.get(successor, []))))
    return closing


def _topological(nodes: Iterable[str], edges: list[tuple[str, str]]) -> tuple[str, ...]:
    order = _topological_prefix(nodes, edges)
    left = set(nodes) - set(order)
    if left:
        raise GraphError(f"the cycle through {', '.join(sorted(left))} is not fed by the input.")
    return tuple(order)


def _topological_prefix(nodes: Iterable[str], edges: list[tuple[str, str]]) -> list[str]:
    """Kahn's algorithm; what is missing from the result lies on or behind a cycle."""
    successors: dict[str, list[str]] = {name: [] for name in nodes}
    waiting = dict.fromkeys(successors, 0)
    for a, b in edges:
        successors[a].append(b)
        waiting[b] += 1
    order = [name for name, count in waiting.items() if count == 0]
    for name in order:
        for successor in successors[name]:
            waiting[successor] -= 1
            if waiting[successor] == 0:
                order.append(successor)
    return order


def _infer_shapes(
    graph: nir.NIRGraph, order: tuple[str, ...], incoming: Mapping[str, tuple[Incoming, ...]]
) -> tuple[dict[str, Shape], dict[str, Shape]]:
    input_shapes: dict[str, Shape] = {}
    shapes: dict[str, Shape] = {}
    for name in order:
        node = graph.nodes[name]
        try:
            if isinstance(node, nir.Input):
                input_shapes[name] = declared_shape(node)
            else:
                known = [e.source for e in incoming[name] if not e.previous]
                input_shapes[name] = shapes[known[0]] if known else declared_input(node)
            shapes[name] = primitive_of(node).output_shape(node, input_shapes[name])
        except GraphError as error:
            raise GraphError(f"node {name!r} ({type(node).__name__}): {error}") from None
    for name in order:
        for edge in incoming[name]:
            if shapes[edge.source] != input_shapes[name]:
                raise GraphError(
                    f"edge {edge.source!r} -> {name!r}: {edge.source!r} gives shape "
                    f"{shapes[edge.source]}, but {name!r} takes {input_shapes[name]}."
                )
    return input_shapes, shapes


def declared_input(node: nir.NIRNode) -> Shape:
    """The input shape that a node itself implies, for nodes fed only through a cycle."""
    (declared,) = (node.input_type or {"input": None}).values()
    if declared is None:
        raise GraphError("is fed only through a cycle and implies no input shape.")
    return tuple(int(n) for n in declared)
