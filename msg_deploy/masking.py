"""MSG, masked surrogate gradients (Li et al. 2024): G = G_SG * M with M ~ Bernoulli(1 - p)."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor, nn

from msg_deploy.errors import UsageError
from msg_deploy.neuron import LIF
from msg_deploy.options import Where

SYNAPSES = (nn.Linear, nn.Conv1d, nn.Conv2d)


class MaskedSurrogateGradient:
    """Draws the masks of one training run, anew per layer and minibatch.

    Usage: `msg = MaskedSurrogateGradient(0.5); msg.attach(model, optimizer)`, then train as ever.

    Args:
        p: probability that an entry of the gradient is zeroed, 0 <= p < 1; 0 is plain surrogate
            gradient, bit for bit.
        where: "weight" masks the gradients of Linear and Conv weights and biases at each
            `optimizer.step()` (the paper's update equation W <- W - eta G); "surrogate" masks
            dS/dV in the neuron's backward pass, one entry per neuron, sample and timestep.
        rescale: divide what is kept by 1 - p, so that the expected gradient is that of p = 0
            (assumed by the paper's variance analysis, absent from its update equation).
        seed: of the generators of its own; the global random state is never touched.

    Raises:
        UsageError: p or where is not accepted.
    """

    def __init__(
        self, p: float = 0.5, where: Where = "weight", rescale: bool = False, seed: int = 0
    ) -> None:
        if not 0 <= p < 1:
            raise UsageError(f"MSG: the mask probability p must be in [0, 1), not {p}.")
        if where not in get_args(Where):
            raise UsageError(f"MSG: where must be weight or surrogate, not {where!r}.")
        self.p = p
        self.where = where
        self.rescale = rescale
        self.seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Mask from now on the gradients of `model`, which any torch `optimizer` updates."""
        if self.p == 0:
            return
        if self.where == "surrogate":
            for module in model.modules():
                if isinstance(module, LIF):
                    module.mask_source = self.draw
            return
        parameters = [
            parameter
            for module in model.modules()
            if isinstance(module, SYNAPSES)
            for parameter in module.parameters(recurse=False)
        ]

        def mask_gradients(*_: Any) -> None:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(self.draw(parameter.grad))

        optimizer.register_step_pre_hook(mask_gradients)

    def draw(self, like: Tensor) -> Tensor:
        """One mask of the shape, dtype and device of `like`: 0 with probability p, else 1.

        With `rescale`, 1/(1-p) in place of 1.
        """
        kept = torch.empty_like(like, requires_grad=False).bernoulli_(
            1 - self.p, generator=self._generator(like.device)
        )
        return kept.div_(1 - self.p) if self.rescale else kept

    def state_dict(self) -> dict[str, Tensor]:
        """The generators' states by device, for an exact resume."""
        return {str(device): g.get_state() for device, g in self._generators.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`."""
        for device, generator_state in state.items():
            self._generator(torch.device(device)).set_state(generator_state)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]
