"""Arrays in .npz files, of samples or of recorded events."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msg_deploy.data import DataOptions, Dataset, Part, Split, dataset
from msg_deploy.data.framing import frames
from msg_deploy.data.parts import divided, in_memory, limited, read_each
from msg_deploy.data.places import located
from msg_deploy.data.recordings import Recording
from msg_deploy.errors import FileError, MsgDeployError, reason
from msg_deploy.options import Encoding

Array = npt.NDArray[Any]
MAX_BYTES = 16 * 2**30
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
    dimensions = parts["train"][0].ndim
    if dimensions not in (2, 4, 5):
        raise FileError(
            path,
            f"samples have shape {parts['train'][0].shape}; accepted are (N, features), "
            "(N, C, H, W) and (N, T, C, H, W).",
        )
    encoding: Encoding = "frames" if dimensions == 5 else "direct"
    classes = tuple(str(i) for i in np.arange(max(int(p[1].max()) for p in parts.values()) + 1))
    return in_memory("npz", classes, parts, options, encoding)


def samples_npz(path: Path) -> Array:
    """The samples of a .npz file without their labels: the test part if there is one.

    Raises:
        FileError: the file cannot be read, or holds no samples.
    """
    with _opened(path) as arrays:
        name = _find(arrays, "x", "test") or _find(arrays, "x", "")
        if name is None:
            raise FileError(path, f"holds {', '.join(arrays)}; an array 'samples' is needed.")
        return _scaled(_array(path, arrays, name))


def events_npz(name: str, path: Path, options: DataOptions, steps: int) -> Dataset:
    """Recordings in a .npz file: x, y, p, t, offsets and labels.

    Raises:
        FileError: the file cannot be read or its arrays do not fit each other.
    """
    with _opened(path) as arrays:
        fields = {n: _array(path, arrays, n) for n in (*EVENT_FIELDS, "labels")}
    offsets, labels = fields["offsets"], fields["labels"].astype(np.int64)
    events = len(fields["t"])
    if any(fields[n].shape != (events,) for n in "xyp"):
        raise FileError(path, "x, y, p and t must have the same length.")
    if offsets.shape != (len(labels) + 1,) or offsets[0] != 0 or offsets[-1] != events:
        raise FileError(path, f"offsets must run from 0 to {events}, one more than labels.")
    if np.any(np.diff(offsets.astype(np.int64)) < 0) or labels.min(initial=0) < 0:
        raise FileError(path, "offsets must rise, and labels must not be negative.")
    sensor = options.sensor or (int(fields["y"].max()) + 1, int(fields["x"].max()) + 1)
    size = options.size or sensor
    parts = divided(labels, options)

    def read(part: Part) -> Split:
        chosen = parts[part][limited(len(parts[part]), options)]

        def sample(i: int) -> Array:
            number = chosen[i]
            one = slice(int(offsets[number]), int(offsets[number + 1]))
            t, x, y, p = (fields[name][one] for name in "txyp")
            recording = Recording(t, x, y, p, sensor)
            try:
                return frames(recording, steps, sensor, size, options.slice_by, options.window)
            except MsgDeployError as error:
                raise FileError(path, f"recording {number}: {error}") from error

        samples, kept = read_each(len(chosen), sample, part)
        return Split(samples, labels[chosen][kept])

    classes = tuple(str(i) for i in np.arange(labels.max() + 1))
    return Dataset(name, classes, (2, *size), "frames", read)


def _parts(
    path: Path, arrays: Mapping[str, Array], options: DataOptions
) -> dict[Part, tuple[Array, Array]]:
    found: dict[Part, tuple[Array, Array]] = {}
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
    return {part: (samples[i], labels[i]) for part, i in divided(labels, options).items()}


def _find(arrays: Mapping[str, Array], kind: str, part: str) -> str | None:
    for name in NAMES[kind]:
        for full in (f"{name}_{part}", f"{part}_{name}") if part else (name,):
            if full in arrays:
                return full
    return None


def _checked(path: Path, arrays: Mapping[str, Array], x: str, y: str) -> tuple[Array, Array]:
    samples, labels = _array(path, arrays, x), _array(path, arrays, y)
    if labels.dtype.kind not in "iu" or labels.shape != samples.shape[:1] or not len(labels):
        raise FileError(
            path, f"{y} must be whole numbers, one for each of {len(samples)} samples in {x}."
        )
    if labels.min() < 0:
        raise FileError(path, f"{y} must not be negative.")
    samples = _scaled(samples)
    if not np.isfinite(samples).all():
        raise FileError(path, f"{x} holds NaN or infinite numbers.")
    return samples, labels.astype(np.int64)


def _scaled(samples: Array) -> Array:
    """Whole numbers of 8 bits, unless they are frames, as 0 to 1."""
    if samples.ndim >= 5:
        return samples
    scale = 255 if samples.dtype == np.uint8 else 1
    return samples.astype(np.float32) / scale


def _array(path: Path, arrays: Mapping[str, Array], name: str) -> Array:
    if name not in arrays:
        raise FileError(path, f"has no array {name!r}; there are {', '.join(arrays)}.")
    try:
        array: Array = arrays[name]
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise FileError(path, f"array {name!r} cannot be read ({reason(error)}).") from error
    if array.dtype.kind not in "fiub":
        raise FileError(path, f"array {name!r} must be numbers, not {array.dtype}.")
    return array


@contextmanager
def _opened(path: Path) -> Iterator[Mapping[str, Array]]:
    """The arrays of a file, read when asked for. Objects, which could run code, are refused."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise FileError(path, f"unpacks to {size} bytes; at most {MAX_BYTES} are read.")
        arrays = np.load(path, allow_pickle=False)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise FileError(path, f"is not a .npz file ({reason(error)}).") from error
    with arrays:
        yield arrays
