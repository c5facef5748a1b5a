"""Class scores from membranes that leak, behind currents that fade: Xylo's readout.

An output neuron of Xylo that never spikes has, in whole numbers and with dashes of 1,

    a[t] = I[t-1] + charge[t];  I[t] = a[t] - dec(a[t])
    v[t] = v[t-1] - dec(v[t-1]) + I[t];  dec(x) = x >> 1, but 1 of 1

so that v tells I, and I tells a but for neighbours: I comes of 2 I - 1, 2 I or 2 I + 1 (0 of all
three, others of two of them or one). Charges are weights shifted by 2 or more, hence multiples of
4, so a and I[t-1] are equal modulo 4, and only one of the three is. With a shift of 1 it would not
be unique: after I[t-1] = 1 charges of 0 and -2 both leave I[t] = 0. Nothing of this needs membranes
that do not leak; as they do, they stay smaller.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from msg_deploy.exporters.chips.decoder import Decoder, listed

LEAST_SHIFT = 2
"""Of the weights of output neurons, so that charges can be told."""


def charges(membranes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What reached each neuron at each step.

    Args:
        membranes: (steps, ...), from the first step after a reset on.
    """
    nothing = np.zeros_like(membranes[:1])
    before = np.concatenate([nothing, membranes[:-1]])
    current = membranes - before + np.where(before == 1, 1, before >> 1)
    held = np.concatenate([nothing, current[:-1]])
    least = 2 * current - 1
    # The one of least, least + 1 and least + 2 that is `held` modulo 4.
    return least + (held - least) % 4 - held


@dataclass(frozen=True)
class ChargeDecoder(Decoder):
    """TWO of the charges that membranes tell."""

    def scores(self, recorded: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Class scores (B, C).

        Args:
            recorded: membranes, whole numbers (steps of the chip, B, C).
        """
        return self._weighted(charges(recorded))

    @property
    def coefficients(self) -> npt.NDArray[np.float64]:
        """By which the charges of each step are multiplied."""
        return np.array(self.weights)

    def as_python(self) -> str:
        """A module with the function `decode`, which needs numpy only."""
        template = files("msg_deploy.exporters.chips").joinpath("decode_charges.py.txt").read_text()
        values = {
            "LATE": str(self.late),
            "WEIGHTS": listed(self.coefficients * self.unit),
            "OFFSETS": listed(np.array(self.offsets)),
            "FUNCTION": inspect.getsource(charges).replace("npt.NDArray[np.int64]", "np.ndarray"),
        }
        for name, value in values.items():
            template = template.replace(f"<{name}>", value)
        return template
