"""Surrogate gradients: a step in the forward pass, a smooth derivative in the backward pass.

Both derivatives integrate to one over the membrane, so `alpha` only sets their width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from msg_deploy.options import Surrogate

Derivative = Callable[[Tensor, float], Tensor]
"""Maps (membrane minus threshold, alpha) to dS/dV, elementwise."""


def arctan(distance: Tensor, alpha: float) -> Tensor:
    """dS/dV = (alpha/2) / (1 + (pi/2 alpha (V - V_th))^2) (Fang et al. 2021; Li et al. 2024)."""
    return (alpha / 2) / (1 + (math.pi / 2 * alpha * distance).square())


def piecewise_linear(distance: Tensor, alpha: float) -> Tensor:
    """dS/dV = alpha * max(0, 1 - alpha * |V - V_th|), a triangle (Bellec et al. 2018)."""
    return alpha * (1 - alpha * distance.abs()).clamp(min=0)


SURROGATES: dict[Surrogate, Derivative] = {"arctan": arctan, "piecewise_linear": piecewise_linear}


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        distance: Tensor,
        mask: Tensor | None,
        derivative: Derivative,
        alpha: float,
        strict: bool,
    ) -> Tensor:
        ctx.save_for_backward(distance, mask)
        ctx.derivative, ctx.alpha = derivative, alpha
        return (distance > 0 if strict else distance >= 0).to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        distance, mask = ctx.saved_tensors
        gradient = gradients[0] * ctx.derivative(distance, ctx.alpha)
        return gradient if mask is None else gradient * mask, None, None, None, None


def spike(
    distance: Tensor,
    derivative: Derivative,
    alpha: float,
    mask: Tensor | None = None,
    strict: bool = True,
) -> Tensor:
    """S = 1 where `distance` = V - V_th is above zero, else 0.

    Args:
        distance: membrane minus threshold, any shape, floating point.
        derivative: dS/dV for the backward pass.
        alpha: its steepness, 1/volt.
        mask: optional factor on dS/dV, shape of `distance` (MSG with where="surrogate").
        strict: a distance of exactly zero is no spike, as in NIR; False: it is.

    Returns:
        Spikes, shape and dtype of `distance`.
    """
    result: Tensor = _Spike.apply(distance, mask, derivative, alpha, strict)  # type: ignore[no-untyped-call]
    return result
