"""From populations to an integer network: one matrix or convolution for each projection."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from msg_deploy.errors import GraphError
from msg_deploy.exporters.chips.populations import Populations, Projection
from msg_deploy.exporters.chips.target import Findings
from msg_deploy.exporters.names import free_name
from msg_deploy.sim.integer.network import (
    Edge,
    Entry,
    Exit,
    IntegerNetwork,
    Neurons,
    Node,
    Transform,
    flatten,
)
from msg_deploy.sim.integer.rules import Range, WeightError


def built(
    network: Populations, neurons: Mapping[str, Neurons], findings: Findings, **options: Any
) -> IntegerNetwork | None:
    """As `assembled`; None, and a problem, where a law is missing or numbers do not fit."""
    if any(problem.what == "law" for problem in findings.problems):
        return None
    try:
        return assembled(network, neurons, **options)
    except WeightError as error:
        text = str(error).rstrip(".")
        findings.law("", f"{text}; quantize with fewer bits (msg-deploy quantize --bits 6).")
    except GraphError as error:
        findings.law("", str(error))
    return None


def assembled(
    network: Populations,
    neurons: Mapping[str, Neurons],
    shifts: Mapping[str, int] | None = None,
    accumulator: Range | None = None,
) -> IntegerNetwork:
    """The network in integers, its populations under their own names.

    Args:
        network: with whole weights, as the chip holds them. Its biases are not looked at: they
            belong into the `Parameters` of the neurons.
        neurons: by population.
        shifts: exponents of the weights, by population that they enter.
        accumulator: of the sums of each projection; None: nothing is lost, or it is refused.

    Raises:
        GraphError: naming a node whose numbers the neurons cannot take.
    """
    low, high = network.deployment.input.entering
    nodes: dict[str, Node] = {
        network.input: Entry(network.input_shape, int(np.floor(low)), int(np.ceil(high)))
    }
    edges: list[Edge] = []
    for name, item in network.items.items():
        shift = (shifts or {}).get(name, 0)
        for projection in item.entering:
            last = _projection(projection, nodes, edges, shift, accumulator, network.items)
            edges.append(Edge(last, name, 0 if last != projection.source else projection.steps))
        nodes[name] = neurons[name]
    nodes[free_name("output", nodes)] = Exit()
    edges.append(Edge(network.output, list(nodes)[-1]))
    return IntegerNetwork(nodes, edges)


def _projection(
    p: Projection,
    nodes: dict[str, Node],
    edges: list[Edge],
    shift: int,
    accumulator: Range | None,
    taken: Collection[str],
) -> str:
    """Adds its nodes; the name of the last of them, or of its source if it has none."""
    whole = p.without_pool()
    if whole.weight is None:
        return p.source
    node: Any = whole.node()
    before, delay = p.source, p.steps
    if not whole.convolution and len(p.source_shape) > 1:
        flat = free_name(f"{p.name}.flat", {*nodes, *taken})
        nodes[flat] = flatten(p.source_shape)
        edges.append(Edge(before, flat, delay))
        before, delay = flat, 0
    name = free_name(p.name, {*nodes, *taken})
    nodes[name] = Transform(node, shift, accumulator)
    edges.append(Edge(before, name, delay))
    return name
