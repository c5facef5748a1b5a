"""A network as matrices and neurons: what its linear layers amount to, exactly.

For destinations without images: everything behind the input is flat (C order), a convolution, a
pooling or a Flatten is the matrix that it is, and a run of linear layers is one matrix.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Deployment, Shape
from msg_deploy.errors import GraphError
from msg_deploy.graph import plan
from msg_deploy.primitives import Elementwise, primitive_of

Array = npt.NDArray[np.float64]
LINEAR = (
    nir.Affine,
    nir.Linear,
    nir.Scale,
    nir.Conv1d,
    nir.Conv2d,
    nir.SumPool2d,
    nir.AvgPool2d,
    nir.Flatten,
)
MAX_ENTRIES = 2**26
"""Of one matrix: half a gigabyte."""


def dense(deployment: Deployment) -> Deployment:
    """The same network; its neurons keep their names, a matrix has that of its last layer.

    Raises:
        GraphError: naming the node: a matrix would have more than 2^26 entries, or the output is
            not flat.
    """
    known = plan(deployment.graph)
    nodes: dict[str, nir.NIRNode] = {}
    alias: dict[str, str] = {}
    for name in known.order:
        node, shape = deployment.graph.nodes[name], known.shapes[name]
        try:
            nodes[name] = _flat(node, known.input_shapes[name], shape, deployment)
        except GraphError as error:
            raise GraphError(f"node {name!r} ({type(node).__name__}): {error}") from None
        if isinstance(node, nir.Input) and len(shape) != 1:
            alias[name] = f"{name}.flat"
            nodes[alias[name]] = nir.Flatten({"input": np.array(shape)}, 0, len(shape) - 1)
    edges = [(alias.get(e.source, e.source), n) for n in known.order for e in known.incoming[n]]
    edges += list(alias.items())
    _merge(nodes, edges)
    graph = nir.NIRGraph(nodes, edges, metadata=dict(deployment.graph.metadata), type_check=False)
    return deployment.with_graph(graph)


def _flat(node: nir.NIRNode, arriving: Shape, shape: Shape, deployment: Deployment) -> nir.NIRNode:
    if isinstance(node, nir.Input):
        return node
    if isinstance(node, LINEAR):
        return _matrix(node, arriving, shape, deployment)
    if len(shape) == 1:
        return node
    primitive = primitive_of(node)
    if isinstance(primitive, Elementwise):
        return replace(node, **{n: np.ravel(getattr(node, n)) for n in primitive.per_neuron})
    raise GraphError(f"gives {shape}; without images the output must be flat.")


def _matrix(node: Any, arriving: Shape, shape: Shape, deployment: Deployment) -> nir.Affine:
    """What the layer makes of each unit vector, above what it makes of nothing."""
    inputs, outputs = math.prod(arriving), math.prod(shape)
    if isinstance(node, (nir.Affine, nir.Linear)):
        bias = getattr(node, "bias", np.zeros(outputs))
        return nir.Affine(np.asarray(node.weight, np.float64), np.asarray(bias, np.float64))
    if inputs * outputs > MAX_ENTRIES:
        raise GraphError(
            f"as a matrix it has {outputs} x {inputs} entries; at most {MAX_ENTRIES} are written."
        )
    law = primitive_of(node).law(node, deployment.timing, arriving, np.float64)

    def given(x: Array) -> Array:
        output: Array = law.step(x.reshape(-1, *arriving), None).output.reshape(-1, outputs)
        return output

    bias = given(np.zeros((1, inputs)))[0]
    return nir.Affine(np.ascontiguousarray((given(np.eye(inputs)) - bias).T), bias)


def _merge(nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]]) -> None:
    """One matrix for two in a row, in place."""
    for name in list(nodes):
        before = [a for a, b in edges if b == name]
        if len(before) != 1 or [b for a, b in edges if a == before[0]] != [name]:
            continue
        first, second = nodes[before[0]], nodes[name]
        if isinstance(first, nir.Affine) and isinstance(second, nir.Affine):
            weight = second.weight @ first.weight
            nodes[name] = nir.Affine(weight, second.weight @ first.bias + second.bias)
            del nodes[before[0]]
            edges[:] = [(a, name if b == before[0] else b) for a, b in edges if b != name]
