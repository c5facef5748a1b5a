"""Norse's cells. Source: norse 1.1.0, norse/torch/functional.

All spike at v > v_th and start at v_leak, except that IAF starts at v_reset. The parameters are
float32 numbers and dt a Python float; their product is rounded to float32, whatever the network
computes in, so time constants are taken from that product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nir
import norse.torch as norse
import numpy as np
import numpy.typing as npt
import torch
from norse.torch.functional.reset import reset_subtract, reset_value
from torch import Tensor

from msg_deploy.errors import TraceError
from msg_deploy.exporters.adapters import CONTAINERS, Neuron, adapts
from msg_deploy.exporters.layers import Context, array_of
from msg_deploy.options import ResetMode

CONTAINERS[norse.SequentialState] = True


class Cell(Neuron):
    """What all cells share."""

    def dt(self, layer: Any) -> float | None:
        """As constructed."""
        return float(layer.dt)

    def returns_state(self, layer: Any) -> bool:
        """Always."""
        return True


@adapts(norse.LIFBoxCell)
class LIFBox(Cell):
    """v += dt tau_mem_inv (x + v_leak - v); reset by `reset_method`."""

    def reset(self, layer: Any) -> ResetMode | None:
        """By the reset method."""
        known: dict[Any, ResetMode] = {reset_value: "zero", reset_subtract: "subtract"}
        if layer.p.reset_method not in known:
            raise TraceError("reset_method must be reset_value or reset_subtract.")
        return known[layer.p.reset_method]

    def convert(self, layer: Any, context: Context) -> nir.NIRNode:
        """LIF with r = 1."""
        return nir.LIF(
            tau=context.full(_tau(layer, layer.p.tau_mem_inv)),
            r=context.full(1),
            v_leak=context.full(_value(layer.p.v_leak)),
            v_threshold=context.full(_value(layer.p.v_th)),
            v_reset=context.full(_value(layer.p.v_reset)),
        )


@adapts(norse.LIFCell)
class LIF(Cell):
    """i += x; v += dt tau_mem_inv (v_leak - v + i); i -= dt tau_syn_inv i; reset to v_reset."""

    def convert(self, layer: Any, context: Context) -> nir.NIRNode:
        """CubaLIF with w_in = tau_syn / dt: its i is Norse's before the decay."""
        tau_syn = _tau(layer, layer.p.tau_syn_inv)
        return nir.CubaLIF(
            tau_syn=context.full(tau_syn),
            tau_mem=context.full(_tau(layer, layer.p.tau_mem_inv)),
            r=context.full(1),
            v_leak=context.full(_value(layer.p.v_leak)),
            v_threshold=context.full(_value(layer.p.v_th)),
            v_reset=context.full(_value(layer.p.v_reset)),
            w_in=context.full(tau_syn / layer.dt),
        )


@adapts(norse.IAFCell)
class IAF(Cell):
    """v += x; v_reset after a spike, and at the start."""

    def convert(self, layer: Any, context: Context) -> nir.NIRNode:
        """IF of v - v_reset, since NIR's IF starts at 0."""
        start = _value(layer.p.v_reset)
        return nir.IF(
            r=context.full(1),
            v_threshold=context.full(_value(layer.p.v_th) - start),
            v_reset=context.full(0),
        )


@adapts(norse.LIBoxCell)
class LIBox(Cell):
    """v += dt tau_mem_inv (v_leak - v + x); the output is v."""

    def reset(self, layer: Any) -> ResetMode | None:
        """None."""
        return None

    def spiking(self, layer: Any) -> bool:
        """Never."""
        return False

    def convert(self, layer: Any, context: Context) -> nir.NIRNode:
        """LI with r = 1."""
        return nir.LI(
            tau=context.full(_tau(layer, layer.p.tau_mem_inv)),
            r=context.full(1),
            v_leak=context.full(_value(layer.p.v_leak)),
        )


def _value(parameter: Any) -> npt.NDArray[np.float64]:
    return array_of(parameter, np.float64)


def _tau(layer: Any, inverse: Any) -> npt.NDArray[np.float64]:
    """The time constant in seconds by which dt / tau is the product as Norse rounds it."""
    rate = _value(layer.dt * torch.as_tensor(inverse))
    if np.any(rate <= 0):
        raise TraceError("inverse time constants must be above 0.")
    return layer.dt / rate


Surrogate = Callable[[Tensor], Tensor]


def use_surrogate(cell: Any, surrogate: Surrogate) -> None:
    """Let a LIFBoxCell, LIFCell or IAFCell fire by a surrogate of ours, such as MaskedSurrogate.

    Norse's `method` is one of a closed list, so the cell's activation is replaced by one with the
    same equations.

    Args:
        cell: changed in place.
        surrogate: maps v - v_th to spikes.

    Raises:
        TraceError: another kind of cell.
    """
    for kind, step in STEPS.items():
        if isinstance(cell, kind):
            cell.surrogate = surrogate  # registered, so that it follows train() and eval()
            cell.activation = step(surrogate)
            return
    raise TraceError(f"{type(cell).__name__} is none of {', '.join(k.__name__ for k in STEPS)}.")


def _lif_box_step(surrogate: Surrogate) -> Any:
    def step(x: Tensor, state: Any, p: Any, dt: float) -> Any:
        v = state.v + dt * p.tau_mem_inv * (x + p.v_leak - state.v)
        z = surrogate(v - p.v_th)
        return z, norse.LIFBoxFeedForwardState(v=p.reset_method(z, v, p.v_reset, p.v_th))

    return step


def _lif_step(surrogate: Surrogate) -> Any:
    def step(x: Tensor, state: Any, p: Any, dt: float) -> Any:
        i = state.i + x
        v = state.v + dt * p.tau_mem_inv * ((p.v_leak - state.v) + i)
        z = surrogate(v - p.v_th)
        decayed = i + -dt * p.tau_syn_inv * i
        return z, norse.LIFFeedForwardState(v=(1 - z) * v + z * p.v_reset, i=decayed)

    return step


def _iaf_step(surrogate: Surrogate) -> Any:
    def step(x: Tensor, state: Any, p: Any, dt: float) -> Any:
        v = state.v + x
        z = surrogate(v - p.v_th)
        return z, norse.IAFFeedForwardState(v=(1 - z) * v + z * p.v_reset)

    return step


STEPS: dict[type[Any], Callable[[Surrogate], Any]] = {
    norse.LIFBoxCell: _lif_box_step,
    norse.LIFCell: _lif_step,
    norse.IAFCell: _iaf_step,
}
