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
    """

    joules: Mapping[str, float]
    source: str

    def estimate(self, counts: Mapping[str, float]) -> float:
        """Joules, of the operations whose energy is known.

        Args:
            counts: how many, by operation.
        """
        return sum(joules * counts.get(name, 0.0) for name, joules in self.joules.items())


LOIHI = EnergyModel(
    {"synaptic operation": 23.6e-12, "neuron update": 81e-12, "spike": 1.7e-12},
    "of Loihi 1, Davies et al., IEEE Micro 38(1), 2018, table 2: 23.6 pJ a synaptic operation, 81 "
    "pJ an update of an active neuron, 1.7 pJ a spike within a tile; Loihi 2's are not published",
)
ODIN = EnergyModel(
    {"synaptic operation": 12.7e-12},
    "Frenkel et al., IEEE Trans. Biomed. Circuits Syst. 13(1), 2019: 12.7 pJ a synaptic operation, "
    "all included",
)
