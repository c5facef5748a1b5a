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
        unit: class scores times that are those of the network.
    """

    reads: Reads
    weights: tuple[float, ...]
    late: int = 0
    unit: float = 1.0

    def scores(self, recorded: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Class scores (B, C).

        Args:
            recorded: whole numbers (steps of the chip, B, C), as `reads` says.
        """
        used = np.asarray(recorded, np.float64)[self.late : self.late + len(self.weights)]
        found: npt.NDArray[np.float64] = np.tensordot(self.coefficients, used, axes=1) * self.unit
        return found

    @property
    def coefficients(self) -> npt.NDArray[np.float64]:
        """By which the recorded values of each step are multiplied."""
        f = np.array(self.weights)
        return f - np.append(f[1:], 0.0) if self.reads == "membranes" else f

    def as_python(self) -> str:
        """A module with the function `decode`, which needs numpy only."""
        template = files("msg_deploy.exporters.chips").joinpath("decode.py.txt").read_text()
        values = ",\n    ".join(repr(float(c * self.unit)) for c in self.coefficients)
        numbers = {"READS": self.reads, "LATE": str(self.late), "VALUES": values}
        for name, value in numbers.items():
            template = template.replace(f"<{name}>", value)
        return template
