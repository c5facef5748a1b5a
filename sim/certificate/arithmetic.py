"""Rounding: the unit roundoff, gamma_k, and how many roundings the laws may take.

Derived in docs/certificate.md; every number here is explained there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from msg_deploy.options import Precision

PRODUCT = 10
"""Roundings of one product in a sum, beside the additions: weight, product, and factors folded
into the weight (dt, tau, their quotient, r, two products), with two to spare."""
DIRECT = 6
"""Roundings of a state on its way to the next step: the decay, the product, three additions, one to
spare; the summands of the input come on top."""
DRIVEN = 14
"""Roundings of what is multiplied by dt/tau: dt, tau, their quotient, r, v_leak, two products,
three additions, four to spare."""
PARAMETER = 4
"""Roundings of a threshold or reset value, should it be multiplied by another parameter."""
SUBTRACTED = 2
"""Roundings of a reset by subtraction."""
SPARE = 2.0**-10
"""The bound itself is rounded; this share of it covers that many times over."""
LEAST = 2.0**-120
"""Absolute error of an operation whose result or operand is flushed to zero: 2^-126, 64 times."""


@dataclass(frozen=True)
class Arithmetic:
    """Of the engines.

    Attributes:
        unit: largest relative error of an operation, double rounding included.
        bits: integers up to 2^bits are exact.
        smallest: smallest normal number.
        largest: values beyond are not certified.
        dtype: of numpy.
    """

    unit: float
    bits: int
    smallest: float
    largest: float
    dtype: npt.DTypeLike

    @property
    def inflation(self) -> float:
        """Factor of a bound: the float64 values that it surrounds have an error of their own."""
        return 1 + ARITHMETIC["float64"].unit / self.unit + SPARE

    def gamma(self, roundings: Any) -> Any:
        """K u / (1 - k u): relative error of a product of k factors (1 + d), |d| <= u.

        Args:
            roundings: k, a number or an array of numpy or torch. From k u = 1 on there is no bound:
                infinity.
        """
        share = roundings * self.unit
        if isinstance(share, torch.Tensor):
            return torch.where(share < 1, share / (1 - share), torch.inf)
        return np.where(share < 1, share / (1 - share), np.inf)[()]

    def exactly(self, step: Any) -> Any:
        """Up to here multiples of a power of two are exact; -1 where it may be flushed to zero.

        Args:
            step: a number, or a tensor.
        """
        if isinstance(step, float):
            return 2.0**self.bits * step if step >= self.smallest else -1.0
        return (2.0**self.bits * step).where(step >= self.smallest, -1.0)

    def rounded(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Each value as the nearest number of this arithmetic."""
        with np.errstate(over="ignore"):
            return np.asarray(values, np.float64).astype(self.dtype).astype(np.float64)


ARITHMETIC: Mapping[Precision, Arithmetic] = {
    "float32": Arithmetic(2.0**-24 * (1 + 2.0**-28), 24, 2.0**-126, 2.0**125, np.float32),
    "float64": Arithmetic(2.0**-53 * (1 + 2.0**-10), 53, 2.0**-1022, 2.0**125, np.float64),
}
