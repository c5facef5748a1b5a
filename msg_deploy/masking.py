"""MSG, masked surrogate gradients (Li et al. 2024): G = G_SG * M with M ~ Bernoulli(1 - p)."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor, nn

from msg_deploy.errors import UsageError
from msg_deploy.neuron import LIF
from msg_deploy.options import Surrogate, Where
from msg_deploy.surrogate import SURROGATES, spike

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
            # What quantization-aware training wraps is a parameter of a module within.
            for parameter in module.parameters()
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

    def __getstate__(self) -> dict[str, Any]:
        """Generators cannot be copied; their states can."""
        return vars(self) | {"_generators": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The generators anew, where they were."""
        vars(self).update(state | {"_generators": {}})
        self.load_state_dict(state["_generators"])

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]


class MaskedSurrogate(nn.Module):
    """MSG as the surrogate of another framework's neurons: dS/dV is masked while training.

    Each call draws a mask with one entry per neuron and sample (and timestep, if all are handed in
    at once), as `MaskedSurrogateGradient` does with where="surrogate".

    Usage: `snntorch.Leaky(..., spike_grad=MaskedSurrogate(0.5))`,
    `spikingjelly LIFNode(..., surrogate_function=MaskedSurrogate(0.5, strict=False))`, and
    `msg_deploy.exporters.adapters.norse.use_surrogate(cell, MaskedSurrogate(0.5))`. Give every
    layer its own, or they share one sequence of masks, which is as good.

    Args:
        p: probability that an entry is zeroed, 0 <= p < 1.
        surrogate: "arctan" or "piecewise_linear".
        alpha: steepness of the surrogate.
        rescale: divide what is kept by 1 - p.
        strict: spike above the threshold only (snnTorch, Norse, ours); False: at the threshold as
            well (spikingjelly).
        seed: of the generator of its own.

    Raises:
        UsageError: an argument is not accepted.
    """

    def __init__(
        self,
        p: float = 0.5,
        surrogate: Surrogate = "arctan",
        alpha: float = 2.0,
        rescale: bool = False,
        strict: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if surrogate not in SURROGATES:
            raise UsageError(f"surrogate must be {' or '.join(SURROGATES)}, not {surrogate!r}.")
        if alpha <= 0:
            raise UsageError(f"alpha must be above 0, not {alpha}.")
        self.masking = MaskedSurrogateGradient(p, "surrogate", rescale, seed)
        self.surrogate = surrogate
        self.alpha = alpha
        self.strict = strict

    def forward(self, distance: Tensor) -> Tensor:
        """V - V_th of any shape to spikes, 0 or 1, of the same dtype."""
        masked = self.training and self.masking.p > 0 and distance.requires_grad
        mask = self.masking.draw(distance.detach()) if masked else None
        return spike(distance, SURROGATES[self.surrogate], self.alpha, mask, self.strict)
