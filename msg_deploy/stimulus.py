"""The samples that a network is run on: held-out ones of a data set, and random ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from msg_deploy.data import Dataset, data_options, datasets, load_dataset
from msg_deploy.data.npz import samples_npz
from msg_deploy.deployment import Deployment, InputSpec, Metadata, Shape
from msg_deploy.errors import UsageError
from msg_deploy.networks import encode
from msg_deploy.samples import Samples, Where, indices
from msg_deploy.sim.simulator import FloatArray

DEFAULT_RANDOM = 64
"""Number of random samples."""
NOISE_BLOCK = 64
"""Random samples that are drawn together."""
GRID_BITS = 8
"""Random samples stand on a grid of at least 2^8 steps within the input range."""


def held_out(
    model: Deployment | Metadata, data: str, samples: int | None, options: Mapping[str, Any]
) -> Dataset:
    """A data set whose held-out samples are to be run, read as in training.

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
    return load_dataset(data, resolved, model.timing.steps)


def loaded(data: str | FloatArray | None) -> str | Samples | None:
    """Samples: given ones, or those of a .npz file, which are read when asked for; else a name.

    Raises:
        FileError: the file cannot be read, or holds no samples.
    """
    if isinstance(data, str):
        return samples_npz(Path(data)) if data.endswith(".npz") else data
    return None if data is None else np.asarray(data)


def samples_of(
    model: Deployment | Metadata,
    data: str | FloatArray | None,
    samples: int | None,
    random: int,
    seed: int,
    options: Mapping[str, Any],
) -> tuple[FloatArray, npt.NDArray[np.int64] | None]:
    """Samples (N, ...) to run a model on, and labels (N,) if they have any.

    Args:
        model: what it was trained on is the default.
        data: name of a data set (its held-out samples), a .npz file of samples, samples, or None:
            the data set that the model was trained on if it is known, else random samples.
        samples: at most this many of the data.
        random: number of random samples, where there are no data.
        seed: of the random samples.
        options: how the data set is found and read, see `DataOptions`.

    Raises:
        FileError: a file cannot be used.
        UsageError: an argument is not accepted.
    """
    if samples is not None and samples < 1:
        raise UsageError(f"samples must be at least 1, not {samples}.")
    trained = model.provenance.data
    chosen = trained if data is None and trained in datasets() else loaded(data)
    if isinstance(chosen, str):
        split = held_out(model, chosen, samples, options).test
        return split.samples, split.labels
    if chosen is not None:
        return np.asarray(chosen[:samples]), None
    if random < 1:
        raise UsageError("there is no sample to run; give data or a number of random ones.")
    return noise(model, random, seed)[:], None


@dataclass(frozen=True)
class Noise:
    """Uniformly random samples within the input range; a part is drawn without the rest.

    Attributes:
        spec: of the input.
        shape: of a sample.
        count: number of samples.
        seed: of the random numbers.
        fine: any float32 numbers, in place of multiples of a power of two. On these, networks with
            integer weights compute without any rounding, so that they can be PROVEN.
    """

    spec: InputSpec
    shape: Shape
    count: int
    seed: int
    fine: bool = False

    def __len__(self) -> int:
        """Number of samples."""
        return self.count

    def __getitem__(self, where: Where) -> FloatArray:
        """Some samples, float32."""
        wanted = indices(where, self.count)
        found = np.empty((len(wanted), *self.shape), np.float32)
        for block in np.unique(wanted // NOISE_BLOCK):
            inside = wanted // NOISE_BLOCK == block
            found[inside] = self._block(int(block))[wanted[inside] % NOISE_BLOCK]
        return found

    def _block(self, number: int) -> FloatArray:
        random = np.random.default_rng([self.seed, number])
        size = min(NOISE_BLOCK, self.count - number * NOISE_BLOCK)
        low, high, shape = self.spec.low, self.spec.high, (size, *self.shape)
        if self.fine:
            return random.uniform(low, high, shape)
        step = grid_step(low, high)
        if step == 0:
            return random.uniform(low, high, shape)
        first, last = math.ceil(low / step), math.floor(high / step)
        return random.integers(first, last, shape, endpoint=True) * step

    def identity(self) -> str:
        """See `Lazy.identity`."""
        kind = "float32 " if self.fine else ""
        return f"{self.count} random {kind}samples of seed {self.seed}"


def grid_step(low: float, high: float) -> float:
    """The power of two of which random samples between two numbers are multiples."""
    width = high - low
    if width > 0 and math.isfinite(width):
        step = math.ldexp(1.0, math.frexp(width)[1] - 1 - GRID_BITS)
        # Far from 0 a narrow range has no float32 numbers on so fine a grid.
        if max(abs(low), abs(high)) <= step * 2**24:
            return step
    return 0.0


def noise(model: Deployment | Metadata, count: int, seed: int, fine: bool = False) -> Noise:
    """Uniformly random samples within the input range, float32 (count, ...); see `Noise`."""
    spec = model.input
    shape = spec.shape if spec.encoding == "direct" else (model.timing.steps, *spec.shape)
    return Noise(spec, shape, count, seed, fine)


def batches(
    model: Deployment | Metadata, samples: Samples, size: int
) -> Iterator[tuple[int, FloatArray]]:
    """Index of the first sample, and inputs (T, B, ...), of each batch."""
    for start in range(0, len(samples), size):
        yield start, encoded(model, samples[start : start + size])


def encoded(model: Deployment | Metadata, samples: FloatArray) -> FloatArray:
    """Samples (N, ...) to inputs (T, N, ...).

    Raises:
        UsageError: the samples do not fit the model.
    """
    batch = torch.from_numpy(np.asarray(samples, np.float32))
    inputs: FloatArray = encode(batch, model.input, model.timing.steps).numpy()
    return inputs
