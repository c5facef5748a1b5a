"""Data sets by name: a module each, found by themselves.

To add one, write a module in this package with a function (options, steps) -> Dataset, decorated
with `dataset`.
"""

from __future__ import annotations

import functools
import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, ValidationError

from msg_deploy.deployment import InputSpec, Shape, explain
from msg_deploy.errors import UsageError
from msg_deploy.options import Broken, Encoding, SliceBy
from msg_deploy.samples import Samples

Part = Literal["train", "test"]
Pixels = Annotated[int, Field(ge=1, le=2**14)]


@dataclass(frozen=True)
class DataOptions:
    """How a data set is found and read. What a set has no use for, it ignores.

    Attributes:
        directory: folder or file that holds it; "" searches the places in docs/data.md.
        slice_by: frames of a recording hold equally many events ("count") or last equally long.
        window: length of a frame in microseconds, with slice_by "time"; what comes after the last
            frame is left out. None: the recording's duration by the number of timesteps.
        sensor: height and width of the sensor, where the files do not say.
        size: height and width to scale images or events to.
        broken: a file that cannot be read ends the program ("fail") or is left out with a warning.
        limit: use at most so many samples of each part, drawn at random.
        test_fraction: share held out of sets that are not divided.
        seed: of the drawing and the division.
    """

    directory: str = ""
    slice_by: SliceBy = "count"
    window: Annotated[int, Field(ge=1)] | None = None
    sensor: tuple[Pixels, Pixels] | None = None
    size: tuple[Pixels, Pixels] | None = None
    broken: Broken = "fail"
    limit: Annotated[int, Field(ge=1)] | None = None
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: int = 0

    def lasting(self) -> dict[str, Any]:
        """What decides the content of a sample, and not where the files are."""
        names = ("slice_by", "window", "sensor", "size", "test_fraction", "seed")
        return {name: getattr(self, name) for name in names}

    def described(self, steps: int) -> str:
        """How samples of so many timesteps are made, as a text that changes whenever they do."""
        return f"{steps} steps, {json.dumps(self.lasting())}"


@dataclass(frozen=True)
class Split:
    """Samples with labels.

    Attributes:
        samples: float32 or whole numbers, (N, *shape) or (N, T, *shape) by the encoding.
        labels: int64 (N,).
    """

    samples: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A data set, divided once and for all. A part is read when it is first asked for.

    Attributes:
        name: as in `datasets`.
        classes: class names.
        shape: of one timestep of one sample.
        encoding: see `InputSpec`.
        read: gives the samples of a part, "train" or "test".
        range: smallest and largest value; None: those of the training samples.
        stream: gives the samples of a part so that they need not be in memory all at once; None:
            they are read as a whole.
    """

    name: str
    classes: tuple[str, ...]
    shape: Shape
    encoding: Encoding
    read: Callable[[Part], Split]
    range: tuple[float, float] | None = None
    stream: Callable[[Part], Samples] | None = None

    def samples(self, part: Part) -> Samples:
        """The samples of a part without labels, read when asked for where that is possible."""
        return self.stream(part) if self.stream else self.read(part).samples

    @functools.cached_property
    def train(self) -> Split:
        """To learn from."""
        return self.read("train")

    @functools.cached_property
    def test(self) -> Split:
        """Held out."""
        return self.read("test")

    @functools.cached_property
    def input(self) -> InputSpec:
        """What a sample looks like."""
        low, high = self.range or (
            min(0.0, float(self.train.samples.min())),
            float(self.train.samples.max()),
        )
        return InputSpec(self.shape, self.encoding, low, high)


def data_options(*layers: Mapping[str, Any]) -> DataOptions:
    """Later layers of values by name override earlier ones and the defaults.

    Raises:
        UsageError: naming the value that is unknown or not accepted.
    """
    values = {name: value for layer in layers for name, value in layer.items()}
    known = [f.name for f in fields(DataOptions)]
    for name in values:
        if name not in known:
            raise UsageError(f"data option {name!r} is not known; there are {', '.join(known)}.")
    try:
        return _OPTIONS.validate_python(values)
    except ValidationError as error:
        raise UsageError(f"data options: {explain(error)}.") from error


_OPTIONS = TypeAdapter(DataOptions)
Loader = Callable[[DataOptions, int], Dataset]
_REGISTRY: dict[str, Loader] = {}


def dataset(loader: Loader) -> Loader:
    """Decorator: make a loader available by its function's name."""
    _REGISTRY[loader.__name__] = loader
    return loader


@functools.cache
def datasets() -> dict[str, Loader]:
    """All loaders by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_REGISTRY.items()))


def load_dataset(name: str, options: DataOptions | None = None, steps: int = 8) -> Dataset:
    """A data set by name.

    Args:
        name: as in `datasets`.
        options: how it is found and read.
        steps: number of timesteps T that recordings are sliced into.

    Raises:
        UsageError: no such data set, or it is not found.
        FileError: naming a file that cannot be read.
    """
    known = datasets()
    if name not in known:
        raise UsageError(f"unknown data set {name!r}; there are {', '.join(known)}.")
    return known[name](options or DataOptions(), steps)
