"""Input and Output: the ends of a graph."""

from __future__ import annotations

import math
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Shape, Timing
from msg_deploy.errors import GraphError
from msg_deploy.primitives import Law, Primitive, register, stateless

LARGEST = 2**31
"""Numbers of one step of one sample; more is a mistake, or a file that means to fill the memory."""


def declared_shape(node: nir.Input | nir.Output) -> Shape:
    """The shape that an Input or Output declares, without batch.

    Raises:
        GraphError: none is declared, it is not a row of whole numbers of at least 1, or it has more
            than LARGEST numbers.
    """
    (declared,) = (node.input_type if isinstance(node, nir.Input) else node.output_type).values()
    if declared is None:
        raise GraphError("declares no shape.")
    numbers = np.asarray(declared)
    if numbers.ndim != 1 or not np.all(_whole(numbers)):
        raise GraphError(f"declares the shape {numbers}; a row of whole numbers is needed.")
    shape = tuple(int(n) for n in numbers)
    if any(n < 1 for n in shape):
        raise GraphError(f"declares the shape {shape}; every dimension must be at least 1.")
    if math.prod(shape) > LARGEST:
        raise GraphError(f"declares the shape {shape}; at most {LARGEST:,} numbers are taken.")
    return shape


def _whole(numbers: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    if numbers.dtype.kind not in "iuf":
        return np.zeros(1, bool)
    return np.asarray(np.isfinite(numbers) & (numbers == np.rint(numbers)))


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
