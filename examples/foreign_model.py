"""Take a network that was built and trained in snnTorch, export it, and prove the export.

Run: python examples/foreign_model.py [FOLDER] (needs snntorch)
"""

from __future__ import annotations

import sys
from pathlib import Path

import snntorch
import torch
from torch import Tensor, nn

import msg_deploy
from msg_deploy.data import load_dataset

STEPS = 6


class Classifier(nn.Module):
    """Pixels to 64 leaky neurons to 10 currents, written as snnTorch's users write it."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(64, 64)
        self.lif = snntorch.Leaky(beta=0.8, threshold=1.0, reset_mechanism="subtract")
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One step: pixels (B, 1, 8, 8) and membranes to currents and membranes."""
        spikes, state = self.lif(self.fc1(self.flatten(x)), state)
        return self.fc2(spikes), state


def train(model: Classifier, samples: Tensor, labels: Tensor) -> None:
    """A plain loop; the decision is the mean of the currents over all steps."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(3):
        for batch in torch.randperm(len(labels)).split(64):
            state, total = model.lif.reset_mem(), torch.zeros(())
            for _ in range(STEPS):
                currents, state = model(samples[batch], state)
                total = total + currents / STEPS
            loss = nn.functional.cross_entropy(total, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")


def main(folder: Path) -> int:
    """Train in snnTorch, export, check against the module's own forward pass."""
    torch.manual_seed(0)
    data = load_dataset("digits")
    model = Classifier()
    train(model, torch.from_numpy(data.train.samples), torch.from_numpy(data.train.labels))
    network = msg_deploy.ForeignNetwork(model, data.input, STEPS)
    msg_deploy.export(network, folder / "foreign.nir")
    verdict = msg_deploy.check(network, folder / "foreign.nir", data="digits", samples=50)
    print(f"{verdict.kind}: {verdict.mismatches} mismatching of {verdict.spikes} spikes")
    return 0 if verdict else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
