"""Folders of files, one sub-folder a class, with or without a division into train and test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msg_deploy.data import DataOptions, Part, Split
from msg_deploy.data.parts import divided, limited, read_each
from msg_deploy.errors import FileError, UsageError
from msg_deploy.samples import Each, Samples

log = logging.getLogger(__name__)
PARTS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "test",
}


@dataclass(frozen=True)
class Files:
    """The files of a data set.

    Attributes:
        classes: names of the class folders.
        parts: (file, label) of each part.
    """

    classes: tuple[str, ...]
    parts: dict[Part, list[tuple[Path, int]]]


def files_in(root: Path, suffixes: Collection[str], options: DataOptions) -> Files:
    """Files by part and class: ROOT/train/CLASS/*, ROOT/test/CLASS/*, or ROOT/CLASS/*.

    Without a division, a stratified part is held out.

    Raises:
        UsageError: there are no such files, a class in test is not in train, or there is one part
            without the other.
    """
    given = _given(root)
    if len(given) == 2:
        classes = tuple(f.name for f in _folders(given["train"]))
        parts: dict[Part, list[tuple[Path, int]]] = {
            part: _listed(folder, classes, suffixes) for part, folder in given.items()
        }
    else:
        classes = tuple(f.name for f in _folders(root))
        found = _listed(root, classes, suffixes)
        if not found:
            parts = {"train": [], "test": []}
        else:
            chosen = divided([label for _, label in found], options)
            parts = {part: [found[i] for i in indices] for part, indices in chosen.items()}
    for part, items in parts.items():
        if not items:
            raise UsageError(
                f"{root}: there is no {part} file ending in {', '.join(sorted(suffixes))}; "
                "expected are CLASS/FILE, or train/CLASS/FILE and test/CLASS/FILE."
            )
    return Files(classes, parts)


def read_files(
    files: Files,
    part: Part,
    options: DataOptions,
    read: Callable[[Path], npt.NDArray[Any]],
) -> Split:
    """Read the files of a part; what to do about broken ones is in the options.

    Raises:
        FileError: a file is broken and `options.broken` is "fail".
    """
    chosen = _chosen(files, part, options)
    samples, kept = read_each(len(chosen), lambda i: _read(chosen[i][0], options, read), part)
    _report(len(chosen) - len(kept), len(chosen), part)
    return Split(samples, np.array([chosen[i][1] for i in kept], np.int64))


def stream_files(
    files: Files,
    part: Part,
    options: DataOptions,
    read: Callable[[Path], npt.NDArray[Any]],
    steps: int,
) -> Samples:
    """The samples of a part, each of which is read when asked for.

    If broken files are to be skipped, all are read once beforehand, to know which.

    Raises:
        FileError: as `read_files`, when the sample is asked for.
    """
    paths = [path for path, _ in _chosen(files, part, options)]
    if options.broken == "skip":
        whole = [path for path in paths if _read(path, options, read) is not None]
        _report(len(paths) - len(whole), len(paths), part)
        paths = whole

    def sample(i: int) -> npt.NDArray[Any]:
        found = _read(paths[i], options, read)
        if found is None:
            raise FileError(paths[i], "could be read before, and cannot be read any more.")
        return found

    return Each(len(paths), sample, options.described(steps), tuple(paths))


def _chosen(files: Files, part: Part, options: DataOptions) -> list[tuple[Path, int]]:
    items = files.parts[part]
    return [items[i] for i in limited(len(items), options)]


def _read(
    path: Path, options: DataOptions, read: Callable[[Path], npt.NDArray[Any]]
) -> npt.NDArray[Any] | None:
    """A sample, or None if its file is broken and to be left out."""
    try:
        return read(path)
    except FileError as error:
        if options.broken == "fail":
            raise FileError(
                path, f"{error.problem} To leave such files out, use --broken skip."
            ) from error
        log.warning("left out %s", error)
        return None


def _report(broken: int, total: int, part: Part) -> None:
    if broken:
        log.warning("%d of %d %s files were left out", broken, total, part)


def _given(root: Path) -> dict[Part, Path]:
    """The folders of the parts; a name that comes later in PARTS stands in for a missing one."""
    names = {f.name.lower(): f for f in _folders(root)}
    found: dict[Part, Path] = {}
    for name, part in PARTS.items():
        if name in names:
            found.setdefault(part, names[name])
    # A class may be called train, too; its folder holds files, and not folders of classes.
    if len(found) == 1 and any(map(_folders, found.values())):
        (there,) = found
        missing = "train" if there == "test" else "test"
        raise UsageError(
            f"{root}: there is {found[there].name}, but no {missing} part; name its folder "
            f"{missing}, or hold out a part with --data-dir {found[there]}."
        )
    return found


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        raise UsageError(f"{root}: is not a folder.")
    return sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))


def _listed(
    root: Path, classes: tuple[str, ...], suffixes: Collection[str]
) -> list[tuple[Path, int]]:
    unknown = {f.name for f in _folders(root)} - set(classes)
    if unknown:
        raise UsageError(f"{root / sorted(unknown)[0]}: this class is not among those of train.")
    return [
        (path, label)
        for label, name in enumerate(classes)
        if (root / name).is_dir()
        for path in sorted((root / name).rglob("*"))
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    ]
