"""The leaky integrate-and-fire neuron of the torch core, all timesteps in one call."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from msg_deploy.errors import UsageError
from msg_deploy.options import ResetMode, Surrogate
from msg_deploy.surrogate import SURROGATES, spike

MaskSource = Callable[[Tensor], Tensor | None]
"""Given the membrane input (T, B, ...), the mask of the surrogate derivative, or None."""
Observer = Callable[[Tensor, Tensor], None]
"""Called with spikes and membranes (before reset), both (T, B, ...)."""


def integrate(current: Tensor, membrane: Tensor, tau: float) -> Tensor:
    """One Euler step of the membrane, V + (I - V)/tau; with tau = infinity (IF) it is V + I.

    Li et al. 2024; as NIR: LIF with tau*dt, r = 1, v_leak = 0, or IF with r = 1.
    """
    if math.isinf(tau):
        return membrane + current
    return membrane + (1 / tau) * (current - membrane)


def reset_membrane(
    membrane: Tensor, spikes: Tensor, threshold: float, v_reset: float, mode: ResetMode
) -> Tensor:
    """The membrane after the spike: `v_reset` (mode "zero") or V - V_th (mode "subtract")."""
    if mode == "subtract":
        return membrane - spikes * threshold
    # Exact for spikes in {0, 1}, and differentiable in the spikes unlike torch.where.
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

    def forward(self, current: Tensor) -> Tensor:
        """Input currents (T*B, ...) to spikes (T*B, ...) of the same dtype, 0 or 1.

        Currents in half precision are integrated, and spikes given, in float32.
        """
        if current.dtype in (torch.bfloat16, torch.float16):
            # Under autocast layers compute in half precision, too coarse to integrate in.
            current = current.float()
        currents = current.unflatten(0, (self.steps, -1))
        masks = self.mask_source(currents) if self.mask_source and self.training else None
        derivative = SURROGATES[self.surrogate]
        membrane = torch.zeros_like(currents[0])
        spikes, membranes = [], []
        for t in range(self.steps):
            membrane = integrate(currents[t], membrane, self.tau)
            mask = None if masks is None else masks[t]
            emitted = spike(membrane - self.v_threshold, derivative, self.alpha, mask)
            spikes.append(emitted)
            if self.observer:
                membranes.append(membrane)
            membrane = reset_membrane(
                membrane,
                emitted.detach() if self.detach_reset else emitted,
                self.v_threshold,
                self.v_reset,
                self.reset,
            )
        result = torch.stack(spikes)
        if self.observer:
            self.observer(result, torch.stack(membranes))
        return result.flatten(0, 1)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise UsageError(f"LIF: {problem}.")
