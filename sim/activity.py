"""What a network does: spikes and synaptic operations, per layer and step.

Synaptic operations as NeuroBench 2.3 counts them (`SynapticOperations`): a product of a weight and
an arriving value, effective if neither is 0; an accumulate (AC) where only -1, 0 and 1 arrive, else
a multiply-accumulate (MAC); biases are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msg_deploy.deployment import Deployment
from msg_deploy.graph import Plan
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.fast.engine import Watcher
from msg_deploy.sim.torch_layers import LAYERS, Context

Counts = npt.NDArray[np.int64]
Operation = Literal["AC", "MAC"]


@dataclass(frozen=True)
class Spikes:
    """Of one spiking layer.

    Attributes:
        node: its name.
        neurons: in the layer.
        counts: spikes of all samples at each step, (T,).
    """

    node: str
    neurons: int
    counts: Counts


@dataclass(frozen=True)
class Synapses:
    """Of one layer with weights.

    Attributes:
        node: its name.
        dense: products for one sample at one step, whether or not a factor is 0.
        effective: products of all samples at each step in which neither factor is 0, (T,).
        operation: accumulates, or multiply-accumulates.
    """

    node: str
    dense: int
    effective: Counts
    operation: Operation


@dataclass(frozen=True)
class Activity:
    """Of a network on some samples.

    Attributes:
        samples: how many.
        steps: of each, T.
        spikes: per spiking layer, in the order of execution.
        synapses: per layer with weights, in the order of execution.
    """

    samples: int
    steps: int
    spikes: tuple[Spikes, ...]
    synapses: tuple[Synapses, ...]

    def rate(self, layer: Spikes) -> float:
        """Spikes per neuron and step."""
        return float(layer.counts.sum()) / max(1, layer.neurons * self.steps * self.samples)

    def operations(self, operation: Operation) -> float:
        """Effective operations of a kind for one sample, all steps and layers."""
        total = sum(int(s.effective.sum()) for s in self.synapses if s.operation == operation)
        return total / max(1, self.samples)

    @property
    def dense(self) -> int:
        """Products for one sample, all steps and layers."""
        return self.steps * sum(layer.dense for layer in self.synapses)


class Counter(Watcher):
    """A watcher of the fast simulator that counts.

    Args:
        deployment: that is run.
        known: its plan.
        fans: of its layers with weights, see `fans_out`.
    """

    def __init__(self, deployment: Deployment, known: Plan, fans: Mapping[str, Tensor]) -> None:
        nodes, steps = deployment.graph.nodes, deployment.timing.steps
        self.steps = steps
        self.sizes = {
            n: math.prod(known.shapes[n]) for n in known.order if primitive_of(nodes[n]).spiking
        }
        self.fans = fans
        self.dense = {n: _dense(nodes[n], known, n) for n in self.fans}
        self.spikes = {n: np.zeros(steps, np.int64) for n in self.sizes}
        self.effective = {n: np.zeros(steps, np.int64) for n in self.fans}
        self.graded: set[str] = set()

    def arrivals(self, name: str) -> bool:
        """Not looked at."""
        return False

    def wants(self, name: str) -> bool:
        """See `Watcher`."""
        return name in self.spikes or name in self.fans

    def see(self, name: str, first: int, steps: int, arriving: Tensor, emitted: Any) -> None:
        """Add what these steps do."""
        place = slice(first, first + steps)
        if name in self.spikes:
            self.spikes[name][place] += _over_samples(emitted.output).numpy()
        if name in self.fans:
            present = (arriving != 0).sum(1, dtype=torch.int64)
            self.effective[name][place] += (present * self.fans[name]).flatten(1).sum(1).numpy()
            if name not in self.graded and bool(((arriving.abs() != 1) & (arriving != 0)).any()):
                self.graded.add(name)

    def activity(self, samples: int) -> Activity:
        """Everything so far, of this many samples."""
        return Activity(
            samples,
            self.steps,
            tuple(Spikes(n, self.sizes[n], counts) for n, counts in self.spikes.items()),
            tuple(
                Synapses(n, self.dense[n], counts, "MAC" if n in self.graded else "AC")
                for n, counts in self.effective.items()
            ),
        )


def _over_samples(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1, dtype=torch.float64).to(torch.int64)


def fans_out(deployment: Deployment, known: Plan) -> dict[str, Tensor]:
    """The fan-out of every layer with weights, in the order of execution."""
    synaptic = (n for n in known.order if primitive_of(deployment.graph.nodes[n]).weighted)
    return {name: _fan_out(deployment, known, name) for name in synaptic}


def _fan_out(deployment: Deployment, known: Plan, name: str) -> Tensor:
    """How many weights other than 0 each input element of a layer meets, int64 (*input shape)."""
    node: Any = deployment.graph.nodes[name]
    present = (np.asarray(node.weight) != 0).astype(np.float64)
    no_bias = {"bias": np.zeros_like(node.bias)} if hasattr(node, "bias") else {}
    shape = known.input_shapes[name]
    layer = LAYERS[type(node)](
        replace(node, weight=present, **no_bias), Context(deployment.timing, shape, torch.float64)
    )
    # The gradient of a sum of products with 1 is the number of products.
    with torch.enable_grad():
        x = torch.zeros(1, *shape, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    return gradient[0].to(torch.int64)


def _dense(node: Any, known: Plan, name: str) -> int:
    """Products of a layer, weights of 0 and, at the rim of an image, padded zeros included."""
    return math.prod(known.shapes[name]) * math.prod(np.shape(node.weight)[1:])


def joined(parts: Sequence[Activity]) -> Activity:
    """The activity on all samples of several disjoint sets; associative."""
    first = parts[0]
    spikes = [
        replace(layers[0], counts=np.sum([layer.counts for layer in layers], axis=0))
        for layers in zip(*(part.spikes for part in parts), strict=True)
    ]
    synapses = [
        replace(
            layers[0],
            effective=np.sum([layer.effective for layer in layers], axis=0),
            operation="MAC" if any(x.operation == "MAC" for x in layers) else "AC",
        )
        for layers in zip(*(part.synapses for part in parts), strict=True)
    ]
    return Activity(
        sum(part.samples for part in parts), first.steps, tuple(spikes), tuple(synapses)
    )
