"""A network such that nothing but scales is missing: integer inputs, poolings as sums, gains of 1.

Everything here is exact in real numbers but the rounding of inputs to levels and, on request, of
leaks to powers of two.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np

from msg_deploy import grid
from msg_deploy.deployment import READOUT_PREFIX, Deployment, InputSpec
from msg_deploy.errors import GraphError, UsageError
from msg_deploy.exporters.quantize.nodes import (
    COUPLED,
    LEAKY,
    POOLS,
    rate_of,
    scaled_weights,
    weighted,
    with_parameters,
)
from msg_deploy.exporters.quantize.options import LEVELS, QuantizeOptions
from msg_deploy.graph import plan
from msg_deploy.samples import Array


def prepared(deployment: Deployment, spec: InputSpec, options: QuantizeOptions) -> Deployment:
    """The same network for integer inputs, TWO left to the host, its neurons without gains.

    Args:
        deployment: any network, its numbers in units of its own.
        spec: the input with levels, see `input_spec`.
        options: whether leaks are rounded.

    Raises:
        GraphError: naming a node that cannot be written so.
    """
    deployment = _with_levels(unfolded(deployment), spec)
    timing = deployment.timing
    nodes: dict[str, nir.NIRNode] = {}
    for name, node in deployment.graph.nodes.items():
        changed = node
        if options.leak == "power-of-two" and isinstance(node, (*LEAKY, *COUPLED)):
            changed = _leak_rounded(node, timing.dt)
        if hasattr(changed, "v_leak") and timing.reset == "zero":
            changed = _rest_at_zero(changed)
        nodes[name] = changed
    return with_parameters(deployment, nodes)


def unfolded(deployment: Deployment) -> Deployment:
    """TWO left to the host: what a folding added is taken out."""
    readout = deployment.readout
    if readout is None or readout.fold == "host":
        return deployment
    graph, output = deployment.graph, plan(deployment.graph).output
    added = {n for n in graph.nodes if n.startswith(READOUT_PREFIX) and n != readout.source}
    nodes = {name: node for name, node in graph.nodes.items() if name not in added}
    edges = [(str(a), str(b)) for a, b in graph.edges if not added & {a, b}]
    if (readout.source, output) not in edges:
        edges.append((readout.source, output))
    bare = nir.NIRGraph(nodes, edges, metadata=dict(graph.metadata), type_check=False)
    return deployment.with_graph(bare, readout=replace(readout, fold="host", error=0.0))


def input_spec(spec: InputSpec, samples: Array | None, options: QuantizeOptions) -> InputSpec:
    """The input with levels: those asked for, the samples' own grid, or 255.

    Args:
        spec: of the network as it was.
        samples: that decide; None: there are none.
        options: what is asked for.

    Raises:
        UsageError: counts are asked for, and samples are not whole numbers.
    """
    if spec.levels is not None:
        return spec
    whole = samples is not None and bool(np.all(samples == np.rint(samples)))
    if options.inputs == "counts" and not whole:
        raise UsageError(
            "inputs: the samples are not whole numbers, so they are no counts; use levels."
        )
    low, high = spec.low, spec.high
    size: float | None = None
    if options.levels is None and options.inputs != "levels" and whole:
        size, low, high = 1.0, float(np.floor(low)), float(np.ceil(high))
    elif options.levels is None and options.inputs == "auto" and samples is not None:
        size = grid.step(samples, LEVELS)
    if low == high:
        high = low + 1
    if size is not None:
        count = (high - low) / size
        fits = all(abs(end / size - round(end / size)) < 1e-5 for end in (low, high))
        if fits and (1 <= round(count) <= LEVELS or options.inputs == "counts"):
            return replace(spec, low=low, high=high, levels=round(count))
    return replace(spec, low=low, high=high, levels=options.levels or LEVELS)


def _with_levels(deployment: Deployment, spec: InputSpec) -> Deployment:
    """Inputs in steps: what first takes them multiplies by the step."""
    if deployment.input.levels is not None:
        return deployment
    known, step = plan(deployment.graph), spec.step
    nodes = dict(deployment.graph.nodes)
    entering = set(known.inputs)
    for name in known.order:
        sources = {e.source for e in known.incoming[name]}
        if not sources & entering:
            continue
        node: Any = nodes[name]
        if not sources <= entering:
            raise GraphError(
                f"node {name!r}: inputs and other values meet there; let inputs pass weights first."
            )
        if weighted(node):
            nodes[name] = scaled_weights(node, step)
        elif isinstance(node, (nir.Flatten, nir.Delay, *POOLS)):
            entering.add(name)
        elif isinstance(node, (nir.LIF, nir.IF)):
            nodes[name] = replace(node, r=np.asarray(node.r, np.float64) * step)
        elif isinstance(node, nir.Threshold):
            nodes[name] = replace(node, threshold=np.asarray(node.threshold, np.float64) / step)
        elif isinstance(node, nir.Scale):
            nodes[name] = replace(node, scale=np.asarray(node.scale, np.float64) * step)
        else:
            raise GraphError(
                f"node {name!r} ({type(node).__name__}): takes the input itself, which is not "
                "quantized; put weights between."
            )
    changed = with_parameters(deployment, nodes)
    return changed.with_graph(changed.graph, input=spec)


def _leak_rounded(node: Any, dt: float) -> nir.NIRNode:
    """dt/tau as the nearest power of two, by ratio."""
    rate = np.exp2(np.minimum(np.rint(np.log2(rate_of(node, dt))), 0))
    field = "tau" if hasattr(node, "tau") else "tau_mem"
    changed = replace(node, **{field: dt / rate})
    if isinstance(node, COUPLED):
        syn = np.exp2(np.minimum(np.rint(np.log2(dt / np.asarray(node.tau_syn, np.float64))), 0))
        changed = replace(changed, tau_syn=dt / syn)
    return changed


def _rest_at_zero(node: Any) -> nir.NIRNode:
    """The membrane measured from where it rests, which changes nothing where resets do not add."""
    rest = np.asarray(node.v_leak, np.float64)
    if not rest.any() or not hasattr(node, "v_threshold"):
        return node
    return replace(
        node,
        v_leak=np.zeros_like(rest),
        v_threshold=np.asarray(node.v_threshold, np.float64) - rest,
        v_reset=np.asarray(node.v_reset, np.float64) - rest,
    )
