"""Reading and writing .nir files, which are not trusted.

A .nir file is HDF5: /version and /node with type, nodes, edges and metadata. Before anything is
allocated, the declared sizes are added up; links out of the file, deep nesting and object types
are refused; every node is built one by one so that an error names it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
from pydantic import ValidationError

from msg_deploy.deployment import (
    METADATA_KEY,
    Deployment,
    InputSpec,
    Metadata,
    Provenance,
    Shape,
    Timing,
    explain,
    metadata_from_json,
    metadata_to_json,
)
from msg_deploy.errors import FileError, GraphError, reason
from msg_deploy.exporters.dialects import arranged, restored
from msg_deploy.exporters.heap import Heap
from msg_deploy.exporters.inline import inline, renamed, with_origins
from msg_deploy.exporters.legacy import completed, spread
from msg_deploy.files import write_made
from msg_deploy.graph import Plan, plan
from msg_deploy.options import ResetMode

logger = logging.getLogger(__name__)

MAX_BYTES = 8 * 2**30
UNPACKED = 256 * 2**20
LARGEST_RATIO = 200
"""A file of little more than zeros, which gzip packs a thousandfold, may be this large at most."""
MAX_NODES = 100_000
MAX_DEPTH = 16
NOT_NUMBERS = ("type", "metadata", "padding", "input_type", "output_type")
"""Fields of nodes that are text or groups; a padding may be "same" or "valid"."""
WITH_RESET = ("IF", "LIF", "CubaLIF")


@dataclass(frozen=True)
class ForeignTiming:
    """Timing for graphs of other frameworks, which do not carry one. None means the default.

    Attributes:
        dt: seconds; default 1e-4, what snnTorch and spikingjelly assume.
        steps: default 100.
        reset: default "zero", what NIR's equations say.
    """

    dt: float | None = None
    steps: int | None = None
    reset: ResetMode | None = None


DEFAULT_TIMING = Timing(dt=1e-4, steps=100, reset="zero")


def write(deployment: Deployment, path: str | Path) -> None:
    """Write a deployment as .nir, whole or not at all; the same deployment gives the same bytes.

    Raises:
        GraphError: the graph is not valid.
        FileError: the file cannot be written.
    """
    known = plan(deployment.graph)
    nodes = {
        name: _with_input_shape(node, known.input_shapes[name])
        for name, node in deployment.graph.nodes.items()
    }
    metadata = dict(deployment.graph.metadata) | {
        METADATA_KEY: metadata_to_json(deployment.metadata)
    }
    flat = nir.NIRGraph(nodes, deployment.graph.edges, metadata=metadata, type_check=False)
    dialect = deployment.provenance.dialect
    # Other dialects hold what their destination was measured with, and nothing else.
    graph = with_origins(flat) if dialect == "nir" else arranged(flat, dialect)
    write_made(Path(path), lambda file: nir.write(file, graph))


def _with_input_shape(node: nir.NIRNode, shape: Shape) -> nir.NIRNode:
    """A convolution that says what it takes: nir cannot write one that does not."""
    if not isinstance(node, (nir.Conv1d, nir.Conv2d)) or node.input_shape is not None:
        return node
    size = shape[1] if isinstance(node, nir.Conv1d) else np.array(shape[1:])
    return replace(node, input_shape=size)


def read(path: str | Path, foreign: ForeignTiming | None = None) -> Deployment:
    """Read and check a .nir file.

    Args:
        path: the file.
        foreign: timing for a file without ours. In a file with ours, a value given here replaces
            that of the file.

    Returns:
        A deployment whose graph is valid. Missing timing values are the documented defaults, and a
        warning is logged that names them.

    Raises:
        FileError: naming the file and the field: missing, truncated, too large, not NIR, unknown
            primitive, missing or non-finite parameter, cycle without state, broken metadata.
    """
    path = Path(path)
    content = _read_hdf5(path)
    try:
        assumed: list[str] = []
        graph, made = completed(renamed(inline(_graph(content, assumed))))
        for sentence in (*assumed, *made):
            logger.warning("%s: %s.", path, sentence)
        known = plan(graph)
        metadata = _metadata(path, graph, known.input_shape, foreign or ForeignTiming())
        graph = restored(graph, metadata.provenance.dialect)
        _check_metadata(metadata, graph, plan(graph))
    except GraphError as error:
        raise FileError(path, str(error)) from error
    except ValidationError as error:
        raise FileError(path, f"timing: {explain(error)}.") from error
    return Deployment(
        graph,
        metadata.timing,
        metadata.input,
        metadata.readout,
        metadata.provenance,
        metadata.integers,
    )


def _metadata(path: Path, graph: nir.NIRGraph, shape: Shape, foreign: ForeignTiming) -> Metadata:
    given = {k: v for k, v in vars(foreign).items() if v is not None}
    if METADATA_KEY in graph.metadata:
        own = metadata_from_json(graph.metadata[METADATA_KEY])
        return replace(own, timing=replace(own.timing, **given)) if given else own
    assumed = {k: v for k, v in vars(DEFAULT_TIMING).items() if k not in given}
    if assumed:
        listed = ", ".join(f"--{k} {v}" for k, v in assumed.items())
        logger.warning("%s has no timing of msg-deploy; assumed %s.", path, listed)
    return Metadata(
        Timing(**(assumed | given)),
        InputSpec(shape=shape, encoding="frames"),
        provenance=Provenance(source=str(path)),
    )


def _check_metadata(metadata: Metadata, graph: nir.NIRGraph, known: Plan) -> None:
    if metadata.input.shape != known.input_shape:
        raise GraphError(
            f"metadata {METADATA_KEY!r}: input.shape is {metadata.input.shape}, but the Input node "
            f"declares {known.input_shape}."
        )
    if metadata.readout and len(known.outputs) > 1:
        raise GraphError(
            f"metadata {METADATA_KEY!r}: there is a TWO readout, which needs one Output node, not "
            f"{', '.join(known.outputs)}."
        )
    if metadata.readout and metadata.readout.source not in graph.nodes:
        raise GraphError(
            f"metadata {METADATA_KEY!r}: readout.source names {metadata.readout.source!r}, which "
            "is not a node."
        )


def _read_hdf5(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileError(path, "there is no such file; name a .nir file.")
    try:
        with h5py.File(path, "r") as file:
            root = file.get("node")
            if not isinstance(root, h5py.Group):
                raise GraphError("has no group 'node', so it is HDF5 but not NIR.")
            budget = _Budget(max(UNPACKED, min(MAX_BYTES, LARGEST_RATIO * path.stat().st_size)))
            heap = Heap(file)
            _weigh(root, "node", budget, heap, 0)
            return _load(root, heap, "node")
    except GraphError as error:
        raise FileError(path, str(error)) from error
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise FileError(
            path,
            f"is not a whole .nir file ({reason(error)}); it may be truncated, export it again.",
        ) from error


@dataclass
class _Budget:
    bytes: int
    objects: int = MAX_NODES * 16


def _weigh(group: h5py.Group, place: str, budget: _Budget, heap: Heap, depth: int) -> None:
    """Refuse what is too large, too deep or leads elsewhere, by headers alone."""
    if depth > MAX_DEPTH:
        raise GraphError(f"{place}: is nested deeper than {MAX_DEPTH} levels.")
    for name in group:
        where = f"{place}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise GraphError(f"{where}: is a link; links are not followed.")
        item = group[name]
        budget.objects -= 1
        if budget.objects < 0:
            raise GraphError("has too many objects.")
        if isinstance(item, h5py.Group):
            _weigh(item, where, budget, heap, depth + 1)
        elif isinstance(item, h5py.Dataset):
            _weigh_dataset(item, where, budget, heap)
        else:
            raise GraphError(f"{where}: is neither a group nor a dataset.")


def _weigh_dataset(item: h5py.Dataset, where: str, budget: _Budget, heap: Heap) -> None:
    text = h5py.check_string_dtype(item.dtype) is not None
    if item.external or item.is_virtual:
        raise GraphError(f"{where}: keeps its data in another file, which is not followed.")
    if not text and item.dtype.kind not in "fiub":
        raise GraphError(f"{where}: has the type {item.dtype}; numbers and text are accepted.")
    if item.shape is None:
        raise GraphError(f"{where}: is empty.")
    budget.bytes -= int(np.prod(item.shape, dtype=object)) * max(item.dtype.itemsize, 1)
    if budget.bytes >= 0 and _varies(item):
        budget.bytes -= int(heap.references(item, where)["length"].sum(dtype=np.int64))
    if budget.bytes < 0:
        raise GraphError(
            f"{where}: the file declares more data than are read: at most {UNPACKED >> 20} MiB, or "
            f"{LARGEST_RATIO} times its size up to {MAX_BYTES >> 30} GiB."
        )


def _load(group: h5py.Group, heap: Heap, place: str) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, item in group.items():
        where = f"{place}/{name}"
        if isinstance(item, h5py.Group):
            content[name] = _load(item, heap, where)
        else:
            value = heap.texts(item, where) if _varies(item) else item[()]
            content[name] = value.decode("utf-8") if isinstance(value, bytes) else value
    return content


def _varies(item: h5py.Dataset) -> bool:
    """Whether it holds texts of variable length."""
    known = h5py.check_string_dtype(item.dtype)
    return known is not None and known.length is None


def _graph(content: dict[str, Any], assumed: list[str], place: str = "node") -> nir.NIRGraph:
    kind = content.get("type")
    if not isinstance(kind, str) or kind != "NIRGraph":
        raise GraphError(f"{place}/type is {kind!r}; it must be NIRGraph.")
    for field in ("nodes", "edges"):
        if field not in content:
            raise GraphError(f"{place}/{field} is missing.")
    if not isinstance(content["nodes"], dict):
        raise GraphError(f"{place}/nodes must be a group of nodes.")
    nodes = {
        name: _node(name, fields, assumed, f"{place}/nodes/{name}")
        for name, fields in content["nodes"].items()
    }
    metadata = content.get("metadata", {})
    if not isinstance(metadata, dict):
        raise GraphError(f"{place}/metadata must be a group.")
    return nir.NIRGraph(nodes, _edges(content["edges"], place), metadata=metadata, type_check=False)


def _edges(value: Any, place: str) -> list[tuple[str, str]]:
    edges = np.asarray(value, dtype=object)
    if edges.size == 0:
        return []
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise GraphError(f"{place}/edges must be pairs of node names, not shape {edges.shape}.")
    try:
        return [(_text(a), _text(b)) for a, b in edges]
    except UnicodeDecodeError as error:
        raise GraphError(f"{place}/edges holds names that are not UTF-8.") from error


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _node(name: str, fields: Any, assumed: list[str], place: str) -> nir.NIRNode:
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise GraphError(f"node {name!r}: has no type.")
    kind = fields["type"]
    if not isinstance(fields.get("metadata", {}), dict):
        raise GraphError(f"node {name!r} ({kind}): its metadata must be a group.")
    if kind == "NIRGraph":
        return _graph(fields, assumed, place)
    for field, value in fields.items():
        if field not in NOT_NUMBERS and np.asarray(value).dtype.kind not in "fiub":
            raise GraphError(f"node {name!r} ({kind}): {field} must hold numbers, not {value!r}.")
    if kind in WITH_RESET and "v_reset" not in fields:
        assumed.append(f"node {name!r} has no v_reset, as before nir 1.0.6; assumed 0")
    fields, made = spread(name, fields)
    assumed.extend(made)
    build: Callable[[dict[str, Any]], nir.NIRNode] = nir.dict2NIRNode
    try:
        # nir works out shapes on construction; ours are checked when the graph is planned.
        with np.errstate(all="ignore"):
            return build(dict(fields))
    except Exception as error:  # constructors of another library on a file of a stranger
        raise GraphError(
            f"node {name!r} ({kind}): its fields are missing or do not fit each other "
            f"({type(error).__name__}: {reason(error)})."
        ) from error
