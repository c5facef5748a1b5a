"""TWO, the temporally weighted output (Li et al. 2024, section on TWO)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from msg_deploy.errors import UsageError


class TWO(nn.Module):
    """Decodes the non-spiking output layer: y = sum_t f_t I_L[t], decision argmax_c y_c.

    f starts at 1/T (the plain mean), is moved by `update` towards the timesteps that classify
    correctly on their own, never by gradient, and is an ordinary buffer of the checkpoint.

    Args:
        steps: number of timesteps T.
        beta: share of the old weights kept by an update, 0 <= beta <= 1.

    Raises:
        UsageError: steps < 1 or beta outside [0, 1].
    """

    weights: Tensor
    correct: Tensor
    seen: Tensor

    def __init__(self, steps: int, beta: float = 0.9) -> None:
        super().__init__()
        if steps < 1:
            raise UsageError(f"TWO: steps must be at least 1, not {steps}.")
        if not 0 <= beta <= 1:
            raise UsageError(f"TWO: beta must be between 0 and 1, not {beta}.")
        self.steps = steps
        self.beta = beta
        self.register_buffer("weights", torch.full((steps,), 1 / steps))
        self.register_buffer("correct", torch.zeros(steps, dtype=torch.int64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def extra_repr(self) -> str:
        """The parameters as they stand in the constructor."""
        return f"steps={self.steps}, beta={self.beta}"

    def forward(self, current: Tensor) -> Tensor:
        """Output-layer currents (T*B, C), time-major, to class scores (B, C)."""
        steps = current.to(self.weights.dtype).unflatten(0, (self.steps, -1))
        return torch.einsum("t,tbc->bc", self.weights, steps)

    @torch.no_grad()
    def observe(self, current: Tensor, labels: Tensor) -> None:
        """Count, for each timestep alone, the samples that it classifies correctly.

        Args:
            current: output-layer currents (T*B, C).
            labels: class indices (B,), int64.
        """
        decisions = current.unflatten(0, (self.steps, -1)).argmax(dim=2)
        self.correct += (decisions == labels).sum(dim=1)
        self.seen += labels.numel()

    @torch.no_grad()
    def update(self) -> None:
        """f_t <- beta f_t + (1 - beta) (correct_t / seen) / T, then forget the counts.

        The division by T keeps the scale of the initial 1/T. Nothing happens before the first
        `observe`.
        """
        if self.seen == 0:
            return
        accuracy = self.correct.to(self.weights.dtype) / self.seen
        self.weights.mul_(self.beta).add_(accuracy / self.steps, alpha=1 - self.beta)
        self.forget()

    def forget(self) -> None:
        """Drop the counts."""
        self.correct.zero_()
        self.seen.zero_()
