"""A network in integers: what a chip holds, explicitly.

Values are integers (T, B, *shape). An edge carries the value of `delay` steps ago, and nothing (0)
before; several edges into a node are summed. Edges without delay must not form a cycle.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.components import components
from msg_deploy.deployment import Shape
from msg_deploy.errors import GraphError
from msg_deploy.graph import Incoming, Plan
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.integer.neuron import IntegerNeuron, Numbers, Parameters, numbers
from msg_deploy.sim.integer.rules import Range, WeightError

TRANSFORMS = (
    nir.Linear, nir.Affine, nir.Conv1d, nir.Conv2d, nir.Scale, nir.SumPool2d, nir.Flatten,
)  # fmt: skip
_NUMBERS = ("weight", "bias", "scale")


@dataclass(frozen=True)
class Entry:
    """Where samples enter.

    Attributes:
        shape: without time and batch.
        low: smallest value that may enter.
        high: largest.
    """

    shape: Shape
    low: int = 0
    high: int = 1


@dataclass(frozen=True)
class Transform:
    """A node without state: y = R(f(x) 2^shift), or R(floor(f(x) / 2^-shift)) for a negative shift.

    Attributes:
        node: f: Linear, Affine, Conv1d, Conv2d, Scale, SumPool2d or Flatten, whose numbers are
            whole; dimensions and order as in NIR (see `msg_deploy.primitives`).
        shift: exponent of the weights.
        accumulator: R; None: nothing is lost, or the network is refused.
    """

    node: nir.NIRNode
    shift: int = 0
    accumulator: Range | None = None


@dataclass(frozen=True)
class Postponed:
    """y[t] = x[t - steps], elementwise.

    Attributes:
        steps: one for all or an array of the shape of x.
    """

    steps: Any


@dataclass(frozen=True)
class Neurons:
    """A layer of neurons.

    Attributes:
        neuron: their law.
        parameters: of each of them.
        shape: without time and batch.
        output: what they give: "spikes" (how many), the "membrane" after each step, or the sum of
            the "current"s.
    """

    neuron: IntegerNeuron
    parameters: Parameters
    shape: Shape
    output: Literal["spikes", "membrane", "current"] = "spikes"


@dataclass(frozen=True)
class Exit:
    """Where results leave."""


Node = Entry | Transform | Postponed | Neurons | Exit


@dataclass(frozen=True)
class Edge:
    """From one node into another.

    Attributes:
        source: name of the node that it leaves.
        target: name of the node that it enters.
        delay: in steps; 0 stands for the target's latency, if it has one.
        synapse: which current of the target takes it up, 0 or 1.
        shift: what it carries is multiplied by 2^shift.
    """

    source: str
    target: str
    delay: int = 0
    synapse: int = 0
    shift: int = 0


@dataclass(frozen=True)
class IntegerReadout:
    """Class scores in integers: sum over t of weights[t] y[t], in units of 2^-shift.

    Attributes:
        weights: one for each step; f_t of TWO is about weights[t] 2^-shift.
        shift: see above.
    """

    weights: tuple[int, ...]
    shift: int = 0

    def of_membranes(self) -> IntegerReadout:
        """The same scores, from membranes v_t = y_1 + ... + y_t that do not leak.

        sum f_t y_t = f_T v_T - sum over t < T of (f_{t+1} - f_t) v_t.
        """
        following = (*self.weights[1:], 0)
        changed = tuple(a - b for a, b in zip(self.weights, following, strict=True))
        return IntegerReadout(changed, self.shift)


@dataclass(frozen=True)
class IntegerNetwork:
    """Nodes and edges; checked when it is made.

    Attributes:
        nodes: by name.
        edges: between them, in the order in which events arrive.
        readout: of the outputs; None: their sum over time.
        points: of each node's values, how many binary digits stand behind the point: a value stands
            for value 2^-points. Nodes that are not named: 0.
        membrane_points: the same of membranes.

    Raises:
        GraphError: naming the node or edge.
    """

    nodes: Mapping[str, Node]
    edges: Sequence[Edge]
    readout: IntegerReadout | None = None
    points: Mapping[str, int] = field(default_factory=dict)
    membrane_points: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for edge in self.edges:
            self._check_edge(edge)
        for name, node in self.nodes.items():
            entering = [e for e in self.edges if e.target == name]
            if bool(entering) == isinstance(node, Entry):
                what = "an edge leads into it" if entering else "nothing leads into it"
                raise GraphError(f"node {name!r}: {what}.")
            if isinstance(node, Transform):
                _check_transform(name, node)
        for kind in (Entry, Exit):
            if not any(isinstance(node, kind) for node in self.nodes.values()):
                raise GraphError(f"the network has no {kind.__name__}.")
        _ = self.plan, self.numbers
        for name, node in self.nodes.items():
            if isinstance(node, Neurons):
                self._check_layer(name, node)

    def _check_edge(self, edge: Edge) -> None:
        for end in (edge.source, edge.target):
            if end not in self.nodes:
                raise GraphError(
                    f"edge {edge.source!r} -> {edge.target!r}: there is no node {end!r}."
                )
        target = self.nodes[edge.target]
        synapses = max(1, target.neuron.synapses) if isinstance(target, Neurons) else 1
        for name, value, below in (
            ("delay", edge.delay, 2**31),
            ("synapse", edge.synapse, synapses),
            ("shift", edge.shift, 63),
        ):
            if not 0 <= value < below:
                raise GraphError(
                    f"edge {edge.source!r} -> {edge.target!r}: {name} must be from 0 to "
                    f"{below - 1}, not {value}."
                )

    def _check_layer(self, name: str, node: Neurons) -> None:
        """What it gives, weights, and what adds event by event."""
        given = {"spikes": node.neuron.spiking, "current": node.neuron.synapses > 0}
        if not given.get(node.output, True):
            raise GraphError(f"node {name!r}: its neurons have no {node.output} to give.")
        for edge in self.incoming[name]:
            source = self.nodes[edge.source]
            if not isinstance(source, Transform) or not primitive_of(source.node).weighted:
                continue
            if node.neuron.weights is not None:
                weights = np.asarray(source.node.weight)
                problem = node.neuron.weights.problem(weights.astype(np.int64))
                if problem:
                    raise WeightError(f"node {edge.source!r}: {problem}")
            if node.neuron.per_add:
                self._check_events(edge.source, source)

    def _check_events(self, name: str, node: Transform) -> None:
        if np.any(getattr(node.node, "bias", 0)):
            raise GraphError(
                f"node {name!r}: where events are added one by one a bias belongs to the neuron."
            )
        if node.shift < 0 or node.accumulator is not None:
            raise GraphError(
                f"node {name!r}: where events are added one by one there is no sum to shift right "
                "or to put in an accumulator."
            )
        for other in (e.target for e in self.edges if e.source == name):
            target = self.nodes[other]
            if not isinstance(target, Neurons) or not target.neuron.per_add:
                raise GraphError(
                    f"node {name!r}: leads into neurons that add event by event and into {other!r},"
                    " which does not; write it twice."
                )

    @cached_property
    def incoming(self) -> Mapping[str, tuple[Edge, ...]]:
        """The edges into each node; those without a delay have their target's latency."""
        found: dict[str, list[Edge]] = {name: [] for name in self.nodes}
        for edge in self.edges:
            target = self.nodes[edge.target]
            latency = target.neuron.latency if isinstance(target, Neurons) else 0
            delay = edge.delay or latency
            found[edge.target].append(
                Edge(edge.source, edge.target, delay, edge.synapse, edge.shift)
            )
        return {name: tuple(edges) for name, edges in found.items()}

    @cached_property
    def plan(self) -> Plan:
        """Order and shapes; edges with a delay are `previous`."""
        instant = {
            name: [e.source for e in edges if not e.delay] for name, edges in self.incoming.items()
        }
        try:
            order = tuple(TopologicalSorter(instant).static_order())
        except CycleError as error:
            around = ", ".join(dict.fromkeys(error.args[1]))
            raise GraphError(f"the cycle through {around} has no delay.") from None
        input_shapes, shapes = self._shapes(order)
        return Plan(
            order,
            {n: tuple(Incoming(e.source, e.delay > 0) for e in self.incoming[n]) for n in order},
            input_shapes,
            shapes,
            tuple(sorted(n for n, node in self.nodes.items() if isinstance(node, Entry))),
            tuple(sorted(n for n, node in self.nodes.items() if isinstance(node, Exit))),
        )

    def _shapes(self, order: Sequence[str]) -> tuple[dict[str, Shape], dict[str, Shape]]:
        declared = {
            name: node.shape
            for name, node in self.nodes.items()
            if isinstance(node, (Entry, Neurons))
        }
        entering: dict[str, Shape] = {}
        shapes: dict[str, Shape] = dict(declared)
        # An edge with a delay may come from what stands further back.
        for _ in order:
            for name in order:
                known = [e.source for e in self.incoming[name] if e.source in shapes]
                if name in shapes or not known:
                    continue
                shapes[name] = self._shape(name, shapes[known[0]])
            if len(shapes) == len(order):
                break
        for name in order:
            if name not in shapes:
                raise GraphError(f"node {name!r}: only a cycle without neurons leads into it.")
            sources = [e.source for e in self.incoming[name]]
            entering[name] = shapes[sources[0]] if sources else shapes[name]
            expected = declared.get(name, entering[name])
            for source in sources:
                if shapes[source] != expected:
                    raise GraphError(
                        f"edge {source!r} -> {name!r}: {source!r} gives shape {shapes[source]}, "
                        f"but {name!r} takes {expected}."
                    )
        return entering, shapes

    def _shape(self, name: str, arriving: Shape) -> Shape:
        node = self.nodes[name]
        if not isinstance(node, Transform):
            return arriving
        try:
            return primitive_of(node.node).output_shape(node.node, arriving)
        except GraphError as error:
            raise GraphError(f"node {name!r}: {error}") from None

    @cached_property
    def components(self) -> tuple[tuple[tuple[str, ...], bool], ...]:
        """What runs one after the other; whether it is a cycle, which runs step by step."""
        return tuple(
            (c, len(c) > 1 or any(e.source == c[0] for e in self.incoming[c[0]]))
            for c in components(self.plan)
        )

    @cached_property
    def numbers(self) -> Mapping[str, Numbers]:
        """The parameters of each layer of neurons."""
        return {
            name: numbers(name, node.neuron, node.parameters, node.shape)
            for name, node in self.nodes.items()
            if isinstance(node, Neurons)
        }

    @cached_property
    def as_events(self) -> frozenset[str]:
        """Products whose sources are added event by event, so that they are never computed."""
        return frozenset(
            edge.source
            for name, node in self.nodes.items()
            if isinstance(node, Neurons) and node.neuron.per_add
            for edge in self.incoming[name]
            if isinstance(self.nodes[edge.source], Transform)
            and primitive_of(self.nodes[edge.source].node).weighted  # type: ignore[union-attr]
        )

    @property
    def spiking(self) -> tuple[str, ...]:
        """Layers with a threshold, in the order of execution."""
        return tuple(name for name in self.plan.order if _spikes(self.nodes[name]))


def _spikes(node: Node) -> bool:
    return isinstance(node, Neurons) and node.neuron.spiking


def _check_transform(name: str, node: Transform) -> None:
    if not isinstance(node.node, TRANSFORMS):
        known = ", ".join(kind.__name__ for kind in TRANSFORMS)
        raise GraphError(f"node {name!r}: a {type(node.node).__name__} is not one of {known}.")
    if not -62 <= node.shift <= 62:
        raise GraphError(f"node {name!r}: shift must be from -62 to 62, not {node.shift}.")
    for attribute in _NUMBERS:
        values = np.asarray(getattr(node.node, attribute, 0), np.float64)
        if not np.array_equal(values, np.rint(values)) or np.any(np.abs(values) > 2.0**53):
            raise GraphError(f"node {name!r}: {attribute} must be whole numbers up to 2^53.")


def linear(weight: npt.ArrayLike, bias: npt.ArrayLike | None = None, **options: Any) -> Transform:
    """W x + b.

    Args:
        weight: integers (out, in).
        bias: integers (out,).
        **options: of `Transform`.
    """
    matrix = np.asarray(weight, np.float64)
    if bias is None:
        return Transform(nir.Linear(matrix), **options)
    return Transform(nir.Affine(matrix, np.asarray(bias, np.float64)), **options)


def conv2d(
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    **options: Any,
) -> Transform:
    """A convolution as torch.nn.Conv2d's; weight (out, in / groups, height, width)."""
    kernels = np.asarray(weight, np.float64)
    offset = np.zeros(len(kernels)) if bias is None else np.asarray(bias, np.float64)
    return Transform(
        nir.Conv2d(None, kernels, stride, padding, dilation, groups, offset), **options
    )


def sum_pool2d(size: int, **options: Any) -> Transform:
    """Sums of windows of size x size that do not overlap."""
    both = np.array([size, size])
    return Transform(nir.SumPool2d(both, both, np.array([0, 0])), **options)


def flatten(shape: Shape) -> Transform:
    """Everything in one row, in C order."""
    return Transform(nir.Flatten({"input": np.array(shape)}, 0, -1))


def row(*nodes: Node, edges: Sequence[Edge] = (), **others: Any) -> IntegerNetwork:
    """One node after the other, named "input", "n0", "n1", ..., "output", and more edges.

    Args:
        *nodes: an `Entry` and what follows it; an `Exit` is put at the end.
        edges: more edges.
        **others: fields of `IntegerNetwork`.
    """
    names = ["input", *(f"n{i}" for i in range(len(nodes) - 1)), "output"]
    chain = [Edge(a, b) for a, b in itertools.pairwise(names)]
    return IntegerNetwork(
        dict(zip(names, (*nodes, Exit()), strict=True)), [*chain, *edges], **others
    )


def size(shape: Shape) -> int:
    """Numbers of a shape."""
    return math.prod(shape)
