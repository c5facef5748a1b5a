"""The embedded default: scikit-learn's digits, which need no download."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from msg_deploy.data import DataOptions, Dataset, Part, dataset
from msg_deploy.data.parts import in_memory

CLASSES = tuple(str(i) for i in range(10))


@dataset
def digits(options: DataOptions, steps: int) -> Dataset:
    """1797 handwritten digits, 8x8 pixels of 17 grey levels (UCI Optical Recognition, in sklearn).

    360 samples, stratified by class and the same in every run, are held out. Values are in 0..1.
    """
    parts = {
        part: ((images / 16).astype(np.float32)[:, None], labels)
        for part, (images, labels) in divided().items()
    }
    return in_memory("digits", CLASSES, parts, options, range=(0.0, 1.0))


def divided() -> dict[Part, tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]]:
    """Images (N, 8, 8) of 0..16 and labels of both parts."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=360, stratify=labels, random_state=0
    )
    return {
        "train": (bunch.images[train], labels[train]),
        "test": (bunch.images[test], labels[test]),
    }
