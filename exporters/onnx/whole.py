"""All steps in one run: what the layouts "sequence" and "unrolled" share.

A node without state outside of cycles maps all steps at once, as (T*B, ...); what is the same at
every step is computed once, as (B, ...). Only components with state run step by step, by a `Loop`
that the layout brings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import nir
import numpy as np
import onnx_ir as ir

from msg_deploy.components import closes, components
from msg_deploy.deployment import Shape
from msg_deploy.exporters.onnx import layouts
from msg_deploy.exporters.onnx.builder import BATCH, Builder
from msg_deploy.exporters.onnx.layouts import Request, Written
from msg_deploy.exporters.onnx.terminals import split
from msg_deploy.exporters.onnx.turn import Carried, carried, starting, total


@dataclass(frozen=True)
class Signal:
    """The values of one node at all steps.

    Attributes:
        value: (T, B, *shape) or (T*B, *shape), or (B, *shape) if all steps are equal.
        shape: of one sample at one step.
        constant: all steps are equal.
        stacked: time is an axis of its own.
        tensors: that hold the values, if they are not just `value`.
    """

    value: ir.Value
    shape: Shape
    constant: bool = False
    stacked: bool = False
    tensors: tuple[ir.Value, ...] = ()


class Loop(Protocol):
    """Runs the nodes of a component step by step."""

    def __call__(
        self,
        whole: Whole,
        nodes: Sequence[str],
        entering: Mapping[str, Signal],
        states: Mapping[Carried, ir.Value],
        leaving: Sequence[str],
    ) -> Mapping[str, Signal]:
        """The signals of the nodes in `leaving`; arguments as those of `turn.take`."""
        ...


class Whole:
    """Writes a graph component by component.

    Args:
        request: what to write.
        build: takes the nodes.
        loop: runs the components with state.
    """

    def __init__(self, request: Request, build: Builder, loop: Loop) -> None:
        self.request = request
        self.build = build
        self.loop = loop
        self.steps = request.deployment.timing.steps
        self.constant = request.deployment.input.encoding == "direct"
        self.signals: dict[str, Signal] = {}
        time = () if self.constant else (self.steps,)
        shape = request.deployment.input.shape
        self.input = build.input(layouts.INPUT, (*time, BATCH, *shape))
        build.model.reserve(layouts.SCORES, layouts.DECISION, layouts.OUTPUTS)
        axis = len(time)
        self.batch = build("Shape", self.input, start=axis, end=axis + 1, name="batch")

    def write(self, results: Results) -> Written:
        """All nodes, then the readout that gives the outputs of the model."""
        self.signals |= self._inputs()
        known = self.request.known
        for component in components(known):
            if component[0] not in self.signals:
                self._component(component, closes(component, known))
        outputs = results(self)
        values = {name: s.tensors or (s.value,) for name, s in self.signals.items()}
        return Written((self.input,), outputs, values)

    def merged(self, signal: Signal) -> ir.Value:
        """(T*B, *shape), or (B, *shape) of what is constant."""
        if not signal.stacked:
            return signal.value
        shape = self.build.model.integers([-1, *signal.shape])
        return self.build("Reshape", signal.value, shape, name=f"{signal.value.name}.merged")

    def stacked(self, signal: Signal) -> ir.Value:
        """(T, B, *shape)."""
        if signal.stacked:
            return signal.value
        name = f"{signal.value.name}.stacked"
        if signal.constant:
            steps = self.build.model.integers([self.steps])
            shape = self.build.model.integers(signal.shape)
            sizes = self.build("Concat", steps, self.batch, shape, axis=0, name="sizes")
            return self.build("Expand", signal.value, sizes, name=name)
        shape = self.build.model.integers([self.steps, -1, *signal.shape])
        return self.build("Reshape", signal.value, shape, name=name)

    def arriving(self, name: str) -> Signal:
        """The sum of what enters a node outside of cycles."""
        signals = [self.signals[e.source] for e in self.request.known.incoming[name]]
        if len(signals) == 1:
            return signals[0]
        shape = signals[0].shape
        if all(s.constant for s in signals):
            return Signal(total(self.build, [s.value for s in signals], name), shape, True)
        if any(s.constant for s in signals):
            values = [s.value if s.constant else self.stacked(s) for s in signals]
            return Signal(total(self.build, values, name), shape, stacked=True)
        return Signal(total(self.build, [self.merged(s) for s in signals], name), shape)

    def _inputs(self) -> dict[str, Signal]:
        """What each Input node gives."""
        known = self.request.known
        leading = [-1] if self.constant else [self.steps, -1]
        values = split(self.build, known, self.input, leading)
        return {
            name: Signal(value, known.shapes[name], self.constant, stacked=not self.constant)
            for name, value in values.items()
        }

    def _component(self, nodes: tuple[str, ...], cyclic: bool) -> None:
        first, cells = nodes[0], self.request.cells
        if isinstance(self.request.deployment.graph.nodes[first], nir.Output):
            self.signals[first] = self.arriving(first)
        elif not cyclic and not cells[first].states:
            self.signals[first] = self._mapped(first)
        else:
            self._loop(nodes, cyclic)

    def _mapped(self, name: str) -> Signal:
        """A node without state, for all steps at once."""
        x = self.arriving(name)
        cell = self.request.cells[name]
        entering = cell.drive(self.build, self.merged(x))
        value, _ = cell.step(self.build, entering, (), name)
        return Signal(value, self.request.known.shapes[name], x.constant)

    def _loop(self, nodes: tuple[str, ...], cyclic: bool) -> None:
        request, known = self.request, self.request.known
        if cyclic:
            outside = [e.source for n in nodes for e in known.incoming[n] if e.source not in nodes]
            entering = {name: self.signals[name] for name in dict.fromkeys(outside)}
        else:
            (name,) = nodes
            entering = {name: self._driven(name)}
        states = {c: self._start(c) for c in carried(nodes, request.cells, known)}
        self.signals |= self.loop(self, nodes, entering, states, self._leaving(nodes))

    def _driven(self, name: str) -> Signal:
        """What a single node with state takes, prepared for all steps at once."""
        x = self.arriving(name)
        value = self.request.cells[name].drive(self.build, x.value)
        return Signal(value, x.shape, x.constant, x.stacked)

    def _start(self, state: Carried) -> ir.Value:
        return starting(self.build, state.state, self.batch, state.name)

    def _leaving(self, nodes: Sequence[str]) -> list[str]:
        """Nodes whose values are used outside, or recorded in a check."""
        known = self.request.known
        used = {e.source for n in known.order if n not in nodes for e in known.incoming[n]} | set(
            self.request.sources
        )
        return [n for n in nodes if n in used or n in self.request.spiking]


Results = Callable[[Whole], tuple[ir.Value, ...]]


def weighted(whole: Whole, signal: Signal, weights: Sequence[float]) -> ir.Value:
    """sum_t f_t x(t), (B, *shape)."""
    build = whole.build
    if signal.constant:
        share = build.model.constant(math.fsum(weights), "weights.sum")
        return build("Mul", signal.value, share, name="weighted")
    rows = build.model.integers([whole.steps, -1])
    flat = build("Reshape", signal.value, rows, name="steps")
    product = build(
        "MatMul", build.model.constant(np.array([weights]), "weights"), flat, name="weighted.flat"
    )
    shape = build.model.integers([-1, *signal.shape])
    return build("Reshape", product, shape, name="weighted")
