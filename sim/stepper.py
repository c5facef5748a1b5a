"""Executes a plan step by step, for any array library.

The discrete-time contract: nodes in topological order; edges that close a cycle carry the previous
step's value (zero at the first step); several incoming edges are summed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msg_deploy.deployment import Deployment, Shape
from msg_deploy.graph import Plan
from msg_deploy.primitives import Law
from msg_deploy.sim.simulator import FloatArray, Trace, scores
from msg_deploy.terminals import join, split


@dataclass(frozen=True)
class Backend:
    """What the stepper needs to know of an array library.

    Attributes:
        zeros: shape -> array.
        to_numpy: array -> numpy array.
    """

    zeros: Callable[[Shape], Any]
    to_numpy: Callable[[Any], FloatArray]


def run(
    name: str,
    deployment: Deployment,
    known: Plan,
    laws: Mapping[str, Law],
    inputs: Any,
    backend: Backend,
) -> Trace:
    """Run all steps and record.

    Args:
        name: of the simulator.
        deployment: to run.
        known: the plan of its graph.
        laws: for every node.
        inputs: (T, B, *input shape) in the backend's arrays; several Inputs joined.
        backend: the array library.
    """
    batch = inputs.shape[1]
    states = {node: law.initial(batch) for node, law in laws.items()}
    previous: dict[str, Any] = {}
    membranes: dict[str, list[FloatArray]] = {}
    spikes: dict[str, list[FloatArray]] = {}
    entering = split(inputs, {node: known.shapes[node] for node in known.inputs})
    sources = (deployment.readout.source,) if deployment.readout else known.outputs
    outputs, currents = [], []
    for t in range(deployment.timing.steps):
        values: dict[str, Any] = {}
        for node in known.order:
            incoming = [
                previous.get(e.source) if e.previous else values[e.source]
                for e in known.incoming[node]
            ]
            arriving = [value for value in incoming if value is not None]
            if node in entering:
                x = entering[node][t]
            elif arriving:
                x = sum(arriving[1:], arriving[0])
            else:
                x = backend.zeros((batch, *known.input_shapes[node]))
            emission = laws[node].step(x, states[node])
            values[node], states[node] = emission.output, emission.state
            if emission.membrane is not None:
                membranes.setdefault(node, []).append(backend.to_numpy(emission.membrane))
                spikes.setdefault(node, []).append(
                    backend.to_numpy(emission.output).astype(np.uint8)
                )
        previous = values
        outputs.append(join([backend.to_numpy(values[node]) for node in known.outputs], 1))
        currents.append(join([backend.to_numpy(values[node]) for node in sources], 1))
    stacked = np.stack(outputs)
    return Trace(
        simulator=name,
        spikes={node: np.stack(steps) for node, steps in spikes.items()},
        membranes={node: np.stack(steps) for node, steps in membranes.items()},
        outputs=stacked,
        currents=np.stack(currents),
        scores=scores(deployment, stacked),
    )
