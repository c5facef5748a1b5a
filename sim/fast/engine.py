"""All steps of a layer before the next layer; step by step only where a graph is cyclic.

A value is (T, B, *shape), or (1, B, *shape) if all steps are equal: what is constant is computed
once. Time and batch may be cut into chunks of any size; states are handed on.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from msg_deploy.components import closes, components
from msg_deploy.deployment import Deployment
from msg_deploy.graph import Plan
from msg_deploy.integers import arriving_integers
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.fast import int8, stateful
from msg_deploy.sim.fast.events import by_density
from msg_deploy.sim.fast.memory import flat, is_image
from msg_deploy.sim.fast.recurrent import Loop, arguments, loop_of, run_loop
from msg_deploy.sim.fast.stateful import MAKERS, Emitted, Neuron, Space, Stateful
from msg_deploy.sim.torch_layers import Context, Layer
from msg_deploy.terminals import split


class Watcher(ABC):
    """Sees what happens at the nodes it is interested in."""

    @abstractmethod
    def wants(self, name: str) -> bool:
        """Whether it wants to see a node."""

    def membranes(self, name: str) -> bool:
        """Whether it wants the membranes of a spiking node, too."""
        return False

    def arrivals(self, name: str) -> bool:
        """Whether it looks at the summed input of a spiking node, step by step within cycles.

        Else a faster way may leave it out.
        """
        return True

    def begin(self, samples: slice) -> None:  # noqa: B027 (most need not know)
        """The next samples start; until then all steps of the ones before have been seen."""

    @abstractmethod
    def see(self, name: str, first: int, steps: int, arriving: Tensor, emitted: Emitted) -> None:
        """Some steps of a node.

        Args:
            name: of the node.
            first: number of the first of these steps.
            steps: how many.
            arriving: the summed input, (steps or 1, B, *input shape).
            emitted: what it gave, (steps or 1, B, *shape). Its memory is used again by the next
                samples or steps: what is to be kept must be copied.
        """


@dataclass
class State:
    """What is handed on from chunk to chunk.

    Attributes:
        nodes: the states of the nodes.
        previous: values of the last step that cycles need.
        step: number of the next step.
    """

    nodes: dict[str, Any]
    previous: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0


class Engine:
    """Runs one graph.

    Args:
        deployment: to run.
        known: its plan.
        dtype: of the computation.
        skipped: nodes that are left out, because nothing of what they give is needed.
        integers: compute in 8-bit integers what is then float32's to the bit.

    Attributes:
        whole: nodes that are computed in 8-bit integers.
        most_values: numbers that exist at once for one sample at one step, at most.
    """

    def __init__(
        self,
        deployment: Deployment,
        known: Plan,
        dtype: torch.dtype,
        skipped: frozenset[str] = frozenset(),
        integers: bool = True,
    ) -> None:
        self.known = known
        self.dtype = dtype
        self.numpy_type = np.dtype(str(dtype).removeprefix("torch."))
        self.skipped = skipped
        self.layers: dict[str, Layer] = {}
        self.whole: set[str] = set()
        integers = integers and dtype == torch.float32 and int8.available()
        arriving = arriving_integers(deployment) if integers else {}
        for name in self.known.order:
            node, shape = deployment.graph.nodes[name], self.known.input_shapes[name]
            if type(node) not in MAKERS:
                whole = int8.layer(name, node, arriving[name]) if integers else None
                context = Context(deployment.timing, shape, dtype)
                self.layers[name] = whole or by_density(node, self.known.shapes[name], context)
                self.whole |= {name} if whole else set()
        self.stateful = self._stateful(deployment)
        self.spaces = {name: Space() for name in self.stateful}
        self.spiking = {n for n, x in deployment.graph.nodes.items() if primitive_of(x).spiking}
        self.components = [
            (c, closes(c, self.known)) for c in components(self.known) if not skipped >= set(c)
        ]
        self.nodes = deployment.graph.nodes
        self.loops = {
            number: loop
            for number, (nodes, cyclic) in enumerate(self.components)
            if cyclic and (loop := loop_of(nodes, deployment.graph, known, self.numpy_type))
        }
        order = [nodes for nodes, _ in self.components]
        self.last_use = _last_uses(self.known, order)
        self.most_values = _most_values(self.known, order, self.last_use)

    def _stateful(self, deployment: Deployment) -> dict[str, Stateful]:
        nodes, dtype = deployment.graph.nodes, self.numpy_type
        narrow = _feeding_only(self.known, self.whole)
        return {
            name: MAKERS[type(nodes[name])](
                nodes[name],
                stateful.Context(
                    deployment.timing, self.known.input_shapes[name], dtype, name in narrow
                ),
            )
            for name in self.known.order
            if type(nodes[name]) in MAKERS
        }

    def start(self, batch: int) -> State:
        """The state before the first step."""
        return State({name: node.start(batch) for name, node in self.stateful.items()})

    def advance(self, inputs: Tensor, steps: int, state: State, watcher: Watcher) -> None:
        """Some steps.

        Args:
            inputs: (steps, B, *input shape), or (1, B, *input shape) for each of them.
            steps: how many.
            state: moved on.
            watcher: sees what happens.
        """
        values = split(inputs, {n: self.known.shapes[n] for n in self.known.inputs})
        for number, (nodes, cyclic) in enumerate(self.components):
            loop = self.loops.get(number)
            if loop and not watcher.arrivals(loop.neuron):
                values |= self._loop(loop, values, steps, state, watcher)
            elif cyclic:
                values |= self._cycle(nodes, values, steps, state, watcher)
            elif nodes[0] in self.known.inputs:
                self._see(watcher, nodes[0], state.step, steps, Emitted(values[nodes[0]]))
            else:
                values[nodes[0]] = self._layer(nodes[0], values, steps, state, watcher)
            for name in self.last_use.get(number, ()):
                values.pop(name, None)
        state.step += steps

    def _layer(
        self, name: str, values: Mapping[str, Tensor], steps: int, state: State, watcher: Watcher
    ) -> Tensor:
        """A node outside of all cycles."""
        arriving = _total([values[e.source] for e in self.known.incoming[name]])
        space = self.spaces.get(name)
        return self._run(name, arriving, steps, state, watcher, state.step, space)

    def _run(
        self,
        name: str,
        arriving: Tensor,
        steps: int,
        state: State,
        watcher: Watcher,
        first: int,
        space: Space | None = None,
    ) -> Tensor:
        if name in self.stateful:
            membranes = name in self.spiking and watcher.membranes(name)
            node = self.stateful[name]
            emitted = node.advance(arriving, steps, state.nodes[name], membranes, space)
        else:
            output = self.layers[name](_merged(arriving)).unflatten(0, arriving.shape[:2])
            emitted = Emitted(output, arriving if name in self.spiking else None)
        self._see(watcher, name, first, steps, emitted, arriving)
        return emitted.output

    def _see(
        self,
        watcher: Watcher,
        name: str,
        first: int,
        steps: int,
        emitted: Emitted,
        arriving: Tensor | None = None,
    ) -> None:
        if watcher.wants(name):
            entering = emitted.output if arriving is None else arriving
            watcher.see(name, first, steps, entering, emitted)

    def _cycle(
        self,
        nodes: tuple[str, ...],
        values: Mapping[str, Tensor],
        steps: int,
        state: State,
        watcher: Watcher,
    ) -> dict[str, Tensor]:
        """The nodes of a cycle, step by step."""
        kept: dict[str, list[Tensor]] = {name: [] for name in nodes}
        for t in range(steps):
            now: dict[str, Tensor] = {}
            for name in nodes:
                arriving = self._arriving(name, values, now, state, t)
                now[name] = self._run(name, arriving, 1, state, watcher, state.step + t)
                kept[name].append(now[name])
            state.previous.update(now)
        return {name: torch.cat(given) for name, given in kept.items()}

    def _loop(
        self,
        loop: Loop,
        values: Mapping[str, Tensor],
        steps: int,
        state: State,
        watcher: Watcher,
    ) -> dict[str, Tensor]:
        """A neuron and the matrix behind it, all steps at once."""
        name, shape = loop.neuron, self.known.shapes[loop.neuron]
        arriving = _total([values[e.source] for e in self.known.incoming[name] if not e.previous])
        neuron = self.stateful[name]
        assert isinstance(neuron, Neuron)
        x = flat(arriving, shape)
        batch, dtype = x.shape[1], x.dtype
        begun = name in state.previous
        before = state.previous[name] if begun else torch.zeros(1, batch, *shape, dtype=self.dtype)
        fed = np.ascontiguousarray(before[0].numpy())
        emitted = np.empty((steps, *x.shape[1:]), dtype)
        kept = np.empty((steps if watcher.membranes(name) else 0, *x.shape[1:]), dtype)
        run_loop(
            emitted.size * shape[0],
            *arguments(self.nodes[name], neuron, state.nodes[name], x),
            neuron.context.timing.reset == "subtract",
            loop.columns,
            loop.bias,
            fed,
            begun,
            emitted,
            kept,
        )
        spikes = torch.from_numpy(emitted)
        state.previous[name] = spikes[-1:]
        membranes = torch.from_numpy(kept) if len(kept) else None
        self._see(watcher, name, state.step, steps, Emitted(spikes, membranes), arriving)
        if watcher.wants(loop.matrix):
            returned = self.layers[loop.matrix](_merged(spikes)).unflatten(0, spikes.shape[:2])
            self._see(watcher, loop.matrix, state.step, steps, Emitted(returned), spikes)
        return {name: spikes}

    def _arriving(
        self,
        name: str,
        values: Mapping[str, Tensor],
        now: Mapping[str, Tensor],
        state: State,
        t: int,
    ) -> Tensor:
        """(1, B, *input shape): what enters a node of a cycle at one step."""
        found = []
        for edge in self.known.incoming[name]:
            if edge.previous:
                found += [state.previous[edge.source]] if edge.source in state.previous else []
            elif edge.source in now:
                found.append(now[edge.source])
            else:
                outside = values[edge.source]
                found.append(outside[t : t + 1] if len(outside) > 1 else outside)
        if found:
            return _total(found)
        batch = next(iter(values.values())).shape[1]
        return torch.zeros(1, batch, *self.known.input_shapes[name], dtype=self.dtype)


def _feeding_only(known: Plan, targets: set[str]) -> set[str]:
    """Nodes whose values enter these targets, alone, and nothing else."""
    users: dict[str, list[str]] = {name: [] for name in known.order}
    for name in known.order:
        for edge in known.incoming[name]:
            users[edge.source].append(name)
    alone = {name for name in targets if len(known.incoming[name]) == 1}
    return {name for name, found in users.items() if found and set(found) <= alone}


def _total(found: list[Tensor]) -> Tensor:
    return sum(found[1:], found[0])


def _merged(x: Tensor) -> Tensor:
    """(T*B, *shape), images with their channels last."""
    merged = x.flatten(0, 1)
    if is_image(tuple(x.shape[2:])):
        return merged.contiguous(memory_format=torch.channels_last)
    return merged


def _last_uses(known: Plan, order: list[tuple[str, ...]]) -> dict[int, list[str]]:
    """After which component a value is not needed any more."""
    last: dict[str, int] = {}
    for number, nodes in enumerate(order):
        for name in nodes:
            last[name] = number
            last |= dict.fromkeys((e.source for e in known.incoming[name]), number)
    uses: dict[int, list[str]] = {}
    for name, number in last.items():
        uses.setdefault(number, []).append(name)
    return uses


def _most_values(known: Plan, order: list[tuple[str, ...]], uses: dict[int, list[str]]) -> int:
    """Numbers that exist at once for one sample at one step, at most."""
    size = {name: math.prod(known.shapes[name]) for name in known.order}
    alive = sum(size[name] for name in known.inputs)
    most = alive
    for number, nodes in enumerate(order):
        alive += sum(size[name] for name in nodes if name not in known.inputs)
        # The summed input of a node is a copy where several edges meet.
        most = max(most, alive + max(math.prod(known.input_shapes[name]) for name in nodes))
        alive -= sum(size[name] for name in uses.get(number, ()))
    return most
