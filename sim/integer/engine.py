"""Runs integer networks: layer by layer, all steps at once; step by step around cycles.

Products are computed in float64 where no partial sum can be above 2^52: it then adds and multiplies
integers that it holds exactly, so in any order, fused or not, nothing is rounded. Others are
computed in int64. Neurons are compiled, see `kernels`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from msg_deploy.deployment import Timing
from msg_deploy.errors import GraphError, UsageError
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.integer import kernels
from msg_deploy.sim.integer.bounds import Bound, bounds
from msg_deploy.sim.integer.events import NOTHING, Columns, columns, joined
from msg_deploy.sim.integer.network import (
    Edge,
    Entry,
    IntegerNetwork,
    Neurons,
    Postponed,
    Transform,
    size,
)
from msg_deploy.sim.integer.rules import Range
from msg_deploy.sim.torch_layers import LAYERS, Context
from msg_deploy.terminals import join, split

Array = npt.NDArray[np.int64]

EXACT_IN_FLOAT64 = 2.0**52
"""A bound of half of what float64 holds: bounds are rounded themselves."""
MEMORY = 2**28
"""Bytes of values that are run at once, if one sample does not take more."""


@dataclass(frozen=True)
class Count:
    """What happened to one kind of number of one node, over a run.

    Attributes:
        outside: how often a value left its range.
        largest: largest magnitude, before the range put it right: what a range would have to hold.
        overflow: what became of values outside, see `Overflow`.
    """

    outside: int
    largest: int
    overflow: str

    @property
    def saturated(self) -> int:
        """How often a value was clipped."""
        return self.outside if self.overflow == "saturate" else 0

    @property
    def wrapped(self) -> int:
        """How often a value wrapped around."""
        return self.outside if self.overflow.startswith("wrap") else 0


@dataclass(frozen=True)
class IntegerRun:
    """What a run gives; all arrays are int64, time-major.

    Attributes:
        spikes: how many, of each layer with a threshold, (T, B, *shape).
        membranes: of the same layers, at the decision: at the end of a step before reset, or at its
            start; where each event decides, what the last one leaves. Empty if not wanted.
        outputs: (T, B, *output shape); several joined, see `msg_deploy.terminals`.
        values: of the nodes that were asked for.
        scores: (B, *output shape), as the readout says, in units of 2^-shift; without one, the sum
            over time.
        counts: by node, then by what is counted: "membrane", "current" or "accumulator".
    """

    spikes: Mapping[str, Array]
    membranes: Mapping[str, Array]
    outputs: Array
    values: Mapping[str, Array]
    scores: Array
    counts: Mapping[str, Mapping[str, Count]]


@dataclass
class _Tally:
    """Outside, largest."""

    outside: int = 0
    largest: int = 0

    def add(self, outside: int, largest: int) -> None:
        self.outside += outside
        self.largest = max(self.largest, largest)


class Engine:
    """One network, made ready for so many steps.

    Args:
        network: to run.
        steps: T.

    Raises:
        GraphError: see `bounds`.

    Attributes:
        bounds: of each node.
    """

    def __init__(self, network: IntegerNetwork, steps: int) -> None:
        self.network = network
        self.steps = steps
        self.bounds: Mapping[str, Bound] = bounds(network, steps)
        readout = network.readout
        if readout is not None and len(readout.weights) != steps:
            raise GraphError(
                f"the readout has {len(readout.weights)} weights, but there are {steps} steps."
            )
        self._check_scores()

    def _check_scores(self) -> None:
        weights = self.network.readout.weights if self.network.readout else (1,) * self.steps
        total = float(sum(map(abs, weights)))
        for name in self.network.plan.outputs:
            largest = total * float(self.bounds[name].partial.max(initial=1.0))
            if largest > 2.0**62:
                raise GraphError(f"node {name!r}: scores may reach {largest:.3g}, beyond int64.")

    def run(
        self, inputs: npt.NDArray[Any], membranes: bool = True, values: Sequence[str] = ()
    ) -> IntegerRun:
        """All steps.

        Args:
            inputs: whole numbers (T, B, *input shape); several inputs joined.
            membranes: are wanted.
            values: names of nodes whose values are wanted.

        Raises:
            UsageError: the inputs have another shape, are no integers or outside of their range; or
                values are wanted that nothing computes.
            GraphError: naming the node: a value left a range that forbids it.
        """
        whole = self._checked(inputs)
        for name in values:
            if name not in self.network.nodes or name in self.network.as_events:
                raise UsageError(f"there are no values of a node {name!r}.")
        run = _Run(self, membranes, tuple(values))
        for start in range(0, max(1, whole.shape[1]), self._together):
            run.add(whole[:, start : start + self._together])
        return run.result()

    @property
    def _together(self) -> int:
        """Samples that are run at once."""
        values = sum(size(shape) for shape in self.network.plan.shapes.values())
        return max(1, MEMORY // (8 * self.steps * max(1, values)))

    def _checked(self, inputs: npt.NDArray[Any]) -> Array:
        shape, found = self.network.plan.input_shape, np.asarray(inputs)
        if found.shape[:1] != (self.steps,) or found.ndim < 2 or found.shape[2:] != shape:
            raise UsageError(
                f"wrong input shape: inputs (T, B, ...) of shape {found.shape}, but the network "
                f"takes T = {self.steps} steps of {shape}."
            )
        if found.dtype.kind not in "iub" and not np.array_equal(found, np.rint(found)):
            raise UsageError("an integer network takes whole numbers; the inputs are not.")
        for name, part in split(found, self._shapes(self.network.plan.inputs)).items():
            entry = self.network.nodes[name]
            assert isinstance(entry, Entry)
            if part.size and (part.min() < entry.low or part.max() > entry.high):
                raise UsageError(
                    f"inputs of {name!r} go from {part.min()} to {part.max()}, but must be within "
                    f"{entry.low}..{entry.high}."
                )
        return found.astype(np.int64)

    def _shapes(self, names: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        return {name: self.network.plan.shapes[name] for name in names}

    @functools.cached_property
    def transforms(self) -> dict[str, Callable[[Array], Array]]:
        """Products, (M, *input shape) to (M, *shape), exact."""
        return {
            name: self._transform(name, node)
            for name, node in self.network.nodes.items()
            if isinstance(node, Transform) and name not in self.network.as_events
        }

    def _transform(self, name: str, node: Transform) -> Callable[[Array], Array]:
        shape, largest = self.network.plan.input_shapes[name], self.bounds[name].largest
        if largest <= EXACT_IN_FLOAT64:
            layer = LAYERS[type(node.node)](node.node, Context(Timing(), shape, torch.float64))

            def product(x: Array) -> Array:
                with torch.no_grad():
                    found = layer(torch.from_numpy(x).double())
                return found.to(torch.int64).numpy()

            return product
        law = primitive_of(node.node).law(node.node, Timing(), shape, np.int64)
        return lambda x: np.asarray(law.step(x, None).output, np.int64)

    @functools.cached_property
    def columns(self) -> dict[str, Columns]:
        """Of layers that add event by event."""
        found = {}
        for name, node in self.network.nodes.items():
            if isinstance(node, Neurons) and node.neuron.per_add:
                parts = [self._columns(edge) for edge in self.network.incoming[name]]
                found[name] = joined(parts)
        return found

    def _columns(self, edge: Edge) -> Columns:
        known = self.network.plan
        events = edge.source in self.network.as_events
        shape = (known.input_shapes if events else known.shapes)[edge.source]
        return columns(self.network.nodes[edge.source], shape, edge.synapse, edge.shift)


@dataclass(frozen=True)
class _Part:
    """What some samples gave; see `IntegerRun`."""

    spikes: dict[str, Array]
    membranes: dict[str, Array]
    values: dict[str, Array]
    outputs: Array


class _Run:
    """Samples, part by part.

    Args:
        engine: the network.
        membranes: are wanted.
        asked: names of nodes whose values are wanted.
    """

    def __init__(self, engine: Engine, membranes: bool, asked: tuple[str, ...]) -> None:
        self.engine, self.wanted, self.asked = engine, membranes, asked
        self.network = engine.network
        self.parts: list[_Part] = []
        self.tallies: dict[str, dict[str, tuple[_Tally, Range]]] = {
            name: {what: (_Tally(), limits) for what, limits in _registers(node).items()}
            for name, node in self.network.nodes.items()
        }
        self.values: dict[str, Array] = {}
        self.fired: dict[str, Array] = {}
        self.decided: dict[str, Array] = {}
        self.states: dict[str, tuple[Array, Array]] = {}

    def add(self, inputs: Array) -> None:
        """Some samples (T, B, *input shape)."""
        known, batch = self.network.plan, inputs.shape[1]
        entering = split(inputs, self.engine._shapes(known.inputs))
        self.values, self.fired, self.decided = dict(entering), {}, {}
        self.states = {
            name: (
                np.zeros((node.neuron.synapses, batch, numbers.gain.size), np.int64),
                np.repeat(numbers.start[None], batch, axis=0),
            )
            for name, numbers in self.network.numbers.items()
            if isinstance(node := self.network.nodes[name], Neurons)
        }
        for names, cyclic in self.network.components:
            if cyclic:
                self._cycle(names, batch)
            elif names[0] not in entering:
                self.values[names[0]] = self._node(names[0], slice(0, self.engine.steps), batch)
        spiking = self.network.spiking
        self.parts.append(
            _Part(
                {name: self.fired[name] for name in spiking},
                {name: self.decided[name] for name in spiking if self.wanted},
                {name: self.values[name] for name in self.asked},
                join([self.values[name] for name in known.outputs], 2),
            )
        )

    def result(self) -> IntegerRun:
        """Everything together."""
        self._refuse()
        outputs = np.concatenate([part.outputs for part in self.parts], axis=1)
        readout = self.network.readout
        weights = readout.weights if readout else (1,) * len(outputs)
        return IntegerRun(
            _together([part.spikes for part in self.parts]),
            _together([part.membranes for part in self.parts]),
            outputs,
            _together([part.values for part in self.parts]),
            np.tensordot(np.array(weights, np.int64), outputs, axes=1),
            {
                name: {
                    what: Count(tally.outside, tally.largest, limits.overflow)
                    for what, (tally, limits) in tallies.items()
                }
                for name, tallies in self.tallies.items()
                if tallies
            },
        )

    def _refuse(self) -> None:
        for name, tallies in self.tallies.items():
            for what, (tally, limits) in tallies.items():
                if limits.overflow == "forbid" and tally.outside:
                    raise GraphError(
                        f"node {name!r}: its {what} reached {tally.largest} and left "
                        f"{limits.low}..{limits.high}, {tally.outside} times, which is forbidden."
                    )

    def _cycle(self, names: tuple[str, ...], batch: int) -> None:
        """Step by step; an edge asks only for what is there already."""
        steps, known = self.engine.steps, self.network.plan
        for name in names:
            events = name in self.network.as_events
            shape = (known.input_shapes if events else known.shapes)[name]
            self.values[name] = np.zeros((steps, batch, *shape), np.int64)
        fired: dict[str, list[Array]] = {}
        decided: dict[str, list[Array]] = {}
        for t in range(steps):
            for name in names:
                self.values[name][t : t + 1] = self._node(name, slice(t, t + 1), batch)
                for now, kept in ((self.fired, fired), (self.decided, decided)):
                    if name in now:
                        kept.setdefault(name, []).append(now[name])
        self.fired |= {name: np.concatenate(found) for name, found in fired.items()}
        self.decided |= {name: np.concatenate(found) for name, found in decided.items()}

    def _node(self, name: str, times: slice, batch: int) -> Array:
        """Some steps of a node, (steps, B, *shape)."""
        node = self.network.nodes[name]
        if isinstance(node, Neurons):
            return self._neurons(name, node, times, batch)
        if isinstance(node, Postponed):
            return self._postponed(name, node, times, batch)
        x = self._arriving(self.network.incoming[name], times)
        if isinstance(node, Transform) and name not in self.network.as_events:
            merged = self.engine.transforms[name](x.reshape(-1, *x.shape[2:]))
            return self._accumulated(name, node, merged.reshape(*x.shape[:2], *merged.shape[1:]))
        return x

    def _accumulated(self, name: str, node: Transform, x: Array) -> Array:
        y = x << node.shift if node.shift >= 0 else x >> -node.shift
        limits = node.accumulator
        if limits is None:
            return y
        largest = int(np.abs(y).max(initial=0))
        self.tallies[name]["accumulator"][0].add(int(limits.outside(y).sum()), largest)
        return limits.put_right(y)

    def _arriving(self, edges: tuple[Edge, ...], times: slice) -> Array:
        """The sum of what edges carry."""
        return functools.reduce(np.add, [self._carried(edge, times) for edge in edges])

    def _carried(self, edge: Edge, times: slice) -> Array:
        return _late(self.values[edge.source], edge.delay, times) << edge.shift

    def _postponed(self, name: str, node: Postponed, times: slice, batch: int) -> Array:
        shape = self.network.plan.shapes[name]
        delays = np.broadcast_to(np.asarray(node.steps), shape)
        total = np.zeros((times.stop - times.start, batch, *shape), np.int64)
        for edge in self.network.incoming[name]:
            for delay in np.unique(delays):
                carried = _late(self.values[edge.source], edge.delay + int(delay), times)
                total += np.where(delays == delay, carried << edge.shift, 0)
        return total

    def _neurons(self, name: str, node: Neurons, times: slice, batch: int) -> Array:
        steps, count = times.stop - times.start, size(node.shape)
        edges, neuron = self.network.incoming[name], node.neuron
        whole = (steps, batch, count)
        if neuron.per_add:
            found = self.engine.columns[name]
            # A shift of an edge is in its weights.
            parts = [_late(self.values[e.source], e.delay, times) for e in edges]
            events = np.concatenate(
                [p.reshape(*p.shape[:2], size(p.shape[2:])) for p in parts], axis=2
            )
            x = np.zeros((1, 0, 0, 0), np.int64)
        else:
            found, events = NOTHING, np.zeros((0, 0, 0), np.int64)
            x = np.zeros((max(1, neuron.synapses), *whole), np.int64)
            for edge in edges:
                x[edge.synapse] += self._carried(edge, times).reshape(whole)
        numbers = self.network.numbers[name]
        alone = neuron.per_add or bool(np.any(numbers.alias >= 0))
        block = max(1, count) if alone else kernels.BLOCK
        emitted = np.zeros(whole, np.int64)
        nothing = np.zeros((0, batch, count), np.int64)
        decisions = np.zeros(whole, np.int64) if self.wanted and neuron.spiking else nothing
        after = np.zeros(whole, np.int64) if node.output == "membrane" else nothing
        summed = np.zeros(whole, np.int64) if node.output == "current" else nothing
        tally = np.zeros((batch * -(-count // block), 2, 2), np.int64)
        kernels.advance(
            emitted.size,
            x,
            events,
            found,
            *self.states[name],
            numbers,
            kernels.code(neuron),
            block,
            emitted,
            decisions,
            after,
            summed,
            tally,
        )
        for row, what in ((kernels.MEMBRANE, "membrane"), (kernels.CURRENT, "current")):
            if what in self.tallies[name] and len(tally):
                counted = tally[:, row]
                register = self.tallies[name][what][0]
                register.add(int(counted[:, 0].sum()), int(counted[:, 1].max()))
        shaped = (steps, batch, *node.shape)
        if neuron.spiking:
            self.fired[name] = emitted.reshape(shaped)
            if self.wanted:
                self.decided[name] = decisions.reshape(shaped)
        given = {"spikes": emitted, "membrane": after, "current": summed}[node.output]
        return given.reshape(shaped)


def _late(value: Array, delay: int, times: slice) -> Array:
    """value[t - delay] for some t, 0 before."""
    if delay == 0:
        return value[times]
    start, stop = times.start - delay, times.stop - delay
    missing = min(max(0, -start), stop - start)
    nothing = np.zeros((missing, *value.shape[1:]), value.dtype)
    return np.concatenate([nothing, value[max(0, start) : max(0, stop)]])


def _registers(node: Any) -> dict[str, Range]:
    """What is counted at a node."""
    if isinstance(node, Neurons):
        registers = {"membrane": node.neuron.membrane}
        return registers | ({"current": node.neuron.current} if node.neuron.synapses else {})
    if isinstance(node, Transform) and node.accumulator is not None:
        return {"accumulator": node.accumulator}
    return {}


def _together(parts: list[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
