"""Several Input or Output nodes in one array that enters or leaves; see `msg_deploy.terminals`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from msg_deploy.deployment import Shape
from msg_deploy.exporters.onnx.builder import Builder
from msg_deploy.graph import Plan


def split(build: Builder, known: Plan, x: ir.Value, leading: Sequence[int]) -> dict[str, ir.Value]:
    """What each Input node gives.

    Args:
        build: takes the nodes.
        known: the plan of the graph.
        x: what enters the model.
        leading: sizes of the axes before those of a sample, -1 for the batch.
    """
    if len(known.inputs) == 1:
        return {known.inputs[0]: x}
    sizes = build.model.integers([math.prod(known.shapes[name]) for name in known.inputs])
    names = [f"{name}.flat" for name in known.inputs]
    parts = build.several("Split", x, sizes, axis=-1, names=names)
    shapes = [build.model.integers([*leading, *known.shapes[name]]) for name in known.inputs]
    return {
        name: build("Reshape", part, shape, name=name)
        for name, part, shape in zip(known.inputs, parts, shapes, strict=True)
    }


def join(build: Builder, values: Sequence[ir.Value]) -> ir.Value:
    """What Output nodes take, (N, *shape) each, side by side: (N, sum of sizes)."""
    if len(values) == 1:
        return values[0]
    flat = [build("Flatten", value, axis=1, name="output.flat") for value in values]
    return build("Concat", *flat, axis=1, name="joined")


def output_shape(known: Plan) -> Shape:
    """Of one sample at one step, several Outputs joined."""
    if len(known.outputs) == 1:
        return known.shapes[known.outputs[0]]
    return (sum(math.prod(known.shapes[name]) for name in known.outputs),)
