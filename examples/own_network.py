"""Train a network of your own with your own loop, export it, and prove the export.

Run: python examples/own_network.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import msg_deploy
from msg_deploy.data import load_dataset
from msg_deploy.networks import encode

STEPS = 6


class Recognizer(nn.Module):
    """Two convolutions, the second with a residual addition of its spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), msg_deploy.LIF(STEPS)
        )
        self.branch = nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), msg_deploy.LIF(STEPS)
        )
        self.head = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12 * 4 * 4, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Pixels (T*B, 1, 8, 8) to currents (T*B, 10)."""
        x = self.stem(x)
        result: Tensor = self.head(x + self.branch(x))
        return result


def train(network: msg_deploy.SpikingNetwork, samples: Tensor, labels: Tensor) -> None:
    """A plain loop: MSG masks the gradients, TWO counts which timesteps are right."""
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    msg_deploy.MaskedSurrogateGradient(p=0.4, seed=1).attach(network, optimizer)
    for epoch in range(4):
        for batch in torch.randperm(len(labels)).split(64):
            currents = network.currents(encode(samples[batch], network.input_spec, STEPS))
            loss = nn.functional.cross_entropy(network.readout(currents), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            network.readout.observe(currents, labels[batch])
        network.readout.update()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")


def main(folder: Path) -> int:
    """Train, export with TWO as delays, check in the reference and in Norse."""
    torch.manual_seed(0)
    data = load_dataset("digits")
    network = msg_deploy.SpikingNetwork(
        Recognizer(),
        msg_deploy.TWO(STEPS),
        data.input,
        provenance=msg_deploy.Provenance(data=data.name, classes=data.classes),
    )
    train(network, torch.from_numpy(data.train.samples), torch.from_numpy(data.train.labels))
    network.eval()
    msg_deploy.export(network, folder / "own.nir", fold="delay")
    verdict = msg_deploy.check(network, folder / "own.nir")
    print(f"{verdict.kind}: {verdict.mismatches} mismatching of {verdict.spikes} spikes")
    return 0 if verdict else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
