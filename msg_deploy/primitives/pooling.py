"""SumPool2d and AvgPool2d over height and width."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from msg_deploy.deployment import Shape, Timing
from msg_deploy.primitives import Array, Law, Primitive, pair, rank, register, stateless
from msg_deploy.primitives.convolution import window_count


class _Pool(Primitive):
    def output_shape(self, node: Any, input_shape: Shape) -> Shape:
        """(C, H', W') for input (C, H, W)."""
        rank(input_shape, 3, "(channels, height, width)")
        kernel, stride = pair(node, "kernel_size", 1), pair(node, "stride", 1)
        padding = pair(node, "padding", 0)
        return (
            input_shape[0],
            *(
                window_count(input_shape[1 + i], (padding[i],) * 2, kernel[i], stride[i])
                for i in range(2)
            ),
        )

    def law(self, node: Any, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """Sums over windows, divided by `divisor`."""
        kernel, stride = pair(node, "kernel_size", 1), pair(node, "stride", 1)
        height, width = pair(node, "padding", 0)
        divisor = self.divisor(kernel)

        def pool(x: Array) -> Array:
            padded = np.pad(x, ((0, 0), (0, 0), (height, height), (width, width)))
            windows = sliding_window_view(padded, kernel, axis=(2, 3))
            sums: Array = windows[:, :, :: stride[0], :: stride[1]].sum(axis=(4, 5), dtype=dtype)
            return sums / np.asarray(divisor, dtype)

        return stateless(pool)

    def divisor(self, kernel: tuple[int, int]) -> int:
        raise NotImplementedError


@register
class SumPool2d(_Pool):
    """Sum of each window."""

    node_type = nir.SumPool2d

    def divisor(self, kernel: tuple[int, int]) -> int:
        """1."""
        return 1


@register
class AvgPool2d(_Pool):
    """Mean of each window; padded zeros count, as in torch's default."""

    node_type = nir.AvgPool2d

    def divisor(self, kernel: tuple[int, int]) -> int:
        """The number of places in the window."""
        return kernel[0] * kernel[1]
