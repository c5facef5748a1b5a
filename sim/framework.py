"""A module of another framework itself, as a simulator: what was trained is compared with."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from msg_deploy.deployment import Deployment, node_name
from msg_deploy.errors import UsageError, reason
from msg_deploy.exporters.adapters import ForeignNetwork, adapters
from msg_deploy.options import Precision
from msg_deploy.sim.simulator import FloatArray, Trace, check_inputs, scores


class FrameworkModule:
    """Runs the forward pass of a ForeignNetwork; spikes are named as the tracer names its layers.

    Args:
        network: a copy of it is run. The hidden states of its neurons are reset.
    """

    name = "module"

    def __init__(self, network: ForeignNetwork) -> None:
        # States may hang on a graph of gradients, which cannot be copied.
        for adapter, layer in adapters(network.module).values():
            adapter.start(layer)
        self.module = copy.deepcopy(network.module).eval()
        dtypes = {p.dtype for p in self.module.parameters() if p.is_floating_point()}
        self.widened = torch.float64 not in dtypes
        self.multi_step = any(a.multi_step(x) for a, x in adapters(self.module).values())

    def unsupported(self, deployment: Deployment, precision: Precision = "float64") -> list[str]:
        """Nothing: the module runs itself."""
        return []

    @torch.no_grad()
    def run(
        self, deployment: Deployment, inputs: FloatArray, precision: Precision = "float64"
    ) -> Trace:
        """See `Simulator.run`; membranes are not recorded."""
        check_inputs(deployment, inputs)
        dtype: torch.dtype = getattr(torch, precision)
        module = copy.deepcopy(self.module).to(dtype)
        spikes: dict[str, list[Tensor]] = {}
        for path, (adapter, layer) in adapters(module).items():
            adapter.start(layer)
            if self.widened and precision == "float64":
                adapter.widen(layer)
            kept = spikes.setdefault(node_name(path), []) if adapter.spiking(layer) else []
            layer.register_forward_hook(_recorder(kept, dtype))
        tensors = torch.tensor(inputs, dtype=dtype)
        try:
            result = _first(module(tensors)) if self.multi_step else _stepped(module, tensors)
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UsageError(
                f"{type(module).__name__}.forward failed on an input of shape {inputs.shape} "
                f"({reason(error)}); it must be as ForeignNetwork describes."
            ) from error
        outputs = result.numpy()
        return Trace(
            simulator=self.name,
            spikes={
                name: (torch.stack(steps) if len(steps) > 1 or not self.multi_step else steps[0])
                .to(torch.uint8)
                .numpy()
                for name, steps in spikes.items()
                # A layer that `forward` never calls has no spikes.
                if steps
            },
            membranes={},
            outputs=outputs,
            currents=outputs,
            scores=np.asarray(scores(deployment, outputs)),
        )


def _recorder(kept: list[Tensor], dtype: torch.dtype) -> Callable[[nn.Module, Any, Any], Any]:
    """A forward hook that keeps the output; snnTorch's spikes are float32 whatever comes in."""

    def hook(layer: nn.Module, arguments: Any, output: Any) -> Any:
        first = _first(output)
        kept.append(first)
        if isinstance(output, tuple):
            return (first.to(dtype), *output[1:])
        return first.to(dtype)

    return hook


def _first(output: Any) -> Tensor:
    while isinstance(output, (tuple, list)):
        output = output[0]
    result: Tensor = output
    return result


def _stepped(module: nn.Module, inputs: Tensor) -> Tensor:
    """Step by step; states that forward returns are handed in again if it takes any."""
    takes = list(inspect.signature(module.forward).parameters.values())[1:]
    states: tuple[Any, ...] = tuple(None if p.default is p.empty else p.default for p in takes)
    outputs = []
    for x in inputs:
        result = module(x, *states)
        outputs.append(_first(result))
        if takes and isinstance(result, (tuple, list)):
            states = tuple(result[1:])
    return torch.stack(outputs)
