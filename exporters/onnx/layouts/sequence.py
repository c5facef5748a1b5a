"""sequence: the whole input (T, B, ...) enters; each component with state is one Scan over T."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from msg_deploy.exporters.onnx.builder import BATCH, Builder
from msg_deploy.exporters.onnx.layouts import Request, Written, layout
from msg_deploy.exporters.onnx.readout import results
from msg_deploy.exporters.onnx.turn import Carried, apart, take
from msg_deploy.exporters.onnx.whole import Signal, Whole


@layout("sequence")
def sequence(request: Request, build: Builder) -> Written:
    """Recurrence by Scan."""
    return Whole(request, build, scan).write(results)


def scan(
    whole: Whole,
    nodes: Sequence[str],
    entering: Mapping[str, Signal],
    states: Mapping[Carried, ir.Value],
    leaving: Sequence[str],
) -> Mapping[str, Signal]:
    """One Scan over the steps; what is constant enters its body from outside. See `Loop`."""
    outer, request = whole.build, whole.request
    body = Builder(outer.model)
    sliced = {name: s for name, s in entering.items() if not s.constant}
    taken = {name: body.input(f"{name}.now", (BATCH, *s.shape)) for name, s in sliced.items()}
    before = {c: body.input(f"{c.name}.now", (BATCH, *c.state.shape)) for c in states}
    constant = {name: s.value for name, s in entering.items() if s.constant}
    values, after = take(
        body,
        nodes,
        request.cells,
        request.known,
        constant | taken,
        before,
        lambda name: f"{name}.step",
    )
    scanned = [whole.stacked(s) for s in sliced.values()]
    ticks: list[ir.Value] = []
    if not scanned:
        # The number of steps must come from somewhere.
        scanned = [outer.model.integers(np.arange(whole.steps), "ticks")]
        ticks = [body.input("tick", (), ir.DataType.INT64)]
    results = apart(body, (*after.values(), *(values[name] for name in leaving)))
    graph = ir.Graph(
        [*before.values(), *taken.values(), *ticks], results, nodes=body.nodes, name="step"
    )
    ends = [f"{c.name}.end" for c in states]
    outputs = outer.several(
        "Scan",
        *states.values(),
        *scanned,
        names=[*ends, *leaving],
        body=graph,
        num_scan_inputs=len(scanned),
    )
    return {
        name: Signal(value, request.known.shapes[name], stacked=True)
        for name, value in zip(leaving, outputs[len(ends) :], strict=True)
    }
