"""What files of older versions and of other exporters leave out or write otherwise, made explicit.

Measured on real files: before nir 1.0.6 there is no v_reset; Norse, sinabs and snnTorch write one
number for all neurons of a layer; Norse and rockpool count batch and time in the types of Input and
Output.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np

from msg_deploy.deployment import Shape
from msg_deploy.errors import GraphError
from msg_deploy.graph import structure
from msg_deploy.primitives import Elementwise, primitive_of, registry
from msg_deploy.primitives.terminals import declared_shape


def completed(graph: nir.NIRGraph) -> tuple[nir.NIRGraph, tuple[str, ...]]:
    """A graph whose parameters have full shape and whose terminals count no batch.

    Args:
        graph: flat, in any of the known ways of writing.

    Returns:
        The graph, and a sentence for each thing that was assumed; none for a graph in our own form.
        What cannot be made to fit is left for the check of the graph to name.
    """
    try:
        order, incoming, starts = structure(graph)
        declared = {start: declared_shape(graph.nodes[start]) for start in starts}
    except GraphError:
        return graph, ()
    assumed: list[str] = []
    nodes = dict(graph.nodes)
    for start, shape in declared.items():
        behind = [b for a, b in graph.edges if a == start]
        kept = _without_batch(start, shape, nodes, behind, assumed)
        if kept != shape:
            nodes[start] = nir.Input({"input": np.array(kept)})
    shapes: dict[str, Shape] = {}
    for name in order:
        node = nodes[name]
        known = [e.source for e in incoming[name] if e.source in shapes]
        try:
            if isinstance(node, nir.Input):
                shapes[name] = declared_shape(node)
                continue
            if not known:
                continue
            arriving = shapes[known[0]]
            if isinstance(node, nir.Output):
                nodes[name] = _output(name, node, arriving, assumed)
            primitive = primitive_of(node)
            if isinstance(primitive, Elementwise):
                nodes[name] = _full(name, node, primitive, arriving, assumed)
            shapes[name] = primitive.output_shape(nodes[name], arriving)
        except GraphError:
            continue
    return (
        nir.NIRGraph(nodes, graph.edges, metadata=graph.metadata, type_check=False),
        tuple(assumed),
    )


def spread(name: str, fields: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A node's fields, with one number for all neurons repeated where others have one for each.

    Needed at once, because nir's constructors accept parameters of one shape only.

    Returns:
        The fields, and a sentence if anything was assumed.
    """
    given = {n: np.asarray(fields[n]) for n in ELEMENTWISE.get(fields["type"], ()) if n in fields}
    shapes = {value.shape for value in given.values() if value.size > 1}
    single = [n for n, value in given.items() if value.size == 1]
    if len(shapes) != 1 or not single:
        return fields, ()
    (shape,) = shapes
    full = {n: np.full(shape, given[n].item()) for n in single}
    return fields | full, (f"node {name!r} has one {', '.join(single)} for all its neurons",)


ELEMENTWISE = {
    kind.__name__: primitive.per_neuron
    for kind, primitive in registry().items()
    if isinstance(primitive, Elementwise)
}


def _without_batch(
    start: str,
    shape: Shape,
    nodes: dict[str, nir.NIRNode],
    behind: list[str],
    assumed: list[str],
) -> Shape:
    """The declared shape, without the leading dimensions that no node behind can take."""
    for dropped in range(len(shape)):
        rest = shape[dropped:]
        if all(_takes(nodes[name], rest) for name in behind):
            if dropped:
                assumed.append(
                    f"node {start!r} declares {shape}; the first {dropped} taken for batch or time"
                )
            return rest
    return shape


def _takes(node: nir.NIRNode, shape: Shape) -> bool:
    try:
        primitive = primitive_of(node)
        if isinstance(primitive, Elementwise):
            full = (np.shape(getattr(node, name)) for name in primitive.per_neuron)
            return all(found == shape or np.prod(found) == 1 for found in full)
        if not isinstance(node, nir.Output):
            primitive.output_shape(node, shape)
    except GraphError:
        return False
    return True


def _output(name: str, node: nir.Output, arriving: Shape, assumed: list[str]) -> nir.Output:
    declared = declared_shape(node)
    if declared != arriving and declared[-len(arriving) :] == arriving:
        dropped = len(declared) - len(arriving)
        assumed.append(
            f"node {name!r} declares {declared}; the first {dropped} taken for batch or time"
        )
        return nir.Output({"output": np.array(arriving)})
    return node


def _full(
    name: str, node: Any, primitive: Elementwise, shape: Shape, assumed: list[str]
) -> nir.NIRNode:
    """One number for all neurons becomes one for each."""
    values = {n: np.asarray(getattr(node, n)) for n in primitive.per_neuron}
    single = [n for n, value in values.items() if value.size == 1 and value.shape != shape]
    if not single:
        return node
    assumed.append(f"node {name!r} has one {', '.join(single)} for all its neurons")
    result: nir.NIRNode = replace(node, **{n: np.full(shape, values[n].item()) for n in single})
    return result
