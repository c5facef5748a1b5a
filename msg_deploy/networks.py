"""Spiking networks in torch: what wraps a body of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from msg_deploy.deployment import (
    INPUT,
    OUTPUT,
    InputSpec,
    IntegerForm,
    Provenance,
    Timing,
    explain,
)
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


class Scale(nn.Module):
    """y = s x, elementwise, with s fixed.

    Args:
        shape: of s, which is broadcast to a sample's shape.
    """

    scale: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("scale", torch.ones(self.shape))

    def forward(self, x: Tensor) -> Tensor:
        """Values (N, *shape) times s."""
        return x * self.scale.to(x.dtype)


class Graph(nn.Module):
    """Layers by name and the edges between them, as in NIR; what meets at a layer is summed.

    A dot in a name makes a submodule, so that a layer's path is its name.

    Args:
        layers: by name, each after all that lead into it.
        edges: from a name or "input" to a name or "output".

    Raises:
        UsageError: a name cannot be a path, or an edge leads backwards or nowhere.
    """

    def __init__(self, layers: Mapping[str, nn.Module], edges: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.names = tuple(layers)
        self.edges = tuple((a, b) for a, b in edges)
        known = {INPUT}
        for name in (*self.names, OUTPUT):
            sources = self.sources(name)
            if not sources or not known.issuperset(sources):
                raise UsageError(f"Graph: what leads into {name!r} must come before it.")
            known.add(name)
        if not known.issuperset(b for _, b in self.edges):
            raise UsageError("Graph: an edge leads to a layer that is not there.")
        for name, layer in layers.items():
            self._put(name, layer)

    def _put(self, name: str, layer: nn.Module) -> None:
        *path, last = name.split(".")
        parent: nn.Module = self
        for part in path:
            if part not in parent._modules:
                self._require_place(parent, part, name)
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        self._require_place(parent, last, name)
        parent.add_module(last, layer)

    def _require_place(self, parent: nn.Module, part: str, name: str) -> None:
        # A layer within a layer, or an attribute of torch's Module, is no place for another.
        if type(parent) not in (Graph, nn.Module) or hasattr(parent, part) or not part:
            raise UsageError(f"Graph: a layer cannot be called {name!r} beside {self.names}.")

    def sources(self, name: str) -> tuple[str, ...]:
        """What leads into a layer."""
        return tuple(a for a, b in self.edges if b == name)

    def forward(self, x: Tensor) -> Tensor:
        """Merged time and batch (T*B, ...) through all layers."""
        values = {INPUT: x}
        for name in self.names:
            values[name] = self.get_submodule(name)(self._sum(values, name))
        return self._sum(values, OUTPUT)

    def _sum(self, values: Mapping[str, Tensor], name: str) -> Tensor:
        first, *others = (values[source] for source in self.sources(name))
        for other in others:
            first = first + other
        return first


class SpikingNetwork(nn.Module):
    """A body of layers on merged time and batch, followed by TWO.

    Args:
        body: maps (T*B, *input shape) to output-layer currents (T*B, C). Ordinary torch layers and
            `LIF`; all LIF layers have the same steps and reset.
        readout: decodes the currents.
        input_spec: what a sample looks like.
        dt: length of a timestep in seconds.
        provenance: data set and class names.
        integers: what the numbers of a quantized network stand for.

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
        integers: IntegerForm | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self.readout = readout
        self.input_spec = input_spec
        self.timing = timing_of(nn.Sequential(body, readout), dt)
        self.provenance = provenance or Provenance()
        self.integers = integers

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
        UsageError: they disagree, there is none, or a number is not accepted.
    """
    layers = [m for m in module.modules() if isinstance(m, (LIF, TWO))]
    steps = {m.steps for m in layers}
    resets: set[ResetMode] = {m.reset for m in layers if isinstance(m, LIF)}
    if len(steps) != 1:
        raise UsageError(f"all LIF and TWO layers need the same steps, found {sorted(steps)}.")
    if len(resets) > 1:
        raise UsageError("all LIF layers need the same reset; zero and subtract are mixed.")
    try:
        return Timing(dt=dt, steps=steps.pop(), reset=resets.pop() if resets else "zero")
    except ValidationError as error:
        raise UsageError(f"timing: {explain(error)}.") from error


def encode(samples: Tensor, spec: InputSpec, steps: int) -> Tensor:
    """Samples to what enters the network at each step.

    Args:
        samples: (B, *shape) for the encoding "direct", (B, T, *shape) for "frames".
        spec: the input contract.
        steps: number of timesteps T.

    Returns:
        (T, B, *shape), a view where possible. With `spec.levels` whole numbers: x / step rounded to
        the nearest, halves to even, and what is beyond the range is cut off.

    Raises:
        UsageError: the samples do not have that shape.
    """
    expected = spec.shape if spec.encoding == "direct" else (steps, *spec.shape)
    if tuple(samples.shape[1:]) != expected:
        raise UsageError(
            f"wrong input shape: samples of shape {tuple(samples.shape[1:])}, but the model takes "
            f"{expected} (encoding {spec.encoding!r})."
        )
    if spec.levels is not None:
        samples = _whole(samples, spec)
    if spec.encoding == "direct":
        return samples.unsqueeze(0).expand(steps, *samples.shape)
    return samples.transpose(0, 1)


def _whole(samples: Tensor, spec: InputSpec) -> Tensor:
    """Samples as multiples of the step; in float64, so that every machine rounds alike."""
    # A multiplication, since 1/step is often a whole number where step is none of float64.
    assert spec.levels is not None
    multiples = (samples.double() * (spec.levels / (spec.high - spec.low))).round_()
    return multiples.clamp_(*spec.entering).to(samples.dtype)
