"""Writing ONNX files, and reading back those that we wrote, which are not trusted either."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.passes.common import InlinePass

from msg_deploy.deployment import METADATA_KEY, Metadata, metadata_from_json
from msg_deploy.errors import FileError, GraphError, reason
from msg_deploy.exporters.onnx import layouts
from msg_deploy.exporters.onnx.builder import BATCH, DOMAIN, Model
from msg_deploy.exporters.onnx.contract import CONTRACT_KEY, Contract, contract_from_json
from msg_deploy.exporters.onnx.functions import BODIES, definition
from msg_deploy.files import replacing

LARGEST_FILE = 2**31 - 1
"""What protobuf can hold, in bytes."""
LARGEST_INLINE = LARGEST_FILE - 2**24
"""Weights up to this many bytes stand in the model's own file; larger ones in a second one."""
LARGEST_DATA = 64 * 2**30
LARGEST_VALUE = 2**31
INVALID = (onnx.checker.ValidationError, onnx.shape_inference.InferenceError)


@dataclass(frozen=True)
class OnnxModel:
    """A model of ours, in memory.

    Attributes:
        proto: the model; weights may be in a file of its folder.
        metadata: what every deployment carries.
        contract: where layers, outputs and states are found.
        folder: of the file that it was read from, if any.
    """

    proto: onnx.ModelProto
    metadata: Metadata
    contract: Contract
    folder: Path | None = None


def in_memory(model: ir.Model) -> OnnxModel:
    """What `build` made, ready to be run."""
    proto = ir.to_proto(model)
    properties = model.metadata_props
    return OnnxModel(
        proto,
        metadata_from_json(properties[METADATA_KEY]),
        contract_from_json(properties[CONTRACT_KEY]),
    )


def inlined(model: ir.Model) -> ir.Model:
    """A copy of standard operators only, for runtimes that know no functions."""
    copy = model.clone()
    InlinePass()(copy)
    copy.graph.opset_imports.pop(DOMAIN, None)
    return copy


def write(model: ir.Model, path: str | Path, largest: int = LARGEST_INLINE) -> tuple[Path, ...]:
    """Check a model and write it, whole or not at all.

    Args:
        model: to write.
        path: of the .onnx file.
        largest: weights of more bytes than this are written to a second file, PATH.data.

    Returns:
        The files written.

    Raises:
        FileError: a file cannot be written.
        GraphError: the model is not valid, which is our mistake.
    """
    path = Path(path)
    weights = sum(
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value
    )
    try:
        if weights > largest:
            return _write_with_data(model, path, path.with_name(f"{path.name}.data"))
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
    except INVALID as error:
        raise GraphError(f"the ONNX model is not valid: {reason(error)}") from error
    with replacing(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
    return (path,)


def _write_with_data(model: ir.Model, path: Path, data: Path) -> tuple[Path, ...]:
    with replacing(path) as temporary, replacing(data) as beside:
        ir.save(model, temporary, "protobuf", external_data=beside.name)
        onnx.checker.check_model(str(temporary), full_check=True)
        proto = onnx.load_model(str(temporary), "protobuf", load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = data.name
        temporary.write_bytes(proto.SerializeToString())
    return path, data


def read(path: str | Path) -> OnnxModel:
    """Read and check an .onnx file that we wrote.

    Raises:
        FileError: missing, truncated, too large, not ours, with foreign operators, changed
            functions, weights that are not finite or stand outside of the file's folder, or
            metadata that do not fit.
    """
    path = Path(path)
    proto = _parse(path)
    try:
        properties = {p.key: p.value for p in proto.metadata_props}
        if not {METADATA_KEY, CONTRACT_KEY} <= set(properties):
            raise GraphError(
                f"has no properties {METADATA_KEY!r} and {CONTRACT_KEY!r}; only .onnx files that "
                "msg-deploy wrote are read."
            )
        metadata = metadata_from_json(properties[METADATA_KEY])
        contract = contract_from_json(properties[CONTRACT_KEY])
        _check_places(proto, path.parent)
        _check_operators(proto)
        _check_valid(path)
        _check_sizes(proto)
        _check_numbers(proto, path.parent)
        _check_contract(proto, metadata, contract)
    except GraphError as error:
        raise FileError(path, str(error)) from error
    return OnnxModel(proto, metadata, contract, path.parent.absolute())


def files_of(path: str | Path) -> tuple[Path, ...]:
    """An .onnx file, and those beside it that hold its weights.

    Raises:
        FileError: it is not a whole .onnx file.
    """
    path = Path(path)
    tensors = (t for t in _tensors(_parse(path)) if t.data_location == onnx.TensorProto.EXTERNAL)
    entries = (entry for tensor in tensors for entry in tensor.external_data)
    names = {Path(entry.value).name for entry in entries if entry.key == "location"}
    return path, *(path.with_name(name) for name in sorted(names))


def _parse(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        raise FileError(path, "there is no such file; name an .onnx file.")
    proto = onnx.ModelProto()
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise FileError(path, f"is larger than {LARGEST_FILE} bytes, which no .onnx file is.")
        proto.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise FileError(
            path,
            f"is not a whole .onnx file ({reason(error)}); it may be truncated, export it again.",
        ) from error
    return proto


def _check_valid(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (*INVALID, RuntimeError, ValueError, TypeError) as error:
        raise GraphError(f"is not a valid ONNX model ({reason(error)}).") from error


def _check_sizes(proto: onnx.ModelProto) -> None:
    """No value of one sample is larger than any network needs."""
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    for graph in graphs_of(inferred.graph):
        for value in (*graph.value_info, *graph.input, *graph.output):
            sizes = [d.dim_value for d in value.type.tensor_type.shape.dim if d.dim_value > 0]
            if math.prod(sizes) > LARGEST_VALUE:
                raise GraphError(f"value {value.name!r} has {math.prod(sizes)} numbers a sample.")


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those in the attributes of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from graphs_of(inner)


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All initializers and tensors in attributes."""
    for graph in graphs_of(proto.graph):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _check_places(proto: onnx.ModelProto, folder: Path) -> None:
    """Weights outside of the file stand in a plain file beside it, which is long enough."""
    budget = LARGEST_DATA
    for tensor in _tensors(proto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        place = folder / location
        if not location or Path(location).name != location:
            raise GraphError(
                f"weights {tensor.name!r} are said to be in {location!r}; only a file in the same "
                "folder is read."
            )
        if place.is_symlink() or not place.is_file():
            raise GraphError(f"weights {tensor.name!r}: there is no file {location!r} beside it.")
        try:
            offset, length = (int(entries.get(key, "0")) for key in ("offset", "length"))
        except ValueError as error:
            raise GraphError(f"weights {tensor.name!r}: {reason(error)}.") from error
        budget -= max(length, 0)
        if min(offset, length) < 0 or offset + length > place.stat().st_size or budget < 0:
            raise GraphError(
                f"weights {tensor.name!r} take {length} bytes from byte {offset} on, but "
                f"{location!r} has {place.stat().st_size}."
            )


def _check_operators(proto: onnx.ModelProto) -> None:
    """Standard operators, and ours as we define them."""
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    found = {function.name for function in proto.functions}
    for function in proto.functions:
        model = Model(np.dtype(np.float32), opsets.get("", 0))
        known = function.domain == DOMAIN and function.name in BODIES
        if not known or function != ir.to_proto(definition(function.name, model)):
            raise GraphError(
                f"function {function.domain}.{function.name} is not as msg-deploy defines it."
            )
    for graph in graphs_of(proto.graph):
        for node in graph.node:
            ours = node.domain == DOMAIN and node.op_type in found
            if node.domain not in ("", "ai.onnx") and not ours:
                raise GraphError(
                    f"node {node.name!r}: the operator {node.domain}.{node.op_type} is not known; "
                    f"those of ONNX and of {DOMAIN} are."
                )


def _check_numbers(proto: onnx.ModelProto, folder: Path) -> None:
    for tensor in _tensors(proto):
        try:
            values = onnx.numpy_helper.to_array(tensor, str(folder))
        except (ValueError, TypeError, RuntimeError, OSError, *INVALID) as error:
            raise GraphError(f"weights {tensor.name!r}: {reason(error)}.") from error
        if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
            raise GraphError(f"weights {tensor.name!r}: every number must be finite.")


def _check_contract(proto: onnx.ModelProto, metadata: Metadata, contract: Contract) -> None:
    """What the properties say is what the graph has."""
    graph = proto.graph
    made = {name for node in graph.node for name in node.output}
    available = made | {value.name for value in graph.input}
    for recorded in (*contract.spiking, *contract.currents):
        missing = [name for name in recorded.tensors if name not in available]
        if recorded.node not in contract.order or missing or not recorded.tensors:
            raise GraphError(
                f"property {CONTRACT_KEY!r}: node {recorded.node!r} and its tensors "
                f"{list(recorded.tensors)} are not all in the model."
            )
    if metadata.readout and metadata.readout.source not in contract.order:
        raise GraphError(
            f"metadata {METADATA_KEY!r}: readout.source names {metadata.readout.source!r}, which "
            "is not a node."
        )
    inputs = {value.name: _shape(value) for value in graph.input}
    outputs = {value.name: _shape(value) for value in graph.output}
    states = {s.input: (BATCH, *s.shape) for s in contract.states}
    _same("inputs", inputs, _expected_input(metadata, contract) | states)
    wanted = {s.output: (BATCH, *s.shape) for s in contract.states}
    _same("outputs", {name: outputs.get(name) for name in wanted}, wanted)
    for name in (layouts.DECISION, *([] if contract.states else [layouts.SCORES])):
        if name not in outputs:
            raise GraphError(f"has no output {name!r}.")


def _expected_input(metadata: Metadata, contract: Contract) -> dict[str, Any]:
    shape = metadata.input.shape
    if contract.layout == "step":
        return {layouts.INPUT: (BATCH, *shape), layouts.STEP: ()}
    time = () if metadata.input.encoding == "direct" else (metadata.timing.steps,)
    return {layouts.INPUT: (*time, BATCH, *shape)}


def _same(what: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
    if found != expected:
        raise GraphError(f"has the {what} {found}, but its properties say {expected}.")


def _shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    dimensions = value.type.tensor_type.shape.dim
    return tuple(d.dim_param or int(d.dim_value) for d in dimensions)
