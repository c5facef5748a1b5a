"""Delay: a history of inputs, of which each element reads its own past."""

from __future__ import annotations

import nir
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from msg_deploy.exporters.onnx.builder import Builder
from msg_deploy.exporters.onnx.writers import Cell, Place, Values, stateless, writes, zeros
from msg_deploy.primitives.delay import delay_steps


@writes(nir.Delay)
def _delay(node: nir.Delay, place: Place) -> Cell:
    """The history holds the last inputs, newest first: (B, longest, *shape)."""
    # What is delayed beyond the last step never arrives.
    steps = np.minimum(delay_steps(node, place.timing), place.timing.steps)
    longest = int(steps.max())
    if longest == 0:
        return stateless(lambda build, x, name: x)

    def step(
        build: Builder, x: ir.Value, states: Values, name: str
    ) -> tuple[ir.Value, tuple[ir.Value]]:
        axes = build.model.integers([1], "axis")
        newest = build("Unsqueeze", x, axes, name=f"{name}.newest")
        recent = build("Concat", newest, *states, axis=1, name=f"{name}.recent")
        kept = _between(build, recent, 0, longest, f"{place.name}.history.next")
        return _delayed(build, recent, steps, place.name, name), (kept,)

    return Cell(step, (zeros("history", (longest, *place.shape)),))


def _delayed(
    build: Builder, recent: ir.Value, steps: npt.NDArray[np.int64], node: str, name: str
) -> ir.Value:
    """Each element of what stands at its own delay in (B, longest + 1, *shape)."""
    first, *others = (int(d) for d in np.unique(steps))
    index = build.model.integers(first, "delay")
    if not others:
        return build("Gather", recent, index, axis=1, name=name)
    output = build("Gather", recent, index, axis=1, name=f"{name}.delayed")
    for d in others:
        value = build("Gather", recent, build.model.integers(d, "delay"), axis=1, name="delayed")
        chosen = build.model.raw(steps == d, f"{node}.delays")
        last = d == others[-1]
        output = build("Where", chosen, value, output, name=name if last else f"{name}.delayed")
    return output


def _between(build: Builder, x: ir.Value, start: int, end: int, name: str) -> ir.Value:
    """What stands from `start` to before `end` on axis 1."""
    bounds = [build.model.integers([n], "bound") for n in (start, end, 1)]
    return build("Slice", x, *bounds, name=name)
