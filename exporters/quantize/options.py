"""How a network is quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from msg_deploy.errors import UsageError
from msg_deploy.options import Calibration, Granularity, InputKind, Leak, Precision

DIGITS: dict[Precision, int] = {"float32": 24, "float64": 53}
"""Whole numbers up to two to this are exact."""
LEVELS = 255
"""Of an input whose samples stand on no grid: unsigned 8 bits."""


@dataclass(frozen=True)
class QuantizeOptions:
    """How a network is quantized.

    Attributes:
        bits: of a weight, sign included: 2 to 8.
        granularity: "channel": a scale for each output channel; "layer": one for the layer;
            "power-of-two": the same, rounded up to a power of two. Output layers always have one.
        calibration: "max": the largest weight is the largest integer; "percentile": larger ones are
            cut off; "mse": cut where the mean square error of the currents is smallest.
        percentile: of the magnitudes of a channel's weights, for "percentile".
        inputs: "counts": whole numbers enter as they are; "levels": the range has so many steps;
            "auto": counts or the samples' own grid, where they have one, else levels.
        levels: of the input; None: the samples' own, or 255, or fewer where that pays.
        leak: "keep" time constants, or round dt/tau to the nearest "power-of-two".
        exact: in which precision no engine may round anything. Weights get fewer bits where
            "float32" would need more than 24 in all; a layer of which too little would be left
            keeps them, and is then exact in float64 only.
        accumulator_bits: of a signed accumulator that every sum must fit; None: what is exact.
    """

    bits: int = 8
    granularity: Granularity = "channel"
    calibration: Calibration = "mse"
    percentile: float = 99.9
    inputs: InputKind = "auto"
    levels: int | None = None
    leak: Leak = "keep"
    exact: Precision = "float32"
    accumulator_bits: int | None = None

    def __post_init__(self) -> None:
        choices = {
            "granularity": Granularity,
            "calibration": Calibration,
            "inputs": InputKind,
            "leak": Leak,
            "exact": Precision,
        }
        for name, kind in choices.items():
            value, known = getattr(self, name), get_args(kind)
            _require(value in known, f"{name} must be {' or '.join(known)}, not {value!r}")
        _require(2 <= self.bits <= 8, f"bits must be 2 to 8, not {self.bits}")
        _require(
            50 < self.percentile <= 100,
            f"percentile must be above 50 and at most 100, not {self.percentile}",
        )
        _require(
            self.levels is None or 1 <= self.levels <= 255,
            f"levels must be 1 to 255, not {self.levels}",
        )
        _require(
            self.levels is None or self.inputs != "counts",
            "levels are not for inputs that are counts",
        )
        _require(
            self.accumulator_bits is None or 2 <= self.accumulator_bits <= 54,
            f"accumulator_bits must be 2 to 54, not {self.accumulator_bits}",
        )

    @property
    def largest(self) -> int:
        """Magnitude of the largest weight."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def largest_sum(self) -> int:
        """Magnitude of the largest sum that is allowed."""
        exact = 2 ** DIGITS[self.exact]
        if self.accumulator_bits is None:
            return int(exact)
        return int(min(exact, 2 ** (self.accumulator_bits - 1) - 1))


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise UsageError(f"quantize: {problem}.")
