"""Products of spikes with weights on a grid in 8-bit integers, by oneDNN: exact, and faster.

Used where the result is float32's to the bit: the step of the weights is a power of two, what
arrives are integers from 0 to 127, and no sum can reach 2^24 steps, so that float32 rounds nothing
in any order either. torch has the operators for quantized inputs; here their scale is 1, their
zero point 0.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from msg_deploy.errors import GraphError
from msg_deploy.integers import Quantized, quantize
from msg_deploy.primitives import pair
from msg_deploy.primitives.convolution import conv_padding
from msg_deploy.sim.torch_layers import Layer

EXACT = 2**24
"""Integers below this are float32 numbers."""
CONTROLS: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")
"""Scale and zero point of the output, its type, and nothing behind it."""


def available() -> bool:
    """Whether this torch and this processor have the operators."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.onednn, "qconv2d_pointwise")
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
    )


def layer(name: str, node: nir.NIRNode, largest: int | None) -> Layer | None:
    """A matrix or convolution in 8-bit integers, or None where that would not be exact.

    Args:
        name: of the node.
        node: with weights.
        largest: the largest value that arrives, if only integers from 0 on do.

    Returns:
        (N, *input shape), uint8 or whole numbers of any type, to float32 (N, *shape).
    """
    if largest is None or not isinstance(node, (nir.Linear, nir.Affine, nir.Conv2d)):
        return None
    try:
        weights = quantize(name, node.weight, getattr(node, "bias", None))
    except GraphError:
        return None
    if not _exact(weights, largest):
        return None
    if isinstance(node, nir.Conv2d):
        return _convolution(node, weights)
    return _matrix(weights)


def _exact(weights: Quantized, largest: int) -> bool:
    """No float32 engine rounds anything, whatever arrives."""
    mantissas, _ = np.frexp(weights.scale)
    outputs = len(weights.weight)
    whole = np.abs(weights.weight.astype(np.int64)).reshape(outputs, -1).sum(axis=1) * largest
    if weights.bias is not None:
        if weights.bias.dtype.kind != "i":
            return False
        whole = whole + np.abs(weights.bias.astype(np.int64))
    return bool(np.all(mantissas == 0.5) and np.all(whole < EXACT))


def _scales(weights: Quantized) -> tuple[Tensor, Tensor, Tensor | None]:
    """Scale, zero point and bias of each output channel."""
    outputs = len(weights.weight)
    scale = np.broadcast_to(weights.scale, outputs).astype(np.float32)
    bias = None
    if weights.bias is not None:
        bias = torch.from_numpy((weights.bias * scale).astype(np.float32))
    return torch.from_numpy(scale.copy()), torch.zeros(outputs, dtype=torch.int32), bias


def _matrix(weights: Quantized) -> Layer:
    scale, zero, bias = _scales(weights)
    packed = torch.ops.onednn.qlinear_prepack(torch.from_numpy(weights.weight), None)

    def run(x: Tensor) -> Tensor:
        result: Tensor = torch.ops.onednn.qlinear_pointwise(
            x.to(torch.uint8), 1.0, 0, packed, scale, zero, bias, *CONTROLS
        )
        return result

    return run


def _convolution(node: nir.Conv2d, weights: Quantized) -> Layer | None:
    padding = conv_padding(node, 2)
    if any(before != after for before, after in padding):
        return None
    geometry = (
        list(pair(node, "stride", 1)),
        [before for before, _ in padding],
        list(pair(node, "dilation", 1)),
        int(node.groups),
    )
    scale, zero, bias = _scales(weights)
    packed = torch.ops.onednn.qconv_prepack(
        torch.from_numpy(weights.weight), scale, 1.0, 0, *geometry
    )

    def run(x: Tensor) -> Tensor:
        bytes_ = x.to(torch.uint8).contiguous(memory_format=torch.channels_last)
        result: Tensor = torch.ops.onednn.qconv2d_pointwise(
            bytes_, 1.0, 0, packed, scale, zero, bias, *geometry, *CONTROLS
        )
        return result

    return run
