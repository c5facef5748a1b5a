"""Affine, Linear and Scale: y = W x + b, y = W x, y = s * x."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Shape, Timing
from msg_deploy.errors import GraphError
from msg_deploy.primitives import Elementwise, Law, Primitive, register, stateless


def _matrix_output(node: Any, input_shape: Shape) -> Shape:
    if np.ndim(node.weight) != 2:
        raise GraphError(f"weight must be a matrix (out, in), not shape {np.shape(node.weight)}.")
    outputs, inputs = np.shape(node.weight)
    if input_shape != (inputs,):
        raise GraphError(f"weight takes {inputs} inputs, but the node receives {input_shape}.")
    return (outputs,)


@register
class Linear(Primitive):
    """y(t) = W x(t)."""

    node_type = nir.Linear
    weighted = True

    def output_shape(self, node: nir.Linear, input_shape: Shape) -> Shape:
        """(out,) for input (in,)."""
        return _matrix_output(node, input_shape)

    def law(self, node: nir.Linear, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """One matrix product a step."""
        weight = np.asarray(node.weight, dtype)
        return stateless(lambda x: x @ weight.T)


@register
class Affine(Primitive):
    """y(t) = W x(t) + b."""

    node_type = nir.Affine
    weighted = True

    def output_shape(self, node: nir.Affine, input_shape: Shape) -> Shape:
        """(out,) for input (in,)."""
        shape = _matrix_output(node, input_shape)
        if np.shape(node.bias) != shape:
            raise GraphError(f"bias has shape {np.shape(node.bias)}, but weight gives {shape}.")
        return shape

    def law(self, node: nir.Affine, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """One matrix product a step, then the bias."""
        weight, bias = np.asarray(node.weight, dtype), np.asarray(node.bias, dtype)
        return stateless(lambda x: x @ weight.T + bias)


@register
class Scale(Elementwise):
    """y(t) = s * x(t), elementwise."""

    node_type = nir.Scale
    per_neuron = ("scale",)

    def law(self, node: nir.Scale, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """One product a step."""
        scale = np.asarray(node.scale, dtype)
        return stateless(lambda x: x * scale)
