"""step: one timestep a run, for streaming; every state is an input and an output of the model.

All states start at zero. A membrane that rests elsewhere is set there by the model at step 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from msg_deploy.deployment import Shape
from msg_deploy.exporters.onnx import layouts
from msg_deploy.exporters.onnx.builder import BATCH, Builder, typed
from msg_deploy.exporters.onnx.contract import Streamed
from msg_deploy.exporters.onnx.layouts import Request, Written, layout
from msg_deploy.exporters.onnx.readout import decision, time_weights
from msg_deploy.exporters.onnx.terminals import join, output_shape, split
from msg_deploy.exporters.onnx.turn import Carried, carried, take

NEXT_SCORES = f"{layouts.SCORES}.next"


@layout("step")
def step(request: Request, build: Builder) -> Written:
    """Input, step number, scores so far and states to output, scores, decision and states."""
    known, shape = request.known, output_shape(request.known)
    weights = time_weights(request)
    x = build.input(layouts.INPUT, (BATCH, *request.deployment.input.shape))
    number = build.input(layouts.STEP, (), ir.DataType.INT64)
    so_far = [build.input(layouts.SCORES, (BATCH, *shape))] if weights else []
    build.model.reserve(layouts.OUTPUT, layouts.SCORES, NEXT_SCORES, layouts.DECISION)
    keys = carried(known.order, request.cells, known)
    before = {c: build.input(c.name, (BATCH, *c.state.shape)) for c in keys}
    states = {c: _started(build, c, value, number) for c, value in before.items()}
    entering = split(build, known, x, [-1])
    values, after = take(build, known.order, request.cells, known, entering, states, str)
    joined = join(build, [values[name] for name in known.outputs])
    output = build.result(joined, layouts.OUTPUT, (BATCH, *shape))
    scores = _scores(build, so_far, output, number, weights, shape)
    moved = [_moved(build, c, value) for c, value in after.items()]
    streamed = [
        Streamed(str(before[c].name), str(new.name), c.state.shape)
        for c, new in zip(after, moved, strict=True)
    ]
    if so_far:
        streamed.append(Streamed(layouts.SCORES, NEXT_SCORES, shape))
    return Written(
        inputs=(x, number, *so_far, *before.values()),
        outputs=(output, scores, decision(build, scores), *moved),
        values={name: (value,) for name, value in values.items()},
        states=tuple(streamed),
    )


def _started(build: Builder, key: Carried, value: ir.Value, number: ir.Value) -> ir.Value:
    """A state as it is, or at step 0 as it starts, where that is not zero."""
    if not np.any(key.state.start):
        return value
    first = build("Equal", number, build.model.integers(0, "first"), name="first")
    start = build.model.constant(key.state.start, f"{key.name}.start")
    return build("Where", first, start, value, name=f"{key.name}.started")


def _scores(
    build: Builder,
    so_far: Sequence[ir.Value],
    output: ir.Value,
    number: ir.Value,
    weights: Sequence[float] | None,
    shape: Shape,
) -> ir.Value:
    """The scores so far + f_t output; the output itself where the graph has folded TWO."""
    if weights is None:
        return build.result(output, layouts.SCORES, (BATCH, *shape))
    table = build.model.constant(np.array(weights), "weights")
    share = build("Gather", table, number, axis=0, name="weight")
    added = build("Mul", share, output, name="weighted")
    value = build("Add", *so_far, added, name="scores.sum")
    return build.result(value, NEXT_SCORES, (BATCH, *shape))


def _moved(build: Builder, key: Carried, value: ir.Value) -> ir.Value:
    """A state as an output of its own."""
    name = f"{key.name}.next"
    own = value if value.name == name else build("Identity", value, name=name)
    return typed(own, (BATCH, *key.state.shape), build.model.element)
