"""Run a network on data: decisions, accuracy, spikes and synaptic operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from msg_deploy.api import Model, open_model
from msg_deploy.data import Split, data_options, datasets, load_dataset
from msg_deploy.deployment import Deployment
from msg_deploy.errors import UsageError
from msg_deploy.exporters.nir import ForeignTiming
from msg_deploy.networks import encode
from msg_deploy.options import Precision
from msg_deploy.sim.activity import Activity, joined
from msg_deploy.sim.fast import DEFAULT_MEMORY, Fast
from msg_deploy.sim.simulator import FloatArray

BATCH = 256
"""Samples that are encoded at once; how many are run at once is the simulator's concern."""
DEFAULT_RANDOM = 64


@dataclass(frozen=True)
class Simulation:
    """What came out.

    Attributes:
        scores: by class, (N, C).
        labels: of the samples (N,); None if they are random.
        activity: spikes and synaptic operations; None if they were not counted.
    """

    scores: FloatArray
    labels: npt.NDArray[np.int64] | None
    activity: Activity | None

    @property
    def decisions(self) -> npt.NDArray[np.int64]:
        """Argmax over classes, (N,)."""
        return self.scores.reshape(len(self.scores), -1).argmax(axis=1)

    @property
    def accuracy(self) -> float | None:
        """The share of samples that are decided as labelled."""
        return None if self.labels is None else float(np.mean(self.decisions == self.labels))


def simulate(
    model: Model,
    data: str | FloatArray | None = None,
    samples: int | None = None,
    random: int = DEFAULT_RANDOM,
    seed: int = 0,
    activity: bool = True,
    memory: int = DEFAULT_MEMORY,
    threads: int | None = None,
    precision: Precision = "float32",
    foreign: ForeignTiming | None = None,
    options: Mapping[str, Any] | None = None,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Simulation:
    """Run a network in the fast simulator, batch by batch; only results are kept.

    Args:
        model: a .pt or .nir file, a SpikingNetwork, a ForeignNetwork or a Deployment.
        data: name of a data set (its held-out samples), samples (N, *shape), or None: the data set
            that the model was trained on if it is known, else random samples.
        samples: at most this many of the data, drawn at random from a data set.
        random: number of uniformly random samples within the input range, where there are no data.
        seed: of the random samples.
        activity: count spikes and synaptic operations, too.
        memory: bytes for the values between the layers.
        threads: None: as many as torch uses.
        precision: of the computation.
        foreign: timing for .nir files that carry none.
        options: how the data set is found and read, see `DataOptions`.
        on_batch: called with samples done and in total.

    Raises:
        FileError: a file cannot be used.
        UsageError: an argument is not accepted, or the data do not fit the model.
    """
    deployment = open_model(model, foreign).deployment
    chosen, labels = _chosen(deployment, data, samples, random, seed, options or {})
    fast = Fast(memory, threads)
    scores: list[FloatArray] = []
    counted: list[Activity] = []
    for inputs in _batches(deployment, chosen):
        if activity:
            found, part = fast.scores_and_activity(deployment, inputs, precision)
            counted.append(part)
        else:
            found = fast.scores(deployment, inputs, precision)
        scores.append(found)
        on_batch(sum(map(len, scores)), len(chosen))
    return Simulation(np.concatenate(scores), labels, joined(counted) if counted else None)


def _batches(deployment: Deployment, samples: FloatArray) -> Iterator[FloatArray]:
    """Inputs (T, B, ...)."""
    for start in range(0, len(samples), BATCH):
        batch = torch.from_numpy(np.asarray(samples[start : start + BATCH], np.float32))
        yield encode(batch, deployment.input, deployment.timing.steps).numpy()


def _chosen(
    deployment: Deployment,
    data: str | FloatArray | None,
    samples: int | None,
    random: int,
    seed: int,
    options: Mapping[str, Any],
) -> tuple[FloatArray, npt.NDArray[np.int64] | None]:
    """Samples (N, ...), and labels if they have any."""
    trained = deployment.provenance.data
    if data is None and trained in datasets():
        data = trained
    if isinstance(data, str):
        split = _held_out(deployment, data, samples, options)
        return split.samples, split.labels
    if data is not None:
        return np.asarray(data)[:samples], None
    if random < 1:
        raise UsageError("there is no sample to run; give data or a number of random ones.")
    spec = deployment.input
    shape: Sequence[int] = spec.shape
    if spec.encoding == "frames":
        shape = (deployment.timing.steps, *spec.shape)
    noise = np.random.default_rng(seed).uniform(spec.low, spec.high, (random, *shape))
    return noise.astype(np.float32), None


def _held_out(
    deployment: Deployment, data: str, samples: int | None, options: Mapping[str, Any]
) -> Split:
    trained = deployment.provenance
    kept = trained.data_options if trained.data == data else {}
    resolved = data_options(kept, {"limit": samples or None}, options)
    return load_dataset(data, resolved, deployment.timing.steps).test
