"""Neurons over many steps in one pass over memory, compiled by numba.

Each kernel is the law of `msg_deploy.primitives.integrators`, operation by operation, so that
float32 and float64 give the reference's bits: nothing is reordered, no multiply-add is contracted.
The membranes of a block of neurons stay in the cache while the steps go by; x and the spikes are
read and written once.

Arrays: x (T, B, N), or (1, B, N) if all steps are equal; states (B, N), moved on in place;
parameters (N,); emitted (T, B, N); membranes (T, B, N), or (0, B, N) where they are not wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numba
from numba import prange

BLOCK = 4096
"""Neurons whose membranes are moved on together: 16 KiB of float32."""
SERIAL = 2**15
"""Values below which threads cost more than they bring."""


@dataclass(frozen=True)
class Kernel:
    """A law, compiled for one thread and for several.

    Attributes:
        serial: for little work.
        parallel: for much.
    """

    serial: Callable[..., None]
    parallel: Callable[..., None]

    def __call__(self, work: int, *arguments: Any) -> None:
        """Run; `work` is the number of values."""
        (self.serial if work < SERIAL else self.parallel)(*arguments)


def kernel(function: Callable[..., None]) -> Kernel:
    """Decorator: compile, keeping the machine code on disk."""
    serial = numba.njit(cache=True)(function)
    return Kernel(serial, numba.njit(cache=True, parallel=True)(_renamed(function)))


def _renamed(function: Callable[..., None]) -> Callable[..., None]:
    """A copy under another name: numba keeps machine code by name and types, not by options.

    Under one name, whichever was compiled first would be taken from the disk for both.
    """
    name = f"{function.__name__}_parallel"
    code = function.__code__.replace(co_name=name)
    copy = FunctionType(code, function.__globals__, name, function.__defaults__)
    copy.__module__, copy.__qualname__ = function.__module__, name
    return copy


@kernel
def lif(x, v, rate, r, v_leak, threshold, v_reset, subtract, emitted, membranes):  # type: ignore[no-untyped-def]
    """V += rate ((v_leak - v) + r x); s = [v > threshold]; reset."""
    steps, batch, count = emitted.shape
    blocks = (count + BLOCK - 1) // BLOCK
    for k in prange(batch * blocks):
        b, start = k // blocks, (k % blocks) * BLOCK
        end = min(start + BLOCK, count)
        now, leak, gain = v[b, start:end], rate[start:end], r[start:end]
        rest, limit, after = v_leak[start:end], threshold[start:end], v_reset[start:end]
        for t in range(steps):
            arriving = x[t if len(x) > 1 else 0, b, start:end]
            spikes = emitted[t, b, start:end]
            for j in range(end - start):
                u = now[j] + leak[j] * ((rest[j] - now[j]) + gain[j] * arriving[j])
                fired = u > limit[j]
                spikes[j] = 1 if fired else 0
                left = u - limit[j] if subtract else after[j]
                now[j] = left if fired else u
                if len(membranes):
                    membranes[t, b, start + j] = u


@kernel
def integrate_and_fire(x, v, r, threshold, v_reset, subtract, emitted, membranes):  # type: ignore[no-untyped-def]
    """V += r x; s = [v > threshold]; reset."""
    steps, batch, count = emitted.shape
    blocks = (count + BLOCK - 1) // BLOCK
    for k in prange(batch * blocks):
        b, start = k // blocks, (k % blocks) * BLOCK
        end = min(start + BLOCK, count)
        now, gain = v[b, start:end], r[start:end]
        limit, after = threshold[start:end], v_reset[start:end]
        for t in range(steps):
            arriving = x[t if len(x) > 1 else 0, b, start:end]
            spikes = emitted[t, b, start:end]
            for j in range(end - start):
                u = now[j] + gain[j] * arriving[j]
                fired = u > limit[j]
                spikes[j] = 1 if fired else 0
                left = u - limit[j] if subtract else after[j]
                now[j] = left if fired else u
                if len(membranes):
                    membranes[t, b, start + j] = u


@kernel
def current_based_lif(  # type: ignore[no-untyped-def]
    x, i, v, decay, w_in, rate, r, v_leak, threshold, v_reset, subtract, emitted, membranes
):
    """I += decay (-i + w_in x); v += rate ((v_leak - v) + r i); s = [v > threshold]; reset."""
    steps, batch, count = emitted.shape
    blocks = (count + BLOCK - 1) // BLOCK
    for k in prange(batch * blocks):
        b, start = k // blocks, (k % blocks) * BLOCK
        end = min(start + BLOCK, count)
        current, now = i[b, start:end], v[b, start:end]
        fade, weight = decay[start:end], w_in[start:end]
        leak, gain, rest = rate[start:end], r[start:end], v_leak[start:end]
        limit, after = threshold[start:end], v_reset[start:end]
        for t in range(steps):
            arriving = x[t if len(x) > 1 else 0, b, start:end]
            spikes = emitted[t, b, start:end]
            for j in range(end - start):
                c = current[j] + fade[j] * (-current[j] + weight[j] * arriving[j])
                current[j] = c
                u = now[j] + leak[j] * ((rest[j] - now[j]) + gain[j] * c)
                fired = u > limit[j]
                spikes[j] = 1 if fired else 0
                left = u - limit[j] if subtract else after[j]
                now[j] = left if fired else u
                if len(membranes):
                    membranes[t, b, start + j] = u


@kernel
def leaky_integrator(x, v, rate, r, v_leak, emitted):  # type: ignore[no-untyped-def]
    """V += rate ((v_leak - v) + r x); the output is v."""
    steps, batch, count = emitted.shape
    blocks = (count + BLOCK - 1) // BLOCK
    for k in prange(batch * blocks):
        b, start = k // blocks, (k % blocks) * BLOCK
        end = min(start + BLOCK, count)
        now, leak = v[b, start:end], rate[start:end]
        gain, rest = r[start:end], v_leak[start:end]
        for t in range(steps):
            arriving = x[t if len(x) > 1 else 0, b, start:end]
            out = emitted[t, b, start:end]
            for j in range(end - start):
                u = now[j] + leak[j] * ((rest[j] - now[j]) + gain[j] * arriving[j])
                now[j] = u
                out[j] = u


@kernel
def current_based_integrator(x, i, v, decay, w_in, rate, r, v_leak, emitted):  # type: ignore[no-untyped-def]
    """I += decay (-i + w_in x); v += rate ((v_leak - v) + r i); the output is v."""
    steps, batch, count = emitted.shape
    blocks = (count + BLOCK - 1) // BLOCK
    for k in prange(batch * blocks):
        b, start = k // blocks, (k % blocks) * BLOCK
        end = min(start + BLOCK, count)
        current, now = i[b, start:end], v[b, start:end]
        fade, weight = decay[start:end], w_in[start:end]
        leak, gain, rest = rate[start:end], r[start:end], v_leak[start:end]
        for t in range(steps):
            arriving = x[t if len(x) > 1 else 0, b, start:end]
            out = emitted[t, b, start:end]
            for j in range(end - start):
                c = current[j] + fade[j] * (-current[j] + weight[j] * arriving[j])
                current[j] = c
                u = now[j] + leak[j] * ((rest[j] - now[j]) + gain[j] * c)
                now[j] = u
                out[j] = u


@kernel
def integrator(x, v, r, emitted):  # type: ignore[no-untyped-def]
    """V += r x; the output is v."""
    steps, batch, count = emitted.shape
    blocks = (count + BLOCK - 1) // BLOCK
    for k in prange(batch * blocks):
        b, start = k // blocks, (k % blocks) * BLOCK
        end = min(start + BLOCK, count)
        now, gain = v[b, start:end], r[start:end]
        for t in range(steps):
            arriving = x[t if len(x) > 1 else 0, b, start:end]
            out = emitted[t, b, start:end]
            for j in range(end - start):
                u = now[j] + gain[j] * arriving[j]
                now[j] = u
                out[j] = u
