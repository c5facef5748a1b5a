"""What dialects of networks as matrices and neurons share.

Such a dialect states how a neuron is written, and which of the checks here its destination needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.bounds import bounds
from msg_deploy.deployment import INPUT, OUTPUT, Deployment
from msg_deploy.errors import GraphError
from msg_deploy.exporters.dense import dense
from msg_deploy.exporters.dialects.loops import check_loop, loops
from msg_deploy.exporters.dialects.off_grid import off_grid
from msg_deploy.graph import Plan, plan
from msg_deploy.options import ResetMode

Array = npt.NDArray[np.float64]
NEURONS = (nir.LIF, nir.IF, nir.CubaLIF)
KEPT = (nir.Input, nir.Output, nir.Affine, nir.Flatten)
FLATTENED, SHAPE = "msg_deploy_flattened", "msg_deploy_shape"
"""Metadata of an Input: name of the Flatten that was behind it, and the shape of a sample."""
NO_LEAK = 2.0**40
"""Time constant of an IF in steps: exp(-2^-40) and 1 - 2^-40 are 1 in float32."""
NO_MEMORY = 2.0**-8
"""Time constant in steps whose exponential decay, exp(-256), is 0 in float32."""
MARGIN = 1e-5
"""Relative distance kept from two thresholds, well above the rounding of float32."""


@dataclass(frozen=True)
class Unit:
    """Neurons whose gains are one, (N,) each; scaling the state scales the threshold alone.

    i = (1 - 1/k_syn) i + x; v = (1 - 1/k_mem) v + i; spike v > threshold; reset.

    Attributes:
        k_syn: time constant of the current in steps, at least 1 (no memory).
        k_mem: that of the membrane, at least 1; 2^40 for IF.
        threshold: above 0.
    """

    k_syn: Array
    k_mem: Array
    threshold: Array


def unit(node: Any, dt: float, reset: ResetMode) -> Unit:
    """A LIF, IF or CubaLIF in units where its gains are one.

    Raises:
        GraphError: v_leak, v_reset or the sign of a parameter has no such form.
    """
    _check_rest(node, reset)
    threshold = np.asarray(node.v_threshold, np.float64)
    if isinstance(node, nir.IF):
        k_syn, k_mem = np.ones_like(threshold), np.full_like(threshold, NO_LEAK)
        gain = np.asarray(node.r, np.float64)
    elif isinstance(node, nir.LIF):
        k_syn, k_mem = np.ones_like(threshold), np.asarray(node.tau, np.float64) / dt
        gain = node.r / k_mem
    else:
        k_syn, k_mem = (np.asarray(t, np.float64) / dt for t in (node.tau_syn, node.tau_mem))
        gain = node.r * node.w_in / (k_syn * k_mem)
    # 1e-12: a tau of one dt may have come apart from it by rounding.
    k_syn, k_mem = (np.where(np.abs(k - 1) < 1e-12, 1.0, k) for k in (k_syn, k_mem))
    if np.any(k_syn < 1) or np.any(k_mem < 1):
        raise GraphError("a time constant is below dt; its decay would be negative.")
    return Unit(k_syn, np.minimum(k_mem, NO_LEAK), threshold / gain)


def _check_rest(node: Any, reset: ResetMode) -> None:
    if np.any(np.asarray(getattr(node, "v_leak", 0.0)) != 0):
        raise GraphError("v_leak must be 0.")
    if reset == "zero" and np.any(np.asarray(node.v_reset) != 0):
        raise GraphError("v_reset must be 0.")
    for field in ("r", "w_in", "v_threshold"):
        if np.any(np.asarray(getattr(node, field, 1.0)) <= 0):
            raise GraphError(f"{field} must be above 0.")


def rewritten(
    deployment: Deployment, write: Callable[[Unit], nir.NIRNode], destination: str
) -> Deployment:
    """Matrices as they are, neurons as `write` says, time in steps (dt = 1).

    Args:
        deployment: any.
        write: from neurons to the node that the destination reads.
        destination: for messages.

    Raises:
        GraphError: naming the node that has no counterpart.
    """
    check_readout(deployment, destination)
    flat = dense(deployment)
    known = plan(flat.graph)
    names = terminal_names(known, destination)
    nodes: dict[str, nir.NIRNode] = {}
    for name in known.order:
        node = flat.graph.nodes[name]
        try:
            if isinstance(node, NEURONS):
                neurons = unit(node, flat.timing.dt, flat.timing.reset)
                threshold = off_grid(neurons.threshold, flat.graph, known, name)
                nodes[names.get(name, name)] = write(replace(neurons, threshold=threshold))
            elif isinstance(node, KEPT):
                nodes[names.get(name, name)] = node
            else:
                raise GraphError(f"{destination} has nothing that is the same.")
        except GraphError as error:
            raise GraphError(f"node {name!r} ({type(node).__name__}): {error}") from None
    edges = [(names.get(a, a), names.get(b, b)) for a, b in long_way_first(known)]
    graph = nir.NIRGraph(nodes, edges, metadata=dict(flat.graph.metadata), type_check=False)
    # The units of a quantized network are not those of neurons with other gains.
    return flat.with_graph(graph, timing=replace(flat.timing, dt=1.0), integers=None)


def current_based(unit: Unit) -> nir.CubaLIF:
    """A CubaLIF with gains of one, in steps: r = tau_mem/dt, w_in = tau_syn/dt."""
    zeros = np.zeros_like(unit.threshold)
    return nir.CubaLIF(
        tau_syn=unit.k_syn,
        tau_mem=unit.k_mem,
        r=unit.k_mem.copy(),
        v_leak=zeros,
        v_threshold=unit.threshold,
        v_reset=zeros.copy(),
        w_in=unit.k_syn.copy(),
    )


def exponential(k: Array) -> Array:
    """The tau in steps whose exp(-1/tau) is 1 - 1/k.

    Where that is 0, a tau so short that float32 gives 0.
    """
    with np.errstate(divide="ignore"):
        return np.where(k > 1, -1 / np.log1p(-1 / k), NO_MEMORY)


def euler(tau: Array) -> Array:
    """The opposite of `exponential`: k with 1 - 1/k = exp(-1/tau)."""
    return -1 / np.expm1(-1 / np.asarray(tau, np.float64))


def mapped(
    graph: nir.NIRGraph, kind: type[nir.NIRNode], change: Callable[[Any], nir.NIRNode]
) -> nir.NIRGraph:
    """A copy with every node of a type replaced."""
    nodes = {n: change(node) if isinstance(node, kind) else node for n, node in graph.nodes.items()}
    return nir.NIRGraph(nodes, graph.edges, metadata=dict(graph.metadata), type_check=False)


def flat_input(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Without the Flatten behind the Input, which declares flat samples then."""
    flat = [name for name, node in graph.nodes.items() if isinstance(node, nir.Flatten)]
    if not flat:
        return graph
    (name,) = flat
    shape = np.asarray(graph.nodes[name].input_type["input"])
    nodes = {n: node for n, node in graph.nodes.items() if n != name}
    nodes[INPUT] = nir.Input({"input": np.array([shape.prod()])})
    nodes[INPUT].metadata = {FLATTENED: name, SHAPE: shape}
    edges = [(INPUT if a == name else a, b) for a, b in graph.edges if b != name]
    return nir.NIRGraph(nodes, edges, metadata=dict(graph.metadata), type_check=False)


def shaped_input(graph: nir.NIRGraph) -> nir.NIRGraph:
    """The opposite of `flat_input`.

    Raises:
        GraphError: the metadata of the Input do not fit it.
    """
    found = graph.nodes.get(INPUT)
    if not isinstance(found, nir.Input) or FLATTENED not in found.metadata:
        return graph
    name, shape = str(found.metadata[FLATTENED]), np.asarray(found.metadata.get(SHAPE, 0))
    size = np.asarray(found.input_type["input"])
    if shape.dtype.kind not in "iu" or shape.ndim != 1 or [shape.prod()] != size.tolist():
        raise GraphError(f"node {INPUT!r}: metadata {SHAPE!r} is {shape}, not a shape of {size}.")
    if name in graph.nodes:
        raise GraphError(f"node {INPUT!r}: metadata {FLATTENED!r} names {name!r}, which is taken.")
    nodes = dict(graph.nodes) | {
        INPUT: nir.Input({"input": shape}),
        name: nir.Flatten({"input": shape}, 0, len(shape) - 1),
    }
    edges = [(name if a == INPUT else a, b) for a, b in graph.edges]
    return nir.NIRGraph(
        nodes, [(INPUT, name), *edges], metadata=dict(graph.metadata), type_check=False
    )


def delayed(deployment: Deployment, kind: type[nir.NIRNode]) -> Deployment:
    """With its latency: one step for each node of a type between input and output, loops aside."""
    graph = deployment.graph
    aside = set(loops(graph, plan(graph)).values())
    latency = sum(isinstance(node, kind) for n, node in graph.nodes.items() if n not in aside)
    return replace(deployment, provenance=replace(deployment.provenance, latency=latency))


def terminal_names(known: Plan, destination: str) -> dict[str, str]:
    """The only Input and Output by the names that importers look for.

    Raises:
        GraphError: there are several, or another node has such a name.
    """
    for ends in (known.inputs, known.outputs):
        if len(ends) > 1:
            raise GraphError(
                f"nodes {', '.join(ends)}: {destination} reads one Input and one Output."
            )
    names = {known.inputs[0]: INPUT, known.outputs[0]: OUTPUT}
    for name in known.order:
        if name in (INPUT, OUTPUT) and name not in names:
            raise GraphError(f"node {name!r}: {destination} keeps this name for the terminals.")
    return names


def long_way_first(known: Plan) -> list[tuple[str, str]]:
    """All edges; where two meet, first the one from behind, as nirtorch's order needs it."""
    depth = {name: i for i, name in enumerate(known.order)}
    edges = [(e.source, name) for name in known.order for e in known.incoming[name]]
    return sorted(edges, key=lambda edge: (depth[edge[1]], -depth[edge[0]]))


def check_readout(deployment: Deployment, destination: str) -> None:
    """TWO must be folded by the host.

    Raises:
        GraphError: it is folded into the graph.
    """
    if deployment.readout and deployment.readout.fold != "host":
        raise GraphError(
            f"TWO is folded by {deployment.readout.fold!r}, whose primitives {destination} drops "
            "or refuses; fold it by 'host' (--two-fold host)."
        )


def check_subtract(deployment: Deployment, destination: str) -> None:
    """Reset by subtraction, unless no membrane remembers anything.

    Raises:
        GraphError: naming the first neuron that is reset to zero and would remember.
    """
    if deployment.timing.reset == "subtract":
        return
    for name, node in neurons(deployment):
        tau = getattr(node, "tau_mem", getattr(node, "tau", np.inf))
        if np.any(np.asarray(tau) > deployment.timing.dt * (1 + 1e-12)):
            raise GraphError(
                f"node {name!r} ({type(node).__name__}): is reset to zero, and {destination} "
                "subtracts the threshold; train with reset 'subtract' (where tau = dt, nothing is "
                "left to be reset)."
            )


def check_single_spikes(deployment: Deployment, destination: str) -> None:
    """No membrane reaches two thresholds within the declared range of the input.

    Raises:
        GraphError: naming the first neuron that could, and how far.
    """
    found = bounds(deployment)
    for name, node in neurons(deployment):
        membrane = found[name].membrane
        assert membrane is not None
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = float(np.max(membrane.high / np.asarray(node.v_threshold)))
        if not reach < 2 * (1 - MARGIN):
            raise GraphError(
                f"node {name!r} ({type(node).__name__}): could reach {reach:.3g} thresholds in one "
                f"step, for which {destination} gives several spikes; below 2 it gives one (input "
                f"from {deployment.input.low:g} to {deployment.input.high:g})."
            )


def check_no_loops(deployment: Deployment, reason: str) -> None:
    """No recurrence.

    Raises:
        GraphError: naming the node where a cycle closes.
    """
    known = plan(deployment.graph)
    for name in known.order:
        if any(edge.previous for edge in known.incoming[name]):
            raise GraphError(f"node {name!r}: is fed by its own past; {reason}.")


def check_loops(deployment: Deployment) -> None:
    """Recurrence only through one matrix without bias.

    Raises:
        GraphError: naming the node.
    """
    graph = deployment.graph
    for weights in loops(graph, plan(graph)).values():
        try:
            check_loop(graph.nodes[weights])
        except GraphError as error:
            kind = type(graph.nodes[weights]).__name__
            raise GraphError(f"node {weights!r} ({kind}): {error}") from None


def check_chain(deployment: Deployment, reason: str) -> None:
    """One layer after the other, recurrence aside.

    Raises:
        GraphError: naming the node where branches meet or part.
    """
    known = plan(deployment.graph)
    inside = set(loops(deployment.graph, known).values())
    forward = {n: [e.source for e in known.incoming[n] if not e.previous] for n in known.order}
    for name, arriving in forward.items():
        if len(arriving) > 1:
            raise GraphError(f"node {name!r}: {', '.join(arriving)} meet in it; {reason}.")
        following = [n for n, sources in forward.items() if name in sources and n not in inside]
        if len(following) > 1:
            raise GraphError(f"node {name!r}: leads to {', '.join(following)}; {reason}.")


def check_skips(deployment: Deployment, destination: str) -> None:
    """Where two edges meet, one is a bare skip past the other's branch.

    Raises:
        GraphError: naming the node where other branches meet.
    """
    known = plan(deployment.graph)
    for name in known.order:
        branches = [edge.source for edge in known.incoming[name] if not edge.previous]
        if len(own_branches(branches, known)) > 1 or (len(branches) > 1 and name in known.outputs):
            raise GraphError(
                f"node {name!r}: the branches {', '.join(branches)} meet, which {destination} runs "
                "in a wrong order; only a direct skip past one branch is read right."
            )


def own_branches(branches: Sequence[str], known: Plan) -> list[str]:
    """Branches that meet, without bare skips: those that another one comes out of."""
    return [b for b in branches if not any(_leads(known, b, o) for o in branches if o != b)]


def _leads(known: Plan, start: str, end: str) -> bool:
    """The node `end` comes out of `start`."""
    waiting, seen = [end], set[str]()
    while waiting:
        here = waiting.pop()
        if here == start:
            return True
        if here not in seen:
            seen.add(here)
            waiting += [edge.source for edge in known.incoming[here]]
    return False


def neurons(deployment: Deployment) -> list[tuple[str, Any]]:
    """Spiking neurons with a membrane, in the order of execution."""
    nodes = deployment.graph.nodes
    return [(n, nodes[n]) for n in plan(deployment.graph).order if isinstance(nodes[n], NEURONS)]
