"""Data sets of event recordings in folders, as their authors distribute them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from msg_deploy.data import DataOptions, Dataset, Part, Split, dataset
from msg_deploy.data.folders import files_in, read_files, stream_files
from msg_deploy.data.framing import frames
from msg_deploy.data.npz import events_npz
from msg_deploy.data.places import located
from msg_deploy.data.recordings import READERS, Size, read_recording
from msg_deploy.errors import FileError, UsageError
from msg_deploy.samples import Samples


@dataset
def nmnist(options: DataOptions, steps: int) -> Dataset:
    """N-MNIST (Orchard et al. 2015): Train/DIGIT/*.bin and Test/DIGIT/*.bin, 34x34 pixels.

    A .npz file of recordings (x, y, p, t, offsets, labels), alone in the folder or named itself, is
    read as well; a part of it is held out.
    """
    root = located("nmnist", options)
    archives = [root] if root.is_file() else sorted(root.glob("*.npz"))
    if len(archives) == 1:
        return events_npz("nmnist", archives[0], _with_sensor(options, (34, 34)), steps)
    return _recordings("nmnist", root, options, steps, (34, 34), {".bin", ".bs2"})


@dataset
def cifar10dvs(options: DataOptions, steps: int) -> Dataset:
    """CIFAR10-DVS (Li et al. 2017): CLASS/*.aedat, 128x128 pixels."""
    root = located("cifar10dvs", options)
    return _recordings("cifar10dvs", root, options, steps, (128, 128), {".aedat"})


@dataset
def ncaltech101(options: DataOptions, steps: int) -> Dataset:
    """N-Caltech101 (Orchard et al. 2015): Caltech101/CLASS/*.bin, up to 180x240 pixels."""
    root = located("ncaltech101", options)
    inner = root / "Caltech101"
    root = inner if inner.is_dir() else root
    return _recordings("ncaltech101", root, options, steps, (180, 240), {".bin"})


@dataset
def events(options: DataOptions, steps: int) -> Dataset:
    """Recordings of any kind: CLASS/FILE, or train/CLASS/FILE and test/CLASS/FILE."""
    root = located("events", options)
    return _recordings("events", root, options, steps, None, set(READERS))


def _with_sensor(options: DataOptions, usual: Size | None) -> DataOptions:
    return replace(options, sensor=options.sensor or usual)


def _recordings(
    name: str,
    root: Path,
    options: DataOptions,
    steps: int,
    sensor: Size | None,
    suffixes: set[str],
) -> Dataset:
    files = files_in(root, suffixes, options)
    sensor = options.sensor or sensor or _sensor_of(files.parts["train"][0][0])
    size = options.size or sensor

    def framed(path: Path) -> npt.NDArray[Any]:
        recording = read_recording(path)
        try:
            return frames(recording, steps, sensor, size, options.slice_by, options.window)
        except UsageError as error:
            raise FileError(path, str(error)) from error

    def read(part: Part) -> Split:
        return read_files(files, part, options, framed)

    def stream(part: Part) -> Samples:
        return stream_files(files, part, options, framed, steps)

    return Dataset(name, files.classes, (2, *size), "frames", read, stream=stream)


def _sensor_of(path: Path) -> Size:
    sensor = read_recording(path).sensor
    if sensor is None:
        raise UsageError(
            f"{path}: does not say how large the sensor is; give --sensor HEIGHTxWIDTH."
        )
    return sensor
