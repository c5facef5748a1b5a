"""Input and Output: the ends of a graph."""

from __future__ import annotations

from typing import Any

import nir
import numpy.typing as npt

from msg_deploy.deployment import Shape, Timing
from msg_deploy.errors import GraphError
from msg_deploy.primitives import Law, Primitive, register, stateless


def declared_shape(node: nir.Input | nir.Output) -> Shape:
    """The shape that an Input or Output declares, without batch.

    Raises:
        GraphError: none is declared, or a dimension is below 1.
    """
    (declared,) = (node.input_type if isinstance(node, nir.Input) else node.output_type).values()
    if declared is None:
        raise GraphError("declares no shape.")
    shape = tuple(int(n) for n in declared)
    if any(n < 1 for n in shape):
        raise GraphError(f"declares the shape {shape}; every dimension must be at least 1.")
    return shape


@register
class Input(Primitive):
    """y(t) = x(t), the samples of this step."""

    node_type = nir.Input

    def output_shape(self, node: nir.Input, input_shape: Shape) -> Shape:
        """The declared shape."""
        return declared_shape(node)

    def law(self, node: Any, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """The identity."""
        return stateless(lambda x: x)


@register
class Output(Primitive):
    """y(t) = x(t), the sum of what arrives."""

    node_type = nir.Output

    def output_shape(self, node: nir.Output, input_shape: Shape) -> Shape:
        """The declared shape, which must be that of the input."""
        shape = declared_shape(node)
        if shape != input_shape:
            raise GraphError(f"declares the shape {shape}, but receives {input_shape}.")
        return shape

    def law(self, node: Any, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """The identity."""
        return stateless(lambda x: x)
