"""Conv2d: cross-correlation over height and width, as torch.nn.Conv2d."""

from __future__ import annotations

import nir
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from msg_deploy.deployment import Shape, Timing
from msg_deploy.errors import GraphError
from msg_deploy.primitives import Array, Law, Primitive, pair, rank, register, stateless

Padding = tuple[tuple[int, int], tuple[int, int]]
"""(before, after) for height and width."""


def conv_padding(node: nir.Conv2d) -> Padding:
    """The zeros added around the input; 'same' as torch: the odd one goes after.

    Raises:
        GraphError: 'same' with a stride, which torch does not define.
    """
    if not isinstance(node.padding, str):
        height, width = pair(node, "padding", 0)
        return (height, height), (width, width)
    if node.padding == "valid":
        return (0, 0), (0, 0)
    if pair(node, "stride", 1) != (1, 1):
        raise GraphError("padding 'same' needs stride 1; write the padding as numbers.")
    totals = [
        d * (k - 1) for d, k in zip(pair(node, "dilation", 1), node.weight.shape[2:], strict=True)
    ]
    (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in totals)
    return (top, bottom), (left, right)


def window_count(size: int, padding: tuple[int, int], window: int, stride: int) -> int:
    """Positions of a window along one axis.

    Raises:
        GraphError: the window is larger than the padded input.
    """
    count = (size + sum(padding) - window) // stride + 1
    if count < 1:
        raise GraphError(f"the kernel spans {window}, more than the padded input {size}.")
    return count


@register
class Conv2d(Primitive):
    """y[o] = b[o] + sum_{i,h,w} W[o,i,h,w] x[i, ...]; stride, padding, dilation, groups."""

    node_type = nir.Conv2d

    def output_shape(self, node: nir.Conv2d, input_shape: Shape) -> Shape:
        """(C_out, H', W') for input (C_in, H, W)."""
        rank(input_shape, 3, "(channels, height, width)")
        if np.ndim(node.weight) != 4:
            raise GraphError(f"weight must have 4 dimensions, not shape {np.shape(node.weight)}.")
        outputs, inputs_per_group, *kernel = node.weight.shape
        groups = int(node.groups)
        if groups < 1 or outputs % groups or input_shape[0] != inputs_per_group * groups:
            raise GraphError(
                f"weight {node.weight.shape} with groups={groups} takes "
                f"{inputs_per_group * groups} channels, but the node receives {input_shape}."
            )
        if np.shape(node.bias) != (outputs,):
            raise GraphError(f"bias has shape {np.shape(node.bias)}, but weight gives {outputs}.")
        stride, dilation = pair(node, "stride", 1), pair(node, "dilation", 1)
        padding = conv_padding(node)
        return (
            outputs,
            *(
                window_count(input_shape[1 + i], padding[i], dilation[i] * (k - 1) + 1, stride[i])
                for i, k in enumerate(kernel)
            ),
        )

    def law(self, node: nir.Conv2d, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """Windows of the padded input times the kernels, group by group."""
        weights = np.split(np.asarray(node.weight, dtype), int(node.groups))
        bias = np.asarray(node.bias, dtype)[:, None, None]
        stride, dilation = pair(node, "stride", 1), pair(node, "dilation", 1)
        padding = conv_padding(node)
        kernel = node.weight.shape[2:]
        span = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))

        def convolve(x: Array) -> Array:
            padded = np.pad(x, ((0, 0), (0, 0), *padding))
            windows = sliding_window_view(padded, span, axis=(2, 3))
            windows = windows[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]
            parts = [
                np.tensordot(part, weight, axes=((1, 4, 5), (1, 2, 3)))
                for part, weight in zip(np.split(windows, len(weights), 1), weights, strict=True)
            ]
            return np.moveaxis(np.concatenate(parts, axis=3), 3, 1) + bias

        return stateless(convolve)
