"""LIF, IF, CubaLIF, LI, CubaLI and I: the membranes, one explicit Euler step per timestep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Shape, Timing
from msg_deploy.options import ResetMode
from msg_deploy.primitives import (
    Array,
    Elementwise,
    Emission,
    Law,
    register,
)

Integrate = Callable[[Array, Array], Array]
"""(input, membrane) -> membrane before the threshold decision."""


def fire(membrane: Array, threshold: Array, v_reset: Array, reset: ResetMode) -> Emission:
    """Spike where v > threshold, strictly; then v = v_reset, or v - threshold ("subtract")."""
    spikes = membrane > threshold
    after = membrane - threshold if reset == "subtract" else v_reset
    return Emission(
        spikes.astype(membrane.dtype), np.where(spikes, after, membrane), membrane=membrane
    )


def _start(value: Array, shape: Shape, dtype: npt.DTypeLike) -> Callable[[int], Array]:
    return lambda batch: np.broadcast_to(value, (batch, *shape)).astype(dtype)


def _spiking_law(
    node: Any,
    integrate: Integrate,
    initial: Callable[[int], Array],
    timing: Timing,
    dtype: npt.DTypeLike,
) -> Law:
    threshold, v_reset = np.asarray(node.v_threshold, dtype), np.asarray(node.v_reset, dtype)
    return Law(lambda x, v: fire(integrate(x, v), threshold, v_reset, timing.reset), initial)


def _leaky(node: Any, timing: Timing, dtype: npt.DTypeLike) -> Integrate:
    rate = np.asarray(timing.dt / np.asarray(node.tau, np.float64), dtype)
    r, v_leak = np.asarray(node.r, dtype), np.asarray(node.v_leak, dtype)
    return lambda x, v: v + rate * ((v_leak - v) + r * x)


@register
class LIF(Elementwise):
    """v += dt/tau ((v_leak - v) + r x); s = [v > v_threshold]; reset. V(0) = v_leak."""

    node_type = nir.LIF
    stateful = True
    spiking = True
    per_neuron = ("tau", "r", "v_leak", "v_threshold", "v_reset")
    above_zero = ("tau",)

    def law(self, node: nir.LIF, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """One Euler step, then the threshold."""
        initial = _start(node.v_leak, shape, dtype)
        return _spiking_law(node, _leaky(node, timing, dtype), initial, timing, dtype)


@register
class IF(Elementwise):
    """v += r x (per step, not per second); s = [v > v_threshold]; reset. V(0) = 0."""

    node_type = nir.IF
    stateful = True
    spiking = True
    per_neuron = ("r", "v_threshold", "v_reset")

    def law(self, node: nir.IF, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """One addition, then the threshold."""
        r = np.asarray(node.r, dtype)
        initial = _start(np.zeros(shape), shape, dtype)
        return _spiking_law(node, lambda x, v: v + r * x, initial, timing, dtype)


@register
class CubaLIF(Elementwise):
    """i += dt/tau_syn (-i + w_in x); v += dt/tau_mem ((v_leak - v) + r i); then as LIF.

    i(0) = 0, V(0) = v_leak.
    """

    node_type = nir.CubaLIF
    stateful = True
    spiking = True
    per_neuron = ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in")
    above_zero = (
        "tau_syn",
        "tau_mem",
    )

    def law(self, node: nir.CubaLIF, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """An Euler step of the current, one of the membrane with that current, the threshold."""
        integrate, initial = _current_based(node, timing, shape, dtype)
        threshold, v_reset = np.asarray(node.v_threshold, dtype), np.asarray(node.v_reset, dtype)

        def step(x: Array, state: tuple[Array, Array]) -> Emission:
            current, membrane = integrate(x, state)
            fired = fire(membrane, threshold, v_reset, timing.reset)
            return fired._replace(state=(current, fired.state))

        return Law(step, initial)


@register
class CubaLI(Elementwise):
    """i += dt/tau_syn (-i + w_in x); v += dt/tau_mem ((v_leak - v) + r i); the output is v.

    i(0) = 0, V(0) = v_leak.
    """

    node_type = nir.CubaLI
    stateful = True
    per_neuron = ("tau_syn", "tau_mem", "r", "v_leak", "w_in")
    above_zero = (
        "tau_syn",
        "tau_mem",
    )

    def law(self, node: nir.CubaLI, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """An Euler step of the current, one of the membrane with that current."""
        integrate, initial = _current_based(node, timing, shape, dtype)

        def step(x: Array, state: tuple[Array, Array]) -> Emission:
            current, membrane = integrate(x, state)
            return Emission(membrane, (current, membrane))

        return Law(step, initial)


def _current_based(
    node: Any, timing: Timing, shape: Shape, dtype: npt.DTypeLike
) -> tuple[Callable[[Array, Any], tuple[Array, Array]], Callable[[int], Any]]:
    """(input, (current, membrane)) -> both one step later, before any reset; and the start."""
    decay = np.asarray(timing.dt / np.asarray(node.tau_syn, np.float64), dtype)
    rate = np.asarray(timing.dt / np.asarray(node.tau_mem, np.float64), dtype)
    w_in, r = np.asarray(node.w_in, dtype), np.asarray(node.r, dtype)
    v_leak = np.asarray(node.v_leak, dtype)
    at_rest = _start(node.v_leak, shape, dtype)

    def integrate(x: Array, state: Any) -> tuple[Array, Array]:
        current, membrane = state
        current = current + decay * (-current + w_in * x)
        return current, membrane + rate * ((v_leak - membrane) + r * current)

    return integrate, lambda batch: (np.zeros((batch, *shape), dtype), at_rest(batch))


@register
class LI(Elementwise):
    """v += dt/tau ((v_leak - v) + r x); the output is v. V(0) = v_leak."""

    node_type = nir.LI
    stateful = True
    per_neuron = ("tau", "r", "v_leak")
    above_zero = ("tau",)

    def law(self, node: nir.LI, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """One Euler step."""
        integrate = _leaky(node, timing, dtype)

        def step(x: Array, v: Array) -> Emission:
            membrane = integrate(x, v)
            return Emission(membrane, membrane)

        return Law(step, _start(node.v_leak, shape, dtype))


@register
class I(Elementwise):  # noqa: E742 (NIR's name)
    """v += r x (per step, not per second); the output is v. V(0) = 0."""

    node_type = nir.I
    stateful = True
    per_neuron = ("r",)

    def law(self, node: nir.I, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """One addition."""
        r = np.asarray(node.r, dtype)

        def step(x: Array, v: Array) -> Emission:
            membrane = v + r * x
            return Emission(membrane, membrane)

        return Law(step, _start(np.zeros(shape), shape, dtype))
