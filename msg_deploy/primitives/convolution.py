"""Conv1d and Conv2d: cross-correlation as torch.nn.Conv1d and torch.nn.Conv2d."""

from __future__ import annotations

from typing import Any, ClassVar

import nir
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from msg_deploy.deployment import Shape, Timing
from msg_deploy.errors import GraphError
from msg_deploy.primitives import Array, Law, Primitive, integers, rank, register, stateless

Padding = tuple[tuple[int, int], ...]
"""(before, after) for each axis."""
LAYOUT = {1: "(channels, length)", 2: "(channels, height, width)"}


def conv_padding(node: nir.Conv1d | nir.Conv2d, axes: int) -> Padding:
    """The zeros added around the input; 'same' as torch: the odd one goes after.

    Raises:
        GraphError: 'same' with a stride, which torch does not define.
    """
    if not isinstance(node.padding, str):
        return tuple((n, n) for n in integers(node, "padding", 0, axes))
    if node.padding == "valid":
        return ((0, 0),) * axes
    if node.padding != "same":
        raise GraphError(f"padding must be numbers, 'same' or 'valid', not {node.padding!r}.")
    if set(integers(node, "stride", 1, axes)) != {1}:
        raise GraphError("padding 'same' needs stride 1; write the padding as numbers.")
    spans = zip(integers(node, "dilation", 1, axes), node.weight.shape[2:], strict=True)
    return tuple((d * (k - 1) // 2, d * (k - 1) - d * (k - 1) // 2) for d, k in spans)


def window_count(size: int, padding: tuple[int, int], window: int, stride: int) -> int:
    """Positions of a window along one axis.

    Raises:
        GraphError: the window is larger than the padded input.
    """
    count = (size + sum(padding) - window) // stride + 1
    if count < 1:
        raise GraphError(f"the kernel spans {window}, more than the padded input {size}.")
    return count


class _Convolution(Primitive):
    """y[o] = b[o] + sum over i and the kernel of W[o,i,...] x[i, ...].

    With stride, padding, dilation and groups.
    """

    axes: ClassVar[int]
    weighted = True

    def output_shape(self, node: Any, input_shape: Shape) -> Shape:
        """(C_out, ...) for input (C_in, ...)."""
        rank(input_shape, 1 + self.axes, LAYOUT[self.axes])
        if np.ndim(node.weight) != 2 + self.axes:
            raise GraphError(
                f"weight must have {2 + self.axes} dimensions, not shape {np.shape(node.weight)}."
            )
        outputs, inputs_per_group, *kernel = node.weight.shape
        (groups,) = integers(node, "groups", 1, 1)
        if outputs % groups or input_shape[0] != inputs_per_group * groups:
            raise GraphError(
                f"weight {node.weight.shape} with groups={groups} takes "
                f"{inputs_per_group * groups} channels, but the node receives {input_shape}."
            )
        if np.shape(node.bias) != (outputs,):
            raise GraphError(f"bias has shape {np.shape(node.bias)}, but weight gives {outputs}.")
        stride = integers(node, "stride", 1, self.axes)
        dilation = integers(node, "dilation", 1, self.axes)
        padding = conv_padding(node, self.axes)
        return (
            outputs,
            *(
                window_count(input_shape[1 + i], padding[i], dilation[i] * (k - 1) + 1, stride[i])
                for i, k in enumerate(kernel)
            ),
        )

    def law(self, node: Any, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """Windows of the padded input times the kernels, group by group."""
        weights = np.split(np.asarray(node.weight, dtype), int(node.groups))
        bias = np.asarray(node.bias, dtype).reshape(-1, *[1] * self.axes)
        stride = integers(node, "stride", 1, self.axes)
        dilation = integers(node, "dilation", 1, self.axes)
        padding = conv_padding(node, self.axes)
        kernel = node.weight.shape[2:]
        span = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
        picked = tuple(slice(None, None, n) for n in (*stride, *dilation))
        places = tuple(range(2, 2 + self.axes))
        inside = tuple(range(2 + self.axes, 2 + 2 * self.axes))

        def convolve(x: Array) -> Array:
            padded = np.pad(x, ((0, 0), (0, 0), *padding))
            windows = sliding_window_view(padded, span, axis=places)[:, :, *picked]
            parts = [
                np.tensordot(part, weight, axes=((1, *inside), tuple(range(1, 2 + self.axes))))
                for part, weight in zip(np.split(windows, len(weights), 1), weights, strict=True)
            ]
            return np.moveaxis(np.concatenate(parts, axis=-1), -1, 1) + bias

        return stateless(convolve)


@register
class Conv1d(_Convolution):
    """Over (channels, length)."""

    node_type = nir.Conv1d
    axes = 1


@register
class Conv2d(_Convolution):
    """Over (channels, height, width)."""

    node_type = nir.Conv2d
    axes = 2
