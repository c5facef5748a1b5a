"""Bugs of ONNX exporters, each as an edit of the operators, attributes and weights of a model.

What `bugs` changes is a graph that our exporter then writes; here the file itself is wrong, in ways
that no graph of ours could be. Models are inlined, so that neurons are operators, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from msg_deploy.deployment import Deployment
from msg_deploy.sim.verdict import READOUT
from tests.mutations.bugs import layer_of, spiking

WEIGHTED = ("Gemm", "Conv")


@dataclass(frozen=True)
class Edited:
    """What was done to a model.

    Attributes:
        layers: that are at fault.
        causes: names of hypotheses that are right; none if no hypothesis says so.
    """

    layers: frozenset[str]
    causes: tuple[str, ...]


Edit = Callable[[onnx.ModelProto, Deployment], Edited | None]
OPERATOR_BUGS: dict[str, Edit] = {}


def edit(function: Edit) -> Edit:
    """Decorator: make an edit part of the suite."""
    OPERATOR_BUGS[function.__name__.replace("_", " ")] = function
    return function


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All operators, those of loops as well."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nodes(attribute.g)


def weighted(model: onnx.ModelProto, d: Deployment, *kinds: str) -> onnx.NodeProto | None:
    """The second product with weights, as faults lie inside; the only one if there is one."""
    found = [
        node
        for node in model.graph.node
        if node.op_type in (kinds or WEIGHTED) and node.output[0] in d.graph.nodes
    ]
    return found[min(1, len(found) - 1)] if found else None


def stored(model: onnx.ModelProto, name: str) -> np.ndarray:
    """A weight."""
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    return numpy_helper.to_array(tensor)


def store(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    """A weight, new or changed."""
    tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
    for old in [t for t in model.graph.initializer if t.name == name]:
        model.graph.initializer.remove(old)
    model.graph.initializer.append(tensor)


def at(d: Deployment, node: onnx.NodeProto, *causes: str) -> Edited:
    """A fault of the layer that a product leads to."""
    return Edited(frozenset({layer_of(d, node.output[0])}), causes)


def second(model: onnx.ModelProto, d: Deployment, kind: str) -> tuple[str, onnx.NodeProto] | None:
    """The operator of a type in the second neuron, and that neuron."""
    name = spiking(d)[1]
    for scan in model.graph.node:
        if name in scan.output:
            found = [n for n in nodes(scan.attribute[0].g) if n.op_type == kind]
            return (name, found[-1]) if found else None
    return None


def set_ints(node: onnx.NodeProto, name: str, *values: int) -> None:
    """An attribute of integers."""
    for old in [a for a in node.attribute if a.name == name]:
        node.attribute.remove(old)
    node.attribute.append(onnx.helper.make_attribute(name, values))


def changed_weight(
    model: onnx.ModelProto,
    d: Deployment,
    change: Callable[[np.ndarray], np.ndarray],
    *causes: str,
    kinds: tuple[str, ...] = (),
    place: int = 1,
) -> Edited | None:
    """Other numbers of the same shape."""
    node = weighted(model, d, *kinds)
    if node is None or len(node.input) <= place:
        return None
    value = stored(model, node.input[place])
    new = change(value)
    if new.shape != value.shape:
        return None
    store(model, node.input[place], new)
    return at(d, node, *causes)


@edit
def transposed_weight(model: onnx.ModelProto, d: Deployment) -> Edited | None:
    return changed_weight(model, d, np.transpose, "transposition", kinds=("Gemm",))


@edit
def transposition_forgotten(model: onnx.ModelProto, d: Deployment) -> Edited | None:
    node = weighted(model, d, "Gemm")
    if node is None or len(set(stored(model, node.input[1]).shape)) > 1:
        return None
    (attribute,) = (a for a in node.attribute if a.name == "transB")
    attribute.i = 0
    return at(d, node, "transposition")


@edit
def flipped_kernel(model: onnx.ModelProto, d: Deployment) -> Edited | None:
    return changed_weight(model, d, lambda w: w[..., ::-1, ::-1], "transposition", kinds=("Conv",))


@edit
def reversed_channels(model: onnx.ModelProto, d: Deployment) -> Edited | None:
    return changed_weight(model, d, lambda w: w[:, ::-1], "channel-order", kinds=("Conv",))


@edit
def shifted_pads(model: onnx.ModelProto, d: Deployment) -> Edited | None:
    """All at the start, none at the end."""
    node = weighted(model, d, "Conv")
    if node is None:
        return None
    set_ints(node, "pads", 2, 2, 0, 0)
    return at(d, node, "window")


@edit
def dilated_kernel(model: onnx.ModelProto, d: Deployment) -> Edited | None:
    node = weighted(model, d, "Conv")
    if node is None:
        return None
    set_ints(node, "dilations", 2, 2)
    set_ints(node, "pads", 2, 2, 2, 2)
    return at(d, node, "window")


@edit
def missing_bias(model: onnx.ModelProto, d: Deployment) -> Edited | None:
    node = weighted(model, d)
    if node is None or len(node.input) < 3:
        return None
    del node.input[2]
    return at(d, node, "bias")


@edit
def doubled_bias(model: onnx.ModelProto, d: Deployment) -> Edited | None:
    return changed_weight(model, d, lambda b: 2 * b, "bias", place=2)


@edit
def doubled_threshold(model: onnx.ModelProto, d: Deployment) -> Edited | None:
    found = second(model, d, "Greater")
    if found is None:
        return None
    name, node = found
    store(model, "edited.threshold", 2 * stored(model, node.input[1]))
    subtracted = second(model, d, "Sub")
    if subtracted and subtracted[1].input[0] == node.input[0]:
        subtracted[1].input[1] = "edited.threshold"
    node.input[1] = "edited.threshold"
    # Half the gain does the same to every spike where v_reset is 0.
    return Edited(frozenset({name}), ("threshold", "input-gain"))


@edit
def at_the_threshold(model: onnx.ModelProto, d: Deployment) -> Edited | None:
    for node in nodes(model.graph):
        if node.op_type == "Greater":
            node.op_type = "GreaterOrEqual"
    return Edited(frozenset(spiking(d)), ("at-threshold",))


@edit
def reset_to_another_value(model: onnx.ModelProto, d: Deployment) -> Edited | None:
    found = second(model, d, "Where")
    if found is None:
        return None
    name, node = found
    threshold = second(model, d, "Greater")
    assert threshold is not None
    store(model, "edited.reset", np.zeros_like(stored(model, threshold[1].input[1])))
    subtracts = node.input[1] not in {t.name for t in model.graph.initializer}
    if not subtracts and not np.any(stored(model, node.input[1])):
        return None
    node.input[1] = "edited.reset"
    return Edited(frozenset({name}), ("reset-mode", "v-reset"))


@edit
def reversed_two(model: onnx.ModelProto, d: Deployment) -> Edited | None:
    weights = stored(model, "weights")
    store(model, "weights", weights.reshape(-1)[::-1].reshape(weights.shape))
    return Edited(frozenset({READOUT}), ("two-weights",))


@edit
def sum_in_place_of_mean(model: onnx.ModelProto, d: Deployment) -> Edited | None:
    for node in model.graph.node:
        if node.op_type == "AveragePool":
            node.op_type = "LpPool"  # of 0 and 1: the sum
            node.attribute.append(onnx.helper.make_attribute("p", 1))
            return at(d, node, "pooling")
    return None


@edit
def missing_shortcut(model: onnx.ModelProto, d: Deployment) -> Edited | None:
    for node in model.graph.node:
        if node.op_type in ("Add", "Sum") and len(node.input) > 1:
            del node.input[1:]
            node.op_type = "Identity"
            followers = {o for n in model.graph.node if node.output[0] in n.input for o in n.output}
            layers = frozenset(layer_of(d, name) for name in followers if name in d.graph.nodes)
            return Edited(layers, ("missing-edge",)) if layers else None
    return None
