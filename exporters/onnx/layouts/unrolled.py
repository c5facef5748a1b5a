"""unrolled: as `sequence`, but what has state is written out once for every step: no control flow.

The value of a neuron NAME at step t is NAME@t.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from msg_deploy.exporters.onnx.builder import Builder
from msg_deploy.exporters.onnx.layouts import Request, Written, layout
from msg_deploy.exporters.onnx.readout import results
from msg_deploy.exporters.onnx.turn import Carried, take
from msg_deploy.exporters.onnx.whole import Signal, Whole


@layout("unrolled")
def unrolled(request: Request, build: Builder) -> Written:
    """Recurrence by copies."""
    return Whole(request, build, copies).write(results)


def copies(
    whole: Whole,
    nodes: Sequence[str],
    entering: Mapping[str, Signal],
    states: Mapping[Carried, ir.Value],
    leaving: Sequence[str],
) -> Mapping[str, Signal]:
    """The step T times, with the states handed on. See `Loop`."""
    request, build = whole.request, whole.build
    taken = {name: _steps(whole, name, signal) for name, signal in entering.items()}
    carried = dict(states)
    found: dict[str, list[ir.Value]] = {name: [] for name in leaving}
    for t in range(whole.steps):
        now = {name: steps[t] for name, steps in taken.items()}
        values, carried = take(build, nodes, request.cells, request.known, now, carried, _label(t))
        for name in leaving:
            found[name].append(values[name])
    return {name: _signal(whole, name, steps) for name, steps in found.items()}


def _label(t: int) -> Callable[[str], str]:
    return lambda name: f"{name}@{t}"


def _steps(whole: Whole, name: str, signal: Signal) -> Sequence[ir.Value]:
    """The values (B, *shape) of each step."""
    if signal.constant or whole.steps == 1:
        return [whole.merged(signal)] * whole.steps
    names = [f"{name}.in@{t}" for t in range(whole.steps)]
    merged = whole.merged(signal)
    return whole.build.several("Split", merged, axis=0, num_outputs=whole.steps, names=names)


def _signal(whole: Whole, name: str, steps: Sequence[ir.Value]) -> Signal:
    """All steps one after the other: (T*B, *shape)."""
    value = whole.build("Concat", *steps, axis=0, name=name)
    return Signal(value, whole.request.known.shapes[name], tensors=tuple(steps))
