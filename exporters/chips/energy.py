"""Estimates of energy: operations counted, times what one is published to take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class EnergyModel:
    """Energy of a chip's operations. An estimate is never more than these numbers.

    Attributes:
        joules: by operation: "synaptic operation" (a spike reaching a synapse), "neuron update" (a
            neuron, one step), "spike".
        source: of the numbers.
        watts_idle: static power; 0: not published, so not part of the estimate.
    """

    joules: Mapping[str, float]
    source: str
    watts_idle: float = 0.0

    def estimate(self, counts: Mapping[str, float]) -> float:
        """Joules, of the operations whose energy is known.

        Args:
            counts: how many, by operation.
        """
        return sum(joules * counts.get(name, 0.0) for name, joules in self.joules.items())
