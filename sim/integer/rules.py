"""Rules of integer arithmetic that chips differ in: ranges, decays, formats of weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from msg_deploy.errors import GraphError, UsageError

STRICT = ConfigDict(extra="forbid", strict=True)
LARGEST = 2**60
"""No number of a configuration is beyond, so that ranges and their sums fit int64."""

Array = npt.NDArray[np.int64]
Integer = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Bits = Annotated[int, Field(ge=0, le=62)]
Overflow = Literal["forbid", "saturate", "wrap", "wrap_once"]
"""What becomes of a value x outside low..high, where P = high - low + 1:

- `forbid`: the run is refused. Where bounds cannot exclude it, it is refused after the fact.
- `saturate`: the nearer of low and high.
- `wrap`: low + (x - low) mod P, two's complement where low = -2^(n-1) and high = 2^(n-1) - 1.
- `wrap_once`: x - P above high, x + P below low, once: what is still outside stays there (lava's
  current).
"""
Rounding = Literal[
    "floor", "ceiling", "toward_zero", "away", "nearest_up", "nearest_away", "nearest_even"
]
"""How x / 2^k becomes an integer. The last three differ where the rest is exactly one half: upwards
(add half, then shift), away from zero, to the even neighbour."""
DecayKind = Literal["none", "multiply", "shift", "subtract", "toward_zero"]
"""How a state x fades, with an amount d of its own for each neuron; see `Decay`."""


@dataclass(frozen=True, config=STRICT)
class Range:
    """The values that a register holds.

    Attributes:
        low: smallest, at most 0.
        high: largest, at least 0.
        overflow: what becomes of others.
    """

    low: Annotated[int, Field(ge=-LARGEST, le=0)]
    high: Annotated[int, Field(ge=0, le=LARGEST)]
    overflow: Overflow = "saturate"

    @property
    def period(self) -> int:
        """How many values there are."""
        return self.high - self.low + 1

    @property
    def magnitude(self) -> int:
        """The largest absolute value."""
        return max(-self.low, self.high)

    def outside(self, values: Array) -> npt.NDArray[np.bool_]:
        """Which values it does not hold."""
        return (values < self.low) | (values > self.high)

    def put_right(self, values: Array) -> Array:
        """What becomes of values; those that are forbidden stay."""
        if self.overflow == "saturate":
            return np.clip(values, self.low, self.high)
        if self.overflow == "wrap":
            return self.low + (values - self.low) % self.period
        if self.overflow == "wrap_once":
            above, below = values > self.high, values < self.low
            return values - self.period * above + self.period * below
        return values


def signed(bits: int, overflow: Overflow = "saturate") -> Range:
    """-2^(bits-1) .. 2^(bits-1) - 1."""
    return Range(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, overflow)


def symmetric(bits: int, overflow: Overflow = "saturate") -> Range:
    """-(2^(bits-1) - 1) .. 2^(bits-1) - 1."""
    return Range(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1, overflow)


def unsigned(bits: int, overflow: Overflow = "saturate") -> Range:
    """0 .. 2^bits - 1."""
    return Range(0, 2**bits - 1, overflow)


EXACT = Range(-(2**53), 2**53, "forbid")
"""What float64 holds without rounding."""


@dataclass(frozen=True, config=STRICT)
class Decay:
    """How a state x fades in one step, by the amount d of each neuron.

    - `none`: x.
    - `multiply`: round(x (2^bits - d) / 2^bits), d from 0 to 2^bits.
    - `shift`: x - round(x / 2^d), d from 0 to 62; with `least`, x - sign(x) where that rounds to 0,
      so that every x reaches 0.
    - `subtract`: x - d, d of any sign; then the state's range.
    - `toward_zero`: sign(x) max(|x| - d, 0), d from 0.

    Attributes:
        kind: which of them.
        bits: of `multiply`.
        rounding: of `multiply` (what stays) and of `shift` (what is lost).
        least: of `shift`: something is lost at every step.
    """

    kind: DecayKind = "none"
    bits: Annotated[int, Field(ge=0, le=30)] = 0
    rounding: Rounding = "floor"
    least: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Decay:
        if self.least and self.kind != "shift":
            raise UsageError(f"least belongs to the decay 'shift', not to {self.kind!r}.")
        if (self.kind == "multiply") != (self.bits > 0):
            raise UsageError("bits (above 0) belong to the decay 'multiply', and only to it.")
        return self

    def accepts(self) -> tuple[int, int]:
        """Smallest and largest amount."""
        largest = {"multiply": 2**self.bits, "shift": 62, "none": 0}.get(self.kind, LARGEST)
        return (-LARGEST if self.kind == "subtract" else 0), largest

    def lost(self, amount: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """The share of a state that a step takes away, rounding aside; 0 where it is no share."""
        if self.kind == "multiply":
            return amount / 2.0**self.bits
        if self.kind == "shift":
            return 2.0**-amount
        return np.zeros(amount.shape)


NO_DECAY = Decay()


@dataclass(frozen=True, config=STRICT)
class WeightMode:
    """Weights that a synapse holds: low, low + step, ..., up to high.

    Attributes:
        low: smallest.
        high: largest.
        step: between neighbours; 0 is always among them.
    """

    low: Integer
    high: Integer
    step: Annotated[int, Field(ge=1)] = 1

    def holds(self, weights: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which weights it holds."""
        inside = (weights >= self.low) & (weights <= self.high)
        return inside & (weights % self.step == 0)


class WeightError(GraphError):
    """Weights that no mode of a layer's `WeightFormat` holds."""


@dataclass(frozen=True, config=STRICT)
class WeightFormat:
    """What the weights into a layer may be: those of one group all in one mode.

    Attributes:
        modes: to choose from, such as mixed, excitatory and inhibitory.
        per: a group is a "matrix" as a whole, or the synapses of one "source".
    """

    modes: tuple[WeightMode, ...]
    per: Literal["matrix", "source"] = "matrix"

    def problem(self, weights: npt.NDArray[Any]) -> str | None:
        """What is wrong with weights (out, in, ...), or None."""
        groups = np.moveaxis(weights, 1, 0) if self.per == "source" else weights[None]
        for number, group in enumerate(groups):
            if not any(mode.holds(group).all() for mode in self.modes):
                where = f"of source {number} " if self.per == "source" else ""
                known = " or ".join(_named(mode) for mode in self.modes)
                found = f"{group.min()}..{group.max()}"
                return f"the weights {where}({found}) must all be of {known}."
        return None


def signed_weights(bits: int) -> WeightFormat:
    """-2^(bits-1) .. 2^(bits-1) - 1."""
    found = signed(bits)
    return WeightFormat((WeightMode(found.low, found.high),))


def _named(mode: WeightMode) -> str:
    return f"{mode.low}..{mode.high}" + (f" in steps of {mode.step}" if mode.step > 1 else "")
