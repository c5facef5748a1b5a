"""From a deployment back to torch: the opposite of `trace`.

Every node becomes the layer of `msg_deploy.networks.Graph` that is traced to it again, with the
same name. To support another node, add a function decorated with `builds`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from msg_deploy.deployment import Deployment, Shape
from msg_deploy.errors import GraphError, UsageError
from msg_deploy.exporters.dialects.rewrite import terminal_names
from msg_deploy.graph import plan
from msg_deploy.networks import Graph, Scale, SpikingNetwork
from msg_deploy.neuron import LIF, ChannelLIF
from msg_deploy.primitives import pair
from msg_deploy.primitives.convolution import conv_padding
from msg_deploy.readout import TWO

Builder = Callable[[Any, Deployment, Shape], nn.Module]
"""(node, deployment, input shape) -> layer."""
BUILDERS: dict[type[nir.NIRNode], Builder] = {}


def builds(*kinds: type[nir.NIRNode]) -> Callable[[Builder], Builder]:
    """Decorator: the function makes layers of nodes of these types."""

    def add(builder: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(kinds, builder))
        return builder

    return add


def to_torch(deployment: Deployment) -> SpikingNetwork:
    """The network as a torch module, in evaluation mode, float32; thresholds keep float64.

    Args:
        deployment: with TWO left to the host, one Input and one Output.

    Raises:
        GraphError: naming what has no layer of torch: a cycle, a node, a name.
    """
    known, readout = plan(deployment.graph), deployment.readout
    if readout is None or readout.fold != "host":
        raise GraphError("torch: a network needs a TWO readout that is left to the host.")
    ends = terminal_names(known, "torch")
    layers: dict[str, nn.Module] = {}
    edges: list[tuple[str, str]] = []
    for name in known.order:
        for edge in known.incoming[name]:
            if edge.previous:
                raise GraphError(
                    f"torch: edge {edge.source!r} -> {name!r} closes a cycle; the torch core runs "
                    "layer by layer. Quantize the .nir file."
                )
            edges.append((ends.get(edge.source, edge.source), ends.get(name, name)))
        if name not in ends:
            layers[name] = _layer(name, deployment, known.input_shapes[name])
    two = TWO(deployment.timing.steps)
    two.weights.copy_(torch.tensor(readout.weights, dtype=torch.float64))
    try:
        body = Graph(layers, edges)
    except UsageError as error:
        raise GraphError(f"torch: {error}") from error
    return SpikingNetwork(
        body,
        two,
        deployment.input,
        deployment.timing.dt,
        deployment.provenance,
        deployment.integers,
    ).eval()


def _layer(name: str, deployment: Deployment, shape: Shape) -> nn.Module:
    node = deployment.graph.nodes[name]
    kind = type(node).__name__
    if type(node) not in BUILDERS:
        names = ", ".join(sorted(k.__name__ for k in BUILDERS))
        raise GraphError(f"torch: node {name!r} ({kind}) has no layer; {names} have one.")
    try:
        return BUILDERS[type(node)](node, deployment, shape)
    except (GraphError, UsageError) as error:
        raise GraphError(f"torch: node {name!r} ({kind}): {error}") from None


def _tensor(values: Any, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=dtype)


def _filled(layer: Any, node: Any, biased: bool) -> nn.Module:
    layer.weight = nn.Parameter(_tensor(node.weight))
    if biased:
        layer.bias = nn.Parameter(_tensor(node.bias))
    made: nn.Module = layer
    return made


@builds(nir.Linear, nir.Affine)
def _linear(node: Any, deployment: Deployment, shape: Shape) -> nn.Module:
    outputs, inputs = np.shape(node.weight)
    biased = isinstance(node, nir.Affine)
    return _filled(nn.utils.skip_init(nn.Linear, inputs, outputs, bias=biased), node, biased)


@builds(nir.Conv2d)
def _conv2d(node: nir.Conv2d, deployment: Deployment, shape: Shape) -> nn.Module:
    padding = conv_padding(node, 2)
    if any(before != after for before, after in padding):
        raise GraphError("its padding differs from side to side.")
    outputs, inputs, *kernel = np.shape(node.weight)
    groups, biased = int(node.groups), bool(np.any(node.bias))
    layer = nn.utils.skip_init(
        nn.Conv2d,
        inputs * groups,
        outputs,
        tuple(kernel),
        stride=pair(node, "stride", 1),
        padding=tuple(before for before, _ in padding),
        dilation=pair(node, "dilation", 1),
        groups=groups,
        bias=biased,
    )
    return _filled(layer, node, biased)


@builds(nir.AvgPool2d, nir.SumPool2d)
def _pool(node: Any, deployment: Deployment, shape: Shape) -> nn.Module:
    return nn.AvgPool2d(
        pair(node, "kernel_size", 1),
        pair(node, "stride", 1),
        pair(node, "padding", 0),
        divisor_override=1 if isinstance(node, nir.SumPool2d) else None,
    )


@builds(nir.Flatten)
def _flatten(node: nir.Flatten, deployment: Deployment, shape: Shape) -> nn.Module:
    # Negative dimensions mean the same with and without a batch dimension.
    start, end = (d if d < 0 else d - len(shape) for d in (int(node.start_dim), int(node.end_dim)))
    return nn.Flatten(start, end)


@builds(nir.Scale)
def _scale(node: nir.Scale, deployment: Deployment, shape: Shape) -> nn.Module:
    values = _by_channel(node.scale)
    layer = Scale(values.shape)
    layer.scale.copy_(values)
    return layer


@builds(nir.LIF, nir.IF)
def _lif(node: Any, deployment: Deployment, shape: Shape) -> nn.Module:
    steps, reset = deployment.timing.steps, deployment.timing.reset
    tau = _tau(node, deployment.timing.dt)
    rest, gain = np.asarray(getattr(node, "v_leak", 0.0)), np.asarray(node.r)
    if rest.any():
        raise GraphError("v_leak must be 0.")
    if np.any(gain != 1):
        raise GraphError("r must be 1.")
    thresholds, resets = _by_channel(node.v_threshold), _by_channel(node.v_reset)
    if thresholds.numel() == resets.numel() == 1:
        level = float(thresholds), float(resets)
        return LIF(steps, tau, v_threshold=level[0], v_reset=level[1], reset=reset)
    both = torch.broadcast_shapes(thresholds.shape, resets.shape)
    layer = ChannelLIF(steps, both, tau, reset)
    layer.thresholds.copy_(thresholds)
    layer.resets.copy_(resets)
    return layer


def _tau(node: Any, dt: float) -> float:
    """In timesteps, such that tracing gives back the same seconds."""
    if isinstance(node, nir.IF):
        return float("inf")
    tau = np.unique(np.asarray(node.tau, np.float64))
    if len(tau) > 1:
        raise GraphError("its time constants differ.")
    ratio = float(tau[0]) / dt
    plain = float(f"{ratio:.12g}")
    return plain if plain * dt == tau[0] else ratio


def _by_channel(values: Any) -> Tensor:
    """Numbers of the neurons in the smallest shape that is broadcast to them, float64."""
    array = np.asarray(values, np.float64)
    if np.all(array == array.flat[0]):
        return torch.tensor(array.flat[0], dtype=torch.float64).reshape(())
    first = array.reshape(len(array), -1)[:, 0].reshape(-1, *(1,) * (array.ndim - 1))
    smallest = first if np.all(array == first) else array
    return torch.from_numpy(np.array(smallest))
