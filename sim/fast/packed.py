"""Matrices and convolutions whose weights oneDNN has laid out once, not for every product.

Measured on one thread, that is up to a fourth of a matrix product, and most of the time of a
convolution of many channels and few pixels.
"""

from __future__ import annotations

from typing import Any

import nir
import torch
from torch import Tensor

from msg_deploy.primitives import pair
from msg_deploy.primitives.convolution import conv_padding
from msg_deploy.sim.torch_layers import LAYERS, Context, Layer

ROWS = 256
"""Rows that a matrix is laid out for; others run, too, and hardly slower."""
SMALL = 2**15
"""Weights below which torch's own matrix product is as fast."""
NOTHING_BEHIND: tuple[Any, ...] = ("none", [], "")
"""No function is applied to the result."""


def dense(node: nir.NIRNode, context: Context) -> Layer:
    """A node without state, in the fastest way that looks at every value.

    Args:
        node: any that has no state.
        context: timing, shape of the input, type of the computation.

    Returns:
        (N, *input shape) to (N, *shape); sums are in any order.
    """
    if context.dtype == torch.float32 and available():
        if isinstance(node, (nir.Linear, nir.Affine)) and node.weight.size >= SMALL:
            return _matrix(node, context)
        if isinstance(node, nir.Conv2d) and _even(node):
            return _convolution(node, context)
    return LAYERS[type(node)](node, context)


def available() -> bool:
    """Whether this torch has the operators."""
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name)
        for name in (
            "_reorder_linear_weight",
            "_linear_pointwise",
            "_reorder_convolution_weight",
            "_convolution_pointwise",
        )
    )


def _even(node: nir.Conv2d) -> bool:
    """Whether it pads as much before as after."""
    return all(before == after for before, after in conv_padding(node, 2))


def _matrix(node: Any, context: Context) -> Layer:
    bias = context.tensor(node.bias) if isinstance(node, nir.Affine) else None
    weight = torch.ops.mkldnn._reorder_linear_weight(context.tensor(node.weight), ROWS)
    product = torch.ops.mkldnn._linear_pointwise.default

    def run(x: Tensor) -> Tensor:
        result: Tensor = product(x, weight, bias, *NOTHING_BEHIND)
        return result

    return run


def _convolution(node: nir.Conv2d, context: Context) -> Layer:
    geometry = (
        [before for before, _ in conv_padding(node, 2)],
        list(pair(node, "stride", 1)),
        list(pair(node, "dilation", 1)),
        int(node.groups),
    )
    bias = context.tensor(node.bias)
    plain = context.tensor(node.weight)
    sample = [1, plain.shape[1] * int(node.groups), *context.shape[1:]]
    weight = torch.ops.mkldnn._reorder_convolution_weight(plain, *geometry, sample)
    product = torch.ops.mkldnn._convolution_pointwise.default

    def run(x: Tensor) -> Tensor:
        result: Tensor = product(x, weight, bias, *geometry, *NOTHING_BEHIND)
        return result

    return run
