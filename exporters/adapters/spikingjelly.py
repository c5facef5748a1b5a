"""spikingjelly's IFNode, LIFNode and ParametricLIFNode, single-step and multi-step.

Source: spikingjelly 2.0.0, spikingjelly/_ops/{lif,reset}, activation_based/neuron. With V(0) and
the leak at v_reset (0 where that is None):

- charge: V += x (IF); V += (x - (V - v_reset))/tau (decay_input) or V += x - (V - v_reset)/tau;
  1/tau = sigmoid(w) in ParametricLIFNode.
- fire: S = [V >= v_threshold]. NIR's is strict, so its threshold is the next smaller number of the
  type that the network computes in.
- reset: to v_reset, or by v_threshold where v_reset is None.
"""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import numpy.typing as npt
from spikingjelly.activation_based import layer, neuron

from msg_deploy.errors import TraceError
from msg_deploy.exporters.adapters import CONTAINERS, Neuron, adapts
from msg_deploy.exporters.layers import IDENTITIES, Context
from msg_deploy.options import ResetMode

CONTAINERS[layer.SeqToANNContainer] = False
IDENTITIES.extend((layer.Dropout, layer.Dropout2d))


class Node(Neuron):
    """What all nodes share."""

    def reset(self, layer: Any) -> ResetMode | None:
        """By subtraction where v_reset is None."""
        return "subtract" if layer.v_reset is None else "zero"

    def multi_step(self, layer: Any) -> bool:
        """By step_mode."""
        return bool(layer.step_mode == "m")

    def start(self, layer: Any) -> None:
        """Membrane to its start."""
        layer.reset()

    def widen(self, layer: Any) -> None:
        """Decide as in float32: the threshold goes just above the next smaller float32 number.

        No float32 membrane lies between the two, so no decision of the float32 network changes.
        """
        below = _below(layer.v_threshold, np.float32)
        layer.v_threshold = float(np.nextafter(np.float64(below), np.inf))

    def convert(self, layer: Any, context: Context) -> nir.NIRNode:
        """LIF, v_leak = v_reset."""
        if not getattr(layer.surrogate_function, "spiking", True):
            raise TraceError("its surrogate function has spiking=False, so it does not spike.")
        rate = self.rate(layer)
        start = 0.0 if layer.v_reset is None else layer.v_reset
        threshold = _below(layer.v_threshold, context.dtype)
        if rate is None:
            # NIR's IF starts at 0, so this is the membrane minus v_reset.
            return nir.IF(
                r=context.full(1),
                v_threshold=context.full(threshold - start),
                v_reset=context.full(0),
            )
        return nir.LIF(
            tau=context.full(context.dt / rate),
            r=context.full(1 if layer.decay_input else 1 / rate),
            v_leak=context.full(start),
            v_threshold=context.full(threshold),
            v_reset=context.full(start),
        )

    def rate(self, layer: Any) -> float | None:
        """1/tau; None where nothing leaks."""
        return None


adapts(neuron.IFNode)(Node)


@adapts(neuron.LIFNode)
class LIFNode(Node):
    """A time constant in steps."""

    def rate(self, layer: Any) -> float | None:
        """1/tau."""
        return 1 / float(layer.tau)


@adapts(neuron.ParametricLIFNode)
class ParametricLIFNode(Node):
    """A learned time constant."""

    def rate(self, layer: Any) -> float | None:
        """sigmoid(w)."""
        return float(layer.w.detach().double().sigmoid())


def _below(threshold: float, dtype: npt.DTypeLike) -> float:
    """The largest number of a type below the threshold as that type rounds it."""
    return float(np.nextafter(np.asarray(threshold, dtype), np.asarray(-np.inf, dtype)))
