"""The encoding that Norse 1.1.0, snnTorch 1.0.0 and spikingjelly 2.0.0 import to the same spikes.

Their stock importers ignore or misread most of NIR, each something else; docs/interop.md shows what
remains. All neurons become CubaLIF whose current has no memory (tau_syn = dt, w_in = 1) and whose
gain is one (r = tau_mem/dt). That scales the membrane by tau/(dt r), and so the threshold.
dt is 1e-4, which snnTorch assumes and spikingjelly defaults to; Norse must be told. Where weights
are on a grid, thresholds leave it, because spikingjelly spikes at a threshold, the others above.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Deployment, Shape
from msg_deploy.errors import GraphError
from msg_deploy.exporters.branches import fused
from msg_deploy.exporters.dialects import arrangement, dialect
from msg_deploy.exporters.dialects.loops import check_loop, loops, nested
from msg_deploy.exporters.dialects.off_grid import off_grid
from msg_deploy.exporters.dialects.rewrite import long_way_first, own_branches
from msg_deploy.graph import Plan, plan
from msg_deploy.primitives import pair, primitive_of

DT = 1e-4
NO_LEAK = 2.0**40
"""Time constant of an IF in steps: a leak that float32 rounds away, and float64 almost."""
Array = npt.NDArray[np.float64]
Nodes = dict[str, nir.NIRNode]
Writer = Callable[[str, Any, Shape, float], Nodes]
"""(name, node, input shape, dt) -> nodes in a row, of which the last keeps the name."""
WRITERS: dict[type[nir.NIRNode], Writer] = {}


@dialect
def portable(deployment: Deployment) -> Deployment:
    """Rewrite every node; time constants to dt = 1e-4."""
    if deployment.timing.reset != "zero":
        raise GraphError("the importers reset to zero; reset 'subtract' has no portable form.")
    if deployment.readout and deployment.readout.fold != "host":
        raise GraphError(
            f"TWO is folded by {deployment.readout.fold!r}, whose primitives the importers drop or "
            "refuse; fold it by 'host' (--two-fold host)."
        )
    deployment = fused(deployment)
    known = plan(deployment.graph)
    _check_terminals(known)
    _check_branches(deployment.graph, known)
    recurrent = loops(deployment.graph, known)
    nodes: Nodes = {}
    firsts: dict[str, str] = {}
    edges: list[tuple[str, str]] = []
    for name in known.order:
        node = deployment.graph.nodes[name]
        if type(node) not in WRITERS:
            raise GraphError(
                f"node {name!r} ({type(node).__name__}): not all importers have it, and nothing "
                "that they have is the same."
            )
        try:
            if name in recurrent.values():
                check_loop(node)
            row = WRITERS[type(node)](name, node, known.input_shapes[name], deployment.timing.dt)
            if name in row and isinstance(row[name], nir.CubaLIF):
                row[name] = _off_the_grid(row[name], deployment.graph, known, name)
        except GraphError as error:
            raise GraphError(f"node {name!r} ({type(node).__name__}): {error}") from None
        nodes |= row
        firsts[name] = next(iter(row))
        names = list(row)
        edges += itertools.pairwise(names)
    # Norse needs the long way before the short one where two edges meet.
    edges += [(a, firsts[b]) for a, b in long_way_first(known)]
    graph = nir.NIRGraph(nodes, edges, metadata=dict(deployment.graph.metadata), type_check=False)
    # The units of a quantized network are not those of neurons with other gains.
    return deployment.with_graph(graph, timing=replace(deployment.timing, dt=DT), integers=None)


def _off_the_grid(node: nir.CubaLIF, graph: nir.NIRGraph, known: Plan, name: str) -> nir.NIRNode:
    """One threshold for all: at the old one spikingjelly spikes, and the others not."""
    return replace(node, v_threshold=off_grid(node.v_threshold, graph, known, name))


def writes(*kinds: type[nir.NIRNode]) -> Callable[[Writer], Writer]:
    """Decorator: the function writes nodes of these types."""

    def add(writer: Writer) -> Writer:
        WRITERS.update(dict.fromkeys(kinds, writer))
        return writer

    return add


def _check_terminals(known: Plan) -> None:
    """Norse takes the first of several Inputs, snnTorch and spikingjelly fail on them."""
    for kind, names in (("Input", known.inputs), ("Output", known.outputs)):
        if len(names) > 1:
            raise GraphError(
                f"the graph has several {kind} nodes ({', '.join(names)}); the importers take one."
            )


def _check_branches(graph: nir.NIRGraph, known: Plan) -> None:
    """Two edges may meet where one is a bare skip; Norse runs other branches out of order."""
    for name in known.order:
        incoming = [edge for edge in known.incoming[name] if not edge.previous]
        if len(incoming) < 2:
            continue
        if isinstance(graph.nodes[name], nir.Output):
            raise GraphError(f"node {name!r}: the importers take one edge into the Output.")
        branches = [edge.source for edge in incoming]
        weighted = own_branches(branches, known)
        if len(weighted) > 1:
            raise GraphError(
                f"node {name!r}: the branches {', '.join(branches)} meet, and Norse runs parallel "
                "branches in a wrong order; only a direct skip past one branch is portable."
            )


arrangement("portable")(nested)


@writes(nir.Input, nir.Output, nir.SumPool2d)
def _as_it_is(name: str, node: Any, shape: Shape, dt: float) -> Nodes:
    return {name: node}


@writes(nir.Linear)
def _linear(name: str, node: nir.Linear, shape: Shape, dt: float) -> Nodes:
    """As Affine, which every importer has."""
    weight = np.asarray(node.weight)
    return {name: nir.Affine(weight, np.zeros(len(weight), weight.dtype))}


@writes(nir.Affine)
def _affine(name: str, node: nir.Affine, shape: Shape, dt: float) -> Nodes:
    return {name: nir.Affine(np.asarray(node.weight), np.asarray(node.bias))}


@writes(nir.Scale)
def _scale(name: str, node: nir.Scale, shape: Shape, dt: float) -> Nodes:
    """A diagonal matrix."""
    if len(shape) != 1:
        raise GraphError(f"becomes a matrix on inputs (N,) only, not {shape}.")
    return {name: nir.Affine(np.diag(np.asarray(node.scale)), np.zeros(shape))}


@writes(nir.Conv2d)
def _conv2d(name: str, node: nir.Conv2d, shape: Shape, dt: float) -> Nodes:
    """Groups as a dense kernel with zeros."""
    weight, groups = np.asarray(node.weight), int(node.groups)
    outputs, inputs = len(weight) // groups, weight.shape[1]
    dense = np.zeros((len(weight), inputs * groups, *weight.shape[2:]), weight.dtype)
    for g in range(groups):
        rows, columns = slice(g * outputs, (g + 1) * outputs), slice(g * inputs, (g + 1) * inputs)
        dense[rows, columns] = weight[rows]
    stride, dilation = pair(node, "stride", 1), pair(node, "dilation", 1)
    padding = node.padding if isinstance(node.padding, str) else np.array(pair(node, "padding", 0))
    return {
        name: nir.Conv2d(
            np.array(shape[1:]), dense, np.array(stride), padding, np.array(dilation), 1, node.bias
        )
    }


@writes(nir.AvgPool2d)
def _avg_pool2d(name: str, node: nir.AvgPool2d, shape: Shape, dt: float) -> Nodes:
    """Sums, then a 1x1 convolution: Norse takes AvgPool2d for SumPool2d."""
    kernel, stride = pair(node, "kernel_size", 1), pair(node, "stride", 1)
    padding = pair(node, "padding", 0)
    pooled = np.array(primitive_of(node).output_shape(node, shape)[1:])
    share = np.eye(shape[0])[:, :, None, None] / math.prod(kernel)
    ones, zeros = np.array([1, 1]), np.array([0, 0])
    return {
        f"{name}.sum": nir.SumPool2d(np.array(kernel), np.array(stride), np.array(padding)),
        name: nir.Conv2d(pooled, share, ones, zeros, ones, 1, np.zeros(shape[0])),
    }


@writes(nir.Flatten)
def _flatten(name: str, node: nir.Flatten, shape: Shape, dt: float) -> Nodes:
    """Dimensions from the end, which mean the same with and without a batch."""
    ends = [d - len(shape) if d >= 0 else d for d in (int(node.start_dim), int(node.end_dim))]
    return {name: nir.Flatten({"input": np.array(shape)}, *ends)}


@writes(nir.LIF)
def _lif(name: str, node: nir.LIF, shape: Shape, dt: float) -> Nodes:
    _check_rest(node)
    k = np.asarray(node.tau, np.float64) / dt
    return {name: _neuron(np.ones(shape), k, node.v_threshold * k / node.r)}


@writes(nir.IF)
def _if(name: str, node: nir.IF, shape: Shape, dt: float) -> Nodes:
    _check_rest(node)
    return {name: _neuron(np.ones(shape), np.full(shape, NO_LEAK), node.v_threshold / node.r)}


@writes(nir.CubaLIF)
def _cuba_lif(name: str, node: nir.CubaLIF, shape: Shape, dt: float) -> Nodes:
    _check_rest(node)
    k_syn, k_mem = (np.asarray(t, np.float64) / dt for t in (node.tau_syn, node.tau_mem))
    gain = node.r * node.w_in / (k_syn * k_mem)
    return {name: _neuron(k_syn, k_mem, node.v_threshold / gain)}


def _neuron(k_syn: Array, k_mem: Array, threshold: Array) -> nir.CubaLIF:
    """CubaLIF by its time constants in steps, with gains of one; all in float64, full shape."""
    for values in (k_syn, k_mem):
        if np.ptp(values) > 0:
            raise GraphError("spikingjelly takes one value for all time constants of a layer.")
        if np.any(values < 1):
            raise GraphError("time constants below dt are refused by spikingjelly.")
    # Equal thresholds may have come apart by rounding.
    if np.ptp(threshold) > 1e-12 * np.abs(threshold).max():
        raise GraphError(
            "snnTorch and spikingjelly take one threshold for a layer (here v_threshold tau/(dt r) "
            f"goes from {threshold.min():g} to {threshold.max():g})."
        )
    zeros = np.zeros_like(k_mem)
    return nir.CubaLIF(
        tau_syn=k_syn * DT,
        tau_mem=k_mem * DT,
        r=k_mem.copy(),
        v_leak=zeros,
        v_threshold=np.full_like(k_mem, threshold.flat[0]),
        v_reset=zeros.copy(),
        w_in=k_syn.copy(),
    )


def _check_rest(node: Any) -> None:
    for field in ("v_leak", "v_reset"):
        if np.any(np.asarray(getattr(node, field, 0.0)) != 0):
            raise GraphError(f"{field} must be 0; snnTorch and Norse take it for 0.")
    if np.any(np.asarray(node.r) <= 0):
        raise GraphError("r must be above 0 to be moved into the threshold.")
