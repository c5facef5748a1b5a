"""What `spyx.nir.from_nir` of spyx 1.0.0 reads to the same spikes, later.

Its CuBaLIF is S = V > v_threshold with V from the step before; V -= S v_threshold;
I = (1 - dt/tau_syn) I + x; V = (1 - dt/tau_mem) V + I, gains of one, dt = 1 by default (nn.py and
nir.py in spyx): the usual law with spikes one step late, which adds up over the layers and is
written to the provenance as `latency`. Its LIF subtracts after the leak, so every neuron becomes a
CubaLIF. A layer waits for its first spikes, but its bias does not; so a layer before a bias gets
one neuron more that always spikes, and its weights are the bias. Branches are dropped there, so
they are refused, and images want their channels last, so convolutions become matrices behind a
Flatten. Recurrence is a nested graph of four nodes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np

from msg_deploy.deployment import Deployment
from msg_deploy.errors import GraphError
from msg_deploy.exporters.dialects import arrangement, dialect, restoration
from msg_deploy.exporters.dialects.loops import loops, nested
from msg_deploy.exporters.dialects.rewrite import (
    check_chain,
    check_loops,
    check_subtract,
    current_based,
    delayed,
    rewritten,
)
from msg_deploy.graph import plan

ONE_MORE = "msg_deploy_one_more"
"""Metadata of a layer whose last neuron always spikes, and of the matrices around it."""
PER_NEURON = ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in")


@dialect
def spyx(deployment: Deployment) -> Deployment:
    """CubaLIF with gains of one, time in steps."""
    check_loops(deployment)
    check_chain(deployment, "spyx keeps one branch and drops the others")
    check_subtract(deployment, "spyx")
    written = rewritten(deployment, current_based, "spyx")
    _row(written.graph)
    return delayed(written, nir.CubaLIF)


def _row(graph: nir.NIRGraph) -> list[str]:
    """Matrices and neurons from input to output.

    Raises:
        GraphError: a bias has no layer before it that could carry it.
    """
    known = plan(graph)
    recurrent = set(loops(graph, known).values())
    kinds = (nir.Affine, nir.CubaLIF)
    row = [n for n in known.order if isinstance(graph.nodes[n], kinds) and n not in recurrent]
    if _last_bias(graph, row) and not isinstance(graph.nodes[row[0]], nir.Affine):
        raise GraphError(
            f"node {row[0]!r}: a bias behind it would need a matrix before it (spyx applies a bias "
            "before the first spikes arrive); put an identity there."
        )
    return row


def _last_bias(graph: nir.NIRGraph, row: list[str]) -> int:
    """Where in the row the last bias behind a neuron is; 0 without one."""
    nodes = [graph.nodes[name] for name in row]
    first = next((i for i, node in enumerate(nodes) if isinstance(node, nir.CubaLIF)), len(row))
    behind = (i for i in range(first, len(row)) if isinstance(nodes[i], nir.Affine))
    return max((i for i in behind if np.any(nodes[i].bias)), default=0)


@arrangement("spyx")
def _to_file(graph: nir.NIRGraph) -> nir.NIRGraph:
    """One more neuron in each layer before the last bias; recurrence nested."""
    row = _row(graph)
    end = _last_bias(graph, row)
    nodes = dict(graph.nodes)
    for i, name in enumerate(row[: end + 1] if end else ()):
        nodes[name] = _with_one_more(nodes[name], first=i == 0, last=i == end)
    for neuron, weights in loops(graph, plan(graph)).items():
        if ONE_MORE in nodes[neuron].metadata:
            wide = np.pad(nodes[weights].weight, (0, 1))
            nodes[weights] = _marked(nodes[weights], weight=wide, bias=np.zeros(len(wide)))
    wider = nir.NIRGraph(nodes, graph.edges, metadata=dict(graph.metadata), type_check=False)
    return nested(wider)


def _with_one_more(node: Any, first: bool, last: bool) -> nir.NIRNode:
    if isinstance(node, nir.CubaLIF):
        # No memory, so that its input of 1 is its membrane; above the threshold at every step.
        new = dict.fromkeys(PER_NEURON, 1.0) | {"v_threshold": 0.5, "v_leak": 0.0, "v_reset": 0.0}
        return _marked(node, **{n: np.append(getattr(node, n), v) for n, v in new.items()})
    weight, bias = np.asarray(node.weight), np.asarray(node.bias)
    if first:
        return _marked(node, weight=np.pad(weight, ((0, 1), (0, 0))), bias=np.append(bias, 1.0))
    wide = np.column_stack([weight, bias])
    if not last:
        wide = np.vstack([wide, np.append(np.zeros(weight.shape[1]), 1.0)])
    return _marked(node, weight=wide, bias=np.zeros(len(wide)))


def _marked(node: nir.NIRNode, **fields: Any) -> nir.NIRNode:
    return replace(node, **fields, metadata=dict(node.metadata) | {ONE_MORE: 1})


@restoration("spyx")
def _from_file(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Without the neurons that always spike."""
    known = plan(graph)
    recurrent = set(loops(graph, known).values())
    marked = [n for n in known.order if ONE_MORE in graph.nodes[n].metadata and n not in recurrent]
    nodes = dict(graph.nodes)
    for name in known.order:
        node = graph.nodes[name]
        if ONE_MORE in node.metadata:
            if not isinstance(node, (nir.Affine, nir.CubaLIF)) or not marked:
                raise GraphError(f"node {name!r}: metadata {ONE_MORE!r} belongs to other nodes.")
            ends = (name == marked[0], name == marked[-1], name in recurrent)
            nodes[name] = _without_it(node, *ends)
    return nir.NIRGraph(nodes, graph.edges, metadata=dict(graph.metadata), type_check=False)


def _without_it(node: Any, first: bool, last: bool, recurrent: bool) -> nir.NIRNode:
    kept = {k: v for k, v in node.metadata.items() if k != ONE_MORE}
    if isinstance(node, nir.CubaLIF):
        return replace(node, **{n: getattr(node, n)[:-1] for n in PER_NEURON}, metadata=kept)
    weight, bias = np.asarray(node.weight), np.asarray(node.bias)
    if recurrent:
        return replace(node, weight=weight[:-1, :-1], bias=bias[:-1], metadata=kept)
    if first:
        return replace(node, weight=weight[:-1], bias=bias[:-1], metadata=kept)
    rows = slice(None) if last else slice(-1)
    return replace(node, weight=weight[rows, :-1], bias=weight[rows, -1], metadata=kept)
