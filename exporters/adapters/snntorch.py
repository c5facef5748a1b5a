"""snnTorch's Leaky and Synaptic. Source: snntorch 1.0.0, snntorch/_neurons/{leaky,synaptic}.py.

Leaky, with S = [U > threshold] and beta clamped to 0..1:

- reset_delay (the default), "subtract": U(t) = beta U(t-1) + x(t) - threshold S(t-1). The threshold
  is taken off after the decay, which no LIF of NIR does: LI, Threshold, and a feedback.
- reset_delay, "zero": U(t) = beta (1 - S(t-1)) U(t-1) + x(t): the law of LIF, the reset only comes
  later.
- no delay, "zero": LIF. "subtract": LIF as long as the membrane is at or below threshold after a
  reset; above, snnTorch takes the threshold off once more before it decides.
- "none": LI and Threshold.

The input is not scaled, so dt/tau = 1 - beta and r = 1/(1 - beta). Synaptic is the same with
I(t) = alpha I(t-1) + x(t) in place of x; its "zero" with reset_delay wipes out the whole next step,
U(t) = 0 after a spike, which has no counterpart.
"""

from __future__ import annotations

import logging
from typing import Any

import nir
import numpy as np
import numpy.typing as npt
import snntorch
import torch

from msg_deploy.errors import TraceError
from msg_deploy.exporters.adapters import Neuron, adapts
from msg_deploy.exporters.layers import Context, Part, array_of
from msg_deploy.options import ResetMode

log = logging.getLogger(__name__)


class Leaky(Neuron):
    """What Leaky and Synaptic share."""

    def reset(self, layer: Any) -> ResetMode | None:
        """None where the reset is a feedback."""
        if _feedback(layer):
            return None
        mode: ResetMode = layer.reset_mechanism
        return mode

    def returns_state(self, layer: Any) -> bool:
        """Unless the state is hidden."""
        return bool(layer.output or not layer.init_hidden)

    def start(self, layer: Any) -> None:
        """Hidden states to zero."""
        layer.reset_mem()
        for name in ("mem", "syn"):
            if hasattr(layer, name):
                setattr(layer, name, getattr(layer, name).detach()[:0])

    def convert(self, layer: Any, context: Context) -> nir.NIRNode | Part:
        """See the module."""
        _check(layer)
        beta = _decay(layer.beta)
        if _feedback(layer):
            threshold = _value(layer.threshold)
            nodes: dict[str, nir.NIRNode] = {
                ".membrane": _integrator(beta, context),
                "": nir.Threshold(context.full(threshold)),
            }
            edges = [(".membrane", "")]
            if layer.reset_mechanism == "subtract":
                nodes[".reset"] = nir.Scale(context.full(-threshold))
                edges += [("", ".reset"), (".reset", ".membrane")]
            return self.behind_synapse(layer, context, Part(nodes, tuple(edges), ".membrane"))
        return self.cell(layer, context, beta)

    def behind_synapse(self, layer: Any, context: Context, part: Part) -> Part:
        """What comes before the membrane."""
        return part

    def cell(
        self, layer: Any, context: Context, beta: npt.NDArray[np.float64]
    ) -> nir.NIRNode | Part:
        """The neuron as one node of NIR."""
        threshold = context.full(_value(layer.threshold))
        zero = context.full(0)
        if np.all(beta == 1):
            return nir.IF(r=context.full(1), v_threshold=threshold, v_reset=zero)
        return nir.LIF(
            tau=context.full(context.dt / (1 - beta)),
            r=context.full(1 / (1 - beta)),
            v_leak=zero,
            v_threshold=threshold,
            v_reset=zero,
        )


adapts(snntorch.Leaky)(Leaky)


@adapts(snntorch.Synaptic)
class Synaptic(Leaky):
    """A synaptic current before the membrane."""

    def reset(self, layer: Any) -> ResetMode | None:
        """Refuses the law that wipes out a step."""
        if layer.reset_mechanism == "zero" and layer.reset_delay:
            raise TraceError(
                "reset_mechanism='zero' with reset_delay sets the membrane to 0 in the whole step "
                "after a spike, which has no counterpart; train with reset_delay=False, or with "
                "'subtract'."
            )
        return super().reset(layer)

    def behind_synapse(self, layer: Any, context: Context, part: Part) -> Part:
        """A leaky integrator for the current."""
        synapse = _integrator(_decay(layer.alpha), context)
        nodes = {".synapse": synapse, **part.nodes}
        return Part(nodes, ((".synapse", part.start), *part.edges), ".synapse")

    def cell(
        self, layer: Any, context: Context, beta: npt.NDArray[np.float64]
    ) -> nir.NIRNode | Part:
        """CubaLIF, or an integrator and the cell where the current or the membrane never decays."""
        alpha = _decay(layer.alpha)
        if np.all(beta == 1) or np.all(alpha == 1):
            node = super().cell(layer, context, beta)
            assert not isinstance(node, Part)
            return self.behind_synapse(layer, context, Part({"": node}, (), ""))
        return nir.CubaLIF(
            tau_syn=context.full(context.dt / (1 - alpha)),
            tau_mem=context.full(context.dt / (1 - beta)),
            r=context.full(1 / (1 - beta)),
            v_leak=context.full(0),
            v_threshold=context.full(_value(layer.threshold)),
            v_reset=context.full(0),
            w_in=context.full(1 / (1 - alpha)),
        )


def _feedback(layer: Any) -> bool:
    """The reset is no part of the neuron's own law."""
    mechanism, delay = layer.reset_mechanism, layer.reset_delay
    return mechanism == "none" or (mechanism == "subtract" and delay)


def _check(layer: Any) -> None:
    if layer.inhibition:
        raise TraceError("inhibition=True lets one neuron of a layer fire, which NIR cannot say.")
    if layer.state_quant:
        raise TraceError("state_quant rounds the membrane at every step, which NIR cannot say.")
    if torch.any(torch.as_tensor(layer.graded_spikes_factor) != 1):
        raise TraceError("graded_spikes_factor must be 1.")
    if not layer.reset_delay and layer.reset_mechanism != "none":
        if torch.any(layer.threshold < 0):
            raise TraceError("reset_delay=False needs a threshold of at least 0.")
        if layer.reset_mechanism == "subtract":
            log.warning(
                "snnTorch's reset_delay=False with 'subtract' becomes a LIF that subtracts. "
                "Both agree as long as no membrane stays above threshold after a reset; check it."
            )


def _integrator(decay: npt.NDArray[np.float64], context: Context) -> nir.NIRNode:
    """v(t) = decay v(t-1) + x(t)."""
    if np.all(decay == 1):
        return nir.I(r=context.full(1))
    return nir.LI(
        tau=context.full(context.dt / (1 - decay)),
        r=context.full(1 / (1 - decay)),
        v_leak=context.full(0),
    )


def _decay(parameter: Any) -> npt.NDArray[np.float64]:
    """As the forward pass clamps it: all 1, or all below, since NIR has a node for each."""
    decay = np.clip(_value(parameter), 0, 1)
    if np.any(decay == 1) and not np.all(decay == 1):
        raise TraceError("decays of exactly 1 and below are mixed in one layer.")
    return decay


def _value(parameter: Any) -> npt.NDArray[np.float64]:
    return array_of(parameter, np.float64)
