"""Threshold: s = [x > threshold], without a membrane of its own."""

from __future__ import annotations

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Shape, Timing
from msg_deploy.primitives import Elementwise, Emission, Law, register


@register
class Threshold(Elementwise):
    """s(t) = [x(t) > threshold], strictly."""

    node_type = nir.Threshold
    spiking = True
    per_neuron = ("threshold",)

    def law(self, node: nir.Threshold, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """A decision on the input."""
        threshold = np.asarray(node.threshold, dtype)
        return Law(lambda x, state: Emission((x > threshold).astype(dtype), membrane=x))
