"""Thresholds off the grid that states can reach, so that no state ever is at its threshold.

A state that starts at 0 and is reset to whole numbers is, after t steps with rate 2^-k, a multiple
of 2^-kt. Half a step of 2^-kT off that grid is reached at no step, and decides as the number that
was rounded does: v > theta and v > floor(theta) + half a step are the same for v on the grid.

Where thresholds are subtracted, what they are off the grid adds up. Without a leak, theta = m + f
with f = 2^-j, 2^j > T, is reached at no step, since (n + 1) f is no whole number for n < T. With
one, f = 2^-(kT+1): the n resets before leave a sum of f (1 - 2^-k)^d with different d, whose lowest
bit no other term has, or nothing; neither is f but for a multiple of 2^-kT.
"""

from __future__ import annotations

import math
from typing import Any

import nir
import numpy as np

from msg_deploy.deployment import Timing
from msg_deploy.exporters.quantize.nodes import COUPLED, NEURONS, Array, leak_bits

MOST_BITS = 52
"""Of a float64, the leading one aside."""


def state_bits(node: Any, timing: Timing) -> int | None:
    """Bits behind the point that a membrane needs; None if it is on no grid.

    A threshold that is not subtracted needs one more.
    """
    if not isinstance(node, NEURONS) or isinstance(node, COUPLED):
        return None
    bits = leak_bits(node, timing.dt)
    if bits is None:
        return None
    lasting = bits * timing.steps
    if timing.reset == "subtract" and hasattr(node, "v_threshold"):
        return lasting + offset_bits(node, timing, bits)
    return lasting


def offset_bits(node: Any, timing: Timing, bits: int) -> int:
    """j, where 2^-j is what a threshold is off the grid."""
    if timing.reset == "subtract" and bits == 0:
        return math.floor(math.log2(timing.steps)) + 1
    return bits * timing.steps + 1


def off_grid(node: Any, threshold: Array, timing: Timing) -> Array:
    """Thresholds in steps, moved off the grid by less than a step of it.

    Args:
        node: a neuron.
        threshold: in steps of what arrives.
        timing: of the network.
    """
    bits = 0 if isinstance(node, nir.Threshold) else leak_bits(node, timing.dt)
    if bits is None:
        return threshold
    behind = 1 if isinstance(node, nir.Threshold) else offset_bits(node, timing, bits)
    # Beyond the digits of a float64 there is no such number: as near as can be.
    before = math.ceil(math.log2(max(float(np.abs(threshold).max()), 1.0)))
    offset = 2.0 ** -min(behind, MOST_BITS - before)
    if timing.reset == "subtract" and not isinstance(node, nir.Threshold):
        step = 1.0 if bits == 0 else 2 * offset
        nearest: Array = np.rint((threshold - offset) / step) * step + offset
        # A threshold of 0 or less would never stop to be subtracted.
        return np.maximum(nearest, offset)
    below: Array = np.floor(threshold / (2 * offset)) * (2 * offset) + offset
    return below
