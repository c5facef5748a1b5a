"""One step of some nodes: what the body of a Scan, a copy in `unrolled` and `step` are made of."""

from __future__ import annotations

import functools
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from msg_deploy.exporters.onnx.builder import Builder
from msg_deploy.exporters.onnx.writers import Cell, State, Values, zeros
from msg_deploy.graph import Plan

PREVIOUS = "previous"


@dataclass(frozen=True)
class Carried:
    """A state of a node, or its previous output where an edge closes a cycle.

    Attributes:
        node: its name.
        state: what is carried.
    """

    node: str
    state: State

    @property
    def name(self) -> str:
        """Of the tensor that enters a step."""
        return f"{self.node}.{self.state.name}"


def carried(nodes: Sequence[str], cells: Mapping[str, Cell], known: Plan) -> tuple[Carried, ...]:
    """All that these nodes carry from step to step."""
    found = [Carried(name, state) for name in nodes for state in cells[name].states]
    back = {e.source for name in nodes for e in known.incoming[name] if e.previous}
    found += [Carried(name, zeros(PREVIOUS, known.shapes[name])) for name in nodes if name in back]
    return tuple(found)


def take(
    build: Builder,
    nodes: Sequence[str],
    cells: Mapping[str, Cell],
    known: Plan,
    entering: Mapping[str, ir.Value],
    states: Mapping[Carried, ir.Value],
    label: Callable[[str], str],
) -> tuple[dict[str, ir.Value], dict[Carried, ir.Value]]:
    """Write one step.

    Args:
        build: takes the nodes.
        nodes: names in the order of execution.
        cells: of these nodes.
        known: the plan of the graph.
        entering: this step's values (B, *shape) of the sources outside; for a node that has its own
            name here, what its step takes.
        states: what is carried into this step.
        label: name of a node -> name of its output.

    Returns:
        The outputs of the nodes, and what is carried into the next step.
    """
    previous = {c.node: value for c, value in states.items() if c.state.name == PREVIOUS}
    values: dict[str, ir.Value] = {}
    present = ChainMap(values, dict(entering))
    after: dict[Carried, ir.Value] = {}
    for name in nodes:
        own = [c for c in states if c.node == name and c.state.name != PREVIOUS]
        if name in entering:
            x = entering[name]
        else:
            arriving = [
                (previous if e.previous else present)[e.source] for e in known.incoming[name]
            ]
            x = cells[name].drive(build, total(build, arriving, name))
        values[name], new = cells[name].step(build, x, tuple(states[c] for c in own), label(name))
        after |= zip(own, new, strict=True)
    after |= {c: values[c.node] for c in states if c.state.name == PREVIOUS}
    return values, after


def total(build: Builder, values: Sequence[ir.Value], name: str) -> ir.Value:
    """The sum, from left to right."""
    return functools.reduce(lambda x, y: build("Add", x, y, name=f"{name}.sum"), values)


def starting(build: Builder, state: State, batch: ir.Value, name: str) -> ir.Value:
    """A state before the first step, (B, *shape)."""
    start = np.asarray(state.start)
    uniform = start.flat[0] if np.all(start == start.flat[0]) else start
    return build.expanded(build.model.constant(uniform, f"{name}.start"), batch, state.shape)


def apart(build: Builder, values: Values) -> Values:
    """The values as outputs of a graph, where none may stand twice or come from elsewhere."""
    seen: set[str | None] = set()
    result = []
    for value in values:
        own = value.producer() is not None and value.name not in seen
        seen.add(value.name)
        result.append(value if own else build("Identity", value, name=f"{value.name}.again"))
    return tuple(result)
