"""The recursion of the error of a state over many steps, compiled by numba.

Arrays: values (T, B, N), or (1, B, N) if all steps are equal, or (0, B, N) if there are none;
per-sample numbers (T, B) or (1, B); states (B, N), moved on in place; parameters (K, N).
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from msg_deploy.sim.fast.kernels import BLOCK, kernel

HIDDEN = 2**52
"""The leading bit of a normal float64 number, which is not stored."""


@kernel
def finest(bits, out):  # type: ignore[no-untyped-def]
    """The largest power of two of which all numbers of a row are multiples; infinity for zeros.

    Bits (R, N): float64 as int64; out (R,): float64.
    """
    for row in prange(len(bits)):
        lowest = 5000
        for i in range(bits.shape[1]):
            exponent = (bits[row, i] >> 52) & 0x7FF
            mantissa = bits[row, i] & (HIDDEN - 1)
            if exponent > 0:
                mantissa |= HIDDEN
            if mantissa == 0:
                continue
            place = max(exponent, 1) - 1075
            below = min(lowest - place, 62)
            # Mostly no bit of a number is lower than the lowest so far.
            if below <= 0 or mantissa & ((1 << below) - 1) == 0:
                continue
            while mantissa & 1 == 0:
                mantissa >>= 1
                place += 1
            lowest = place
        out[row] = math.ldexp(1.0, int(lowest)) if lowest < 5000 else np.inf


@kernel
def follow(  # type: ignore[no-untyped-def]
    x,
    input_error,
    input_open,
    input_step,
    reach,
    direct,
    membranes,
    v,
    e,
    h,
    law,
    threshold,
    reset,
    grid,
    driven,
    subtracted,
    exactly,
    smallest,
    largest,
    least,
    inflation,
    subtract,
    bound,
    margin,
    certified,
):
    """Bounds of a state, and of the decisions on it.

    e' = keep e + gain ex + gamma_direct (|v| + e)
         + gamma_driven (drag (|v| + e) + rest + gain (|x| + ex)) + least,
    or 0 where all values are multiples of a step of which 2^bits are more than enough.

    What is handed in:

    - x: exact inputs.
    - input_error: their bounds, ex, where the sums end before the state.
    - input_open: the same where the state goes on with the sums; of length 0 if they are equal.
    - input_step: of inputs without error, (T or 1, B); 0 if not known.
    - reach: sums of magnitudes behind each input, (T or 1, B).
    - direct: gamma of the state's own roundings, (T or 1, B).
    - membranes: exact states after each step, before reset, (T, B, N).
    - v: exact state.
    - e: its bound.
    - h: the step of which it is a multiple; 0 where it has an error.
    - law: keep |1 - rate|, drag rate, gain rate |r|, rest rate |v_leak|.
    - threshold: its value, error, error if only rounded, step.
    - reset: its value, error, step.
    - grid: rate, |r| and the step of v_leak, if rate and r are powers of two; else rate 0.
    - driven: gamma of the roundings of what is multiplied by the rate.
    - subtracted: gamma of the roundings of a subtraction.
    - exactly: 2^bits.
    - smallest: smallest step.
    - largest: beyond it nothing is certified.
    - least: absolute error of a step.
    - inflation: factor of the bounds.
    - subtract: the kind of reset.
    - bound: receives e + the error of the threshold, inflated, (T, B, N).
    - margin: receives membrane - threshold, (T, B, N) or (0, B, N).
    - certified: receives whether the margin is above the bound, or both sides are exact,
      (T, B, N), or (0, B, N) for a state without threshold.
    """
    steps, batch, count = bound.shape
    blocks = (count + BLOCK - 1) // BLOCK
    for k in prange(batch * blocks):
        b, start = k // blocks, (k % blocks) * BLOCK
        end = min(start + BLOCK, count)
        for t in range(steps):
            tx = t if len(x) > 1 else 0
            te = t if len(input_error) > 1 else 0
            gamma = direct[t if len(direct) > 1 else 0, b]
            summands = reach[t if len(reach) > 1 else 0, b]
            given = input_step[t if len(input_step) > 1 else 0, b]
            for j in range(start, end):
                arriving = abs(x[tx, b, j])
                ex = input_error[te, b, j] if len(input_error) else 0.0
                now, error, step = abs(v[b, j]), e[b, j], h[b, j]
                keep, drag, gain, rest = law[0, j], law[1, j], law[2, j], law[3, j]
                most = now + drag * now + rest + gain * max(summands, arriving)
                factor = grid[0, j]
                finer = min(step, min(grid[2, j], step, given * grid[1, j]) * factor)
                exact = (
                    ex == 0
                    and factor > 0
                    and error == 0
                    and finer >= smallest
                    and most <= exactly * finer
                )
                if exact:
                    error, step = 0.0, finer
                else:
                    if len(input_open):
                        ex = input_open[te, b, j]
                    error = (
                        keep * error
                        + gain * ex
                        + gamma * (now + error)
                        + driven * (drag * (now + error) + rest + gain * (arriving + ex))
                        + least * (1 + gain + now + arriving)
                    )
                    step = 0.0
                    if not most <= largest:
                        error = float("inf")
                u = membranes[t, b, j]
                limit = threshold[0, j]
                wide = (error + threshold[2 if exact else 1, j]) * inflation
                bound[t, b, j] = wide
                if len(certified):
                    distance = u - limit
                    margin[t, b, j] = distance
                    certified[t, b, j] = abs(distance) > wide or wide == 0
                if len(certified) and u > limit:
                    if subtract:
                        sum_of_both = abs(u) + abs(limit)
                        step = min(step, threshold[3, j])
                        if sum_of_both > exactly * step:
                            error += threshold[1, j] + subtracted * (sum_of_both + error) + least
                            step = 0.0
                        u = u - limit
                    else:
                        error, step = reset[1, j], reset[2, j]
                        u = reset[0, j]
                v[b, j], e[b, j], h[b, j] = u, error, step
