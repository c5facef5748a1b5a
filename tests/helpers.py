"""Small graphs and networks for tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import nir
import numpy as np
import torch
from torch import nn

from msg_deploy.deployment import Deployment, InputSpec, Timing
from msg_deploy.networks import SpikingNetwork
from msg_deploy.zoo import build


def chain(
    *nodes: nir.NIRNode,
    inputs: Sequence[int],
    outputs: Sequence[int],
    edges: Sequence[tuple[str, str]] = (),
    **timing: Any,
) -> Deployment:
    """input -> n0 -> n1 -> ... -> output, plus extra edges."""
    named: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(inputs)})}
    named |= {f"n{i}": node for i, node in enumerate(nodes)}
    named["output"] = nir.Output({"output": np.array(outputs)})
    names = list(named)
    all_edges = [*itertools.pairwise(names), *edges]
    graph = nir.NIRGraph(named, all_edges, metadata={}, type_check=False)
    return Deployment(graph, Timing(**timing), InputSpec(tuple(inputs), "frames"))


def lif(shape: Sequence[int] = (1,), **values: float) -> nir.LIF:
    """A LIF node with uniform parameters."""
    defaults = {"tau": 2e-3, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.5, "v_reset": 0.0}
    return nir.LIF(**{k: np.full(shape, v) for k, v in (defaults | values).items()})


def random_network(
    name: str = "mlp", seed: int = 0, shape: Sequence[int] = (1, 8, 8), **options: Any
) -> SpikingNetwork:
    """An untrained network whose neurons do fire, with BatchNorm statistics."""
    torch.manual_seed(seed)
    network = build(name, InputSpec(tuple(shape)), 10, options.pop("steps", 5), **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, mean=0.02, std=1.5 / module.in_features**0.5)
    nn.init.uniform_(network.readout.weights, 0.05, 0.4)
    return network.eval()


def samples(count: int, seed: int = 0, shape: Sequence[int] = (1, 8, 8)) -> np.ndarray:
    """Uniform samples in 0..1, float32."""
    return np.random.default_rng(seed).uniform(0, 1, (count, *shape)).astype(np.float32)
