"""The embedded default: scikit-learn's digits, which need no download."""

from __future__ import annotations

import numpy as np

from msg_deploy.data import DataOptions, Dataset, dataset
from msg_deploy.data.parts import in_memory


@dataset
def digits(options: DataOptions, steps: int) -> Dataset:
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
    return in_memory(
        "digits",
        tuple(str(i) for i in range(10)),
        {"train": (images[train], labels[train]), "test": (images[test], labels[test])},
        options,
        range=(0.0, 1.0),
    )
