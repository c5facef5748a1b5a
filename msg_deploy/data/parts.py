"""Training and test parts: dividing, limiting, and reading what is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from msg_deploy.data import DataOptions, Dataset, Part, Split
from msg_deploy.errors import UsageError
from msg_deploy.options import Encoding
from msg_deploy.progress import progress
from msg_deploy.samples import Mapped, Picked, Samples

Indices = npt.NDArray[np.int64]


def in_memory(
    name: str,
    classes: tuple[str, ...],
    parts: Mapping[Part, tuple[Mapped | npt.NDArray[Any], Indices]],
    options: DataOptions,
    encoding: Encoding = "direct",
    range: tuple[float, float] | None = None,
) -> Dataset:
    """A data set of arrays: samples and labels of each part."""

    def read(part: Part) -> Split:
        samples, labels = parts[part]
        chosen = limited(len(labels), options)
        return Split(samples[chosen], labels[chosen])

    def stream(part: Part) -> Samples:
        samples, labels = parts[part]
        return Picked(samples, limited(len(labels), options))

    shape = parts["train"][0].shape[1 if encoding == "direct" else 2 :]
    return Dataset(name, classes, shape, encoding, read, range, stream)


def limited(count: int, options: DataOptions) -> Indices:
    """Indices of at most `options.limit` of `count` samples, in rising order."""
    if options.limit is None or options.limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(options.seed).permutation(count)[: options.limit])


def divided(labels: Sequence[int] | Indices, options: DataOptions) -> dict[Part, Indices]:
    """Indices of a training and a test part, stratified by class.

    Raises:
        UsageError: a class has fewer than two samples, or the part is too small for all classes.
    """
    from sklearn.model_selection import train_test_split

    try:
        train, test = train_test_split(
            np.arange(len(labels)),
            test_size=options.test_fraction,
            stratify=np.asarray(labels),
            random_state=options.seed,
        )
    except ValueError as error:
        raise UsageError(
            f"{len(labels)} samples of {len(set(map(int, labels)))} classes cannot be divided into "
            f"training and test parts (test_fraction {options.test_fraction}): each part needs a "
            "sample of every class."
        ) from error
    return {"train": np.sort(train), "test": np.sort(test)}


def read_each(
    count: int, read: Callable[[int], npt.NDArray[Any] | None], part: str
) -> tuple[npt.NDArray[Any], Indices]:
    """Samples read one by one into one array.

    Args:
        count: number of samples.
        read: gives a sample by its index, or None where it is broken and to be left out. Whole
            numbers are kept in the smallest type that holds them all.
        part: for messages.

    Returns:
        Samples (N, ...), and the indices of those that were not left out.

    Raises:
        UsageError: none is left.
    """
    result: npt.NDArray[Any] | None = None
    kept: list[int] = []
    with progress(f"read {part}") as move:
        for i in range(count):
            sample = read(i)
            if sample is not None:
                kind = np.min_scalar_type(sample.max()) if sample.dtype.kind in "iu" else np.float32
                if result is None:
                    result = np.zeros((count, *sample.shape), kind)
                elif not np.can_cast(kind, result.dtype):
                    result = result.astype(np.promote_types(kind, result.dtype))
                result[len(kept)] = sample
                kept.append(i)
            move(i + 1, count, "")
    if result is None:
        raise UsageError(f"no {part} sample could be read.")
    return result[: len(kept)], np.array(kept, np.int64)
