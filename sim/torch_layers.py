"""Nodes without state, in torch: what every simulator on torch shares, by the type of the node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import nir
import numpy as np
import torch
from torch import Tensor, nn

from msg_deploy.deployment import Shape, Timing
from msg_deploy.primitives import integers, pair
from msg_deploy.primitives.convolution import conv_padding

Layer = Callable[[Tensor], Tensor]
"""(N, *input shape) to (N, *output shape)."""


class Context(NamedTuple):
    """What a builder needs beside the node.

    Attributes:
        timing: of the deployment.
        shape: of the node's input, without batch.
        dtype: of the computation.
    """

    timing: Timing
    shape: Shape
    dtype: torch.dtype

    def tensor(self, value: Any) -> Tensor:
        """A parameter as a tensor of this computation."""
        return torch.tensor(np.asarray(value), dtype=self.dtype)


Builder = Callable[[Any, Context], Layer]
BuilderType = TypeVar("BuilderType", bound=Builder)
LAYERS: dict[type[nir.NIRNode], Builder] = {}


def layer(*kinds: type[nir.NIRNode]) -> Callable[[BuilderType], BuilderType]:
    """Decorator: the function makes the layer of nodes of these types."""

    def add(builder: BuilderType) -> BuilderType:
        LAYERS.update(dict.fromkeys(kinds, builder))
        return builder

    return add


@layer(nir.Input, nir.Output)
def _identity(node: nir.NIRNode, context: Context) -> Layer:
    return lambda x: x


@layer(nir.Linear, nir.Affine)
def _linear(node: Any, context: Context) -> Layer:
    weight = context.tensor(node.weight)
    bias = context.tensor(node.bias) if isinstance(node, nir.Affine) else None
    return lambda x: nn.functional.linear(x, weight, bias)


@layer(nir.Scale)
def _scale(node: nir.Scale, context: Context) -> Layer:
    scale = context.tensor(node.scale)
    return lambda x: x * scale


@layer(nir.Conv1d)
def _conv1d(node: nir.Conv1d, context: Context) -> Layer:
    return _convolution(node, context, 1, nn.functional.conv1d)


@layer(nir.Conv2d)
def _conv2d(node: nir.Conv2d, context: Context) -> Layer:
    return _convolution(node, context, 2, nn.functional.conv2d)


def _convolution(node: Any, context: Context, axes: int, function: Callable[..., Tensor]) -> Layer:
    weight, bias = context.tensor(node.weight), context.tensor(node.bias)
    stride = integers(node, "stride", 1, axes)
    dilation = integers(node, "dilation", 1, axes)
    groups, padding = int(node.groups), conv_padding(node, axes)
    if all(before == after for before, after in padding):
        both = tuple(before for before, _ in padding)
        return lambda x: function(x, weight, bias, stride, both, dilation, groups)
    # torch pads the last axis first.
    apart = [n for sides in reversed(padding) for n in sides]
    return lambda x: function(
        nn.functional.pad(x, apart), weight, bias, stride, 0, dilation, groups
    )


@layer(nir.AvgPool2d, nir.SumPool2d)
def _pool2d(node: Any, context: Context) -> Layer:
    return nn.AvgPool2d(
        pair(node, "kernel_size", 1),
        pair(node, "stride", 1),
        pair(node, "padding", 0),
        divisor_override=1 if isinstance(node, nir.SumPool2d) else None,
    )


@layer(nir.Flatten)
def _flatten(node: nir.Flatten, context: Context) -> Layer:
    def with_batch(dimension: int) -> int:
        return dimension + 1 if dimension >= 0 else dimension

    return nn.Flatten(with_batch(int(node.start_dim)), with_batch(int(node.end_dim)))


@layer(nir.Threshold)
def _threshold(node: nir.Threshold, context: Context) -> Layer:
    threshold = context.tensor(node.threshold)
    return lambda x: (x > threshold).to(x.dtype)
