"""Recurrence as importers read it: a neuron and one matrix that leads from it back to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np

from msg_deploy.deployment import Shape
from msg_deploy.errors import GraphError
from msg_deploy.exporters.inline import NAME_KEY
from msg_deploy.graph import Incoming, Plan, plan

TERMINALS = (nir.Input, nir.Output)


def loops(graph: nir.NIRGraph, known: Plan) -> dict[str, str]:
    """Recurrent weights by their neuron: neuron -> weights -> the same neuron, and nothing else.

    Raises:
        GraphError: another kind of recurrence, which some importers misread.
    """
    found: dict[str, str] = {}
    for name in known.order:
        for edge in known.incoming[name]:
            if not edge.previous:
                continue
            weights = edge.source
            reached = [b for a, b in graph.edges if a == weights]
            alone = reached == [name] and known.incoming[weights] == (Incoming(name, False),)
            neuron = isinstance(graph.nodes[name], (nir.LIF, nir.IF, nir.CubaLIF))
            matrix = isinstance(graph.nodes[weights], (nir.Affine, nir.Linear))
            if not (alone and neuron and matrix) or name in found:
                raise GraphError(
                    f"node {name!r}: only recurrence through one matrix, from a neuron straight "
                    "back to itself, is read alike by all importers."
                )
            found[name] = weights
    return found


def check_loop(node: Any) -> None:
    """Refuse a bias in recurrent weights.

    Raises:
        GraphError: there is one.
    """
    if np.any(np.asarray(getattr(node, "bias", 0.0)) != 0):
        raise GraphError(
            "a recurrent bias is applied at the first step by some and not by others; move it into "
            "the matrix before the neuron, if it shall hold from the first step on."
        )


def nested(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Each recurrent neuron with its weights as a graph of four nodes, as snnTorch reads it.

    nirtorch reads nested graphs only if names sort in the order of execution. The names that nodes
    had are kept as metadata, and come back when the file is read.
    """
    known = plan(graph)
    recurrent = loops(graph, known)
    if not recurrent:
        return graph
    inside = {*recurrent, *recurrent.values()}
    new = {
        name: f"n{i:03d}_{name}" if type(graph.nodes[name]) not in TERMINALS else name
        for i, name in enumerate(known.order)
    }
    nodes: dict[str, nir.NIRNode] = {}
    for name in known.order:
        if name in recurrent:
            nodes[new[name]] = _block(graph, name, recurrent[name], known.shapes[name])
        elif name not in inside:
            nodes[new[name]] = _named(graph.nodes[name], name)
    weights = set(recurrent.values())
    edges = [(new[a], new[b]) for a, b in graph.edges if a not in weights and b not in weights]
    return nir.NIRGraph(nodes, edges, metadata=dict(graph.metadata), type_check=False)


def _block(graph: nir.NIRGraph, neuron: str, weights: str, shape: Shape) -> nir.NIRGraph:
    size = np.array(shape)
    first, second = "n0", "n1"
    return nir.NIRGraph(
        {
            "input": nir.Input({"input": size}),
            first: _named(graph.nodes[neuron], neuron),
            second: _named(graph.nodes[weights], weights),
            "output": nir.Output({"output": size}),
        },
        [("input", first), (first, second), (second, first), (first, "output")],
        metadata={},
        type_check=False,
    )


def _named(node: nir.NIRNode, name: str) -> nir.NIRNode:
    """A copy that remembers what it was called."""
    return replace(node, metadata=dict(node.metadata) | {NAME_KEY: name})
