"""Weights on a grid and values that are small integers: products that no engine rounds.

What takes spikes, or sums of few of them, with weights that are integer multiples of one step, can
be computed in 8-bit integers, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Deployment, InputSpec
from msg_deploy.errors import GraphError
from msg_deploy.graph import plan
from msg_deploy.grid import multiples, step
from msg_deploy.primitives import pair, primitive_of

LARGEST_WEIGHT = 127
LARGEST_VALUE = 127
"""Of what arrives. Kernels without dot-product instructions add two products in 16 bits, which
2 * 127 * 127 fits and 2 * 255 * 127 does not."""


@dataclass(frozen=True)
class Quantized:
    """Weights as integers.

    Attributes:
        name: of the node.
        weight: int8, of the node's shape.
        scale: step of the grid: one number, or one for each output channel.
        bias: int32 in steps where it stands on the grid, otherwise float; None without one.
    """

    name: str
    weight: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float64]
    bias: npt.NDArray[Any] | None


def quantize(name: str, weight: npt.ArrayLike, bias: npt.ArrayLike | None) -> Quantized:
    """Weights (out, ...) and a bias (out,) on their grid.

    Raises:
        GraphError: naming the node: its weights are no multiples of a step, up to 127 of them.
    """
    array = np.asarray(weight, np.float64)
    scale = _scale(name, array)
    whole = multiples(
        array, scale.reshape(scale.shape + (1,) * (array.ndim - 1 if scale.ndim else 0))
    )
    return Quantized(name, whole.astype(np.int8), scale, _bias(bias, scale))


def _scale(name: str, weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if not np.any(weight):
        return np.array(1.0)
    common = step(weight, LARGEST_WEIGHT)
    if common is not None:
        return np.array(common)
    steps = [step(channel, LARGEST_WEIGHT) if np.any(channel) else 1.0 for channel in weight]
    found = [s for s in steps if s is not None]
    if len(found) < len(steps):
        raise GraphError(
            f"node {name!r}: the weights of output {steps.index(None)} are not integer multiples, "
            f"up to {LARGEST_WEIGHT}, of one step; int8 needs weights that were quantized before."
        )
    return np.array(found)


def _bias(bias: npt.ArrayLike | None, scale: npt.NDArray[np.float64]) -> npt.NDArray[Any] | None:
    if bias is None or not np.any(bias):
        return None
    array = np.asarray(bias, np.float64)
    whole = multiples(array, scale)
    on_grid = np.all(whole * scale == array) and np.all(np.abs(whole) < 2**24)
    return whole.astype(np.int32) if on_grid else array


def arriving_integers(deployment: Deployment) -> dict[str, int | None]:
    """For each node, the largest value that arrives, if only integers from 0 to 127 do.

    Spikes are 0 or 1, inputs whole numbers if the input has levels; sums of edges, SumPool2d,
    Flatten, Delay and Scale by whole numbers keep integers integers.
    """
    known = plan(deployment.graph)
    emitted: dict[str, int | None] = dict.fromkeys(known.order)
    arriving: dict[str, int | None] = {}
    for name in known.order:
        node = deployment.graph.nodes[name]
        # Around a cycle what comes back must pass a neuron whose spikes are known beforehand.
        sources = [
            1 if primitive_of(deployment.graph.nodes[e.source]).spiking else emitted[e.source]
            for e in known.incoming[name]
        ]
        total = sum(s for s in sources if s is not None)
        small = bool(sources) and None not in sources and total <= LARGEST_VALUE
        arriving[name] = total if small else None
        entering = isinstance(node, nir.Input)
        emitted[name] = _entering(deployment.input) if entering else _emitted(node, arriving[name])
    return arriving


def _entering(spec: InputSpec) -> int | None:
    low, high = spec.entering
    return int(high) if spec.levels is not None and low >= 0 and high <= LARGEST_VALUE else None


def _emitted(node: nir.NIRNode, arriving: int | None) -> int | None:
    if primitive_of(node).spiking:
        return 1
    if arriving is None:
        return None
    if isinstance(node, nir.SumPool2d):
        height, width = pair(node, "kernel_size", 1)
        return arriving * height * width
    if isinstance(node, nir.Scale):
        factors = np.asarray(node.scale)
        whole = np.all(factors == np.rint(factors)) and np.all(factors >= 0)
        return arriving * int(factors.max()) if whole else None
    return arriving if isinstance(node, (nir.Flatten, nir.Delay, nir.Output)) else None
