"""Quantization-aware training: weights are whole in the forward pass, and not in the backward one.

w' = s clip(round(w / s), -q, q), and dL/dw = dL/dw' where |w| <= s q, else 0 (the straight-through
estimator, Bengio, Leonard, Courville 2013, arXiv 1308.3432). The scales s are those that the
network is quantized with in the end, so that its integers are those of the last forward pass. MSG
masks the gradients as in any other training.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from msg_deploy.data import Dataset
from msg_deploy.deployment import Deployment, node_name
from msg_deploy.exporters.quantize.nodes import by_input, by_output, weighted
from msg_deploy.exporters.quantize.options import QuantizeOptions
from msg_deploy.exporters.quantize.scales import Scales
from msg_deploy.exporters.trace import trace
from msg_deploy.exporters.untrace import to_torch
from msg_deploy.networks import SpikingNetwork
from msg_deploy.neuron import LIF
from msg_deploy.train import Epoch, TrainingOptions, train


class Whole(nn.Module):
    """Rounds a parameter to multiples of a step.

    Args:
        step: that fits the parameter by broadcasting.
        limit: of the multiples' magnitude; None: there is none.
        unit: the parameter is this times what is trained, so that steps of the optimizer mean what
            they mean in other layers.
    """

    step: Tensor

    def __init__(self, step: Any, limit: int | None, unit: float = 1.0) -> None:
        super().__init__()
        self.limit = limit
        self.unit = unit
        self.register_buffer("step", torch.tensor(np.asarray(step), dtype=torch.float32))

    def forward(self, values: Tensor) -> Tensor:
        """The rounded parameter, whose gradient is that of `values` within the limit."""
        kept = values = values * self.unit
        if self.limit is not None:
            end = self.step * self.limit
            kept = torch.maximum(torch.minimum(values, end), -end)
        whole = torch.round(kept.detach() / self.step) * self.step
        return kept + (whole - kept).detach()

    def right_inverse(self, parameter: Tensor) -> Tensor:
        """What is trained, from the parameter as it was."""
        return parameter / self.unit


def finetuned(
    scales: Scales,
    options: QuantizeOptions,
    data: Dataset,
    training: TrainingOptions,
    beta: float = 0.9,
    like: SpikingNetwork | None = None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Deployment:
    """Train a network such that its weights stand on the grids of the scales.

    Args:
        scales: of a network as `prepared` gives it.
        options: bits of the weights.
        data: its training part is used.
        training: how.
        beta: of TWO.
        like: where the network comes from: its neurons' surrogates are used.
        on_epoch: called after each epoch.

    Returns:
        The network, as `prepared` gives it, with other weights: those that `with_scales` turns into
        the integers of the last forward pass.

    Raises:
        GraphError: the network has no counterpart in torch.
    """
    network = to_torch(scales.deployment)
    network.readout.beta = beta
    if like is not None:
        _with_surrogates(network, like)
    body: nn.Module = network.body
    wrapped: list[tuple[nn.Module, str]] = []
    for name, node in scales.nodes.items():
        if not weighted(node):
            continue
        layer, scale = body.get_submodule(name), scales.output(name)
        step = by_output(node, scale) / by_input(node, scales.arriving(name))
        # Weights of the input are for whole numbers, and so much smaller than they were.
        unit = scales.deployment.input.step if scales.takes_input(name) else 1.0
        rounded = Whole(step, options.largest, unit)
        parametrize.register_parametrization(layer, "weight", rounded)
        wrapped.append((layer, "weight"))
        if getattr(layer, "bias", None) is not None:
            parametrize.register_parametrization(layer, "bias", Whole(scale, None))
            wrapped.append((layer, "bias"))
    train(network, data, training, on_epoch)
    for layer, field in wrapped:
        parametrize.remove_parametrizations(layer, field, leave_parametrized=True)
    return trace(network)


def _with_surrogates(network: SpikingNetwork, like: SpikingNetwork) -> None:
    """The backward pass of the neurons as it was."""
    theirs = {node_name(n): m for n, m in like.body.named_modules() if isinstance(m, LIF)}
    for name, layer in network.body.named_modules():
        other = theirs.get(name)
        if isinstance(layer, LIF) and other is not None:
            layer.surrogate, layer.alpha = other.surrogate, other.alpha
            layer.detach_reset = other.detach_reset
