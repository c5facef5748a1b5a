"""What every simulator gives and takes, and where it is found.

A simulator is one module of this package that decorates a class with `register`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from msg_deploy import sim
from msg_deploy.deployment import Deployment, InputSpec, Timing
from msg_deploy.errors import UsageError
from msg_deploy.options import Precision

FloatArray = npt.NDArray[Any]


@dataclass(frozen=True)
class Trace:
    """What one run recorded. Time-major everywhere.

    Attributes:
        simulator: name of what ran.
        spikes: per spiking node, uint8 (T, B, *node shape).
        membranes: per spiking node, float, same shape: at the threshold decision, before reset.
        outputs: of the Output node, float (T, B, *output shape).
        currents: I_L of the output layer, float (T, B, C): the output of the readout's source node;
            without a readout the same as `outputs`.
        scores: class scores, float (B, C): decoded by TWO; without a readout the sum over time.
            Without classes (C = 0) they are not recorded.
        partial: whether there may be layers that are not recorded.
    """

    simulator: str
    spikes: Mapping[str, npt.NDArray[np.uint8]]
    membranes: Mapping[str, FloatArray]
    outputs: FloatArray
    currents: FloatArray
    scores: FloatArray
    partial: bool = False

    @property
    def scored(self) -> bool:
        """Whether there are scores."""
        return self.scores.size > 0

    @property
    def decisions(self) -> npt.NDArray[np.int64]:
        """Argmax over classes, (B,); there must be scores."""
        return self.scores.reshape(len(self.scores), -1).argmax(axis=1)


class Simulator(Protocol):
    """Runs deployments."""

    name: str

    def unsupported(self, deployment: Deployment, precision: Precision = "float64") -> list[str]:
        """Why a deployment cannot be run, one reason an entry; empty if it can."""
        ...

    def run(
        self, deployment: Deployment, inputs: FloatArray, precision: Precision = "float64"
    ) -> Trace:
        """Run T steps on inputs (T, B, *input shape).

        Raises:
            GraphError: the graph is not valid.
            UsageError: the inputs have another shape.
        """
        ...


SimulatorType = TypeVar("SimulatorType", bound=Callable[[], Any])
_REGISTRY: dict[str, Callable[[], Simulator]] = {}


def register(simulator: SimulatorType) -> SimulatorType:
    """Class decorator: make a simulator available by its `name`."""
    _REGISTRY[simulator.name] = simulator  # type: ignore[attr-defined]
    return simulator


@functools.cache
def simulators() -> dict[str, Callable[[], Simulator]]:
    """All simulators of deployments, by name."""
    for module in pkgutil.iter_modules(sim.__path__):
        importlib.import_module(f"{sim.__name__}.{module.name}")
    return dict(sorted(_REGISTRY.items()))


def simulator(name: str) -> Simulator:
    """A simulator by name.

    Raises:
        UsageError: no such simulator.
    """
    known = simulators()
    if name not in known:
        raise UsageError(f"unknown simulator {name!r}; there are {', '.join(known)}.")
    return known[name]()


def check_inputs(deployment: Deployment, inputs: FloatArray) -> None:
    """Check the shape of what enters a simulator.

    Raises:
        UsageError: not (T, B, *input shape).
    """
    check_shape(deployment.timing, deployment.input, inputs)


def check_shape(timing: Timing, spec: InputSpec, inputs: FloatArray) -> None:
    """The same, for what has no graph.

    Raises:
        UsageError: not (T, B, *input shape).
    """
    expected = (timing.steps, *spec.shape)
    found = (inputs.shape[0], *inputs.shape[2:]) if inputs.ndim >= 2 else inputs.shape
    if found != expected:
        raise UsageError(
            f"wrong input shape: inputs (T, B, ...) of shape {inputs.shape}, but the model takes "
            f"T = {expected[0]} steps of {expected[1:]}."
        )


def repeats(inputs: FloatArray) -> bool:
    """Whether every step gets what the first one gets."""
    return inputs.strides[0] == 0 or bool(np.all(inputs == inputs[:1]))


def scores(deployment: Deployment, outputs: FloatArray) -> FloatArray:
    """Class scores (B, C) from a graph's outputs (T, B, C), as its readout says."""
    readout = deployment.readout
    if readout is None:
        return outputs.sum(axis=0)
    if readout.fold == "host":
        weights = np.asarray(readout.weights, outputs.dtype)
        return np.tensordot(weights, outputs, axes=1)
    return outputs[-1]
