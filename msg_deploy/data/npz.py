"""Arrays in .npz files, of samples or of recorded events."""

from __future__ import annotations

import shutil
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from msg_deploy.data import DataOptions, Dataset, Part, Split, dataset
from msg_deploy.data.framing import frames
from msg_deploy.data.parts import Indices, divided, in_memory, limited, read_each
from msg_deploy.data.places import located
from msg_deploy.data.recordings import Recording
from msg_deploy.errors import FileError, MsgDeployError, reason
from msg_deploy.options import Encoding
from msg_deploy.samples import Each, Mapped, Picked, Samples

Array = npt.NDArray[Any]
MAX_BYTES = 16 * 2**30
"""Of compressed arrays, which are unpacked to a temporary file."""
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError, struct.error),
    *(ValueError, KeyError, OSError, EOFError, RuntimeError, OverflowError),
)
"""What reading a damaged .npz file raises; NotImplementedError is a RuntimeError."""
MAX_CLASSES = 2**16
MAX_SENSOR = 2**14
"""Rows or columns."""
CHUNK = 2**20
BLOCK = 256
"""Samples that are looked at together."""
LENGTHS = 26
"""Where a ZIP entry says how long its name and its extra field are."""
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
EVENT_FIELDS = ("x", "y", "p", "t", "offsets")
NAMES = {
    "x": ("samples", "x", "data", "images"),
    "y": ("labels", "y", "targets"),
}
"""Names of the samples and of the labels, alone or with _train and _test (or train_, test_)."""


@dataset
def npz(options: DataOptions, steps: int) -> Dataset:
    """Samples and labels in a .npz file, such as x_train, y_train, x_test, y_test.

    Samples are (N, features) or (N, C, H, W), shown at every timestep, or (N, T, C, H, W), where T
    is the number of timesteps; whole numbers of 8 bits are divided by 255 unless they are frames.
    Events are arrays x, y, p, t (microseconds), one recording after the other, with offsets (N+1,)
    and labels (N,).
    """
    path = located("npz", options)
    with _opened(path) as arrays:
        if all(name in arrays for name in EVENT_FIELDS):
            return events_npz("npz", path, options, steps)
        parts = _parts(path, arrays, options)
    dimensions = len(parts["train"][0].shape)
    if dimensions not in (2, 4, 5):
        raise FileError(
            path,
            f"samples have shape {parts['train'][0].shape}; accepted are (N, features), "
            "(N, C, H, W) and (N, T, C, H, W).",
        )
    encoding: Encoding = "frames" if dimensions == 5 else "direct"
    classes = tuple(str(i) for i in np.arange(max(int(p[1].max()) for p in parts.values()) + 1))
    return in_memory("npz", classes, parts, options, encoding)


def samples_npz(path: Path) -> Samples:
    """The samples of a .npz file without their labels: the test part if there is one.

    They are read when asked for.

    Raises:
        FileError: the file cannot be read, or holds no samples.
    """
    with _opened(path) as arrays:
        name = _find(arrays, "x", "test") or _find(arrays, "x", "")
        if name is None:
            raise FileError(path, f"holds {', '.join(arrays)}; an array 'samples' is needed.")
        return _scaled(path, _array(path, arrays, name))


def events_npz(name: str, path: Path, options: DataOptions, steps: int) -> Dataset:
    """Recordings in a .npz file: x, y, p, t, offsets and labels.

    Raises:
        FileError: the file cannot be read or its arrays do not fit each other.
    """
    with _opened(path) as arrays:
        fields = {n: _array(path, arrays, n) for n in (*EVENT_FIELDS, "labels")}
    offsets, labels = np.asarray(fields["offsets"]), _labels(path, "labels", fields["labels"])
    events = fields["t"].size
    if not events:
        raise FileError(path, "t holds no event.")
    if any(fields[n].shape != (events,) for n in "txyp"):
        raise FileError(path, "x, y, p and t must have the same length.")
    if offsets.shape != (len(labels) + 1,) or offsets[0] != 0 or offsets[-1] != events:
        raise FileError(path, f"offsets must run from 0 to {events}, one more than labels.")
    if np.any(np.diff(offsets.astype(np.int64)) < 0):
        raise FileError(path, "offsets must rise.")
    sensor = options.sensor or (_extent(path, "y", fields["y"]), _extent(path, "x", fields["x"]))
    size = options.size or sensor
    parts = divided(labels, options)

    def framed(number: int) -> Array:
        one = slice(int(offsets[number]), int(offsets[number + 1]))
        t, x, y, p = (fields[name][one] for name in "txyp")
        recording = Recording(t, x, y, p, sensor)
        try:
            return frames(recording, steps, sensor, size, options.slice_by, options.window)
        except MsgDeployError as error:
            raise FileError(path, f"recording {number}: {error}") from error

    def chosen(part: Part) -> Indices:
        return parts[part][limited(len(parts[part]), options)]

    def read(part: Part) -> Split:
        numbers = chosen(part)
        samples, kept = read_each(len(numbers), lambda i: framed(numbers[i]), part)
        return Split(samples, labels[numbers][kept])

    def stream(part: Part) -> Samples:
        return Picked(Each(len(labels), framed, options.described(steps), (path,)), chosen(part))

    classes = tuple(str(i) for i in np.arange(labels.max() + 1))
    return Dataset(name, classes, (2, *size), "frames", read, stream=stream)


def _parts(
    path: Path, arrays: Mapping[str, Array], options: DataOptions
) -> dict[Part, tuple[Mapped, Indices]]:
    found: dict[Part, tuple[Mapped, Indices]] = {}
    names: tuple[Part, ...] = ("train", "test")
    for part in names:
        x, y = (_find(arrays, kind, part) for kind in "xy")
        if x and y:
            found[part] = _checked(path, arrays, x, y)
    if len(found) == 2:
        return found
    x, y = (_find(arrays, kind, "") for kind in "xy")
    if x is None or y is None:
        raise FileError(
            path,
            f"holds {', '.join(arrays)}; needed are x_train, y_train, x_test, y_test, or samples "
            "and labels, or events x, y, p, t, offsets and labels.",
        )
    samples, labels = _checked(path, arrays, x, y)
    return {
        part: (replace(samples, rows=i), labels[i]) for part, i in divided(labels, options).items()
    }


def _find(arrays: Mapping[str, Array], kind: str, part: str) -> str | None:
    for name in NAMES[kind]:
        for full in (f"{name}_{part}", f"{part}_{name}") if part else (name,):
            if full in arrays:
                return full
    return None


def _checked(path: Path, arrays: Mapping[str, Array], x: str, y: str) -> tuple[Mapped, Indices]:
    samples = _scaled(path, _array(path, arrays, x))
    labels = _labels(path, y, _array(path, arrays, y))
    if labels.shape != samples.shape[:1]:
        raise FileError(path, f"{y} must be one for each of {len(samples)} samples in {x}.")
    for first in range(0, len(samples), BLOCK):
        if not np.isfinite(samples.array[first : first + BLOCK]).all():
            raise FileError(path, f"{x} holds NaN or infinite numbers.")
    return samples, labels


def _labels(path: Path, name: str, given: Array) -> Indices:
    """Numbers of classes; all up to the largest have a name, so that it must not be too large."""
    labels = np.asarray(given)
    whole = labels.dtype.kind in "iu" and labels.ndim == 1 and labels.size
    if not whole or labels.min() < 0 or labels.max() >= MAX_CLASSES:
        raise FileError(
            path, f"{name} must be whole numbers (N,), from 0 and less than {MAX_CLASSES}."
        )
    return labels.astype(np.int64)


def _extent(path: Path, name: str, places: Array) -> int:
    """Rows or columns of a sensor that is not stated."""
    last = places.max()
    if not 0 <= last < MAX_SENSOR:
        raise FileError(
            path, f"{name} goes up to {last}; without --sensor it must be less than {MAX_SENSOR}."
        )
    return int(last) + 1


def _scaled(path: Path, samples: Array) -> Mapped:
    """Whole numbers of 8 bits, unless they are frames, as 0 to 1."""
    divisor = 255 if samples.dtype == np.uint8 else 1
    return Mapped(samples, None if samples.ndim >= 5 else divisor, files=(path,))


def _array(path: Path, arrays: Mapping[str, Array], name: str) -> Array:
    if name not in arrays:
        raise FileError(path, f"has no array {name!r}; there are {', '.join(arrays)}.")
    try:
        array: Array = arrays[name]
    except BROKEN as error:
        raise FileError(path, f"array {name!r} cannot be read ({reason(error)}).") from error
    if array.dtype.kind not in "fiub" or not array.ndim:
        raise FileError(
            path, f"array {name!r} must be numbers, not {array.dtype} of shape {array.shape}."
        )
    return array


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, Array]]:
    """The arrays of a file, mapped when asked for. Objects, which could run code, are refused."""
    if not path.is_file():
        raise FileError(path, "there is no such file; name a .npz file.")
    try:
        archive = zipfile.ZipFile(path)
    except BROKEN as error:
        raise FileError(path, f"is not a .npz file ({reason(error)}).") from error
    with archive:
        yield _Members(path, archive)


class _Members(Mapping[str, Array]):
    """Arrays by name, each of them mapped into memory, so that only what is looked at is read."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive
        packed = [e for e in archive.infolist() if e.compress_type != zipfile.ZIP_STORED]
        size = sum(entry.file_size for entry in packed)
        if size > MAX_BYTES:
            raise FileError(path, f"unpacks to {size} bytes; at most {MAX_BYTES} are unpacked.")

    def __iter__(self) -> Iterator[str]:
        return (name.removesuffix(".npy") for name in self.archive.namelist())

    def __len__(self) -> int:
        return len(self.archive.namelist())

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def __getitem__(self, name: str) -> Array:
        entry = self.archive.getinfo(f"{name}.npy")
        with self.archive.open(entry) as member:
            if entry.compress_type != zipfile.ZIP_STORED:
                with tempfile.TemporaryFile() as unpacked:
                    shutil.copyfileobj(member, unpacked, CHUNK)
                    return _mapped(unpacked, 0)
            # To its end, where the checksum is compared.
            while member.read(CHUNK):
                pass
        with self.path.open("rb") as file:
            file.seek(entry.header_offset + LENGTHS)
            name_length, extra_length = struct.unpack("<HH", file.read(4))
            return _mapped(file, file.tell() + name_length + extra_length)


def _mapped(file: IO[bytes], start: int) -> Array:
    """An array in the format .npy that begins somewhere in a file; the map outlives the file."""
    file.seek(start)
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"an array has the format {version}")
    shape, fortran, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded")
    if 0 in shape:
        return np.empty(shape, dtype)
    order: Literal["F", "C"] = "F" if fortran else "C"
    return np.memmap(file, dtype, "r", file.tell(), shape, order)
