"""The pass itself: with scales given, a network of integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import nir
import numpy as np

from msg_deploy.deployment import Deployment, IntegerForm, Readout
from msg_deploy.errors import GraphError
from msg_deploy.exporters.dialects import in_dialect
from msg_deploy.exporters.names import free_name
from msg_deploy.exporters.quantize.nodes import (
    COUPLED,
    NEURONS,
    POOLS,
    Array,
    bias_of,
    by_input,
    by_output,
    weighted,
)
from msg_deploy.exporters.quantize.options import QuantizeOptions
from msg_deploy.exporters.quantize.scales import Scales
from msg_deploy.exporters.quantize.statistics import worst, worst_sum
from msg_deploy.exporters.quantize.thresholds import off_grid
from msg_deploy.graph import plan

TWO_BITS = 8
"""Of the largest of TWO's weights, as an integer."""


def with_scales(scales: Scales, options: QuantizeOptions) -> Deployment:
    """The network in whole numbers.

    Args:
        scales: of a network as `prepared` gives it.
        options: bits of the weights.

    Returns:
        A deployment in plain NIR, whose `integers` say what its numbers stand for.

    Raises:
        GraphError: naming a node that cannot be quantized.
    """
    deployment, known = scales.deployment, scales.known
    nodes: dict[str, nir.NIRNode] = {}
    edges: list[tuple[str, str]] = []
    for name, node in deployment.graph.nodes.items():
        nodes[name] = _RULES.get(type(node), _unchanged)(name, node, scales, options)
    for a, b in deployment.graph.edges:
        source, target = str(a), str(b)
        factor = _multiplier(scales, source, target)
        if factor is None:
            edges.append((source, target))
            continue
        shape = known.shapes[source]
        between = free_name(f"{target}_{source.rpartition('.')[2]}", nodes)
        full = np.broadcast_to(factor.reshape(-1, *(1,) * (len(shape) - 1)), shape)
        nodes[between] = nir.Scale(np.array(full, np.float32))
        edges += [(source, between), (between, target)]
    metadata = dict(deployment.graph.metadata)
    graph = nir.NIRGraph(nodes, edges, metadata=metadata, type_check=False)
    quantized = deployment.with_graph(
        graph, readout=_whole_readout(deployment.readout), integers=_form(scales, options)
    )
    _check_sums(quantized, options)
    # The nodes are no longer those of a dialect, whose files would be read as other numbers.
    return in_dialect(quantized, "nir")


def _check_sums(deployment: Deployment, options: QuantizeOptions) -> None:
    """Scales leave room for the weights they were chosen for; fine-tuned ones may be larger."""
    known, most = plan(deployment.graph), worst(deployment)
    for name in known.order:
        layers = [
            e.source for e in known.incoming[name] if weighted(deployment.graph.nodes[e.source])
        ]
        total = worst_sum(known, most, name) if layers else 0.0
        # A state that adds up for ever has no bound, and is no sum of one step.
        if np.isfinite(total) and total > options.largest_sum:
            raise GraphError(
                f"node {layers[0]!r}: its sums reach {total:.0f}, but {options.largest_sum} is the "
                "most that is allowed; use wider accumulators, fewer levels of the input, or less "
                "fine-tuning."
            )


def _form(scales: Scales, options: QuantizeOptions) -> IntegerForm:
    readout, known = scales.deployment.readout, scales.known
    sources = (readout.source,) if readout else known.outputs
    units = {float(unit) for source in sources for unit in scales.output(source)}
    if len(units) > 1:
        names = f"node{'s' * (len(sources) > 1)} {', '.join(map(repr, sources))}"
        raise GraphError(
            f"{names}: the classes have no common unit; let outputs be spikes, or weights of one "
            "shape."
        )
    found = {name: _unit(name, scales) for name in known.order}
    return IntegerForm(options.bits, found, units.pop())


def _unit(name: str, scales: Scales) -> tuple[float, ...]:
    node, shape = scales.nodes[name], scales.known.shapes[name]
    unit = scales.output(name)
    if isinstance(node, NEURONS):
        unit = np.ravel(scales.membrane(name))
        rows = unit.reshape(shape[0], -1)
        unit = rows[:, 0] if np.all(rows == rows[:, :1]) else unit
    elif isinstance(node, nir.Threshold):
        unit = scales.arriving(name)
    # In `prepared` networks, what takes the input multiplies by its step.
    carries = isinstance(node, (nir.Flatten, nir.Delay, nir.Threshold, *POOLS))
    if isinstance(node, nir.Input) or (carries and scales.takes_input(name)):
        unit = unit * scales.deployment.input.step
    return tuple(float(u) for u in (unit[:1] if np.all(unit == unit[0]) else unit))


def _whole_readout(readout: Readout | None) -> Readout | None:
    """TWO's weights as whole numbers times a power of two, so that scores are exact."""
    if readout is None:
        return None
    largest = max(map(abs, readout.weights))
    if largest == 0:
        return readout
    step = 2.0 ** (math.frexp(largest)[1] - TWO_BITS)
    return replace(readout, weights=tuple(round(f / step) * step for f in readout.weights))


def _multiplier(scales: Scales, source: str, target: str) -> Array | None:
    """By what a value is multiplied where it meets others in finer units; None: by nothing."""
    if len(scales.known.incoming[target]) < 2:
        return None
    mine, common = scales.output(source), scales.arriving(target)
    if np.all(mine == common):
        return None
    ratio = mine / common
    whole: Array = np.rint(ratio)
    layers = any(
        e.source in group.members for group in scales.groups for e in scales.known.incoming[target]
    )
    if not layers and np.any(np.abs(whole - ratio) > 1e-9 * ratio):
        raise GraphError(
            f"node {target!r}: adds up values whose units are no multiples of each other; let "
            f"{source!r} pass weights first."
        )
    return whole


Rule = Callable[[str, Any, Scales, QuantizeOptions], nir.NIRNode]
_RULES: dict[type[nir.NIRNode], Rule] = {}


def _rule(*kinds: type[nir.NIRNode]) -> Callable[[Rule], Rule]:
    def add(function: Rule) -> Rule:
        _RULES.update(dict.fromkeys(kinds, function))
        return function

    return add


def _unchanged(name: str, node: Any, scales: Scales, options: QuantizeOptions) -> nir.NIRNode:
    result: nir.NIRNode = node
    return result


@_rule(nir.Linear, nir.Affine, nir.Conv1d, nir.Conv2d)
def _weights(name: str, node: Any, scales: Scales, options: QuantizeOptions) -> nir.NIRNode:
    scale, limit = scales.output(name), options.largest
    weight = np.asarray(node.weight, np.float64) * by_input(node, scales.arriving(name))
    whole = np.clip(np.rint(weight / by_output(node, scale)), -limit, limit) + 0.0
    fields: dict[str, Any] = {"weight": whole.astype(np.float32)}
    if hasattr(node, "bias"):
        fields["bias"] = (np.rint(bias_of(node) / scale) + 0.0).astype(np.float32)
    changed: nir.NIRNode = replace(node, **fields)
    return changed


@_rule(nir.AvgPool2d)
def _sum(name: str, node: Any, scales: Scales, options: QuantizeOptions) -> nir.NIRNode:
    return nir.SumPool2d(node.kernel_size, node.stride, node.padding)


@_rule(nir.Scale)
def _units(name: str, node: Any, scales: Scales, options: QuantizeOptions) -> nir.NIRNode:
    return nir.Scale(np.ones_like(node.scale))


@_rule(nir.Threshold)
def _threshold(name: str, node: Any, scales: Scales, options: QuantizeOptions) -> nir.NIRNode:
    limit = np.asarray(node.threshold, np.float64)
    unit = scales.arriving(name).reshape(-1, *(1,) * (limit.ndim - 1))
    return nir.Threshold(off_grid(node, limit / unit, scales.deployment.timing))


@_rule(*NEURONS)
def _neuron(name: str, node: Any, scales: Scales, options: QuantizeOptions) -> nir.NIRNode:
    unit, timing = scales.membrane(name), scales.deployment.timing
    fields: dict[str, Any] = {"r": np.ones_like(unit)}
    if isinstance(node, COUPLED):
        fields["w_in"] = np.ones_like(unit)
    for field in ("v_leak", "v_reset"):
        if hasattr(node, field):
            fields[field] = np.rint(np.asarray(getattr(node, field), np.float64) / unit) + 0.0
    if hasattr(node, "v_threshold"):
        threshold = np.asarray(node.v_threshold, np.float64) / unit
        fields["v_threshold"] = off_grid(node, threshold, timing)
    changed: nir.NIRNode = replace(node, **fields)
    return changed
