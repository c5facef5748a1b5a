"""The rounding certificate: which threshold decisions no rounding can change.

Every engine of the class that docs/certificate.md describes decides a certified decision alike,
provided that it decided all earlier ones alike. `propagation` carries the bounds, `rules` and
`neurons` say how each node changes them, `arithmetic` holds the constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Deployment
from msg_deploy.options import Precision
from msg_deploy.sim.fast import DEFAULT_MEMORY, Fast
from msg_deploy.sim.simulator import FloatArray, check_inputs

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Certificate:
    """What is known about the threshold decisions of one run. Time-major everywhere.

    Attributes:
        precision: arithmetic of the engines that it is about.
        certified: per spiking node, bool (T, B, *node shape): no engine decides otherwise, if none
            did so before.
        margins: membrane minus threshold in exact arithmetic, float32, of the same shape.
        bounds: of the rounding error of both, float32, of the same shape; 0 where all engines
            compute without any error.
    """

    precision: Precision
    certified: Mapping[str, Booleans]
    margins: Mapping[str, FloatArray]
    bounds: Mapping[str, FloatArray]

    @property
    def spikes(self) -> dict[str, Booleans]:
        """What exact arithmetic decides; where a decision is not certified, as float64 has it."""
        return {name: margin > 0 for name, margin in self.margins.items()}

    @property
    def decisions(self) -> int:
        """Threshold decisions of all layers."""
        return sum(layer.size for layer in self.certified.values())

    @property
    def uncertified(self) -> int:
        """Those that rounding may change."""
        return sum(int(layer.size - layer.sum()) for layer in self.certified.values())

    @property
    def share(self) -> float:
        """Of the decisions that are certified; 1 if there are none."""
        return 1 - self.uncertified / self.decisions if self.decisions else 1.0


class Certifier:
    """Certifies batch after batch.

    Args:
        deployment: to certify.
        precision: arithmetic of the engines that the certificates are about.
        memory: bytes for the values between the layers; their bounds take as much again.

    Raises:
        GraphError: the graph is not valid, or holds a primitive without a rule.
    """

    def __init__(
        self,
        deployment: Deployment,
        precision: Precision = "float32",
        memory: int = DEFAULT_MEMORY,
    ) -> None:
        from msg_deploy.sim.certificate.propagation import Propagation

        self.deployment = deployment
        self.precision: Precision = precision
        self.propagation = Propagation(deployment, precision)
        self.engine = Fast(memory)

    def __call__(self, inputs: FloatArray) -> Certificate:
        """The certificate of one run.

        Args:
            inputs: (T, B, *input shape).

        Raises:
            UsageError: the inputs have another shape.
        """
        check_inputs(self.deployment, inputs)
        record = self.propagation.record(inputs.shape[:2])
        self.engine.watch(self.deployment, inputs, self.propagation, "float64")
        return Certificate(self.precision, record.certified, record.margins, record.bounds)


def certify(
    deployment: Deployment,
    inputs: FloatArray,
    precision: Precision = "float32",
    memory: int = DEFAULT_MEMORY,
) -> Certificate:
    """Find the threshold decisions that every engine of a precision must decide alike.

    Args:
        deployment: to certify.
        inputs: (T, B, *input shape).
        precision: arithmetic of the engines that the certificate is about.
        memory: bytes for the values between the layers; their bounds take as much again.

    Raises:
        GraphError: the graph is not valid, or holds a primitive without a rule.
        UsageError: the inputs have another shape.
    """
    return Certifier(deployment, precision, memory)(inputs)
