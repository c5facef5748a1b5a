"""From what leaves a chip to class scores: TWO on the host.

y = sum over t of f_t I[t], with I the currents of the output layer. A population that adds them up
without a leak, v[t] = I[0] + ... + I[t], gives the same as

    y = f[T-1] v[T-1] - sum over t < T-1 of (f[t+1] - f[t]) v[t],

so a chip needs membranes only, of any weights f.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import numpy as np
import numpy.typing as npt

Reads = Literal["membranes", "currents", "spikes"]


@dataclass(frozen=True)
class Decoder:
    """What the host does for one sample.

    Attributes:
        reads: of the output population: "membranes" that add up without a leak, "currents", or
            "spikes".
        weights: f, one for each step of the network.
        late: the first of these steps is step `late` of what was recorded.
        unit: what is recorded times that is in units of the class scores.
        offsets: what biases of the output layer that the chip does not have add to the class
            scores; one number for all of them, or one for each in C order.
    """

    reads: Reads
    weights: tuple[float, ...]
    late: int = 0
    unit: float = 1.0
    offsets: tuple[float, ...] = (0.0,)

    def scores(self, recorded: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Class scores (B, C).

        Args:
            recorded: whole numbers (steps of the chip, B, C), as `reads` says.
        """
        return self._weighted(recorded)

    def _weighted(self, values: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Sums over the steps that count, in units of the class scores."""
        used = np.asarray(values, np.float64)[self.late : self.late + len(self.weights)]
        found = np.tensordot(self.coefficients, used, axes=1) * self.unit
        offsets = np.array(self.offsets)
        shaped = offsets.reshape(found.shape[1:]) if len(offsets) > 1 else offsets
        total: npt.NDArray[np.float64] = found + shaped
        return total

    @property
    def coefficients(self) -> npt.NDArray[np.float64]:
        """By which the recorded values of each step are multiplied."""
        f = np.array(self.weights)
        return f - np.append(f[1:], 0.0) if self.reads == "membranes" else f

    def as_python(self) -> str:
        """A module with the function `decode`, which needs numpy only."""
        template = files("msg_deploy.exporters.chips").joinpath("decode.py.txt").read_text()
        numbers = {
            "READS": self.reads,
            "LATE": str(self.late),
            "WEIGHTS": listed(self.coefficients * self.unit),
            "OFFSETS": listed(np.array(self.offsets)),
        }
        for name, value in numbers.items():
            template = template.replace(f"<{name}>", value)
        return template


def listed(values: npt.NDArray[np.float64]) -> str:
    """Numbers as lines of a tuple."""
    return ",\n    ".join(repr(float(value)) for value in values)


def offsets_of(
    bias: npt.NDArray[np.float64], weights: tuple[float, ...], unit: float
) -> tuple[float, ...]:
    """What a bias that enters at every step adds to the class scores.

    Args:
        bias: of each output neuron, in whole numbers.
        weights: f of each step.
        unit: what a 1 of the currents is in units of the class scores.
    """
    found = bias.ravel() * sum(weights) * unit
    return tuple(found.tolist()) if found.any() else (0.0,)
