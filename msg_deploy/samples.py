"""Samples that need not be in memory: anything that has a length and gives parts of itself.

An array is one. The others read or make what is asked for, so that a check of a data set larger
than memory holds one batch of it at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from msg_deploy.errors import UsageError

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Where = slice | Sequence[int] | Indices
"""Which samples: a slice, or their indices in any order."""


class Samples(Protocol):
    """A sequence of samples, read when asked for."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, where: Any, /) -> Any:
        """Some samples (N, ...); `where` is as in `Where`."""
        ...


class Lazy(Samples, Protocol):
    """Samples that say what they are without being read."""

    def identity(self) -> str:
        """A short text that changes whenever the samples do."""
        ...


def identity(samples: Samples) -> str:
    """A short text that changes whenever the samples do."""
    if isinstance(samples, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(samples).data).hexdigest()
        return f"{samples.dtype} {samples.shape} sha256 {digest[:16]}"
    found: str = samples.identity()  # type: ignore[attr-defined]
    return found


def indices(where: Where, count: int) -> Indices:
    """The indices that a slice or a list means, of `count` samples."""
    chosen = range(count)[where] if isinstance(where, slice) else where
    return np.asarray(chosen, np.int64)


@dataclass(frozen=True)
class Mapped:
    """Rows of an array that may lie in a file.

    Attributes:
        array: (M, ...), such as a memory map.
        divisor: by which values are divided, as float32; None: they stay as they are.
        rows: the rows that are samples (N,); None: all.
        files: that hold it.
    """

    array: Array
    divisor: int | None = None
    rows: Indices | None = None
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.array) if self.rows is None else len(self.rows)

    def __getitem__(self, where: Where) -> Array:
        """Some samples, in memory."""
        chosen = np.array(self.array[where if self.rows is None else self.rows[where]])
        return chosen if self.divisor is None else chosen.astype(np.float32) / self.divisor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all samples, (N, ...)."""
        return len(self), *self.array.shape[1:]

    def identity(self) -> str:
        """See `Lazy.identity`."""
        rows = "" if self.rows is None else f" rows {identity(self.rows)}"
        return f"{self.array.dtype} {self.shape}{rows} of {_stamp(self.files)}"


@dataclass(frozen=True)
class Each:
    """Samples that are made one by one.

    Attributes:
        count: their number.
        make: a sample by its index.
        how: `make` does it, as a text: the same files give other samples with other options.
        files: that they come from.
    """

    count: int
    make: Callable[[int], Array]
    how: str
    files: tuple[Path, ...]

    def __len__(self) -> int:
        """Number of samples."""
        return self.count

    def __getitem__(self, where: Where) -> Array:
        """Some samples."""
        return np.stack([self.make(int(i)) for i in indices(where, self.count)])

    def identity(self) -> str:
        """See `Lazy.identity`."""
        return f"{self.count} samples ({self.how}) of {_stamp(self.files)}"


@dataclass(frozen=True)
class Picked:
    """Some samples of others.

    Attributes:
        source: where they come from.
        chosen: their indices there, (N,).
    """

    source: Samples
    chosen: Indices

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.chosen)

    def __getitem__(self, where: Where) -> Array:
        """Some samples."""
        return np.asarray(self.source[self.chosen[where]])

    def identity(self) -> str:
        """See `Lazy.identity`."""
        return f"{len(self)} ({identity(self.chosen)}) of {identity(self.source)}"


@dataclass(frozen=True)
class Finite:
    """Others, checked when they are read.

    Attributes:
        source: where they come from.
    """

    source: Samples

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.source)

    def __getitem__(self, where: Where) -> Array:
        """Some samples.

        Raises:
            UsageError: there is a NaN or an infinite number among them.
        """
        found = np.asarray(self.source[where])
        if not np.all(np.isfinite(found)):
            raise UsageError("the data hold NaN or infinite numbers.")
        return found

    def identity(self) -> str:
        """See `Lazy.identity`."""
        return identity(self.source)


@dataclass(frozen=True)
class Joined:
    """One after the other, float32.

    Attributes:
        parts: with samples of the same shape.
    """

    parts: tuple[Samples, ...]

    def __len__(self) -> int:
        """Number of samples."""
        return sum(map(len, self.parts))

    def __getitem__(self, where: Where) -> Array:
        """Some samples."""
        wanted = indices(where, len(self))
        found: Array | None = None
        first = 0
        for part in self.parts:
            inside = (wanted >= first) & (wanted < first + len(part))
            if inside.any():
                rows = np.asarray(part[wanted[inside] - first])
                if found is None:
                    found = np.empty((len(wanted), *rows.shape[1:]), np.float32)
                found[inside] = rows
            first += len(part)
        if found is None:
            raise IndexError(where)
        return found

    def identity(self) -> str:
        """See `Lazy.identity`."""
        return "; ".join(identity(part) for part in self.parts if len(part))


def limited(samples: Samples, count: int | None) -> Samples:
    """The first samples, at most so many; None: all."""
    if count is None or count >= len(samples):
        return samples
    return Picked(samples, np.arange(count))


def _stamp(files: Sequence[Path]) -> str:
    """Names, sizes and times of files: reading them all to find out would take too long."""
    if len(files) == 1:
        stat = files[0].stat()
        return f"{files[0].name}, {stat.st_size} bytes, time {stat.st_mtime_ns}"
    digest = hashlib.sha256()
    for file in files:
        stat = file.stat()
        digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return f"{len(files)} files, {digest.hexdigest()[:16]}"
