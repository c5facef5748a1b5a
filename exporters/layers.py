"""Torch layers as NIR nodes. To support another layer, add a function decorated with `converts`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import nir
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from msg_deploy.deployment import Shape
from msg_deploy.errors import TraceError
from msg_deploy.networks import Scale
from msg_deploy.neuron import LIF
from msg_deploy.primitives import Array
from msg_deploy.readout import TWO


class Context(NamedTuple):
    """What a converter may need beside the layer.

    Attributes:
        shape: of the layer's input, without batch.
        dt: length of a timestep in seconds.
        dtype: that the traced module computes in.
    """

    shape: Shape
    dt: float
    dtype: npt.DTypeLike = np.float32

    def full(self, value: Any) -> npt.NDArray[np.float64]:
        """A parameter of every neuron, from a number or anything that broadcasts.

        Raises:
            TraceError: its shape does not fit the neurons.
        """
        values = np.asarray(value, np.float64)
        try:
            return np.array(np.broadcast_to(values, self.shape))
        except ValueError:
            raise TraceError(
                f"a parameter has the shape {values.shape}, which does not fit neurons of the "
                f"shape {self.shape}; give one number, or one for each neuron."
            ) from None


class Part(NamedTuple):
    """Several nodes in place of one layer.

    Attributes:
        nodes: by suffix of the layer's name; "" gives the output, and the spikes if there are any.
        edges: between suffixes.
        start: suffix of the node that takes the input.
    """

    nodes: dict[str, nir.NIRNode]
    edges: tuple[tuple[str, str], ...]
    start: str


Converter = Callable[[Any, Context], nir.NIRNode | Part]
ConverterType = TypeVar("ConverterType", bound=Converter)
CONVERTERS: dict[type[nn.Module], Converter] = {}
IDENTITIES: list[type[nn.Module]] = [nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d]
"""Layers that do nothing in evaluation mode."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def converts(layer: type[nn.Module]) -> Callable[[ConverterType], ConverterType]:
    """Decorator: the function turns layers of this type into NIR nodes."""

    def add(converter: ConverterType) -> ConverterType:
        CONVERTERS[layer] = converter
        return converter

    return add


def converter_of(layer: nn.Module) -> Converter:
    """The function that turns a layer into nodes.

    Raises:
        TraceError: there is none.
    """
    for kind in type(layer).__mro__:
        if kind in CONVERTERS:
            return CONVERTERS[kind]
    names = sorted(k.__name__ for k in (*CONVERTERS, *BATCH_NORMS, *IDENTITIES, TWO))
    raise TraceError(f"has no counterpart in NIR; supported layers are {', '.join(names)}.")


def array_of(tensor: Any, dtype: npt.DTypeLike | None = None) -> Array:
    """The values of a tensor, or of what can become one, as an array of its own."""
    return np.array(torch.as_tensor(tensor).detach().cpu().numpy(), dtype)


@converts(nn.Linear)
def _linear(layer: nn.Linear, context: Context) -> nir.NIRNode:
    weight = array_of(layer.weight)
    return nir.Linear(weight) if layer.bias is None else nir.Affine(weight, array_of(layer.bias))


@converts(nn.Conv2d)
def _conv2d(layer: nn.Conv2d, context: Context) -> nir.NIRNode:
    if layer.padding_mode != "zeros":
        raise TraceError(f"padding_mode must be 'zeros', not {layer.padding_mode!r}.")
    weight = array_of(layer.weight)
    bias = np.zeros(len(weight), weight.dtype) if layer.bias is None else array_of(layer.bias)
    padding = layer.padding if isinstance(layer.padding, str) else np.array(layer.padding)
    return nir.Conv2d(
        input_shape=np.array(context.shape[1:]),
        weight=weight,
        stride=np.array(layer.stride),
        padding=padding,
        dilation=np.array(layer.dilation),
        groups=layer.groups,
        bias=bias,
    )


@converts(nn.AvgPool2d)
def _avg_pool2d(layer: nn.AvgPool2d, context: Context) -> nir.NIRNode:
    if layer.ceil_mode or layer.divisor_override not in (None, 1):
        raise TraceError("ceil_mode and a divisor_override other than 1 are not supported.")
    padding = np.broadcast_to(layer.padding, (2,))
    if padding.any() and not layer.count_include_pad:
        raise TraceError("count_include_pad=False with padding is not supported.")
    fields = (layer.kernel_size, layer.stride, padding)
    kind = nir.AvgPool2d if layer.divisor_override is None else nir.SumPool2d
    return kind(*(np.array(np.broadcast_to(f, (2,))) for f in fields))


@converts(nn.Flatten)
def flatten(layer: nn.Flatten, context: Context) -> nir.NIRNode:
    """Dimensions counted without the batch."""
    dimensions = len(context.shape)
    start, end = (d + dimensions + 1 if d < 0 else d for d in (layer.start_dim, layer.end_dim))
    if start < 1:
        raise TraceError("start_dim 0 would merge time and batch with the data; use start_dim=1.")
    # Negative dimensions mean the same with and without a batch dimension.
    return nir.Flatten(
        {"input": np.array(context.shape)},
        start_dim=start - 1 - dimensions,
        end_dim=end - 1 - dimensions,
    )


@converts(Scale)
def _scale(layer: Scale, context: Context) -> nir.NIRNode:
    return nir.Scale(context.full(array_of(layer.scale)))


@converts(LIF)
def _lif(layer: LIF, context: Context) -> nir.NIRNode:
    # Numbers of Python stay as they are: torch would round them to float32.
    threshold, v_reset = map(context.full, layer.levels(torch.zeros((), dtype=torch.float64)))
    if math.isinf(layer.tau):
        return nir.IF(r=context.full(1), v_threshold=threshold, v_reset=v_reset)
    return nir.LIF(
        tau=context.full(layer.tau * context.dt),
        r=context.full(1),
        v_leak=context.full(0),
        v_threshold=threshold,
        v_reset=v_reset,
    )
