"""Spiking networks in torch: what wraps a body of layers, and bodies by name."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msg_deploy.deployment import InputSpec, Provenance, Shape, Timing
from msg_deploy.errors import UsageError
from msg_deploy.neuron import LIF
from msg_deploy.options import ResetMode
from msg_deploy.readout import TWO


class Residual(nn.Module):
    """y = main(x) + shortcut(x), the residual addition."""

    def __init__(self, main: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.main = main
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both branches."""
        result: Tensor = self.main(x) + self.shortcut(x)
        return result


class SpikingNetwork(nn.Module):
    """A body of layers on merged time and batch, followed by TWO.

    Args:
        body: maps (T*B, *input shape) to output-layer currents (T*B, C). Ordinary torch layers and
            `LIF`; all LIF layers have the same steps and reset.
        readout: decodes the currents.
        input_spec: what a sample looks like.
        dt: length of a timestep in seconds.
        provenance: data set and class names.

    Raises:
        UsageError: LIF layers disagree with each other or with the readout.
    """

    def __init__(
        self,
        body: nn.Module,
        readout: TWO,
        input_spec: InputSpec,
        dt: float = 1e-3,
        provenance: Provenance | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.readout = readout
        self.input_spec = input_spec
        self.timing = timing_of(nn.Sequential(body, readout), dt)
        self.provenance = provenance or Provenance()

    def currents(self, inputs: Tensor) -> Tensor:
        """Inputs (T, B, *input shape) to output-layer currents (T*B, C)."""
        result: Tensor = self.body(inputs.flatten(0, 1))
        return result

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs (T, B, *input shape) to class scores (B, C)."""
        result: Tensor = self.readout(self.currents(inputs))
        return result


def timing_of(module: nn.Module, dt: float) -> Timing:
    """The timing that the LIF and TWO layers of a module agree on.

    Raises:
        UsageError: they disagree, or there is none.
    """
    layers = [m for m in module.modules() if isinstance(m, (LIF, TWO))]
    steps = {m.steps for m in layers}
    resets: set[ResetMode] = {m.reset for m in layers if isinstance(m, LIF)}
    if len(steps) != 1:
        raise UsageError(f"all LIF and TWO layers need the same steps, found {sorted(steps)}.")
    if len(resets) > 1:
        raise UsageError("all LIF layers need the same reset; zero and subtract are mixed.")
    return Timing(dt=dt, steps=steps.pop(), reset=resets.pop() if resets else "zero")


def encode(samples: Tensor, spec: InputSpec, steps: int) -> Tensor:
    """Samples to what enters the network at each step.

    Args:
        samples: (B, *shape) for the encoding "direct", (B, T, *shape) for "frames".
        spec: the input contract.
        steps: number of timesteps T.

    Returns:
        (T, B, *shape), a view where possible.

    Raises:
        UsageError: the samples do not have that shape.
    """
    expected = spec.shape if spec.encoding == "direct" else (steps, *spec.shape)
    if tuple(samples.shape[1:]) != expected:
        raise UsageError(
            f"wrong input shape: samples of shape {tuple(samples.shape[1:])}, but the model takes "
            f"{expected} (encoding {spec.encoding!r})."
        )
    if spec.encoding == "direct":
        return samples.unsqueeze(0).expand(steps, *samples.shape)
    return samples.transpose(0, 1)


Builder = Callable[..., nn.Module]
NETWORKS: dict[str, Builder] = {}
"""Bodies by name: functions (input_shape, classes, steps, **options) -> body."""


def network(builder: Builder) -> Builder:
    """Decorator: make a body available by its function's name."""
    NETWORKS[builder.__name__] = builder
    return builder


def build(
    name: str,
    input_spec: InputSpec,
    classes: int,
    steps: int,
    dt: float = 1e-3,
    beta: float = 0.9,
    provenance: Provenance | None = None,
    **options: Any,
) -> SpikingNetwork:
    """A network by name with a fresh TWO readout.

    Raises:
        UsageError: no such network, or an option is not accepted.
    """
    if name not in NETWORKS:
        raise UsageError(f"unknown model {name!r}; there are {', '.join(sorted(NETWORKS))}.")
    body = NETWORKS[name](input_spec.shape, classes, steps, **options)
    return SpikingNetwork(body, TWO(steps, beta), input_spec, dt, provenance)


@network
def mlp(
    input_shape: Shape,
    classes: int,
    steps: int,
    hidden: Sequence[int] = (256, 128),
    **neuron: Any,
) -> nn.Module:
    """Linear-LIF layers of the given widths, then the Linear output layer."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(input_shape) > 1:
        layers["flatten"] = nn.Flatten()
    width = int(torch.Size(input_shape).numel())
    for i, size in enumerate(hidden, start=1):
        layers[f"fc{i}"] = nn.Linear(width, size)
        layers[f"lif{i}"] = LIF(steps, **neuron)
        width = size
    layers[f"fc{len(hidden) + 1}"] = nn.Linear(width, classes)
    return nn.Sequential(layers)


@network
def convnet(
    input_shape: Shape,
    classes: int,
    steps: int,
    channels: Sequence[int] = (16, 32),
    **neuron: Any,
) -> nn.Module:
    """Conv3x3-BatchNorm-LIF-AvgPool2 stages, a residual Conv stage, then Linear."""
    if len(input_shape) == 2:
        input_shape = (1, *input_shape)
    if len(input_shape) != 3:
        raise UsageError(f"convnet takes images (channels, height, width), not {input_shape}.")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    depth, height, width = input_shape
    for i, size in enumerate(channels, start=1):
        layers[f"conv{i}"] = nn.Conv2d(depth, size, 3, padding=1, bias=False)
        layers[f"bn{i}"] = nn.BatchNorm2d(size)
        layers[f"lif{i}"] = LIF(steps, **neuron)
        layers[f"pool{i}"] = nn.AvgPool2d(2)
        depth, height, width = size, height // 2, width // 2
    layers["block"] = Residual(
        nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(depth, depth, 3, padding=1, bias=False),
                bn=nn.BatchNorm2d(depth),
                lif=LIF(steps, **neuron),
            )
        )
    )
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(depth * height * width, classes)
    return nn.Sequential(layers)
