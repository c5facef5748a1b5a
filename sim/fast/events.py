"""Products with few values other than 0, one arriving event at a time.

Each event adds its column of weights to the outputs; what does not arrive costs a look. Measured
against dense products (docs/results.md), that wins up to a tenth of all values; the limit is a
little lower. A dense product of few rows waits for the weights, of which events need only some, and
a convolution of many channels adds whole vectors: there events win longer. The density is measured
anew for every input, on a part of it.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import torch
from numba import prange
from torch import Tensor

from msg_deploy.deployment import Shape
from msg_deploy.primitives import pair
from msg_deploy.primitives.convolution import conv_padding
from msg_deploy.sim.fast.kernels import kernel
from msg_deploy.sim.fast.packed import dense
from msg_deploy.sim.torch_layers import Context, Layer

LIMIT = 0.08
"""Density up to which events win."""
FEW_ROWS, LIMIT_OF_FEW = 16, 0.2
"""The same for matrices and so many samples and steps."""
MANY_CHANNELS, LIMIT_OF_MANY = 128, 0.15
"""The same for convolutions to so many channels."""
LOOKED_AT = 2**12
"""Values that the density is taken from; counting all of them would cost as much as a neuron."""


@kernel
def add_columns(x, weight, bias, out):  # type: ignore[no-untyped-def]
    """Out = x W + b; x (N, in), weight (in, out), out (N, out)."""
    for row in prange(len(x)):
        for k in range(len(bias)):
            out[row, k] = bias[k]
        for j in range(x.shape[1]):
            value = x[row, j]
            if value != 0:
                for k in range(len(bias)):
                    out[row, k] += value * weight[j, k]


@kernel
def add_kernels(x, weight, bias, stride, padding, dilation, out):  # type: ignore[no-untyped-def]
    """A convolution; x (N, H, W, in), weight (in, height, width, out), out (N, H', W', out)."""
    rows, columns = out.shape[1], out.shape[2]
    for sample in prange(len(x)):
        sums = out[sample]
        for a in range(rows):
            for b in range(columns):
                for o in range(len(bias)):
                    sums[a, b, o] = bias[o]
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                for k in range(x.shape[3]):
                    value = x[sample, i, j, k]
                    if value == 0:
                        continue
                    for p in range(weight.shape[1]):
                        above = i + padding[0] - p * dilation[0]
                        if above < 0 or above % stride[0] or above // stride[0] >= rows:
                            continue
                        for q in range(weight.shape[2]):
                            left = j + padding[1] - q * dilation[1]
                            if left < 0 or left % stride[1] or left // stride[1] >= columns:
                                continue
                            place = sums[above // stride[0], left // stride[1]]
                            for o in range(len(bias)):
                                place[o] += value * weight[k, p, q, o]


def by_density(node: nir.NIRNode, shape: Shape, context: Context) -> Layer:
    """A layer that takes events one by one where few arrive.

    Args:
        node: any without state.
        shape: of its output.
        context: timing, shape of the input, type of the computation.
    """
    all_values = dense(node, context)
    if isinstance(node, (nir.Linear, nir.Affine)):
        events = _matrix(node, context.dtype)
        limit = LIMIT
    elif isinstance(node, nir.Conv2d) and int(node.groups) == 1:
        events = _convolution(node, shape, context.dtype)
        limit = LIMIT_OF_MANY if shape[0] >= MANY_CHANNELS else LIMIT
    else:
        return all_values

    def run(x: Tensor) -> Tensor:
        few_rows = x.ndim == 2 and len(x) <= FEW_ROWS
        return (events if density(x) <= (LIMIT_OF_FEW if few_rows else limit) else all_values)(x)

    return run


def density(x: Tensor) -> float:
    """The share of values other than 0, of all of them or of some that lie evenly in memory."""
    values = (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).reshape(-1).numpy()
    # An odd distance meets all channels.
    some = values[:: max(1, len(values) // LOOKED_AT) | 1]
    return np.count_nonzero(some) / max(1, len(some))


def _parameters(node: Any, dtype: torch.dtype) -> tuple[np.ndarray[Any, Any], ...]:
    numpy_type = np.dtype(str(dtype).removeprefix("torch."))
    weight = np.asarray(node.weight, numpy_type)
    bias = getattr(node, "bias", np.zeros(len(weight)))
    return weight, np.ascontiguousarray(bias, numpy_type)


def _matrix(node: Any, dtype: torch.dtype) -> Layer:
    weight, bias = _parameters(node, dtype)
    columns = np.ascontiguousarray(weight.T)

    def run(x: Tensor) -> Tensor:
        values = x.contiguous().numpy()
        out = np.empty((len(values), len(bias)), values.dtype)
        add_columns(out.size, values, columns, bias, out)
        return torch.from_numpy(out)

    return run


def _convolution(node: nir.Conv2d, shape: Shape, dtype: torch.dtype) -> Layer:
    weight, bias = _parameters(node, dtype)
    kernels = np.ascontiguousarray(np.moveaxis(weight, 0, -1))
    stride, dilation = pair(node, "stride", 1), pair(node, "dilation", 1)
    padding = tuple(before for before, _ in conv_padding(node, 2))

    def run(x: Tensor) -> Tensor:
        values = x.permute(0, 2, 3, 1).contiguous().numpy()
        out = np.empty((len(values), *shape[1:], shape[0]), values.dtype)
        add_kernels(out.size, values, kernels, bias, stride, padding, dilation, out)
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    return run
