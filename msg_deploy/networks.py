"""Spiking networks in torch: what wraps a body of layers."""

from __future__ import annotations

from torch import Tensor, nn

from msg_deploy.deployment import InputSpec, Provenance, Timing
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
