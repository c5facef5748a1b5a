"""Data sets by name. The embedded default is scikit-learn's digits, which needs no download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import InputSpec
from msg_deploy.errors import UsageError


@dataclass(frozen=True)
class Split:
    """Samples with labels.

    Attributes:
        samples: float32, (N, *shape) or (N, T, *shape) by the encoding of the input.
        labels: int64 (N,).
    """

    samples: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A data set, split once and for all.

    Attributes:
        name: as in `DATASETS`.
        train: to learn from.
        test: held out.
        input: what a sample looks like.
        classes: class names.
    """

    name: str
    train: Split
    test: Split
    input: InputSpec
    classes: tuple[str, ...]


DATASETS: dict[str, Callable[[], Dataset]] = {}


def dataset(loader: Callable[[], Dataset]) -> Callable[[], Dataset]:
    """Decorator: make a loader available by its function's name."""
    DATASETS[loader.__name__] = loader
    return loader


def load_dataset(name: str) -> Dataset:
    """A data set by name.

    Raises:
        UsageError: no such data set.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}; there are {', '.join(sorted(DATASETS))}.")
    return DATASETS[name]()


@dataset
def digits() -> Dataset:
    """1797 handwritten digits, 8x8 pixels of 17 grey levels (UCI Optical Recognition, in sklearn).

    360 samples, stratified by class and the same in every run, are held out. Values are in 0..1.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = (bunch.images / 16).astype(np.float32)[:, None]
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=360, stratify=labels, random_state=0
    )
    return Dataset(
        name="digits",
        train=Split(images[train], labels[train]),
        test=Split(images[test], labels[test]),
        input=InputSpec(shape=(1, 8, 8), encoding="direct", low=0.0, high=1.0),
        classes=tuple(str(i) for i in range(10)),
    )
