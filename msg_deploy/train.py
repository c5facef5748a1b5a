"""Training with MSG and TWO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from msg_deploy.data import Dataset, Split
from msg_deploy.errors import UsageError
from msg_deploy.masking import MaskedSurrogateGradient
from msg_deploy.networks import SpikingNetwork, encode
from msg_deploy.options import Where


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        epochs: passes over the training samples.
        batch_size: samples per step.
        learning_rate: of AdamW at the start; it follows a half cosine to 0.
        weight_decay: of AdamW.
        mask_probability: MSG's p; 0 is plain surrogate gradient.
        mask_where: "weight" or "surrogate".
        mask_rescale: divide kept gradients by 1 - p.
        seed: of initialisation (by the caller), shuffling and masks.
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    mask_probability: float = 0.5
    mask_where: Where = "weight"
    mask_rescale: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise UsageError(f"learning_rate must be above 0, not {self.learning_rate}.")


@dataclass(frozen=True)
class Epoch:
    """What one epoch brought.

    Attributes:
        number: from 1.
        loss: mean cross-entropy over the training samples.
        accuracy: on the training samples as they were seen, 0..1.
    """

    number: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Accuracy:
    """Share of samples classified correctly, 0..1.

    Attributes:
        two: decoded with the TWO weights.
        mean: decoded with the plain mean over the timesteps.
    """

    two: float
    mean: float


def train(
    network: SpikingNetwork,
    data: Dataset,
    options: TrainingOptions,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> None:
    """Train in place: AdamW, cosine decay, cross-entropy on the TWO output, TWO updated per epoch.

    The same seed gives the same network on the same machine.

    Args:
        network: to train; left in evaluation mode.
        data: its training split is used.
        options: how.
        on_epoch: called after each epoch.
    """
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    masking = MaskedSurrogateGradient(
        options.mask_probability, options.mask_where, options.mask_rescale, options.seed
    )
    masking.attach(network, optimizer)
    shuffling = torch.Generator().manual_seed(options.seed)
    samples, labels = _tensors(data.train)
    network.train()
    for number in range(1, options.epochs + 1):
        order = torch.randperm(len(labels), generator=shuffling)
        total_loss, correct = 0.0, 0
        for batch in order.split(options.batch_size):
            loss, hits = _step(network, optimizer, samples[batch], labels[batch])
            total_loss += loss * len(batch)
            correct += hits
        schedule.step()
        network.readout.update()
        on_epoch(Epoch(number, total_loss / len(labels), correct / len(labels)))
    network.eval()


def evaluate(network: SpikingNetwork, split: Split, batch_size: int = 256) -> Accuracy:
    """Accuracy of a network, decoded with TWO and with the plain mean."""
    samples, labels = _tensors(split)
    two = mean = 0
    network.eval()
    with torch.no_grad():
        for chunk, truth in zip(samples.split(batch_size), labels.split(batch_size), strict=True):
            currents = network.currents(encode(chunk, network.input_spec, network.timing.steps))
            average = currents.unflatten(0, (network.timing.steps, -1)).mean(dim=0)
            two += int((network.readout(currents).argmax(1) == truth).sum())
            mean += int((average.argmax(1) == truth).sum())
    return Accuracy(two / len(labels), mean / len(labels))


def _step(
    network: SpikingNetwork, optimizer: torch.optim.Optimizer, samples: Tensor, labels: Tensor
) -> tuple[float, int]:
    currents = network.currents(encode(samples, network.input_spec, network.timing.steps))
    scores = network.readout(currents)
    loss = nn.functional.cross_entropy(scores, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    network.readout.observe(currents, labels)
    return loss.item(), int((scores.argmax(1) == labels).sum())


def _tensors(split: Split) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(split.samples), torch.from_numpy(split.labels)
