"""A graph as chips see it: populations of neurons, and the matrices and convolutions between them.

What stands between two layers of neurons (Flatten, SumPool2d, Scale, Delay, one matrix or
convolution) is one `Projection`; biases are gathered at the neurons.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Deployment, Shape
from msg_deploy.errors import GraphError
from msg_deploy.exporters.dense import MAX_ENTRIES
from msg_deploy.exporters.quantize.nodes import by_input
from msg_deploy.graph import Plan, plan
from msg_deploy.primitives import pair, primitive_of
from msg_deploy.primitives.convolution import conv_padding
from msg_deploy.primitives.delay import delay_steps

Array = npt.NDArray[np.float64]
NEURONS = (nir.IF, nir.LIF, nir.CubaLIF, nir.I, nir.LI, nir.CubaLI, nir.Threshold)
"""Nodes that make a population."""


@dataclass(frozen=True)
class Projection:
    """The synapses from one population, or from the input, into another.

    Attributes:
        source: name of the population or Input node.
        target: name of the population.
        names: of the graph's nodes that it is made of.
        pool: side of the square window whose spikes are summed before the weights; 1: none.
        weight: whole or real numbers: (out, in) for a matrix, (out, in / groups, height, width) for
            a convolution (as torch's: a cross-correlation); None: one to one.
        stride: of a convolution, (height, width).
        padding: likewise.
        dilation: likewise.
        groups: likewise.
        delay: additional steps.
        previous: it closes a cycle, and carries the step before.
        source_shape: without batch, before pooling.
        target_shape: without batch.
    """

    source: str
    target: str
    names: tuple[str, ...]
    source_shape: Shape
    target_shape: Shape
    weight: Array | None = None
    pool: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    delay: int = 0
    previous: bool = False

    @property
    def name(self) -> str:
        """Of the node with the weights, else "source->target"."""
        return self.names[-1] if self.names else f"{self.source}->{self.target}"

    @property
    def convolution(self) -> bool:
        """Whether it shares weights between places."""
        return self.weight is not None and self.weight.ndim == 4

    @property
    def steps(self) -> int:
        """By how many steps what it carries is late."""
        return self.delay + int(self.previous)

    @cached_property
    def synapses(self) -> int:
        """Pairs of neurons that it connects, with weights of 0."""
        if self.weight is None:
            return math.prod(self.target_shape) * self.pool**2
        if not self.convolution:
            return math.prod(self.weight.shape) * self.pool**2
        kernel = math.prod(self.weight.shape[1:]) * self.pool**2
        return kernel * math.prod(self.target_shape)

    def without_pool(self) -> Projection:
        """The same with the pooling in the weights: a wider stride, each weight repeated.

        SumPool2d(k) and then kernels of side n, stride s, padding p are kernels of side n k,
        stride s k, padding p k.
        """
        if self.pool == 1:
            return self
        k = self.pool
        if self.weight is None:
            channels = self.source_shape[0]
            ones = np.ones((channels, 1, k, k))
            return replace(self, weight=ones, pool=1, stride=(k, k), groups=channels)
        if self.convolution:
            if self.dilation != (1, 1):
                raise GraphError(
                    f"node {self.name!r}: a dilated convolution of sums of windows is no "
                    "convolution; leave out the dilation or the pooling."
                )
            wide = np.repeat(np.repeat(self.weight, k, axis=2), k, axis=3)
            return replace(
                self,
                weight=wide,
                pool=1,
                stride=_times(self.stride, k),
                padding=_times(self.padding, k),
            )
        channels, height, width = self.source_shape
        by_place = self.weight.reshape(-1, channels, height // k, width // k)
        wide = np.zeros((len(by_place), *self.source_shape))
        repeated = np.repeat(np.repeat(by_place, k, axis=2), k, axis=3)
        wide[:, :, : repeated.shape[2], : repeated.shape[3]] = repeated
        return replace(self, weight=wide.reshape(len(wide), -1), pool=1)

    @cached_property
    def fan_in(self) -> int:
        """Synapses of one target neuron, at most."""
        whole = self.without_pool()
        return 1 if whole.weight is None else math.prod(whole.weight.shape[1:])

    @cached_property
    def fan_out(self) -> Array:
        """Synapses with a weight other than 0 of each source neuron, of `source_shape`."""
        whole = self.without_pool()
        if whole.weight is None:
            return np.ones(self.source_shape)
        there = (whole.weight != 0).astype(np.float64)
        if not whole.convolution:
            return there.sum(axis=0).reshape(self.source_shape)
        import torch

        x = torch.zeros(1, *self.source_shape, dtype=torch.float64, requires_grad=True)
        y = torch.nn.functional.conv2d(
            x,
            torch.from_numpy(there),
            None,
            whole.stride,
            whole.padding,
            whole.dilation,
            whole.groups,
        )
        # The derivative of the sum of all outputs by an input counts the input's synapses.
        (found,) = torch.autograd.grad(y.sum(), x)
        counted: Array = found[0].numpy()
        return counted

    def matrix(self) -> Array:
        """All synapses, (targets, sources), both flat in C order.

        Raises:
            GraphError: it would have more than 2^26 entries.
        """
        inputs, outputs = math.prod(self.source_shape), math.prod(self.target_shape)
        if inputs * outputs > MAX_ENTRIES:
            raise GraphError(
                f"node {self.name!r}: as a matrix it has {outputs} x {inputs} entries; at most "
                f"{MAX_ENTRIES} are written."
            )
        whole = self.without_pool()
        if whole.weight is None:
            return np.eye(inputs)
        if not whole.convolution:
            return whole.weight
        node = whole.node()
        law = primitive_of(node).law(node, _NO_TIMING, self.source_shape, np.float64)
        units = np.eye(inputs).reshape(-1, *self.source_shape)
        found: Array = law.step(units, None).output.reshape(inputs, outputs).T
        return np.ascontiguousarray(found)

    def explicit(self) -> Projection:
        """The same with weights of 1 where it is one to one, and without pooling."""
        whole = self.without_pool()
        if whole.weight is not None:
            return whole
        if len(whole.source_shape) == 1:
            return replace(whole, weight=np.eye(whole.source_shape[0]))
        channels = whole.source_shape[0]
        return replace(whole, weight=np.ones((channels, 1, 1, 1)), groups=channels)

    def node(self) -> Any:
        """Linear, Conv2d or Scale (one to one), of a projection without pooling."""
        if self.weight is None:
            return nir.Scale(np.ones(self.source_shape))
        if not self.convolution:
            return nir.Linear(self.weight)
        bias = np.zeros(len(self.weight))
        return nir.Conv2d(
            None, self.weight, self.stride, self.padding, self.dilation, self.groups, bias
        )


@dataclass(frozen=True)
class Population:
    """Neurons of one layer.

    Attributes:
        name: of the node; of the output layer, of what the class scores are read from.
        node: IF, LIF, CubaLIF, ...; None: the output layer, which only adds up currents for TWO.
        shape: without batch.
        bias: what enters each neuron at every step, besides spikes, of `shape`.
        entering: the projections into it.
    """

    name: str
    node: Any
    shape: Shape
    bias: Array
    entering: tuple[Projection, ...]

    @property
    def neurons(self) -> int:
        """Their number."""
        return math.prod(self.shape)

    @property
    def spiking(self) -> bool:
        """Whether it has a threshold."""
        return self.node is not None and primitive_of(self.node).spiking

    def common(self, field: str) -> float:
        """A parameter that is the same for all neurons.

        Raises:
            GraphError: it is not.
        """
        values = np.unique(np.asarray(getattr(self.node, field), np.float64))
        if values.size != 1:
            raise GraphError(
                f"node {self.name!r}: {field} goes from {values[0]:g} to {values[-1]:g}; one value "
                "for the whole layer is needed."
            )
        return float(values[0])


@dataclass(frozen=True)
class Populations:
    """A network.

    Attributes:
        deployment: that it was made of.
        input: name of the Input node.
        input_shape: without batch.
        items: populations by name, in the order of execution.
        output: name of the population from which the result is read.
        depths: of each population, the number of projections on the longest way from the input,
            those that close cycles aside.
    """

    deployment: Deployment
    input: str
    input_shape: Shape
    items: dict[str, Population]
    output: str

    @cached_property
    def depths(self) -> dict[str, int]:
        """See above."""
        found = {self.input: 0}
        for name, item in self.items.items():
            forward = [p for p in item.entering if not p.previous]
            found[name] = 1 + max((found[p.source] for p in forward), default=0)
        return found

    @property
    def projections(self) -> list[Projection]:
        """All of them."""
        return [p for item in self.items.values() for p in item.entering]

    @property
    def spiking(self) -> list[Population]:
        """Those with a threshold."""
        return [item for item in self.items.values() if item.spiking]

    def leaving(self, name: str) -> list[Projection]:
        """The projections out of a population or the input."""
        return [p for p in self.projections if p.source == name]


def populations(deployment: Deployment) -> Populations:
    """Populations and projections of a graph with one Input and one Output, TWO left to the host.

    Raises:
        GraphError: naming a node that is neither neuron nor part of a projection: currents that are
            pooled, two layers of weights without neurons between, several inputs or outputs, a
            bias that comes around a cycle.
    """
    known = plan(deployment.graph)
    if len(known.inputs) > 1:
        raise GraphError(f"several Input nodes ({', '.join(known.inputs)}); chips take one.")
    finder = _Finder(deployment, known)
    readout, output = deployment.readout, known.output
    items = {
        name: finder.population(name, deployment.graph.nodes[name])
        for name in known.order
        if isinstance(deployment.graph.nodes[name], NEURONS)
    }
    sources = {e.source for e in known.incoming[output]}
    if readout is not None and not isinstance(deployment.graph.nodes[readout.source], NEURONS):
        last = readout.source
        items[last] = finder.currents(last)
    elif len(sources) == 1 and next(iter(sources)) in items:
        last = next(iter(sources))
    else:
        last = output
        items[last] = finder.currents(last)
    return Populations(deployment, known.inputs[0], known.shapes[known.inputs[0]], items, last)


@dataclass(frozen=True)
class _Way:
    """From a population to what is looked at: node names in the order of the spikes."""

    source: str
    nodes: tuple[str, ...]
    previous: bool


@dataclass(frozen=True)
class _Growing:
    """A projection, and by what channels of its source are multiplied before weights come."""

    projection: Projection
    factor: Array = field(default_factory=lambda: np.ones(1))


class _Finder:
    def __init__(self, deployment: Deployment, known: Plan) -> None:
        self.deployment, self.known = deployment, known
        self.nodes = deployment.graph.nodes

    def population(self, name: str, node: Any) -> Population:
        """A layer of neurons."""
        shape = self.known.shapes[name]
        ways = [way for e in self.known.incoming[name] for way in self._ways(e.source, e.previous)]
        return Population(
            name, node, shape, self._arriving(name, shape), self._projections(name, shape, ways)
        )

    def currents(self, name: str) -> Population:
        """The output layer, whose currents are read."""
        shape = self.known.shapes[name]
        ways = list(self._ways(name, False))
        return Population(name, None, shape, self._bias(name), self._projections(name, shape, ways))

    def _starts(self, name: str) -> bool:
        return isinstance(self.nodes[name], (nir.Input, *NEURONS))

    def _ways(self, name: str, previous: bool) -> Iterator[_Way]:
        if self._starts(name):
            yield _Way(name, (), previous)
            return
        for edge in self.known.incoming[name]:
            for way in self._ways(edge.source, previous or edge.previous):
                carries = not isinstance(self.nodes[name], nir.Output)
                yield replace(way, nodes=(*way.nodes, name) if carries else way.nodes)

    def _projections(self, name: str, shape: Shape, ways: list[_Way]) -> tuple[Projection, ...]:
        found = []
        for way in ways:
            blank = Projection(way.source, name, (), self.known.shapes[way.source], shape)
            projection = _Growing(replace(blank, previous=way.previous))
            for step in way.nodes:
                try:
                    projection = self._through(projection, step, self.nodes[step])
                except GraphError as error:
                    kind = type(self.nodes[step]).__name__
                    raise GraphError(f"node {step!r} ({kind}): {error}") from None
            found.append(_weighted(projection))
        return tuple(found)

    def _through(self, way: _Growing, name: str, node: Any) -> _Growing:
        """The projection, and one more node behind it."""
        p = way.projection
        named = replace(p, names=(*p.names, name))
        if isinstance(node, nir.Flatten):
            if p.convolution:
                raise GraphError("flattens currents; flatten spikes, behind the neurons.")
            return way
        if isinstance(node, nir.Delay):
            steps = np.unique(delay_steps(node, self.deployment.timing))
            if steps.size != 1:
                raise GraphError("delays differ between neurons; chips have one for a projection.")
            return replace(way, projection=replace(p, delay=p.delay + int(steps[0])))
        if isinstance(node, (nir.SumPool2d, nir.AvgPool2d)):
            return replace(way, projection=_pooled(p, node))
        if isinstance(node, nir.Scale):
            return _scaled(way, node)
        if not primitive_of(node).weighted or isinstance(node, nir.Conv1d):
            raise GraphError("is not known to chips.")
        if p.weight is not None:
            raise GraphError("weights behind weights; put neurons between, or multiply them.")
        weight = np.asarray(node.weight, np.float64)
        if not isinstance(node, nir.Conv2d):
            places = weight.shape[1] // len(way.factor)
            return _Growing(replace(named, weight=weight * np.repeat(way.factor, places)))
        return _Growing(
            replace(
                named,
                weight=weight * by_input(node, way.factor),
                stride=pair(node, "stride", 1),
                padding=_padding(node),
                dilation=pair(node, "dilation", 1),
                groups=int(node.groups),
            )
        )

    def _bias(self, name: str) -> Array:
        """What a node gives while no neuron spikes and nothing enters."""
        shape = self.known.shapes[name]
        if self._starts(name):
            return np.zeros(shape)
        arriving, node = self._arriving(name, self.known.input_shapes[name]), self.nodes[name]
        if isinstance(node, (nir.Output, nir.Delay)):
            if np.any(arriving) and isinstance(node, nir.Delay):
                raise GraphError(f"node {name!r}: delays a bias; leave the bias out.")
            return arriving
        law = primitive_of(node).law(node, self.deployment.timing, arriving.shape, np.float64)
        found: Array = law.step(arriving[None], None).output[0]
        return found

    def _arriving(self, name: str, shape: Shape) -> Array:
        """The biases that come into a node."""
        arriving = np.zeros(shape)
        for edge in self.known.incoming[name]:
            given = self._bias(edge.source)
            if np.any(given) and edge.previous:
                raise GraphError(
                    f"node {edge.source!r}: a bias comes around a cycle one step late; leave it "
                    "out, or put it into the layer that the cycle enters."
                )
            arriving = arriving + given
        return arriving


_NO_TIMING: Any = None


def _times(values: tuple[int, int], k: int) -> tuple[int, int]:
    return values[0] * k, values[1] * k


def _padding(node: nir.Conv2d) -> tuple[int, int]:
    (top, bottom), (left, right) = conv_padding(node, 2)
    if top != bottom or left != right:
        raise GraphError("padding 'same' of an even kernel is not symmetric.")
    return top, left


def _pooled(p: Projection, node: Any) -> Projection:
    kernel, stride = pair(node, "kernel_size", 1), pair(node, "stride", 1)
    padding = pair(node, "padding", 0)
    if p.weight is not None:
        raise GraphError("pools currents; pool spikes, behind the neurons.")
    if kernel[0] != kernel[1] or stride != kernel or padding != (0, 0):
        raise GraphError(
            f"windows of {kernel} with stride {stride} and padding {padding}; chips take square "
            "ones side by side."
        )
    if isinstance(node, nir.AvgPool2d):
        raise GraphError("averages; `msg-deploy quantize` makes sums of it.")
    return replace(p, pool=p.pool * kernel[0])


def _scaled(way: _Growing, node: Any) -> _Growing:
    scale = np.asarray(node.scale, np.float64)
    channels = scale.reshape(len(scale), -1)
    if np.any(channels != channels[:, :1]):
        raise GraphError("scales places differently; one number a channel is possible.")
    factor, p = channels[:, 0], way.projection
    if p.weight is None:
        before = way.factor if len(way.factor) == len(factor) else way.factor[0]
        return replace(way, factor=before * factor)
    by_output = factor.reshape(-1, *(1,) * (p.weight.ndim - 1))
    return replace(way, projection=replace(p, weight=p.weight * by_output))


def _weighted(way: _Growing) -> Projection:
    """Factors that no weights followed are weights of their own: a diagonal, one for a channel."""
    p = way.projection
    if p.weight is not None or np.all(way.factor == 1):
        return p
    if len(p.source_shape) == 1:
        return replace(p, weight=np.diag(np.broadcast_to(way.factor, p.source_shape)))
    channels = np.broadcast_to(way.factor, p.source_shape[:1])
    return replace(p, weight=channels.reshape(-1, 1, 1, 1), groups=len(channels))
