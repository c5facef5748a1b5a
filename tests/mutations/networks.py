"""Five small networks whose layers all fire: what the bugs are injected into."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable

import nir
import numpy as np
import torch
from torch import nn

from msg_deploy.deployment import Deployment, InputSpec, Readout, Timing
from msg_deploy.exporters.trace import trace
from msg_deploy.networks import Residual, SpikingNetwork
from msg_deploy.neuron import LIF
from msg_deploy.readout import TWO
from msg_deploy.sim.simulator import simulator

STEPS = 6
RATE = 0.3
"""Share of decisions that are spikes, in every layer of LIF and IF neurons."""


def _finished(body: nn.Module, shape: tuple[int, ...], seed: int) -> SpikingNetwork:
    """Random weights and TWO; then thresholds' inputs scaled so that every layer fires."""
    torch.manual_seed(seed)
    for module in body.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(module.weight, mean=0.02, std=0.4)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -0.15, 0.3)
    network = SpikingNetwork(body, TWO(STEPS), InputSpec(shape))
    nn.init.uniform_(network.readout.weights, 0.05, 0.4)
    inputs = np.random.default_rng(seed).uniform(0, 1, (24, *shape))
    _calibrate(network, torch.tensor(inputs, dtype=torch.float32))
    return network.eval()


def _calibrate(network: SpikingNetwork, samples: torch.Tensor) -> None:
    """Scale the layer before each LIF, from the front, until `RATE` of its decisions are spikes."""
    inputs = samples.expand(STEPS, *samples.shape)
    before: nn.Module | None = None
    for module in network.body.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            before = module
        if isinstance(module, LIF) and before is not None:
            for _ in range(12):
                if abs(_rate(network, module, inputs) - RATE) < 0.03:
                    break
                factor = 1.25 if _rate(network, module, inputs) < RATE else 0.85
                with torch.no_grad():
                    for parameter in before.parameters():
                        parameter.mul_(factor)


@torch.no_grad()
def _rate(network: SpikingNetwork, layer: LIF, inputs: torch.Tensor) -> float:
    seen: list[float] = []
    layer.observer = lambda s, v: seen.append(float(s.mean()))
    network.currents(inputs)
    layer.observer = None
    return seen[0]


def mlp() -> SpikingNetwork:
    """Two hidden layers of the same width, reset by subtraction."""
    layers = OrderedDict(
        flatten=nn.Flatten(),
        fc1=nn.Linear(32, 24),
        lif1=LIF(STEPS, reset="subtract"),
        fc2=nn.Linear(24, 24),
        lif2=LIF(STEPS, tau=3.0, reset="subtract"),
        fc3=nn.Linear(24, 24),
        lif3=LIF(STEPS, tau=2.5, reset="subtract"),
        fc4=nn.Linear(24, 5),
    )
    return _finished(nn.Sequential(layers), (2, 4, 4), 1)


def convnet() -> SpikingNetwork:
    """Convolutions and poolings; two channels come in, v_reset is not 0."""
    neuron = {"v_reset": -0.2}
    layers = OrderedDict(
        conv1=nn.Conv2d(2, 4, 3, padding=1),
        lif1=LIF(STEPS, **neuron),
        pool=nn.AvgPool2d(2),
        conv2=nn.Conv2d(4, 4, 3, padding=1),
        lif2=LIF(STEPS, tau=3.0, **neuron),
        flatten=nn.Flatten(),
        fc1=nn.Linear(64, 12),
        lif3=LIF(STEPS, **neuron),
        fc2=nn.Linear(12, 5),
    )
    return _finished(nn.Sequential(layers), (2, 8, 8), 2)


def sew() -> SpikingNetwork:
    """A stem and two residual blocks whose spikes are added, one with a strided shortcut."""
    first = Residual(nn.Sequential(OrderedDict(conv=nn.Conv2d(4, 4, 3, padding=1), lif=LIF(STEPS))))
    main = OrderedDict(conv=nn.Conv2d(4, 6, 3, 2, 1), lif=LIF(STEPS))
    shortcut = OrderedDict(conv=nn.Conv2d(4, 6, 1, 2), lif=LIF(STEPS))
    layers = OrderedDict(
        conv=nn.Conv2d(2, 4, 3, padding=1),
        lif=LIF(STEPS),
        block1=first,
        block2=Residual(nn.Sequential(main), nn.Sequential(shortcut)),
        pool=nn.AvgPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(24, 12),
        lif2=LIF(STEPS),
        fc2=nn.Linear(12, 5),
    )
    return _finished(nn.Sequential(layers), (2, 8, 8), 3)


def if_conv() -> SpikingNetwork:
    """IF neurons reset by subtraction; weights on a grid, so that membranes meet thresholds."""
    layers = OrderedDict(
        conv1=nn.Conv2d(1, 4, 3, padding=1),
        if1=LIF(STEPS, tau=float("inf"), v_threshold=1.0, reset="subtract"),
        conv2=nn.Conv2d(4, 4, 3, padding=1),
        if2=LIF(STEPS, tau=float("inf"), v_threshold=1.0, reset="subtract"),
        pool=nn.AvgPool2d(2),
        flatten=nn.Flatten(),
        fc1=nn.Linear(36, 12),
        if3=LIF(STEPS, tau=float("inf"), v_threshold=1.0, reset="subtract"),
        fc2=nn.Linear(12, 5),
    )
    network = _finished(nn.Sequential(layers), (1, 6, 6), 4)
    with torch.no_grad():
        for parameter in network.body.parameters():
            parameter.copy_((parameter * 8).round() / 8)
    return network


def recurrent() -> Deployment:
    """CubaLIF with recurrent weights, r and w_in other than 1, thresholds of each neuron's own."""
    random = np.random.default_rng(5)
    dt, size = 1e-3, 16

    def each(value: float, spread: float = 0.0) -> np.ndarray:
        return value * (1 + spread * random.uniform(-1, 1, size))

    def cuba(**values: np.ndarray) -> nir.CubaLIF:
        defaults = {
            "tau_syn": each(2e-3),
            "tau_mem": each(4e-3),
            "r": each(2.5),
            "v_leak": each(0.05),
            "v_threshold": each(0.5, 0.4),
            "w_in": each(1.5),
            "v_reset": each(-0.1),
        }
        return nir.CubaLIF(**(defaults | values))

    def affine(out: int, into: int, scale: float) -> nir.Affine:
        return nir.Affine(random.normal(0.03, scale, (out, into)), random.uniform(-0.05, 0.15, out))

    nodes = {
        "input": nir.Input({"input": np.array([10])}),
        "fc1": affine(size, 10, 0.5),
        "cuba1": cuba(),
        "rec": affine(size, size, 0.25),
        "fc2": affine(size, size, 0.4),
        "cuba2": cuba(tau_mem=each(3e-3)),
        "fc3": affine(size, size, 0.4),
        "cuba3": cuba(),
        "out": affine(4, size, 0.4),
        "output": nir.Output({"output": np.array([4])}),
    }
    row = ["input", "fc1", "cuba1", "fc2", "cuba2", "fc3", "cuba3", "out", "output"]
    edges = [*itertools.pairwise(row), ("cuba1", "rec"), ("rec", "cuba1")]
    graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
    two = Readout(tuple(random.uniform(0.05, 0.4, STEPS)), "out")
    return Deployment(graph, Timing(dt, STEPS, "zero"), InputSpec((10,), "frames"), two)


TORCH: dict[str, Callable[[], SpikingNetwork]] = {
    "mlp": mlp,
    "convnet": convnet,
    "sew": sew,
    "if-conv": if_conv,
}


def deployments() -> dict[str, Deployment]:
    """All five as graphs."""
    traced = {name: trace(make()) for name, make in TORCH.items()}
    return {**traced, "recurrent": recurrent()}


def samples(deployment: Deployment, count: int = 12) -> np.ndarray:
    """Random inputs, on a grid of 1/8 so that sums are exact, float32."""
    spec = deployment.input
    shape = spec.shape if spec.encoding == "direct" else (deployment.timing.steps, *spec.shape)
    random = np.random.default_rng(7)
    return (random.integers(0, 9, (count, *shape)) / 8).astype(np.float32)


def rates(deployment: Deployment) -> dict[str, float]:
    """Share of spikes of each layer."""
    from msg_deploy.networks import encode

    batch = torch.from_numpy(samples(deployment))
    inputs = encode(batch, deployment.input, deployment.timing.steps).numpy()
    trace_ = simulator("reference").run(deployment, inputs)
    return {name: float(spikes.mean()) for name, spikes in trace_.spikes.items()}
