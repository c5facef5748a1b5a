"""The trained torch module itself, as a simulator: what was trained is what is compared with."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from msg_deploy.deployment import Deployment, node_name
from msg_deploy.networks import SpikingNetwork
from msg_deploy.neuron import LIF, Observer
from msg_deploy.options import Precision
from msg_deploy.sim.simulator import FloatArray, Trace, check_inputs


class TorchCore:
    """Runs a SpikingNetwork in evaluation mode; spikes are named as the tracer names its layers.

    Args:
        network: left as it is; a copy is run.
    """

    name = "torch"

    def __init__(self, network: SpikingNetwork) -> None:
        self.network = copy.deepcopy(network).eval()

    def unsupported(self, deployment: Deployment, precision: Precision = "float64") -> list[str]:
        """Nothing: the module runs itself."""
        return []

    @torch.no_grad()
    def run(
        self, deployment: Deployment, inputs: FloatArray, precision: Precision = "float64"
    ) -> Trace:
        """See `Simulator.run`; of the deployment only the input contract is used."""
        check_inputs(deployment, inputs)
        network = self.network.to(getattr(torch, precision))
        spikes: dict[str, Tensor] = {}
        membranes: dict[str, Tensor] = {}

        def observer(name: str) -> Observer:
            def observe(s: Tensor, v: Tensor) -> None:
                # Converted at once: the layers behind may add to the spikes in place.
                spikes[name], membranes[name] = s.to(torch.uint8), v

            return observe

        for path, module in network.body.named_modules():
            if isinstance(module, LIF):
                module.observer = observer(node_name(path))
        merged = network.currents(torch.tensor(inputs, dtype=getattr(torch, precision)))
        currents = merged.unflatten(0, (network.timing.steps, -1)).numpy()
        return Trace(
            simulator=self.name,
            spikes={name: s.numpy() for name, s in spikes.items()},
            membranes={name: v.numpy() for name, v in membranes.items()},
            outputs=currents,
            currents=currents,
            scores=network.readout(merged).numpy(),
        )
