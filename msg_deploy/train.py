"""Training with MSG and TWO."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from msg_deploy import processes
from msg_deploy.architecture import describe
from msg_deploy.augment import augmentation
from msg_deploy.data import Dataset, Split
from msg_deploy.errors import UsageError
from msg_deploy.masking import MaskedSurrogateGradient
from msg_deploy.networks import SpikingNetwork, encode
from msg_deploy.neuron import LIF, Observer
from msg_deploy.options import Augment, Loss, Where
from msg_deploy.resume import read_state, write_state


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        epochs: passes over the training samples.
        batch_size: samples per step, over all processes.
        learning_rate: of AdamW at the start; it follows a half cosine to 0.
        weight_decay: of AdamW.
        loss: "two": cross-entropy of the TWO output; "tet": the mean of the cross-entropies of the
            single timesteps (temporal efficient training, Deng et al. 2022, without its
            regularisation).
        clip_norm: largest norm of the gradient, or None.
        autocast: compute layers in bfloat16; membranes stay in float32.
        augment: how samples are varied, see `msg_deploy.augment`.
        validation: share of the training samples kept out, to watch the training by.
        patience: stop after this many epochs without a better validation accuracy, or None.
        mask_probability: MSG's p; 0 is plain surrogate gradient.
        mask_where: "weight" or "surrogate".
        mask_rescale: divide kept gradients by 1 - p.
        update_two: move TWO's weights after each epoch; without it they stay the plain mean.
        seed: of initialisation (by the caller), shuffling, masks and augmentation.
    """

    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    loss: Loss = "two"
    clip_norm: float | None = None
    autocast: bool = False
    augment: Augment = "none"
    validation: float = 0.0
    patience: int | None = None
    mask_probability: float = 0.5
    mask_where: Where = "weight"
    mask_rescale: bool = False
    update_two: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"{name} must be at least 1, not {value}")
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{name} must be above 0, not {value}")
        _require(
            self.weight_decay >= 0, f"weight_decay must not be negative, not {self.weight_decay}"
        )
        _require(0 <= self.validation < 1, f"validation must be in [0, 1), not {self.validation}")
        _require(
            self.patience is None or self.validation > 0,
            "patience needs validation samples; set validation to a share such as 0.1",
        )
        for name, kind in (("loss", Loss), ("augment", Augment)):
            value, known = getattr(self, name), get_args(kind)
            _require(value in known, f"{name} must be one of {', '.join(known)}, not {value!r}")


@dataclass(frozen=True)
class Epoch:
    """What one epoch brought.

    Attributes:
        number: from 1.
        loss: mean loss over the training samples.
        accuracy: on the training samples as they were seen, 0..1.
        validation: accuracy on the validation samples, 0..1; None without such.
        seconds: wall-clock time.
        firing_rates: spikes per neuron and timestep while training, by layer.
    """

    number: int
    loss: float
    accuracy: float
    validation: float | None = None
    seconds: float = 0.0
    firing_rates: dict[str, float] = field(default_factory=dict)


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
    state: str | Path | None = None,
    resume: bool = False,
) -> None:
    """Train in place: AdamW with cosine decay; TWO is updated after each epoch.

    The same seed gives the same network on the same machine, interrupted and resumed or not. Under
    torchrun every process calls this with the same arguments.

    Args:
        network: to train; left in evaluation mode.
        data: its training split is used.
        options: how.
        on_epoch: called after each epoch (in every process).
        state: file that keeps the state of the training after each epoch, if given.
        resume: continue from that file; a file that is not there starts anew.

    Raises:
        UsageError: the batch is smaller than the number of processes, validation keeps out no
            sample or all, or the options, the network or the data are others than those of the
            file.
        FileError: the file cannot be read or written.
    """
    run = _Run(network, data.train, options)
    path = None if state is None else Path(state)
    about = vars(options) | _about(network, data)
    if resume and path is not None and path.exists():
        if processes.count() > 1 and options.mask_where == "surrogate":
            raise UsageError(
                f"{path}: with masks of surrogates in several processes each has its own state, "
                "and the file keeps that of the first; start anew, or train in one process."
            )
        run.restore(read_state(path, about))
    while not run.finished:
        on_epoch(run.epoch())
        if path is not None and processes.rank() == 0:
            write_state(path, about, run.state())
    network.eval()


def _about(network: SpikingNetwork, data: Dataset) -> dict[str, Any]:
    """What a training is of, as plain values: it is not resumed with anything else."""
    return {
        "model": json.dumps(describe(network.body)),
        "timing": repr(network.timing),
        "input": repr(network.input_spec),
        "beta": network.readout.beta,
        "data": repr((data.name, dict(network.provenance.data_options), len(data.train))),
    }


def evaluate(network: SpikingNetwork, split: Split, batch_size: int = 256) -> Accuracy:
    """Accuracy of a network, decoded with TWO and with the plain mean."""
    two = mean = 0
    network.eval()
    with torch.no_grad():
        for start in range(0, len(split), batch_size):
            samples, truth = _batch(split, torch.arange(len(split))[start : start + batch_size])
            currents = network.currents(encode(samples, network.input_spec, network.timing.steps))
            average = currents.unflatten(0, (network.timing.steps, -1)).mean(dim=0)
            two += int((network.readout(currents).argmax(1) == truth).sum())
            mean += int((average.argmax(1) == truth).sum())
    return Accuracy(two / len(split), mean / len(split))


class _Run:
    """One training: everything that changes from epoch to epoch."""

    def __init__(self, network: SpikingNetwork, split: Split, options: TrainingOptions) -> None:
        if options.batch_size < processes.count():
            raise UsageError(
                f"batch_size {options.batch_size} is less than the {processes.count()} processes."
            )
        self.network, self.options = network, options
        self.train, self.validation = _divide(split, options)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, options.epochs)
        # Masks of weights are equal in all processes, which see the same averaged gradient; those
        # of surrogates belong to samples.
        own = processes.rank() if options.mask_where == "surrogate" else 0
        self.masking = MaskedSurrogateGradient(
            options.mask_probability, options.mask_where, options.mask_rescale, options.seed + own
        )
        self.masking.attach(network, self.optimizer)
        self.vary = augmentation(options.augment, network.input_spec)
        self.shuffling = torch.Generator().manual_seed(options.seed)
        self.body: nn.Module = network.body
        if processes.count() > 1:
            self.body = DistributedDataParallel(network.body)
        self.number = self.stale = 0
        self.best = -1.0

    @property
    def finished(self) -> bool:
        """All epochs are done, or the validation accuracy has not risen for too long."""
        patience = self.options.patience
        return self.number >= self.options.epochs or (
            patience is not None and self.stale >= patience
        )

    def epoch(self) -> Epoch:
        """One pass over the training samples."""
        start = time.perf_counter()
        self.network.train()
        sums = torch.zeros(2, dtype=torch.float64)
        seen = 0
        order = torch.randperm(len(self.train), generator=self.shuffling)
        with firing_rates(self.network) as rates:
            for batch in order.split(self.options.batch_size):
                if len(batch) >= processes.count():
                    sums += self._step(batch)
                    seen += len(batch)
        self.schedule.step()
        self._update_readout()
        self.number += 1
        loss, accuracy = (processes.total(sums) / seen).tolist()
        return Epoch(
            number=self.number,
            loss=loss,
            accuracy=accuracy,
            validation=self._validate(),
            seconds=time.perf_counter() - start,
            firing_rates=rates(),
        )

    def _step(self, batch: Tensor) -> Tensor:
        """One update; the sums of losses and hits over this process's samples, (2,)."""
        network, options = self.network, self.options
        samples, labels = _batch(self.train, batch[processes.rank() :: processes.count()])
        inputs = encode(self.vary(samples), network.input_spec, network.timing.steps)
        device = samples.device.type
        with torch.autocast(device, torch.bfloat16, enabled=options.autocast):
            currents: Tensor = self.body(inputs.flatten(0, 1))
        currents = currents.float()
        losses = _losses(network, currents, labels, options.loss)
        self.optimizer.zero_grad()
        # Gradients are averaged over the processes, whose shares may differ by one sample.
        (losses.sum() * processes.count() / len(batch)).backward()
        if options.clip_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), options.clip_norm)
        self.optimizer.step()
        network.readout.observe(currents, labels)
        hits = (network.readout(currents).argmax(1) == labels).sum()
        return torch.stack([losses.detach().sum().double(), hits.double()]).cpu()

    def _update_readout(self) -> None:
        readout = self.network.readout
        processes.total(readout.correct)
        processes.total(readout.seen)
        if self.options.update_two:
            readout.update()
        else:
            readout.forget()

    def _validate(self) -> float | None:
        if self.validation is None:
            return None
        accuracy = evaluate(self.network, self.validation).two
        self.stale = 0 if accuracy > self.best else self.stale + 1
        self.best = max(accuracy, self.best)
        return accuracy

    def state(self) -> dict[str, Any]:
        """All that decides how the training goes on; tensors and plain values only."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "masking": self.masking.state_dict(),
            "shuffling": self.shuffling.get_state(),
            "random": torch.get_rng_state(),
            "progress": {"number": self.number, "stale": self.stale, "best": self.best},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.masking.load_state_dict(state["masking"])
        self.shuffling.set_state(state["shuffling"])
        torch.set_rng_state(state["random"])
        progress = state["progress"]
        self.number, self.stale = progress["number"], progress["stale"]
        self.best = progress["best"]


def _losses(network: SpikingNetwork, currents: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """The loss of each sample, (B,)."""
    cross_entropy = nn.functional.cross_entropy
    if loss == "two":
        return cross_entropy(network.readout(currents), labels, reduction="none")
    steps = network.timing.steps
    single = cross_entropy(currents, labels.repeat(steps), reduction="none")
    return single.unflatten(0, (steps, -1)).mean(dim=0)


@contextlib.contextmanager
def firing_rates(network: SpikingNetwork) -> Iterator[Callable[[], dict[str, float]]]:
    """Count spikes while the block runs.

    Yields:
        A function that gives, by layer, the spikes per neuron, timestep and sample so far.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def observer(name: str) -> Observer:
        def observe(spikes: Tensor, membranes: Tensor) -> None:
            sums[name] = sums.get(name, torch.zeros(())) + spikes.detach().sum().cpu()
            counts[name] = counts.get(name, 0) + spikes.numel()

        return observe

    layers = {n: m for n, m in network.body.named_modules() if isinstance(m, LIF)}
    for name, layer in layers.items():
        layer.observer = observer(name)
    try:
        yield lambda: {name: float(sums[name]) / counts[name] for name in sums}
    finally:
        for layer in layers.values():
            layer.observer = None


def _divide(split: Split, options: TrainingOptions) -> tuple[Split, Split | None]:
    """Training and validation samples; the same for the same seed."""
    if options.validation == 0:
        return split, None
    kept_out = round(options.validation * len(split))
    if not 0 < kept_out < len(split):
        raise UsageError(
            f"validation {options.validation} keeps out {kept_out} of {len(split)} training "
            "samples; choose a share that leaves some on both sides."
        )
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(options.seed))
    validation, rest = order[:kept_out].numpy(), order[kept_out:].numpy()
    return (
        Split(split.samples[rest], split.labels[rest]),
        Split(split.samples[validation], split.labels[validation]),
    )


def _batch(split: Split, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Samples (B, ...) in float32 and labels (B,)."""
    chosen = indices.numpy()
    return torch.from_numpy(split.samples[chosen]).float(), torch.from_numpy(split.labels[chosen])


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise UsageError(f"{problem}.")
