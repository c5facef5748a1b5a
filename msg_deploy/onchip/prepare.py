"""A model of any kind, made whole for a chip, and the samples to run it on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Deployment
from msg_deploy.exporters.chips.target import OnChip, Target
from msg_deploy.exporters.nir import ForeignTiming
from msg_deploy.exporters.quantize.prepare import unfolded
from msg_deploy.exporters.targets import target as target_by_name
from msg_deploy.quantization import DEFAULT_SAMPLES, quantize
from msg_deploy.sim.simulator import FloatArray
from msg_deploy.stimulus import DEFAULT_RANDOM, samples_of
from msg_deploy.subjects import Model, open_model


@dataclass(frozen=True)
class Job:
    """What is asked about a network and a chip.

    Attributes:
        target: name of the chip.
        data: data set, samples or a .npz file of them; None: what the model was trained on, else
            random samples.
        samples: at most this many held-out samples; None: all.
        random: number of random samples, where there are no data.
        calibration: number of training samples on which a network of real numbers is made whole.
        approximate: allow the approximations that the target knows.
        seed: of what is drawn.
        options: how the data set is found and read, see `DataOptions`.
        foreign: timing for .nir files that carry none.
    """

    target: str
    data: str | FloatArray | None = None
    samples: int | None = None
    random: int = DEFAULT_RANDOM
    calibration: int = DEFAULT_SAMPLES
    approximate: bool = False
    seed: int = 0
    options: Mapping[str, Any] | None = None
    foreign: ForeignTiming | None = None


@dataclass(frozen=True)
class Prepared:
    """A network for a chip.

    Attributes:
        name: of the model.
        target: the chip.
        original: the network as it was given.
        chip: it as the chip holds it, and why it may not.
        quantized_here: it was not whole, and has been made so.
        samples: (N, ...) to run.
        labels: of these; None: there are none.
    """

    name: str
    target: Target
    original: Deployment
    chip: OnChip
    quantized_here: bool
    samples: FloatArray
    labels: npt.NDArray[np.int64] | None


def prepare(
    model: Model, job: Job, on_progress: Callable[[int, int, str], None] = lambda a, b, c: None
) -> Prepared:
    """Open a model, make it whole if it is not, and place it on the chip.

    Args:
        model: a .pt or .nir file, a SpikingNetwork, a ForeignNetwork or a Deployment.
        job: what is asked.
        on_progress: called with what is done, what there is in all, and of what.

    Raises:
        FileError: a file cannot be used.
        GraphError: a node cannot be quantized.
        UsageError: an argument is not accepted.
    """
    target = target_by_name(job.target)
    subject = open_model(model, job.foreign)
    original = unfolded(subject.deployment)
    options = job.options or {}
    samples, labels = samples_of(original, job.data, job.samples, job.random, job.seed, options)
    whole = original
    if original.integers is None:
        whole = quantize(
            original,
            None,
            target.quantize,
            job.data,
            job.calibration,
            seed=job.seed,
            test_samples=1,
            data_options=options,
            on_progress=on_progress,
        ).deployment
    return Prepared(
        subject.name,
        target,
        original,
        target.fit(whole, job.approximate),
        original.integers is None,
        samples,
        labels,
    )
