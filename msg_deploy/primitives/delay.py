"""Delay: y(t) = x(t - delay), zero before."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Shape, Timing
from msg_deploy.errors import GraphError
from msg_deploy.primitives import Array, Elementwise, Emission, Law, register


def delay_steps(node: nir.Delay, timing: Timing) -> npt.NDArray[np.int64]:
    """round(delay / dt) for every element."""
    return np.rint(np.asarray(node.delay, np.float64) / timing.dt).astype(np.int64)


@register
class Delay(Elementwise):
    """y[t] = x[t - round(delay/dt)], elementwise; 0 for negative times."""

    node_type = nir.Delay
    stateful = True
    per_neuron = ("delay",)

    def output_shape(self, node: nir.Delay, input_shape: Shape) -> Shape:
        """Unchanged."""
        super().output_shape(node, input_shape)
        if np.any(np.asarray(node.delay) < 0):
            raise GraphError("delay must not be negative.")
        return input_shape

    def law(self, node: nir.Delay, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """The last inputs as a tuple, newest first; each element picks its own."""
        steps = delay_steps(node, timing)
        distinct = [int(d) for d in np.unique(steps)]
        # A delay beyond the last step never delivers, so nothing older needs to be kept.
        kept = min(distinct[-1], timing.steps) + 1

        def step(x: Array, past: tuple[Array, ...]) -> Emission:
            recent = (x, *past)[:kept]
            output = np.zeros_like(x)
            for d in distinct:
                if d < len(recent):
                    output = np.where(steps == d, recent[d], output)
            return Emission(output, recent)

        def initial(batch: int) -> Any:
            return ()

        return Law(step, initial)
