"""Networks in integers: the configurable neuron of chips, and graphs that are in integers.

See `rules` and `neuron` for what a chip computes, `network` for a whole network, `bounds` for what
cannot overflow, `convert` for graphs, `engine` for running them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from msg_deploy.deployment import Deployment
from msg_deploy.errors import UsageError
from msg_deploy.options import Precision
from msg_deploy.sim.simulator import FloatArray, Trace, check_inputs, register, scores
from msg_deploy.terminals import join

if TYPE_CHECKING:
    from msg_deploy.sim.integer.engine import Engine


@register
class Integer:
    """Graphs whose numbers are integers, in int64: spikes and membranes without any rounding."""

    name = "integer"

    def __init__(self) -> None:
        self._ready: tuple[Deployment, Precision, Engine] | None = None

    def unsupported(self, deployment: Deployment, precision: Precision = "float64") -> list[str]:
        """Every node that is not in integers, see `convert`."""
        from msg_deploy.sim.integer.convert import converted

        return converted(deployment, precision)[1]

    def run(
        self, deployment: Deployment, inputs: FloatArray, precision: Precision = "float64"
    ) -> Trace:
        """See `Simulator.run`.

        Raises:
            GraphError: the graph is not valid, not in integers, or would need more than 53 bits.
            UsageError: the inputs have another shape or are not whole numbers.
        """
        from msg_deploy.sim.integer.convert import in_units

        check_inputs(deployment, inputs)
        engine = self._engine(_reaching(deployment, inputs), precision)
        network, readout = engine.network, deployment.readout
        names = deployment.graph.nodes
        outputs = network.plan.outputs
        sources = (readout.source,) if readout else outputs
        found = engine.run(inputs, values=[*outputs, *sources])

        def joined(asked: tuple[str, ...]) -> FloatArray:
            parts = [in_units(found.values[name], network.points, name) for name in asked]
            return join(parts, 2).astype(precision)

        given = joined(outputs)
        return Trace(
            simulator=self.name,
            spikes={
                name: found.spikes[name].astype(np.uint8) for name in names if name in found.spikes
            },
            membranes={
                name: in_units(found.membranes[name], network.membrane_points, name).astype(
                    precision
                )
                for name in names
                if name in found.membranes
            },
            outputs=given,
            currents=joined(sources),
            scores=scores(deployment, given),
        )

    def _engine(self, deployment: Deployment, precision: Precision) -> Engine:
        """Made ready; the last one is kept for the next batch."""
        from msg_deploy.sim.integer.convert import from_deployment
        from msg_deploy.sim.integer.engine import Engine

        if self._ready is not None:
            known, same, engine = self._ready
            wanted = (deployment.timing, deployment.input, precision)
            if known.graph is deployment.graph and (known.timing, known.input, same) == wanted:
                return engine
        engine = Engine(from_deployment(deployment, precision), deployment.timing.steps)
        self._ready = deployment, precision, engine
        return engine


def _reaching(deployment: Deployment, inputs: FloatArray) -> Deployment:
    """With a range of inputs that also holds these.

    Raises:
        UsageError: they are not whole numbers.
    """
    if not (np.isfinite(inputs).all() and np.array_equal(inputs, np.rint(inputs))):
        raise UsageError("the integer simulator takes whole numbers as inputs, such as spikes.")
    low, high = deployment.input.entering
    reached = float(inputs.min(initial=low)), float(inputs.max(initial=high))
    if reached == (low, high):
        return deployment
    spec = replace(deployment.input, low=reached[0], high=reached[1], levels=None)
    return replace(deployment, input=spec)
