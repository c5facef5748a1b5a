"""Traces in .npz files: what something made of some samples, to be compared later or elsewhere.

docs/equivalence.md describes the arrays. In the file the first axis is always that of the samples,
so that batches are appended, and read, one after the other. Files are not trusted: names and sizes
are checked before anything is allocated, and no objects are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, replace
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from msg_deploy.data.npz import BROKEN
from msg_deploy.deployment import InputSpec, Metadata, Shape, Timing, explain
from msg_deploy.errors import FileError, UsageError, reason
from msg_deploy.files import hidden, replacing
from msg_deploy.options import Precision
from msg_deploy.sim.compare import Layout
from msg_deploy.sim.simulator import FloatArray, Trace

Array = npt.NDArray[Any]

ABOUT, SAMPLES, SCORES, CURRENTS = "trace", "samples", "scores", "currents"
SPIKES, PACKED, MEMBRANES, THRESHOLDS = "spikes_", "packed_", "membranes_", "thresholds_"
"""Prefixes of the arrays of a layer, which are followed by its name."""
MAX_UNPACKED = 4 * 2**30
"""Bytes of compressed arrays, which are kept in memory; others are read in place."""
CHUNK = 2**24
"""Values that are looked at in one go."""
LONGEST_NAME = 1000

_STRICT = ConfigDict(extra="forbid")
Size = Annotated[int, Field(ge=0, le=2**31)]


@dataclass(frozen=True, config=_STRICT)
class About:
    """The content of the array `trace`, JSON; everything has a default.

    Attributes:
        simulator: what ran.
        precision: of what ran; unknown counts as float32.
        metadata: timing, input, readout and provenance of the model.
        order: nodes in the order of execution.
        shapes: of the layers whose spikes are packed, without samples and steps.
        sources: nodes that give the currents, and from where to where each stands on the last axis;
            None: all of it.
        origins: under which name a node was exported first, where it is called otherwise.
        complete: whether all spiking layers were recorded.
    """

    simulator: Annotated[str, Field(max_length=LONGEST_NAME)] = "recording"
    precision: Precision | None = None
    metadata: Metadata | None = None
    order: tuple[str, ...] = ()
    shapes: dict[str, tuple[Size, ...]] = field(default_factory=dict)
    sources: dict[str, tuple[Size, Size] | None] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    format: Literal[1] = 1


_ABOUT = TypeAdapter(About)


@plain_dataclass(frozen=True)
class SavedTrace:
    """A trace in a file, of which batches are read when they are asked for.

    Attributes:
        path: of the file.
        about: what it says about itself.
        samples: float32 (N, *shape).
        arrays: by their names in the file, first axis N (thresholds: none).
        numbers: of the samples, by a digest of what they hold.
        names: of the layers in this check, by those in the file.
        known: metadata and layout of the other side, for what the file does not say.
    """

    path: Path
    about: About
    samples: FloatArray
    arrays: Mapping[str, Array]
    numbers: Mapping[bytes, int]
    names: Mapping[str, str] = field(default_factory=dict)
    known: tuple[Metadata, Layout] | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers whose spikes are recorded, as the file calls them, in the order of execution."""
        found = [n.removeprefix(SPIKES) for n in self.arrays if n.startswith(SPIKES)]
        found += [n.removeprefix(PACKED) for n in self.arrays if n.startswith(PACKED)]
        rank = {name: i for i, name in enumerate(self.about.order)}
        return tuple(sorted(found, key=lambda name: rank.get(name, len(rank))))

    @property
    def steps(self) -> int | None:
        """T, if anything was recorded at each step."""
        for name in self.layers:
            if f"{SPIKES}{name}" in self.arrays:
                return int(self.arrays[f"{SPIKES}{name}"].shape[1])
        if CURRENTS in self.arrays:
            return int(self.arrays[CURRENTS].shape[1])
        return self.about.metadata.timing.steps if self.about.metadata else None

    @property
    def own_units(self) -> bool:
        """Whether membranes may be in units of their own: thresholds say in which."""
        stated = any(name.startswith(THRESHOLDS) for name in self.arrays)
        return stated and self.about.metadata is None

    @property
    def metadata(self) -> Metadata:
        """Its own; else the other side's; else what the arrays tell."""
        if self.about.metadata:
            own = self.about.metadata
            if own.readout is None:
                return own
            source = self.names.get(own.readout.source, own.readout.source)
            return replace(own, readout=replace(own.readout, source=source))
        if self.known:
            other = self.known[0]
            steps = self.steps or other.timing.steps
            fits = steps == other.timing.steps
            timing = replace(other.timing, steps=steps)
            readout = other.readout if fits else None
            # The recording applies f itself, whatever the other side's graph does with it.
            host = readout and replace(readout, fold="host", error=0.0)
            return replace(other, timing=timing, readout=host)
        shape = tuple(max(n, 1) for n in self.samples.shape[1:])
        return Metadata(Timing(steps=self.steps or 1), InputSpec(shape))

    @property
    def layout(self) -> Layout:
        """Order, thresholds and sources; what is not known is the other side's."""
        other = self.known[1] if self.known else Layout((), {}, {})
        called = [self.names.get(name, name) for name in self.layers]
        sources = {
            self.names.get(name, name): slice(*ends) if ends else slice(None)
            for name, ends in self.about.sources.items()
        }
        sources = sources or dict(other.sources) or {CURRENTS: slice(None)}
        order = [self.names.get(name, name) for name in self.about.order] or list(other.order)
        order += [name for name in (*called, *sources) if name not in order]
        thresholds = {
            new: self._threshold(name, other.thresholds.get(new))
            for name, new in zip(self.layers, called, strict=True)
        }
        return Layout(tuple(order), {**other.thresholds, **thresholds}, sources)

    def _threshold(self, name: str, other: Array | None) -> Array:
        shape = self.shape(name)
        own = self.arrays.get(f"{THRESHOLDS}{name}")
        if own is not None:
            return np.broadcast_to(own, shape)
        return other if other is not None and other.shape == shape else np.full(shape, np.nan)

    def shape(self, name: str) -> Shape:
        """Of a layer, as the file calls it, without samples and steps."""
        plain = self.arrays.get(f"{SPIKES}{name}")
        return plain.shape[2:] if plain is not None else self.about.shapes[name]

    def renamed(self, names: Mapping[str, str]) -> SavedTrace:
        """The same with layers called otherwise: old names to new ones."""
        return replace(self, names={**self.names, **names})

    def completed(self, metadata: Metadata, layout: Layout) -> SavedTrace:
        """With what the other side knows, for what the file does not say."""
        return replace(self, known=(metadata, layout))

    def __call__(self, inputs: FloatArray) -> Trace:
        """What was recorded of samples.

        Args:
            inputs: (T, B, *input shape), samples of the file as they are encoded.

        Raises:
            UsageError: a sample is not in the file.
        """
        direct = self.metadata.input.encoding == "direct"
        given = inputs[0] if direct else np.moveaxis(inputs, 0, 1)
        return self.rows([self._place(sample) for sample in given])

    def _place(self, sample: FloatArray) -> int:
        try:
            return self.numbers[_digest(sample)]
        except KeyError:
            raise UsageError(
                f"{self.path}: holds no recording of such a sample; only what was recorded can be "
                "compared."
            ) from None

    def rows(self, rows: Sequence[int]) -> Trace:
        """What was recorded of samples, by their number."""
        chosen = list(rows)
        if chosen and chosen == list(range(chosen[0], chosen[0] + len(chosen))):
            place: Any = slice(chosen[0], chosen[0] + len(chosen))  # reads no more than it must
        else:
            place = chosen

        def at(name: str) -> Array:
            return np.moveaxis(np.asarray(self.arrays[name][place]), 0, 1)

        spikes, membranes = {}, {}
        for name in self.layers:
            new = self.names.get(name, name)
            if f"{SPIKES}{name}" in self.arrays:
                spikes[new] = at(f"{SPIKES}{name}").astype(np.uint8)
            else:
                spikes[new] = np.moveaxis(self._unpacked(name, place), 0, 1)
            if f"{MEMBRANES}{name}" in self.arrays:
                membranes[new] = at(f"{MEMBRANES}{name}")
        nothing = np.empty((0, len(chosen), 0))
        currents = at(CURRENTS) if CURRENTS in self.arrays else nothing
        return Trace(
            simulator=self.title,
            spikes=spikes,
            membranes=membranes,
            outputs=currents,
            currents=currents,
            scores=self._scores(place, currents, len(chosen)),
            partial=not self.about.complete,
        )

    @property
    def title(self) -> str:
        """What a comparison calls this side."""
        return f"{self.about.simulator} ({self.path.name})"

    def _unpacked(self, name: str, place: Any) -> Array:
        steps = self.steps
        assert steps is not None
        shape = (steps, *self.shape(name))
        bits = np.asarray(self.arrays[f"{PACKED}{name}"][place])
        return np.unpackbits(bits, axis=1, count=math.prod(shape)).reshape(-1, *shape)

    def _scores(self, place: Any, currents: FloatArray, count: int) -> FloatArray:
        """As recorded, else from the currents."""
        if SCORES in self.arrays:
            return np.asarray(self.arrays[SCORES][place])
        if not currents.size:
            return np.empty((count, 0))
        readout = self.metadata.readout
        if readout is None:
            return np.asarray(currents.sum(axis=0))
        return np.tensordot(np.asarray(readout.weights, currents.dtype), currents, axes=1)


def _digest(sample: FloatArray) -> bytes:
    # Adding 0 makes -0 and 0 the same bytes, as they are the same sample.
    return hashlib.blake2b((sample.astype(np.float32) + 0.0).tobytes(), digest_size=16).digest()


def read(path: str | Path) -> SavedTrace:
    """Read and check a trace.

    Raises:
        FileError: naming the file and the array: missing, truncated, too large, objects, shapes
            that do not fit each other, spikes that are not 0 or 1, numbers that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(path, "there is no such file; name a .npz file.")
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
            arrays = {name: _array(path, archive, info) for name, info in members.items()}
    except BROKEN as error:
        raise FileError(path, f"is not a whole .npz file ({reason(error)}).") from error
    about = _about(path, arrays.pop(ABOUT, None))
    samples = _samples(path, arrays)
    numbers: dict[bytes, int] = {}
    twins: list[tuple[int, int]] = []
    for i, sample in enumerate(samples):
        first = numbers.setdefault(_digest(sample), i)
        twins += [(first, i)] if first != i else []
    trace = SavedTrace(path, about, samples, arrays, numbers)
    _check(trace)
    for first, other in twins:
        _check_twins(trace, first, other)
    return trace


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The arrays of a file by name, none of which has been read."""
    found: dict[str, zipfile.ZipInfo] = {}
    packed = (i for i in archive.infolist() if i.compress_type != zipfile.ZIP_STORED)
    size = sum(info.file_size for info in packed)
    if size > MAX_UNPACKED:
        raise FileError(
            path,
            f"unpacks to {size} bytes; at most {MAX_UNPACKED} are read. Write large arrays "
            "uncompressed (numpy.savez), or fewer samples.",
        )
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        prefix = next(
            (p for p in (SPIKES, PACKED, MEMBRANES, THRESHOLDS) if name.startswith(p)), ""
        )
        layer = name.removeprefix(prefix)
        known = layer and layer.isprintable() and len(layer) <= LONGEST_NAME
        if not (prefix and known) and name not in (ABOUT, SAMPLES, SCORES, CURRENTS):
            raise FileError(
                path,
                f"array {name[:80]!r} is not part of a trace; there may be {SAMPLES}, {CURRENTS}, "
                f"{SCORES}, {ABOUT}, {SPIKES}LAYER, {MEMBRANES}LAYER and {THRESHOLDS}LAYER.",
            )
        if name in found:
            raise FileError(path, f"there are two arrays {name!r}.")
        found[name] = info
    if SAMPLES not in found or not any(
        name.startswith((SPIKES, PACKED)) or name in (SCORES, CURRENTS) for name in found
    ):
        raise FileError(
            path,
            f"is no trace: it holds {', '.join(found) or 'nothing'}; needed are {SAMPLES} and at "
            f"least one of {SPIKES}LAYER, {CURRENTS} and {SCORES}.",
        )
    return found


def _array(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """One array: of the file itself where it stands there as it is, else unpacked."""
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as member:
        shape, fortran, dtype = _header(path, name, member)
        start = member.tell()
        size = math.prod(shape) * dtype.itemsize
        if start + size != info.file_size:
            raise FileError(
                path, f"array {name!r} declares {size} bytes but has {info.file_size - start}."
            )
        order: Literal["F", "C"] = "F" if fortran else "C"
        if info.compress_type == zipfile.ZIP_STORED and size and not fortran and shape:
            offset = _offset(path, info) + start
            return np.memmap(path, dtype, "r", offset, shape)
        return np.frombuffer(member.read(), dtype).reshape(shape, order=order)


def _header(path: Path, name: str, member: IO[bytes]) -> tuple[Shape, bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(member)
    else:
        raise FileError(path, f"array {name!r} is of an unknown version of .npy, {version}.")
    kinds = "US" if name == ABOUT else "fiub"
    if dtype.kind not in kinds or dtype.hasobject or dtype.subdtype or min((*shape, 0)) < 0:
        wanted = "a text" if name == ABOUT else "numbers"
        raise FileError(path, f"array {name!r} must be {wanted}, not {dtype} of shape {shape}.")
    return shape, fortran, dtype


def _offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a member's content begins in the file, behind its local header."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(30)
    if len(header) < 30:
        raise FileError(path, "is truncated.")
    lengths = (int.from_bytes(header[i : i + 2], "little") for i in (26, 28))
    return info.header_offset + 30 + sum(lengths)


def _about(path: Path, array: Array | None) -> About:
    if array is None:
        return About()
    try:
        if array.size != 1:
            raise FileError(path, f"array {ABOUT!r} must be one text, not of shape {array.shape}.")
        text = array.reshape(-1)[0]
        return _ABOUT.validate_json(bytes(text) if array.dtype.kind == "S" else str(text))
    except ValidationError as error:
        raise FileError(path, f"array {ABOUT!r}: {explain(error)}.") from error


def _samples(path: Path, arrays: dict[str, Array]) -> FloatArray:
    given = arrays.pop(SAMPLES)
    if given.ndim < 2 or not given.size:
        raise FileError(
            path, f"{SAMPLES} must be (N, *shape) or (N, T, *shape), not {given.shape}."
        )
    with np.errstate(over="ignore"):
        samples = np.array(given, np.float32, order="C")
    _check_rows(path, SAMPLES, samples, np.isfinite, "finite float32 numbers")
    return samples


def _check(trace: SavedTrace) -> None:
    """Shapes and values."""
    path, arrays, about = trace.path, trace.arrays, trace.about
    count, layers = len(trace.samples), trace.layers
    if len(set(layers)) < len(layers):
        raise FileError(path, f"a layer has {SPIKES}LAYER and {PACKED}LAYER; one is enough.")
    for name in arrays:
        layer = name.removeprefix(MEMBRANES).removeprefix(THRESHOLDS)
        if name.startswith((MEMBRANES, THRESHOLDS)) and layer not in layers:
            raise FileError(path, f"there is an array {name!r}, but none {SPIKES + layer!r}.")
        rows = arrays[name].shape[:1]
        if not name.startswith(THRESHOLDS) and rows != (count,):
            raise FileError(
                path,
                f"{name} has shape {arrays[name].shape}; its first axis must be that of the "
                f"{count} samples.",
            )
    if any(f"{PACKED}{n}" in arrays for n in layers) and not about.metadata:
        raise FileError(path, f"packed spikes need the number of steps, in {ABOUT!r}.")
    steps = about.metadata.timing.steps if about.metadata else trace.steps
    for layer in layers:
        _check_layer(trace, layer, steps)
    if CURRENTS in arrays:
        currents = arrays[CURRENTS]
        if currents.ndim < 3 or currents.shape[1] != steps:
            raise FileError(path, f"{CURRENTS} must be (N, {steps}, C), not {currents.shape}.")
        _check_rows(path, CURRENTS, currents, np.isfinite, "finite")
        for name, ends in about.sources.items():
            if ends and not 0 <= ends[0] < ends[1] <= currents.shape[-1]:
                raise FileError(path, f"{ABOUT!r}: {name!r} has no place {ends} in {CURRENTS}.")
    if SCORES in arrays:
        if arrays[SCORES].ndim < 2:
            raise FileError(path, f"{SCORES} must be (N, C), not {arrays[SCORES].shape}.")
        _check_rows(path, SCORES, arrays[SCORES], np.isfinite, "finite")


def _check_layer(trace: SavedTrace, layer: str, steps: int | None) -> None:
    path, arrays = trace.path, trace.arrays
    name = f"{SPIKES}{layer}"
    if name in arrays:
        spikes = arrays[name]
        if spikes.ndim < 3 or spikes.shape[1] != steps:
            raise FileError(path, f"{name} must be (N, {steps}, *shape), not {spikes.shape}.")
        _check_rows(path, name, spikes, lambda x: (x == 0) | (x == 1), "0 or 1")
    else:
        name = f"{PACKED}{layer}"
        if layer not in trace.about.shapes:
            raise FileError(path, f"{name} has no shape in {ABOUT!r}.")
        size = math.prod((steps or 1, *trace.shape(layer)))
        bits = arrays[name]
        if bits.dtype != np.uint8 or bits.shape[1:] != ((size + 7) // 8,):
            raise FileError(path, f"{name} must be (N, {(size + 7) // 8}) bytes, not {bits.shape}.")
    shape = (len(trace.samples), steps, *trace.shape(layer))
    membranes, thresholds = (arrays.get(f"{p}{layer}") for p in (MEMBRANES, THRESHOLDS))
    if membranes is not None:
        if membranes.shape != shape:
            raise FileError(
                path, f"{MEMBRANES}{layer} must be {shape} as its spikes, not {membranes.shape}."
            )
        _check_rows(path, f"{MEMBRANES}{layer}", membranes, np.isfinite, "finite")
    accepted = ((), trace.shape(layer))
    if thresholds is not None and (
        thresholds.shape not in accepted or not np.isfinite(thresholds).all()
    ):
        raise FileError(
            path,
            f"{THRESHOLDS}{layer} must be finite and one, or of shape {trace.shape(layer)}; its "
            f"shape is {thresholds.shape}.",
        )


def _check_rows(
    path: Path, name: str, array: Array, good: Callable[[Array], Array], wanted: str
) -> None:
    """Look at all values, some samples at a time."""
    rows = max(1, CHUNK // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), rows):
        bad = np.argwhere(~good(np.asarray(array[start : start + rows])))
        if len(bad):
            place = [int(bad[0][0]) + start, *map(int, bad[0][1:])]
            raise FileError(path, f"{name}{place} is {array[tuple(place)]}; it must be {wanted}.")


def _check_twins(trace: SavedTrace, first: int, other: int) -> None:
    """Equal samples must have given the same."""
    for name, array in trace.arrays.items():
        if not name.startswith(THRESHOLDS) and not np.array_equal(array[first], array[other]):
            raise FileError(
                trace.path,
                f"samples {first} and {other} are equal, but {name} differs: what was recorded is "
                "not deterministic. Compare such recordings one by one, in files of their own.",
            )


def check_same_samples(a: SavedTrace, b: SavedTrace) -> None:
    """Two recordings can be compared only on the same samples, in the same order.

    Raises:
        UsageError: they hold others.
    """
    x, y = a.samples, b.samples
    if x.shape != y.shape:
        raise UsageError(
            f"{a.path} holds samples {x.shape}, {b.path} {y.shape}; recordings are compared on the "
            "same samples only."
        )
    for i, (mine, theirs) in enumerate(zip(x, y, strict=True)):
        if not np.array_equal(mine, theirs):
            raise UsageError(
                f"{a.path} and {b.path} hold different samples, the first one is number {i}; "
                "recordings are compared on the same samples only."
            )


Add = Callable[[FloatArray, Trace], None]
"""Appends samples (B, ...) and what they caused."""


@contextlib.contextmanager
def writing(
    path: str | Path, about: About, layout: Layout, membranes: bool = True
) -> Iterator[Add]:
    """Yield what appends batches; the file is there when all is done, or not at all.

    The memory taken is that of one batch. Arrays are collected in files beside the path.

    Args:
        path: .npz file.
        about: shapes, order and sources are added.
        layout: of the model.
        membranes: record those, too; they take 64 (float32: 32) times as much as spikes.

    Raises:
        FileError: the file cannot be written.
        UsageError: the name does not end in .npz, or there is no sample.
    """
    path = Path(path)
    check_name(path)
    parts: dict[str, tuple[Shape, np.dtype[Any]]] = {}
    counts: dict[str, int] = {}
    shapes: dict[str, Shape] = {}
    # Opened first, so that a folder which cannot be written to is reported as such.
    with replacing(path) as temporary, _folder(path) as folder:

        def append(name: str, array: Array) -> None:
            if name not in parts:
                parts[name] = (array.shape[1:], array.dtype)
            file = folder / str(list(parts).index(name))
            with file.open("ab") as opened:
                opened.write(np.ascontiguousarray(array).data)
            counts[name] = counts.get(name, 0) + len(array)

        def add(samples: FloatArray, trace: Trace) -> None:
            append(SAMPLES, np.asarray(samples, np.float32))
            for name, spikes in trace.spikes.items():
                shapes[name] = spikes.shape[2:]
                rows = np.moveaxis(spikes, 1, 0).reshape(spikes.shape[1], -1)
                append(f"{PACKED}{name}", np.packbits(rows != 0, axis=1))
            for name, values in trace.membranes.items() if membranes else ():
                append(f"{MEMBRANES}{name}", np.moveaxis(values, 1, 0))
            if trace.currents.size:
                append(CURRENTS, np.moveaxis(trace.currents, 1, 0))
            if trace.scored:
                append(SCORES, trace.scores)

        yield add
        if not parts:
            raise UsageError("there is no sample to record.")
        stated = replace(
            about,
            order=layout.order,
            shapes=shapes,
            sources=_ends(layout.sources),
            complete=set(layout.thresholds) <= set(shapes),
        )
        with zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
            _put(archive, ABOUT, np.array(_ABOUT.dump_json(stated).decode()))
            for number, (name, (shape, dtype)) in enumerate(parts.items()):
                with (folder / str(number)).open("rb") as content:
                    _copy(archive, name, (counts[name], *shape), dtype, content)
            for name, threshold in layout.thresholds.items():
                if name in shapes and np.isfinite(threshold).all():
                    _put(archive, f"{THRESHOLDS}{name}", np.broadcast_to(threshold, shapes[name]))


def check_name(path: Path) -> None:
    """Check that a trace can be called so.

    Raises:
        UsageError: the name does not end in .npz.
    """
    if path.suffix != ".npz":
        raise UsageError(f"{path}: a trace is written as .npz.")


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=hidden(path), dir=path.parent) as name:
        yield Path(name)


def _ends(sources: Mapping[str, slice]) -> dict[str, tuple[int, int] | None]:
    return {n: None if s.stop is None else (s.start or 0, s.stop) for n, s in sources.items()}


def _copy(
    archive: zipfile.ZipFile, name: str, shape: Shape, dtype: np.dtype[Any], content: IO[bytes]
) -> None:
    """An array as a member. Membranes hardly shrink; as they are, they are read in place."""
    info = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date: the same trace gives the same bytes
    stored = name.startswith(MEMBRANES)
    info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with archive.open(info, "w", force_zip64=True) as member:
        described = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, described)
        shutil.copyfileobj(content, member, 2**20)


def _put(archive: zipfile.ZipFile, name: str, array: Array) -> None:
    kept = np.ascontiguousarray(array).reshape(np.shape(array))
    _copy(archive, name, kept.shape, kept.dtype, io.BytesIO(kept.tobytes()))


def described(trace: SavedTrace) -> dict[str, Any]:
    """What a trace holds, as JSON values."""
    return {
        "simulator": trace.about.simulator,
        "precision": trace.about.precision,
        "samples": list(trace.samples.shape),
        "steps": trace.steps,
        "layers": {
            name: {
                "shape": list(trace.shape(name)),
                "membranes": f"{MEMBRANES}{name}" in trace.arrays,
            }
            for name in trace.layers
        },
        "currents": list(trace.arrays[CURRENTS].shape) if CURRENTS in trace.arrays else None,
        "scores": list(trace.arrays[SCORES].shape) if SCORES in trace.arrays else None,
    }
