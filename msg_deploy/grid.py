"""Grids: the largest step of which all given numbers are integer multiples.

Weights that stand on a coarse grid sum without rounding, in any order and in any engine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

LARGEST_MULTIPLE = 2**15
EXACT, ROUNDED = 2.0**-50, 2.0**-22
"""Relative error of a quotient of two numbers on the grid, with a margin of 2: of numbers as they
are, and of numbers that were rounded to float32."""


def step(values: npt.ArrayLike, largest: int = LARGEST_MULTIPLE) -> float | None:
    """The largest step of which every value is an integer multiple k, |k| <= `largest`.

    Args:
        values: of any shape. They may have been rounded to float32, if no |k| is far above 1000:
            beyond, grids can only be told apart where the values are exact multiples.
        largest: the largest |k|. With few values and a large |k| any numbers are near a grid.

    Returns:
        The step, or None: there is no such grid, no value but 0, or one that is not finite.
    """
    magnitudes = np.unique(np.abs(np.asarray(values, np.float64)))
    magnitudes = magnitudes[magnitudes != 0]
    if not len(magnitudes) or not np.all(np.isfinite(magnitudes)):
        return None
    exact = _step(magnitudes, largest, EXACT)
    return _step(magnitudes, largest, ROUNDED) if exact is None else exact


def _step(magnitudes: npt.NDArray[Any], largest: int, error: float) -> float | None:
    """The largest magnitude M is K steps for an integer K; the smallest K that suits all values."""
    counts = np.arange(1, largest + 1)
    for value in magnitudes:
        quotients = value / magnitudes[-1] * counts
        nearest = np.rint(quotients)
        counts = counts[(nearest > 0) & (np.abs(quotients - nearest) <= error * nearest)]
        if not len(counts):
            return None
    return float(magnitudes[-1] / counts[0])


def multiples(values: npt.ArrayLike, size: npt.ArrayLike) -> npt.NDArray[Any]:
    """How many steps each value is, int64; `size` broadcasts against the values."""
    return np.rint(np.asarray(values, np.float64) / np.asarray(size)).astype(np.int64)


def dyadic(values: npt.ArrayLike) -> float:
    """The largest power of two of which every value is an integer multiple.

    Args:
        values: finite, of any shape.

    Returns:
        The power of two; infinity where no value is other than 0.
    """
    lowest = dyadic_each(values).min(initial=np.inf)
    return float(lowest)


def dyadic_each(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """The same for each value alone, of the same shape."""
    array = np.asarray(values, np.float64)
    mantissa, exponent = np.frexp(array)
    whole = (mantissa * 2.0**53).astype(np.int64)
    lowest_bit = (whole & -whole).astype(np.float64)
    return np.where(whole == 0, np.inf, np.ldexp(lowest_bit, exponent - 53))
