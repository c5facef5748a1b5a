"""The leaky integrate-and-fire neuron of the torch core, all timesteps in one call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from msg_deploy.errors import UsageError
from msg_deploy.options import ResetMode, Surrogate
from msg_deploy.surrogate import SURROGATES

MaskSource = Callable[[Tensor], Tensor | None]
"""Given the membrane input (T, B, ...), the mask of the surrogate derivative, or None."""
Observer = Callable[[Tensor, Tensor], None]
"""Called with spikes and membranes (before reset), both (T, B, ...)."""
Level = float | Tensor
"""Of all neurons of a layer, or a tensor that is broadcast to them."""


def integrate(current: Tensor, membrane: Tensor, tau: float) -> Tensor:
    """One Euler step of the membrane, V + (I - V)/tau; with tau = infinity (IF) it is V + I.

    Li et al. 2024; as NIR: LIF with tau*dt, r = 1, v_leak = 0, or IF with r = 1.
    """
    if math.isinf(tau):
        return membrane + current
    return membrane + (1 / tau) * (current - membrane)


def reset_membrane(
    membrane: Tensor, spikes: Tensor, threshold: Level, v_reset: Level, mode: ResetMode
) -> Tensor:
    """The membrane after the spike: `v_reset` (mode "zero") or V - V_th (mode "subtract")."""
    if mode == "subtract":
        return membrane - spikes * threshold
    # Exact for spikes in {0, 1}, and differentiable in them.
    return membrane * (1 - spikes) + v_reset * spikes


class LIF(nn.Module):
    """Multi-step LIF layer: V <- V + (I - V)/tau; S = [V > V_th]; reset (Li et al. 2024).

    Works on time-major input with time and batch merged, (T*B, ...), so that the layers between
    neurons are ordinary torch layers. V(0) = 0.

    Args:
        steps: number of timesteps T.
        tau: membrane time constant in timesteps, at least 1; math.inf makes it an IF neuron.
        v_threshold: firing threshold; a spike needs V strictly above it.
        v_reset: membrane after a spike in mode "zero".
        reset: "zero" (to v_reset) or "subtract" (by v_threshold).
        surrogate: "arctan" or "piecewise_linear".
        alpha: steepness of the surrogate.
        detach_reset: keep the gradient from flowing through the reset.

    Raises:
        UsageError: a parameter is outside its range.
    """

    def __init__(
        self,
        steps: int,
        tau: float = 2.0,
        v_threshold: float = 0.5,
        v_reset: float = 0.0,
        reset: ResetMode = "zero",
        surrogate: Surrogate = "arctan",
        alpha: float = 2.0,
        detach_reset: bool = True,
    ) -> None:
        super().__init__()
        _require(steps >= 1, f"steps must be at least 1, not {steps}")
        _require(tau >= 1, f"tau must be at least 1 timestep, not {tau}")
        _require(math.isfinite(v_threshold), f"v_threshold must be finite, not {v_threshold}")
        _require(math.isfinite(v_reset), f"v_reset must be finite, not {v_reset}")
        _require(reset in ("zero", "subtract"), f"reset must be zero or subtract, not {reset!r}")
        _require(
            surrogate in SURROGATES,
            f"surrogate must be {' or '.join(SURROGATES)}, not {surrogate!r}",
        )
        _require(alpha > 0, f"alpha must be above 0, not {alpha}")
        self.steps = steps
        self.tau = tau
        self.v_threshold = v_threshold
        self.v_reset = v_reset
        self.reset: ResetMode = reset
        self.surrogate = surrogate
        self.alpha = alpha
        self.detach_reset = detach_reset
        self.mask_source: MaskSource | None = None
        self.observer: Observer | None = None

    def extra_repr(self) -> str:
        """The parameters as they stand in the constructor."""
        return (
            f"steps={self.steps}, tau={self.tau}, v_threshold={self.v_threshold}, "
            f"v_reset={self.v_reset}, reset={self.reset!r}, surrogate={self.surrogate!r}"
        )

    def levels(self, like: Tensor) -> tuple[Level, Level]:
        """Threshold and reset value, as membranes of the dtype of `like` need them."""
        return self.v_threshold, self.v_reset

    def forward(self, current: Tensor) -> Tensor:
        """Input currents (T*B, ...) to spikes (T*B, ...) of the same dtype, 0 or 1.

        Currents in half precision are integrated, and spikes given, in float32.
        """
        if current.dtype in (torch.bfloat16, torch.float16):
            # Under autocast layers compute in half precision, too coarse to integrate in.
            current = current.float()
        currents = current.unflatten(0, (self.steps, -1))
        masks = self.mask_source(currents) if self.mask_source and self.training else None
        spikes, membranes = _Membrane.apply(currents, masks, self)  # type: ignore[no-untyped-call]
        if self.observer:
            self.observer(spikes, membranes)
        return spikes.flatten(0, 1)


class ChannelLIF(LIF):
    """`LIF` whose thresholds and reset values differ, such as from channel to channel.

    They are buffers, `thresholds` and `resets`, in float64, so that nothing is rounded before the
    computation's own precision is known.

    Args:
        steps: as in `LIF`, like all others but the first.
        shape: of thresholds and reset values, which are broadcast to a sample's shape.
        tau: membrane time constant in timesteps.
        reset: "zero" or "subtract".
        surrogate: shape of the surrogate.
        alpha: its steepness.
        detach_reset: keep the gradient from flowing through the reset.

    Raises:
        UsageError: a parameter is outside its range.
    """

    thresholds: Tensor
    resets: Tensor

    def __init__(
        self,
        steps: int,
        shape: Sequence[int],
        tau: float = 2.0,
        reset: ResetMode = "zero",
        surrogate: Surrogate = "arctan",
        alpha: float = 2.0,
        detach_reset: bool = True,
    ) -> None:
        super().__init__(
            steps, tau, reset=reset, surrogate=surrogate, alpha=alpha, detach_reset=detach_reset
        )
        self.shape = tuple(shape)
        self.register_buffer("thresholds", torch.full(self.shape, 0.5, dtype=torch.float64))
        self.register_buffer("resets", torch.zeros(self.shape, dtype=torch.float64))

    def extra_repr(self) -> str:
        """The parameters as they stand in the constructor."""
        return (
            f"steps={self.steps}, shape={self.shape}, tau={self.tau}, reset={self.reset!r}, "
            f"surrogate={self.surrogate!r}"
        )

    def levels(self, like: Tensor) -> tuple[Level, Level]:
        """See `LIF.levels`."""
        return self.thresholds.to(like.dtype), self.resets.to(like.dtype)


class _Membrane(torch.autograd.Function):
    """All timesteps as one operation, whose backward is written out.

    With k = 1/tau and d = dS/dV (the surrogate, masked), from the last step to the first:
    gV = gS d + gU dU/dV; gI = k gV; the step before receives gU = (1 - k) gV. For IF both factors
    are 1. dU/dV is 1 - S (reset to v_reset) or 1 (subtraction); unless the reset is detached,
    (v_reset - V) d or -V_th d is added.
    """

    @staticmethod
    def forward(
        ctx: Any, currents: Tensor, masks: Tensor | None, layer: LIF
    ) -> tuple[Tensor, Tensor]:
        """(T, B, ...) to spikes and membranes before reset, both (T, B, ...)."""
        spikes, membranes = torch.empty_like(currents), torch.empty_like(currents)
        membrane = torch.zeros_like(currents[0])
        threshold, v_reset = layer.levels(currents)
        for t, arriving in enumerate(currents):
            membranes[t] = before = integrate(arriving, membrane, layer.tau)
            spikes[t] = emitted = (before > threshold).to(before.dtype)
            membrane = reset_membrane(before, emitted, threshold, v_reset, layer.reset)
        ctx.save_for_backward(spikes, membranes, masks)
        ctx.layer = layer
        ctx.mark_non_differentiable(membranes)
        return spikes, membranes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the currents, (T, B, ...)."""
        spikes, membranes, masks = ctx.saved_tensors
        layer: LIF = ctx.layer
        threshold, _ = layer.levels(membranes)
        surrogate = SURROGATES[layer.surrogate](membranes - threshold, layer.alpha)
        if masks is not None:
            surrogate = surrogate * masks
        through_spikes = gradients[0] * surrogate
        through_reset = _reset_derivative(spikes, membranes, surrogate, layer)
        arriving, kept = (1.0, 1.0) if math.isinf(layer.tau) else (1 / layer.tau, 1 - 1 / layer.tau)
        result = torch.empty_like(spikes)
        result[-1] = through_spikes[-1]
        for t in range(layer.steps - 2, -1, -1):
            result[t] = through_spikes[t] + kept * result[t + 1] * through_reset[t]
        return result.mul_(arriving), None, None


def _reset_derivative(spikes: Tensor, membranes: Tensor, surrogate: Tensor, layer: LIF) -> Tensor:
    """dU/dV, the membrane after the reset by that before it."""
    threshold, v_reset = layer.levels(membranes)
    if layer.reset == "subtract":
        if layer.detach_reset:
            return torch.ones_like(spikes)
        return 1 - threshold * surrogate
    if layer.detach_reset:
        return 1 - spikes
    return 1 - spikes + (v_reset - membranes) * surrogate


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise UsageError(f"LIF: {problem}.")
