"""The reference simulator: the laws of the primitives in numpy, nothing else."""

from __future__ import annotations

import numpy as np

from msg_deploy.deployment import Deployment
from msg_deploy.graph import plan
from msg_deploy.options import Precision
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.simulator import FloatArray, Trace, check_inputs, register
from msg_deploy.sim.stepper import Backend, run


@register
class Reference:
    """Executes every primitive's own law, one step at a time."""

    name = "reference"

    def unsupported(self, deployment: Deployment, precision: Precision = "float64") -> list[str]:
        """Nothing: a valid graph can be run."""
        return []

    def run(
        self, deployment: Deployment, inputs: FloatArray, precision: Precision = "float64"
    ) -> Trace:
        """See `Simulator.run`."""
        check_inputs(deployment, inputs)
        known = plan(deployment.graph)
        dtype = np.dtype(precision)
        laws = {
            name: primitive_of(node).law(node, deployment.timing, known.input_shapes[name], dtype)
            for name, node in deployment.graph.nodes.items()
        }
        backend = Backend(zeros=lambda shape: np.zeros(shape, dtype), to_numpy=np.asarray)
        return run(self.name, deployment, known, laws, inputs.astype(dtype), backend)
