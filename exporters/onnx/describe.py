"""What `inspect` shows of an ONNX model."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx

from msg_deploy.exporters.onnx.file import OnnxModel, graphs_of


def describe(model: OnnxModel) -> dict[str, Any]:
    """An ONNX model as JSON values, without weights and metadata."""
    operators = Counter(
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        for graph in graphs_of(model.proto.graph)
        for node in graph.node
    )
    return {
        "layout": model.contract.layout,
        "int8": model.contract.int8,
        "opsets": {o.domain or "ai.onnx": o.version for o in model.proto.opset_import},
        "inputs": [_tensor(value) for value in model.proto.graph.input],
        "outputs": [_tensor(value) for value in model.proto.graph.output],
        "operators": dict(sorted(operators.items())),
        "spiking": [recorded.node for recorded in model.contract.spiking],
    }


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    """Name, type and shape of an input or output."""
    tensor = value.type.tensor_type
    return {
        "name": value.name,
        "type": onnx.TensorProto.DataType.Name(tensor.elem_type).lower(),
        "shape": [d.dim_param or d.dim_value for d in tensor.shape.dim],
    }
