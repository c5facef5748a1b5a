"""The samples that a network is run on: held-out ones of a data set, and random ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from msg_deploy.data import Split, data_options, load_dataset
from msg_deploy.deployment import Deployment, Metadata
from msg_deploy.networks import encode
from msg_deploy.sim.simulator import FloatArray

DEFAULT_RANDOM = 64
"""Number of random samples."""


def held_out(
    model: Deployment | Metadata, data: str, samples: int | None, options: Mapping[str, Any]
) -> Split:
    """Held-out samples of a data set with their labels, read as in training.

    Args:
        model: what it was trained on decides how the data set is read.
        data: name of the data set.
        samples: at most this many, drawn at random; 0 or None: all.
        options: how the data set is found and read, see `DataOptions`.

    Raises:
        FileError: a file cannot be used.
        UsageError: no such data set, or an option is not accepted.
    """
    trained = model.provenance
    kept = trained.data_options if trained.data == data else {}
    resolved = data_options(kept, {"limit": samples or None}, options)
    return load_dataset(data, resolved, model.timing.steps).test


def noise(model: Deployment | Metadata, count: int, seed: int) -> FloatArray:
    """Uniformly random samples within the input range, float32 (count, ...)."""
    spec = model.input
    shape = spec.shape if spec.encoding == "direct" else (model.timing.steps, *spec.shape)
    values = np.random.default_rng(seed).uniform(spec.low, spec.high, (count, *shape))
    return values.astype(np.float32)


def batches(
    model: Deployment | Metadata, samples: FloatArray, size: int
) -> Iterator[tuple[int, FloatArray]]:
    """Index of the first sample, and inputs (T, B, ...), of each batch."""
    for start in range(0, len(samples), size):
        batch = torch.from_numpy(np.asarray(samples[start : start + size], np.float32))
        yield start, encode(batch, model.input, model.timing.steps).numpy()
