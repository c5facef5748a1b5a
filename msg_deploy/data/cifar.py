"""CIFAR-10 and CIFAR-100 through torchvision, where torchvision works."""

from __future__ import annotations

from typing import Any

import numpy as np

from msg_deploy.data import DataOptions, Dataset, Part, Split, dataset
from msg_deploy.data.parts import limited
from msg_deploy.data.places import located
from msg_deploy.errors import UsageError, reason


@dataset
def cifar10(options: DataOptions, steps: int) -> Dataset:
    """60,000 colour images of 32x32 pixels in 0..1: a folder with cifar-10-batches-py."""
    return _cifar("cifar10", "CIFAR10", options)


@dataset
def cifar100(options: DataOptions, steps: int) -> Dataset:
    """60,000 colour images of 32x32 pixels in 0..1: a folder with cifar-100-python."""
    return _cifar("cifar100", "CIFAR100", options)


def _cifar(name: str, kind: str, options: DataOptions) -> Dataset:
    try:
        from torchvision import datasets as torchvision
    except (ImportError, RuntimeError, OSError) as error:
        raise UsageError(
            f"{name} is read by torchvision, which cannot be imported ({reason(error)}); install "
            "the torchvision that belongs to your torch, or convert the images to .npz or files "
            "and use --data npz or --data images."
        ) from error
    root = located(name, options)

    def whole(train: bool) -> Any:
        try:
            # torchvision compares checksums before it unpickles.
            return getattr(torchvision, kind)(root, train=train, download=False)
        except RuntimeError as error:
            raise UsageError(f"{root}: {reason(error)} It should hold {name}.") from error

    def read(part: Part) -> Split:
        source = whole(part == "train")
        chosen = limited(len(source.data), options)
        samples = source.data[chosen].transpose(0, 3, 1, 2).astype(np.float32) / 255
        return Split(samples, np.asarray(source.targets, np.int64)[chosen])

    classes = tuple(whole(False).classes)
    return Dataset(name, classes, (3, 32, 32), "direct", read, (0.0, 1.0))
