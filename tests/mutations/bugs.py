"""Bugs of exporters and importers, each as a change of a graph.

A bug takes a network and gives what a faulty exporter would have written, with the layers that are
then at fault and the causes that say so; None where the network has nothing for it. Where two
causes do the same to every spike, both are right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np
import torch

from msg_deploy.deployment import Deployment
from msg_deploy.graph import plan
from msg_deploy.primitives import primitive_of

MATRICES = (nir.Linear, nir.Affine)
WEIGHTED = (*MATRICES, nir.Conv2d)
NEURONS = (nir.LIF, nir.IF, nir.CubaLIF)


@dataclass(frozen=True)
class Mutant:
    """What a faulty exporter writes.

    Attributes:
        deployment: the graph.
        layers: spiking layers, or output layer, that are at fault.
        causes: names of hypotheses that are right.
    """

    deployment: Deployment
    layers: frozenset[str]
    causes: tuple[str, ...]


Bug = Callable[[Deployment], Mutant | None]
BUGS: dict[str, Bug] = {}


def bug(function: Bug) -> Bug:
    """Decorator: make a bug part of the suite."""
    BUGS[function.__name__.replace("_", " ")] = function
    return function


def spiking(d: Deployment) -> list[str]:
    """Spiking layers in the order of execution."""
    return [n for n in plan(d.graph).order if primitive_of(d.graph.nodes[n]).spiking]


def first(d: Deployment, kinds: tuple[type[Any], ...], fits: Callable[[Any], bool]) -> str | None:
    """A node of a type that fits: the second one if there are several, as faults lie inside."""
    found = [n for n in plan(d.graph).order if isinstance(d.graph.nodes[n], kinds)]
    found = [n for n in found if fits(d.graph.nodes[n])]
    return found[min(1, len(found) - 1)] if found else None


def layer_of(d: Deployment, node: str) -> str:
    """The spiking layer that a node leads to, or the node if it is the output layer."""
    neurons, open_nodes = set(spiking(d)), [node]
    while open_nodes:
        name = open_nodes.pop(0)
        if name in neurons:
            return name
        open_nodes += [b for a, b in d.graph.edges if a == name]
    assert d.readout is not None
    return d.readout.source


def with_graph(d: Deployment, nodes: dict[str, Any], edges: Any = None) -> Deployment:
    """A copy with some nodes replaced or added, and other edges if given."""
    merged = {**d.graph.nodes, **nodes}
    chosen = list(d.graph.edges) if edges is None else edges
    return d.with_graph(nir.NIRGraph(merged, chosen, metadata={}, type_check=False))


def mutant(d: Deployment, name: str, causes: tuple[str, ...], **fields: Any) -> Mutant:
    """Other parameters of one node."""
    arrays = {f: x.copy() if isinstance(x, np.ndarray) else x for f, x in fields.items()}
    node = replace(d.graph.nodes[name], **arrays)
    return Mutant(with_graph(d, {name: node}), frozenset({layer_of(d, name)}), causes)


def neuron(d: Deployment, *kinds: type[Any]) -> tuple[str, Any] | None:
    """The second spiking layer, if it is of such a type."""
    name = spiking(d)[1]
    node = d.graph.nodes[name]
    return (name, node) if isinstance(node, kinds or NEURONS) else None


def behind(d: Deployment, name: str) -> str:
    """What a node leads to."""
    return next(b for a, b in d.graph.edges if a == name)


def inserted(d: Deployment, name: str, new: nir.NIRNode, edge: tuple[str, str]) -> Deployment:
    """A node put into an edge."""
    edges = [e for e in d.graph.edges if tuple(e) != edge]
    return with_graph(d, {name: new}, [*edges, (edge[0], name), (name, edge[1])])


# Neurons.


@bug
def reset_mode(d: Deployment) -> Mutant:
    other = "subtract" if d.timing.reset == "zero" else "zero"
    changed = replace(d, timing=replace(d.timing, reset=other))
    return Mutant(changed, frozenset(spiking(d)), ("reset-mode",))


@bug
def v_reset_dropped(d: Deployment) -> Mutant | None:
    found = neuron(d)
    if not found or not np.any(found[1].v_reset) or d.timing.reset != "zero":
        return None
    return mutant(d, found[0], ("v-reset",), v_reset=np.zeros_like(found[1].v_reset))


@bug
def spikes_at_the_threshold(d: Deployment) -> Mutant:
    nodes = {n: d.graph.nodes[n] for n in spiking(d)}
    # float32, so that an .onnx file can say it.
    below = {
        n: np.nextafter(np.asarray(x.v_threshold, np.float32), np.float32(-np.inf))
        for n, x in nodes.items()
    }
    changed = {n: replace(x, v_threshold=below[n].astype(np.float64)) for n, x in nodes.items()}
    # A .nir file has no law to change; there the threshold itself is lower by one place.
    return Mutant(with_graph(d, changed), frozenset(nodes), ("at-threshold", "threshold"))


@bug
def time_constant_doubled(d: Deployment) -> Mutant | None:
    found = neuron(d, nir.LIF)
    return found and mutant(d, found[0], ("time-constant",), tau=found[1].tau * 2)


@bug
def time_constant_times_1_3(d: Deployment) -> Mutant | None:
    found = neuron(d, nir.LIF)
    return found and mutant(d, found[0], ("time-constant",), tau=found[1].tau * 1.3)


@bug
def exponential_decay(d: Deployment) -> Mutant | None:
    found = neuron(d, nir.LIF)
    dt = d.timing.dt
    tau = found and dt / -np.expm1(-dt / found[1].tau)
    return found and mutant(d, found[0], ("time-constant",), tau=tau)


@bug
def dt_halved(d: Deployment) -> Mutant | None:
    kinds = (nir.LIF, nir.CubaLIF)
    names = [n for n in spiking(d) if isinstance(d.graph.nodes[n], kinds)]
    if not names:
        return None
    changed = replace(d, timing=replace(d.timing, dt=d.timing.dt / 2))
    return Mutant(changed, frozenset(names), ("time-constant",))


@bug
def no_leak(d: Deployment) -> Mutant | None:
    found = neuron(d, nir.LIF)
    if not found:
        return None
    rate = d.timing.dt / found[1].tau
    node = nir.IF(found[1].r * rate, found[1].v_threshold, found[1].v_reset)
    return Mutant(with_graph(d, {found[0]: node}), frozenset({found[0]}), ("leak",))


@bug
def v_leak_dropped(d: Deployment) -> Mutant | None:
    found = neuron(d, nir.CubaLIF)
    return found and mutant(d, found[0], ("leak",), v_leak=np.zeros_like(found[1].v_leak))


@bug
def gain_r_dropped(d: Deployment) -> Mutant | None:
    found = neuron(d, nir.CubaLIF)
    return found and mutant(d, found[0], ("input-gain",), r=np.ones_like(found[1].r))


@bug
def factor_dt_by_tau_missing(d: Deployment) -> Mutant | None:
    found = neuron(d, nir.LIF)
    same = ("input-gain", "weight-scale", "threshold")
    return found and mutant(d, found[0], same, r=found[1].tau / d.timing.dt)


@bug
def factor_dt_by_tau_twice(d: Deployment) -> Mutant | None:
    found = neuron(d, nir.LIF)
    same = ("input-gain", "weight-scale", "threshold")
    return found and mutant(d, found[0], same, r=d.timing.dt / found[1].tau)


@bug
def threshold_times_0_8(d: Deployment) -> Mutant | None:
    found = neuron(d)
    return found and mutant(d, found[0], ("threshold",), v_threshold=found[1].v_threshold * 0.8)


@bug
def threshold_doubled(d: Deployment) -> Mutant | None:
    found = neuron(d)
    return found and mutant(d, found[0], ("threshold",), v_threshold=found[1].v_threshold * 2)


@bug
def one_threshold_for_all(d: Deployment) -> Mutant | None:
    found = neuron(d)
    if not found or np.ptp(found[1].v_threshold) == 0:
        return None
    mean = np.full_like(found[1].v_threshold, found[1].v_threshold.mean())
    return mutant(d, found[0], ("uniform-threshold",), v_threshold=mean)


@bug
def synapse_without_memory(d: Deployment) -> Mutant | None:
    found = neuron(d, nir.CubaLIF)
    if not found:
        return None
    return mutant(d, found[0], ("synapse",), tau_syn=np.full_like(found[1].tau_syn, d.timing.dt))


@bug
def tau_syn_and_tau_mem_exchanged(d: Deployment) -> Mutant | None:
    found = neuron(d, nir.CubaLIF)
    if not found:
        return None
    node = found[1]
    return mutant(d, found[0], ("synapse",), tau_syn=node.tau_mem, tau_mem=node.tau_syn)


# Weights.


def biased(d: Deployment) -> str | None:
    return first(d, (nir.Affine, nir.Conv2d), lambda n: bool(np.any(n.bias)))


@bug
def bias_dropped(d: Deployment) -> Mutant | None:
    name = biased(d)
    return name and mutant(d, name, ("bias",), bias=d.graph.nodes[name].bias * 0)


@bug
def bias_added_twice(d: Deployment) -> Mutant | None:
    name = biased(d)
    return name and mutant(d, name, ("bias",), bias=d.graph.nodes[name].bias * 2)


@bug
def bias_missing_at_the_first_step(d: Deployment) -> Mutant | None:
    names = [n for n, x in d.graph.nodes.items() if isinstance(x, nir.Affine)]
    name = next((n for n in names if layer_of(d, n) in spiking(d)), None)
    if not name:
        return None
    node = d.graph.nodes[name]
    into = [a for a, b in d.graph.edges if b == name]
    out = [b for a, b in d.graph.edges if a == name]
    nodes = {
        name: nir.Affine(node.weight, node.bias * 0),
        "constant": nir.Affine(node.weight * 0, node.bias),
        "late": nir.Delay(np.full(node.bias.shape, d.timing.dt)),
    }
    edges = [*d.graph.edges, *((a, "constant") for a in into), ("constant", "late")]
    changed = with_graph(d, nodes, [*edges, *(("late", b) for b in out)])
    return Mutant(changed, frozenset({layer_of(d, name)}), ("bias-time",))


@bug
def matrix_transposed(d: Deployment) -> Mutant | None:
    name = first(d, MATRICES, lambda n: n.weight.shape[0] == n.weight.shape[1])
    return name and mutant(d, name, ("transposition",), weight=d.graph.nodes[name].weight.T)


def convolution(d: Deployment) -> str | None:
    return first(d, (nir.Conv2d,), lambda n: n.weight.shape[2] > 1)


@bug
def kernel_flipped(d: Deployment) -> Mutant | None:
    name = convolution(d)
    if not name:
        return None
    return mutant(d, name, ("transposition",), weight=d.graph.nodes[name].weight[:, :, ::-1, ::-1])


@bug
def kernel_height_and_width_exchanged(d: Deployment) -> Mutant | None:
    name = convolution(d)
    return name and mutant(
        d, name, ("transposition",), weight=d.graph.nodes[name].weight.swapaxes(2, 3)
    )


@bug
def output_channels_reversed(d: Deployment) -> Mutant | None:
    name = first(d, WEIGHTED, lambda n: True)
    if not name:
        return None
    node = d.graph.nodes[name]
    return mutant(d, name, ("channel-order",), weight=node.weight[::-1], bias=node.bias[::-1])


@bug
def weights_in_4_bits(d: Deployment) -> Mutant | None:
    name = first(d, WEIGHTED, lambda n: True)
    weight = np.asarray(d.graph.nodes[name].weight, np.float64) if name else np.zeros(1)
    scale = np.abs(weight).max() / 7
    return name and mutant(d, name, ("quantization",), weight=np.rint(weight / scale) * scale)


@bug
def weights_in_8_bits(d: Deployment) -> Mutant | None:
    name = first(d, WEIGHTED, lambda n: True)
    weight = np.asarray(d.graph.nodes[name].weight, np.float64) if name else np.zeros(1)
    scale = np.abs(weight).max() / 127
    return name and mutant(d, name, ("quantization",), weight=np.rint(weight / scale) * scale)


@bug
def weights_in_bfloat16(d: Deployment) -> Mutant | None:
    name = first(d, WEIGHTED, lambda n: True)
    if not name:
        return None
    weight = torch.from_numpy(np.asarray(d.graph.nodes[name].weight)).bfloat16().double().numpy()
    return mutant(d, name, ("quantization",), weight=weight)


@bug
def weights_of_two_layers_exchanged(d: Deployment) -> Mutant | None:
    known: dict[tuple[int, ...], str] = {}
    for name in plan(d.graph).order:
        node = d.graph.nodes[name]
        if not isinstance(node, (nir.Affine, nir.Conv2d)):
            continue
        other = known.setdefault(np.shape(node.weight), name)
        if other != name:
            theirs = d.graph.nodes[other]
            nodes = {
                name: replace(node, weight=theirs.weight, bias=theirs.bias),
                other: replace(theirs, weight=node.weight, bias=node.bias),
            }
            layers = frozenset({layer_of(d, name), layer_of(d, other)})
            return Mutant(with_graph(d, nodes), layers, ("exchanged-weights",))
    return None


@bug
def weights_scaled_by_0_7(d: Deployment) -> Mutant | None:
    name = biased(d)
    if not name:
        return None
    weight = d.graph.nodes[name].weight * 0.7
    return mutant(d, name, ("weight-scale",), weight=weight)


# Space.


@bug
def padding_on_one_side(d: Deployment) -> Mutant | None:
    name = convolution(d)
    if not name:
        return None
    node = d.graph.nodes[name]
    weight = np.pad(node.weight, [(0, 0), (0, 0), (2, 0), (2, 0)])
    padding = np.array([2, 2])
    if np.any(np.asarray(node.stride) != 1):
        weight, padding = np.pad(node.weight, [(0, 0), (0, 0), (1, 0), (1, 0)]), np.array([1, 1])
    fields = {"weight": weight, "padding": padding, "input_shape": None}
    return mutant(d, name, ("window",), **fields)


@bug
def dilation(d: Deployment) -> Mutant | None:
    name = first(d, (nir.Conv2d,), lambda n: n.weight.shape[2] == 3 and np.all(n.stride == 1))
    two = np.array([2, 2])
    return name and mutant(d, name, ("window",), dilation=two, padding=two, input_shape=None)


def flattened(d: Deployment, axes: tuple[int, int, int]) -> Mutant | None:
    known = plan(d.graph)
    for name in known.order:
        if isinstance(d.graph.nodes[name], nir.Flatten) and len(known.input_shapes[name]) == 3:
            matrix, shape = behind(d, name), known.input_shapes[name]
            places = np.arange(int(np.prod(shape))).reshape(shape).transpose(axes).ravel()
            weight = np.empty_like(d.graph.nodes[matrix].weight)
            weight[:, places] = d.graph.nodes[matrix].weight
            return mutant(d, matrix, ("flatten-order", "input-axes"), weight=weight)
    return None


@bug
def flattened_with_channels_last(d: Deployment) -> Mutant | None:
    return flattened(d, (1, 2, 0))


@bug
def flattened_column_by_column(d: Deployment) -> Mutant | None:
    return flattened(d, (0, 2, 1))


@bug
def polarities_exchanged(d: Deployment) -> Mutant | None:
    known = plan(d.graph)
    for name in known.order:
        node = d.graph.nodes[name]
        if isinstance(node, nir.Conv2d) and d.input.shape[0] == 2:
            same = ("input-axes", "channel-order")
            return mutant(d, name, same, weight=node.weight[:, ::-1])
    return None


@bug
def sum_for_mean(d: Deployment) -> Mutant | None:
    name = first(d, (nir.AvgPool2d,), lambda n: True)
    if not name:
        return None
    node = d.graph.nodes[name]
    pool = nir.SumPool2d(node.kernel_size, node.stride, node.padding)
    layers = frozenset({layer_of(d, name)})
    return Mutant(with_graph(d, {name: pool}), layers, ("pooling",))


# Structure and time.


def shortcut(d: Deployment) -> tuple[str, str] | None:
    """An edge past a branch: into a node with several sources, and not from a Delay."""
    known = plan(d.graph)
    for name in known.order:
        forward = [e.source for e in known.incoming[name] if not e.previous]
        if len(forward) > 1:
            return forward[0], name
    return None


@bug
def shortcut_dropped(d: Deployment) -> Mutant | None:
    edge = shortcut(d)
    if not edge:
        return None
    changed = with_graph(d, {}, [e for e in d.graph.edges if tuple(e) != edge])
    return Mutant(changed, frozenset({layer_of(d, edge[1])}), ("missing-edge",))


@bug
def shortcut_added_twice(d: Deployment) -> Mutant | None:
    edge = shortcut(d)
    if not edge:
        return None
    shape = plan(d.graph).shapes[edge[0]]
    changed = inserted(d, "twice", nir.Scale(np.full(shape, 2.0)), edge)
    return Mutant(changed, frozenset({layer_of(d, edge[1])}), ("doubled-edge",))


@bug
def recurrent_edge_dropped(d: Deployment) -> Mutant | None:
    known = plan(d.graph)
    for name in known.order:
        for edge in known.incoming[name]:
            if edge.previous:
                edges = [e for e in d.graph.edges if edge.source not in e]
                nodes = {n: x for n, x in d.graph.nodes.items() if n != edge.source}
                graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
                layers = frozenset({layer_of(d, name)})
                return Mutant(d.with_graph(graph), layers, ("missing-edge",))
    return None


@bug
def recurrent_edge_two_steps_late(d: Deployment) -> Mutant | None:
    known = plan(d.graph)
    for name in known.order:
        for edge in known.incoming[name]:
            if edge.previous:
                delay = nir.Delay(np.full(known.shapes[edge.source], d.timing.dt))
                changed = inserted(d, "longer", delay, (edge.source, name))
                layers = frozenset({layer_of(d, name)})
                return Mutant(changed, layers, ("recurrent-delay", "step-delay"))
    return None


@bug
def one_step_late(d: Deployment) -> Mutant:
    name = spiking(d)[0]
    edge = (name, behind(d, name))
    delay = nir.Delay(np.full(plan(d.graph).shapes[name], d.timing.dt))
    changed = inserted(d, "late", delay, edge)
    return Mutant(changed, frozenset({layer_of(d, edge[1])}), ("step-delay",))


@bug
def input_one_step_late(d: Deployment) -> Mutant:
    edge = ("input", behind(d, "input"))
    delay = nir.Delay(np.full(plan(d.graph).shapes["input"], d.timing.dt))
    changed = inserted(d, "late", delay, edge)
    return Mutant(changed, frozenset({layer_of(d, edge[1])}), ("step-delay",))


# The readout.


def two(d: Deployment, change: Callable[[np.ndarray], np.ndarray]) -> Mutant:
    assert d.readout is not None
    weights = tuple(float(f) for f in change(np.array(d.readout.weights)))
    changed = replace(d, readout=replace(d.readout, weights=weights))
    return Mutant(changed, frozenset({"readout"}), ("two-weights",))


@bug
def two_reversed(d: Deployment) -> Mutant:
    return two(d, lambda f: f[::-1])


@bug
def two_uniform(d: Deployment) -> Mutant:
    return two(d, lambda f: np.full(len(f), 1 / len(f)))


@bug
def two_missing(d: Deployment) -> Mutant:
    return two(d, np.ones_like)


@bug
def two_one_step_late(d: Deployment) -> Mutant:
    return two(d, lambda f: np.concatenate([[0.0], f[:-1]]))
