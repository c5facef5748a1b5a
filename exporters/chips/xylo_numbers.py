"""Numbers of a network on Xylo: where its neurons lie, how far states go, shifts of the matrices.

See `exporters.chips.xylo` for the law.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msg_deploy.exporters.chips.charges import LEAST_SHIFT
from msg_deploy.exporters.chips.populations import Populations

Array = npt.NDArray[np.int64]

HIGH = 2**15 - 1
MOST_SPIKES = 31
"""Of a hidden neuron in a step."""
MOST_SHIFT = 7


@dataclass(frozen=True)
class Constants:
    """One population's numbers, flat, before weights are shifted.

    Attributes:
        dash_syn: of the current.
        dash_mem: of the membrane.
        gain: the chip's membrane is that of the graph times this, and times 2^shift.
        threshold: of the graph; 0 where there is none.
        bias: what enters the chip's membrane at each step, times 2^shift.
    """

    dash_syn: Array
    dash_mem: Array
    gain: npt.NDArray[np.float64]
    threshold: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]

    def thresholds(self, shift: int) -> Array:
        """Of the chip."""
        found = np.rint(self.threshold * self.gain * 2.0**shift)
        return np.maximum(found, 1).astype(np.int64)

    def biases(self, shift: int) -> Array:
        """Of the chip."""
        return np.rint(self.bias * 2.0**shift).astype(np.int64)


@dataclass(frozen=True)
class Layout:
    """Neurons in the order of the chip, and the three matrices, (targets, sources).

    Attributes:
        hidden: names of the hidden populations.
        starts: number of the first neuron of each.
        output: name of the output population.
        weights_in: (hidden, input).
        weights_rec: (hidden, hidden).
        weights_out: (output, hidden).
    """

    hidden: tuple[str, ...]
    starts: Mapping[str, int]
    output: str
    weights_in: Array
    weights_rec: Array
    weights_out: Array

    def part(self, name: str, size: int) -> slice:
        """The hidden neurons of a population of so many."""
        return slice(self.starts[name], self.starts[name] + size)

    @property
    def input_reach(self) -> int:
        """Number of the last hidden neuron that the input reaches, plus 1."""
        reached = np.flatnonzero(np.any(self.weights_in, axis=1))
        return int(reached.max(initial=-1)) + 1

    @property
    def output_reach(self) -> int:
        """How many hidden neurons there are from the first that reaches the output on."""
        reaching = np.flatnonzero(np.any(self.weights_out, axis=0))
        return len(self.weights_rec) - int(reaching.min(initial=len(self.weights_rec)))


@dataclass(frozen=True)
class Reach:
    """How far the states of a group of neurons can go, for every input.

    Attributes:
        state: largest magnitude of current and membrane of each, if nothing saturated.
        spikes: of each neuron in one step, at most.
    """

    state: Array
    spikes: Array


def laid_out(network: Populations) -> Layout:
    """Hidden neurons that the input reaches come first, those that reach the output last.

    Raises:
        GraphError: a matrix would be too large, or weights are not whole.
    """
    output = network.output

    def place(name: str) -> tuple[bool, bool]:
        takes = any(p.source == network.input for p in network.items[name].entering)
        return not takes, any(p.target == output for p in network.leaving(name))

    hidden = tuple(sorted((n for n in network.items if n != output), key=place))
    sizes = [network.items[n].neurons for n in hidden]
    starts = dict(zip(hidden, np.cumsum([0, *sizes])[:-1].tolist(), strict=True))
    count, inputs = sum(sizes), math.prod(network.input_shape)
    weights_in = np.zeros((count, inputs), np.int64)
    weights_rec = np.zeros((count, count), np.int64)
    weights_out = np.zeros((network.items[output].neurons, count), np.int64)
    for p in network.projections:
        if p.source not in starts and p.target not in starts:
            continue
        matrix = np.rint(p.matrix()).astype(np.int64)
        start = starts.get(p.target, 0)
        rows = slice(start, start + len(matrix))
        if p.source == network.input:
            weights_in[rows] += matrix
        elif p.source != output:
            columns = slice(starts[p.source], starts[p.source] + matrix.shape[1])
            (weights_out if p.target == output else weights_rec)[rows, columns] += matrix
    return Layout(hidden, starts, output, weights_in, weights_rec, weights_out)


class Chosen:
    """Shifts of the matrices, such that 16 bits are used well.

    Of each matrix the largest shift is taken with which no state of its neurons can leave 16 bits
    while no neuron spikes more than once a step; 0 (of charges that are read 2) if there is none. A
    layer that two matrices enter has one scale, so these have one shift.

    Args:
        network: to place.
        layout: of its neurons.
        constants: by population.
        steps: of the chip.
    """

    def __init__(
        self,
        network: Populations,
        layout: Layout,
        constants: Mapping[str, Constants],
        steps: int,
    ) -> None:
        self.network, self.layout, self.constants = network, layout, constants
        self.steps = steps
        self.most = max(0, math.ceil(network.deployment.input.entering[1]))
        entering = {n: {p.source for p in i.entering} for n, i in network.items.items()}
        self.from_input = {n for n, sources in entering.items() if network.input in sources}
        mixed = any(entering[n] - {network.input} for n in self.from_input)
        hidden = set(layout.hidden)
        groups: list[tuple[tuple[str, ...], set[str]]] = (
            [(("in", "rec"), hidden)]
            if mixed
            else [(("in",), hidden & self.from_input), (("rec",), hidden - self.from_input)]
        )
        groups.append((("out",), {layout.output}))
        self.shifts = dict.fromkeys(("in", "rec", "out"), 0)
        once = np.ones(len(layout.weights_rec), np.int64)
        for matrices, names in groups:
            for shift in range(MOST_SHIFT if names else 0, self._least(matrices) - 1, -1):
                self.shifts |= dict.fromkeys(matrices, shift)
                if all(self._fits(name, once) for name in names):
                    break
        self.spikes = self._most_spikes()

    def _least(self, matrices: tuple[str, ...]) -> int:
        reads = "out" in matrices and not self.network.items[self.layout.output].spiking
        return LEAST_SHIFT if reads else 0

    def shift(self, name: str) -> int:
        """Of the matrices that enter a population."""
        if name == self.layout.output:
            return self.shifts["out"]
        return self.shifts["in" if name in self.from_input else "rec"]

    def room(self, name: str) -> int:
        """What a state may reach; membranes that are read may not reach the threshold."""
        return HIGH if self.network.items[name].spiking else HIGH - 1

    def reach(self, name: str) -> Reach:
        """How far a population can go."""
        return self._reach(name, self.spikes)

    def _fits(self, name: str, spikes: Array) -> bool:
        shift, c = self.shift(name), self.constants[name]
        numbers = int(np.abs(c.biases(shift)).max(initial=0))
        if self.network.items[name].spiking:
            numbers = max(numbers, int(c.thresholds(shift).max(initial=0)))
        reached = int(self._reach(name, spikes).state.max(initial=0))
        return max(numbers, reached) <= self.room(name)

    def _most_spikes(self) -> Array:
        """Of each hidden neuron in a step, by induction over the steps.

        If no neuron has spiked more often before, none does now; else those that may are allowed
        to, and it is asked again.
        """
        spikes = np.ones(len(self.layout.weights_rec), np.int64)
        for round_ in range(len(spikes) + 9):
            found = np.concatenate([self._reach(n, spikes).spikes for n in self.layout.hidden])
            if np.all(found <= spikes):
                break
            # Around a cycle counts could creep up for long.
            spikes = np.where(found > spikes, found if round_ < 8 else MOST_SPIKES, spikes)
        return spikes

    def _reach(self, name: str, spikes: Array) -> Reach:
        """By recursion of the largest and smallest values; all rules of a step are monotone."""
        item, c = self.network.items[name], self.constants[name]
        shift = self.shift(name)
        last = name == self.layout.output
        most = 1 if last else MOST_SPIKES
        threshold, bias = c.thresholds(shift), c.biases(shift)
        nothing = np.zeros(item.neurons, np.int64)
        # What was reached upwards and downwards: sums, currents, membranes before and after spikes.
        ends = []
        for sign in (1, -1):
            charge = self._charge(name, spikes, sign) << shift
            current = membrane = nothing
            reached = [nothing] * 4
            for _ in range(self.steps):
                arrived = current + charge
                current = arrived - _lost(arrived, c.dash_syn)
                before = membrane - _lost(membrane, c.dash_mem) + current + sign * bias
                membrane = np.maximum(before, 0)
                if item.spiking and sign > 0:
                    left = np.minimum(membrane, threshold - 1)
                    membrane = np.maximum(left, membrane - most * threshold)
                now = (arrived, current, before, membrane)
                reached = [np.maximum(a, b) for a, b in zip(reached, now, strict=True)]
            ends.append(reached)
        (_, raised, above, high), (_, lowered, _, low) = ends
        # A membrane changes most where it fades from one end and a current pulls to the other.
        rise, fall = raised + -(-low >> c.dash_mem), lowered + -(-high >> c.dash_mem)
        widest = [*ends[0], *ends[1], np.maximum(rise, fall) + np.abs(bias)]
        count = np.clip(above // threshold, 1, most) if item.spiking else nothing
        return Reach(np.maximum.reduce(widest), count)

    def _charge(self, name: str, spikes: Array, sign: int) -> Array:
        """The most that reaches each neuron in a step, of one sign, before shifts."""

        def most(weights: Array, sources: Array) -> Array:
            found: Array = np.maximum(sign * weights, 0) @ sources
            return found

        if name == self.layout.output:
            return most(self.layout.weights_out, spikes)
        mine = self.layout.part(name, self.network.items[name].neurons)
        weights = self.layout.weights_in[mine]
        inputs = np.full(weights.shape[1], self.most, np.int64)
        return most(weights, inputs) + most(self.layout.weights_rec[mine], spikes)


def _lost(state: Array, dash: Array) -> Array:
    """By what a state fades that is not negative."""
    return np.maximum(state >> dash, np.sign(state))
