"""Run a network on data: decisions, accuracy, spikes and synaptic operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msg_deploy.exporters.nir import ForeignTiming
from msg_deploy.options import Precision
from msg_deploy.sim.activity import Activity, joined
from msg_deploy.sim.fast import DEFAULT_MEMORY, Fast
from msg_deploy.sim.simulator import FloatArray
from msg_deploy.stimulus import DEFAULT_RANDOM, batches, samples_of
from msg_deploy.subjects import Model, open_model

BATCH = 256
"""Samples that are encoded at once; how many are run at once is the simulator's concern."""


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
        data: name of a data set (its held-out samples), a .npz file of samples, samples
            (N, *shape), or None: the data set that the model was trained on if it is known, else
            random samples.
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
    stimulus, labels = samples_of(deployment, data, samples, random, seed, options or {})
    fast = Fast(memory, threads)
    scores: list[FloatArray] = []
    counted: list[Activity] = []
    for _, inputs in batches(deployment, stimulus, BATCH):
        if activity:
            found, part = fast.scores_and_activity(deployment, inputs, precision)
            counted.append(part)
        else:
            found = fast.scores(deployment, inputs, precision)
        scores.append(found)
        on_batch(sum(map(len, scores)), len(stimulus))
    return Simulation(np.concatenate(scores), labels, joined(counted) if counted else None)
