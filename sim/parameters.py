"""Comparison of the parameters of two deployments: weights, neurons, edges, TWO and the timing."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import nir
import numpy as np

from msg_deploy.deployment import READOUT_PREFIX, Deployment, Metadata
from msg_deploy.parts import parts
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.verdict import READOUT, ParameterDifference

TIMING = "timing"


def compare_metadata(
    a: Deployment | Metadata, b: Deployment | Metadata
) -> tuple[ParameterDifference, ...]:
    """What differs in the timing and in TWO; what a dialect rewrites is left out."""
    rewritten = a.provenance.dialect != b.provenance.dialect
    found = [
        ParameterDifference(TIMING, name, f"{x!r} against {y!r}")
        for name, x, y in _pairs(vars(a.timing), vars(b.timing))
        if not (rewritten and name == "dt")
    ]
    if a.readout and b.readout and not rewritten:
        detail = _field_difference(a.readout.weights, b.readout.weights)
        if detail:
            found.append(ParameterDifference(READOUT, "weights", detail))
    return tuple(found)


def compare_parameters(a: Deployment, b: Deployment) -> tuple[ParameterDifference, ...]:
    """Parameters that differ in nodes of the same name and type, in TWO and in the timing.

    A changed weight is found here even where no sample makes it matter. Nodes that a folding added
    are left to the comparison of scores, and everything that a dialect rewrites to that of spikes,
    membranes and currents.
    """
    found = list(compare_metadata(a, b))
    if a.provenance.dialect != b.provenance.dialect:
        return tuple(found)
    found += _differing_fields(a, b)
    if _edges(a) != _edges(b) and _nodes(a) == _nodes(b):
        changed = sorted(_edges(a) ^ _edges(b))
        listed = ", ".join(f"{x} -> {y}" for x, y in changed)
        found.append(ParameterDifference(changed[0][1], "edges", f"only on one side: {listed}"))
    return tuple(found)


def same_law(a: Deployment, b: Deployment) -> bool:
    """Whether the spikes of two graphs follow the same law, to the last bit of every parameter.

    The nodes must be called alike; how TWO is folded does not matter.
    """
    kinds = ({name: type(x.graph.nodes[name]) for name in _nodes(x)} for x in (a, b))
    return (
        a.timing == b.timing
        and operator.eq(*kinds)
        and _edges(a) == _edges(b)
        and parts(a.graph) == parts(b.graph)
        and not any(True for _ in _differing_fields(a, b))
    )


def _differing_fields(a: Deployment, b: Deployment) -> Iterator[ParameterDifference]:
    """Of nodes of the same name and type."""
    compared = _nodes(a) | _nodes(b)
    for name, node in a.graph.nodes.items():
        other = b.graph.nodes.get(name)
        if type(node) is not type(other) or name not in compared:
            continue
        for field in dataclasses.fields(node):
            if field.name in ("input_type", "output_type", "metadata"):
                continue
            detail = _field_difference(getattr(node, field.name), getattr(other, field.name))
            if detail:
                yield ParameterDifference(name, field.name, detail)


def _pairs(x: Mapping[str, Any], y: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(name, x[name], y[name]) for name in x if x[name] != y[name]]


def _nodes(deployment: Deployment) -> set[str]:
    """All nodes but those that a folding of TWO added.

    Others may be called like them, as those of a nested graph "readout" are: what leads to spikes
    is none of a folding's.
    """
    graph, readout = deployment.graph, deployment.readout
    if readout is None or readout.fold == "host":
        return set(graph.nodes)
    before: dict[str, list[str]] = {}
    for source, target in graph.edges:
        before.setdefault(str(target), []).append(str(source))
    leading: set[str] = set()
    left = [n for n, node in graph.nodes.items() if primitive_of(node).spiking]
    while left:
        name = left.pop()
        if name not in leading:
            leading.add(name)
            left += before.get(name, [])
    return {n for n in graph.nodes if n in leading or not n.startswith(READOUT_PREFIX)}


def _edges(deployment: Deployment) -> set[tuple[str, str]]:
    """The edges outside of the readout, whose folding may differ."""
    graph = deployment.graph
    outputs = {name for name, node in graph.nodes.items() if isinstance(node, nir.Output)}
    inside = _nodes(deployment) - outputs
    return {(str(x), str(y)) for x, y in graph.edges if x in inside and y in inside}


def _field_difference(x: Any, y: Any) -> str:
    left, right = np.asarray(x), np.asarray(y)
    if left.shape != right.shape:
        return f"shape {left.shape} against {right.shape}"
    unequal = left != right
    count = int(np.sum(unequal))
    if count == 0:
        return ""
    place = tuple(int(i) for i in np.argwhere(unequal)[0])
    where = f" at {list(place)}" if place else ""
    return (
        f"{count} of {left.size} entries differ, first{where}: {left[place]} against {right[place]}"
    )
