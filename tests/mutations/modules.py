"""Bugs in torch modules, changed in place; each says which layers are at fault, and why."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from msg_deploy.networks import SpikingNetwork
from msg_deploy.neuron import LIF

Target = tuple[frozenset[str], tuple[str, ...]]
ModuleBug = Callable[[SpikingNetwork], Target | None]
MODULE_BUGS: dict[str, ModuleBug] = {}


def bug(function: ModuleBug) -> ModuleBug:
    MODULE_BUGS[function.__name__.replace("_", " ")] = function
    return function


def neurons(network: SpikingNetwork) -> list[tuple[str, LIF]]:
    return [(n, m) for n, m in network.body.named_modules() if isinstance(m, LIF)]


def second(network: SpikingNetwork) -> tuple[str, LIF, nn.Module]:
    """The second layer of neurons and the weights before it."""
    modules = list(network.body.named_modules())
    name, layer = neurons(network)[1]
    before = modules[: [n for n, _ in modules].index(name)]
    weighted = [m for _, m in before if isinstance(m, (nn.Linear, nn.Conv2d))]
    return name, layer, weighted[-1]


def set_weight(
    module: nn.Module, change: Callable[[Tensor], Tensor], field: str = "weight"
) -> None:
    with torch.no_grad():
        parameter = getattr(module, field)
        parameter.copy_(change(parameter.clone()))


@bug
def torch_time_constant_doubled(network: SpikingNetwork) -> Target | None:
    name, layer, _ = second(network)
    if layer.tau == float("inf"):
        return None
    layer.tau *= 2
    return frozenset({name}), ("time-constant",)


@bug
def torch_threshold_times_0_8(network: SpikingNetwork) -> Target:
    name, layer, _ = second(network)
    layer.v_threshold *= 0.8
    return frozenset({name}), ("threshold",)


@bug
def torch_reset_mode(network: SpikingNetwork) -> Target:
    for _, layer in neurons(network):
        layer.reset = "zero" if layer.reset == "subtract" else "subtract"
    return frozenset(n for n, _ in neurons(network)), ("reset-mode",)


@bug
def torch_bias_dropped(network: SpikingNetwork) -> Target:
    name, _, weights = second(network)
    set_weight(weights, torch.zeros_like, "bias")
    return frozenset({name}), ("bias",)


@bug
def torch_kernel_flipped(network: SpikingNetwork) -> Target | None:
    name, _, weights = second(network)
    if not isinstance(weights, nn.Conv2d):
        return None
    set_weight(weights, lambda w: w.flip(2, 3))
    return frozenset({name}), ("transposition",)


@bug
def torch_matrix_transposed(network: SpikingNetwork) -> Target | None:
    name, _, weights = second(network)
    if not isinstance(weights, nn.Linear):
        return None
    set_weight(weights, lambda w: w.T)
    return frozenset({name}), ("transposition",)


@bug
def torch_two_reversed(network: SpikingNetwork) -> Target:
    network.readout.weights.copy_(network.readout.weights.flip(0).clone())
    return frozenset({"readout"}), ("two-weights",)


@bug
def torch_law_at_the_threshold(network: SpikingNetwork) -> Target:
    """The module spikes at the threshold; the graph traced from it does not say so."""
    for _, layer in neurons(network):
        layer.register_forward_pre_hook(_lower)
        layer.register_forward_hook(_restore)
    return frozenset(n for n, _ in neurons(network)), ("at-threshold",)


def _lower(layer: nn.Module, arguments: object) -> None:
    assert isinstance(layer, LIF)
    threshold = torch.tensor(layer.v_threshold, dtype=torch.float64)
    layer.v_threshold = float(torch.nextafter(threshold, threshold - 1))


def _restore(layer: nn.Module, arguments: object, result: object) -> None:
    assert isinstance(layer, LIF)
    threshold = torch.tensor(layer.v_threshold, dtype=torch.float64)
    layer.v_threshold = float(torch.nextafter(threshold, threshold + 1))


@bug
def torch_law_doubles_its_input(network: SpikingNetwork) -> Target:
    """The module doubles what arrives; the graph traced from it does not say so."""
    name, layer, _ = second(network)
    layer.register_forward_pre_hook(lambda module, arguments: (arguments[0] * 2,))
    return frozenset({name}), ("input-gain", "weight-scale", "threshold")
