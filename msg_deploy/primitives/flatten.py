"""Flatten: merges the dimensions start_dim..end_dim, counted without the batch."""

from __future__ import annotations

import math

import nir
import numpy.typing as npt

from msg_deploy.deployment import Shape, Timing
from msg_deploy.errors import GraphError
from msg_deploy.primitives import Law, Primitive, integers, register, stateless


@register
class Flatten(Primitive):
    """y(t) = x(t) with some dimensions merged, in C order."""

    node_type = nir.Flatten

    def output_shape(self, node: nir.Flatten, input_shape: Shape) -> Shape:
        """The shape with start_dim..end_dim multiplied together."""
        dimensions = len(input_shape)
        named = (integers(node, name, -dimensions, 1)[0] for name in ("start_dim", "end_dim"))
        start, end = (d + dimensions if d < 0 else d for d in named)
        if not 0 <= start <= end < dimensions:
            raise GraphError(
                f"start_dim={node.start_dim}, end_dim={node.end_dim} do not name a range of the "
                f"{dimensions} dimensions of {input_shape}."
            )
        merged = math.prod(input_shape[start : end + 1])
        return (*input_shape[:start], merged, *input_shape[end + 1 :])

    def law(self, node: nir.Flatten, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """A reshape."""
        target = self.output_shape(node, shape)
        return stateless(lambda x: x.reshape(len(x), *target))
