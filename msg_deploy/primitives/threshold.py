"""Threshold: s = [x > threshold], without a membrane of its own."""

from __future__ import annotations

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Shape, Timing
from msg_deploy.primitives import Emission, Law, Primitive, parameters, register


@register
class Threshold(Primitive):
    """s(t) = [x(t) > threshold], strictly."""

    node_type = nir.Threshold
    spiking = True

    def output_shape(self, node: nir.Threshold, input_shape: Shape) -> Shape:
        """Unchanged."""
        parameters(node, ("threshold",), input_shape)
        return input_shape

    def law(self, node: nir.Threshold, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """A decision on the input."""
        threshold = np.asarray(node.threshold, dtype)
        return Law(lambda x, state: Emission((x > threshold).astype(dtype), membrane=x))
