"""What quantization needs to know of each kind of node."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Deployment
from msg_deploy.primitives import pair, primitive_of

Array = npt.NDArray[np.float64]

POOLS = (nir.SumPool2d, nir.AvgPool2d)
LEAKY = (nir.LIF, nir.LI)
COUPLED = (nir.CubaLIF, nir.CubaLI)
NEURONS = (nir.IF, nir.I, *LEAKY, *COUPLED)
"""Nodes with a membrane."""


def weighted(node: nir.NIRNode) -> bool:
    """It is a matrix or convolution, whose output may have any scale."""
    return primitive_of(node).weighted


def spiking(node: nir.NIRNode) -> bool:
    """Its output is 0 or 1."""
    return primitive_of(node).spiking


def area(node: nir.NIRNode) -> int:
    """Places in the window of a pooling."""
    return math.prod(pair(node, "kernel_size", 1))


def bias_of(node: Any) -> Array:
    """(outputs,), zeros without one."""
    return np.asarray(getattr(node, "bias", np.zeros(len(node.weight))), np.float64)


def by_input(node: Any, values: npt.ArrayLike) -> Array:
    """Numbers of the input channels, of shape (1,) or (inputs,), such that they fit the weights."""
    array = np.asarray(values, np.float64)
    weight = np.asarray(node.weight)
    tail = (1,) * (weight.ndim - 2)
    if array.size == 1:
        return array.reshape(1, 1, *tail)
    groups = int(getattr(node, "groups", 1))
    each = np.repeat(array.reshape(groups, -1), len(weight) // groups, axis=0)
    return each.reshape(*each.shape, *tail)


def by_output(node: Any, values: npt.ArrayLike) -> Array:
    """Numbers of the output channels, (1,) or (outputs,), such that they fit the weights."""
    return np.asarray(values, np.float64).reshape(-1, *(1,) * (np.ndim(node.weight) - 1))


def like(values: Array, shape: tuple[int, ...]) -> Array:
    """Numbers of the channels, (1,) or (C,), such that they fit values (..., *shape)."""
    return values.reshape(-1, *(1,) * (len(shape) - 1))


def rate_of(node: Any, dt: float) -> Array:
    """dt/tau of a leaky membrane; 1 for IF and I."""
    tau = getattr(node, "tau", getattr(node, "tau_mem", None))
    if tau is None:
        return np.ones(np.shape(node.r))
    return dt / np.asarray(tau, np.float64)


def leak_bits(node: Any, dt: float) -> int | None:
    """Bits that a membrane gains at each step; None if it is on no grid."""
    if isinstance(node, (nir.IF, nir.I)):
        return 0
    if isinstance(node, COUPLED) and np.any(np.asarray(node.tau_syn) != dt):
        return None
    mantissas, exponents = np.frexp(rate_of(node, dt))
    if np.any(mantissas != 0.5):
        return None
    return max(0, int(1 - exponents.min()))


def with_parameters(deployment: Deployment, nodes: dict[str, nir.NIRNode]) -> Deployment:
    """The same edges between other nodes."""
    graph = deployment.graph
    new = nir.NIRGraph(nodes, list(graph.edges), metadata=dict(graph.metadata), type_check=False)
    return deployment.with_graph(new)


def scaled_weights(node: Any, factor: npt.ArrayLike) -> nir.NIRNode:
    """A weighted node that takes inputs in other units; its bias stays."""
    weight = np.asarray(node.weight, np.float64) * by_input(node, factor)
    return replace(node, weight=weight)
