"""What arrives at the layers of a network, measured on samples, in the network's own units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from msg_deploy.deployment import Deployment
from msg_deploy.exporters.quantize.nodes import (
    NEURONS,
    POOLS,
    Array,
    area,
    bias_of,
    by_input,
    rate_of,
    spiking,
    weighted,
)
from msg_deploy.graph import Plan, plan
from msg_deploy.samples import Samples
from msg_deploy.sim.fast import Fast
from msg_deploy.sim.fast.engine import Watcher
from msg_deploy.sim.fast.stateful import Emitted
from msg_deploy.sim.torch_layers import LAYERS, Context, Layer
from msg_deploy.stimulus import batches

BATCH = 32


@dataclass(frozen=True)
class Statistics:
    """By node, over all samples, steps and places; each (C,) by the first axis.

    Attributes:
        power: of weighted nodes, the mean square of what arrives.
        reach: of weighted nodes, the largest sum of the magnitudes of all products and the bias.
        largest: the largest magnitude of the output.
        membrane: of neurons, the largest magnitude of the membrane before reset.
    """

    power: Mapping[str, Array]
    reach: Mapping[str, Array]
    largest: Mapping[str, Array]
    membrane: Mapping[str, Array]

    def arriving(self, known: Plan, name: str) -> Array:
        """The largest sum of magnitudes behind the input of a node, of all edges together."""
        found = [self.reach.get(e.source, self.largest[e.source]) for e in known.incoming[name]]
        total: Array = np.sum(np.broadcast_arrays(*found), axis=0)
        return total


def measured(
    deployment: Deployment,
    samples: Samples,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> Statistics:
    """Run a network and measure.

    Args:
        deployment: to run.
        samples: (N, ...).
        on_batch: called with samples done and in total.
    """
    meter, fast = _Meter(deployment), Fast()
    for start, inputs in batches(deployment, samples, BATCH):
        fast.watch(deployment, inputs, meter, "float32")
        on_batch(min(start + BATCH, len(samples)), len(samples))
    power = {name: total / meter.counts[name] for name, total in meter.squares.items()}
    return Statistics(power, meter.reach, meter.largest, meter.membrane)


class _Meter(Watcher):
    def __init__(self, deployment: Deployment) -> None:
        known, nodes = plan(deployment.graph), deployment.graph.nodes
        self.nodes = nodes
        self.layers: dict[str, Layer] = {}
        for name in known.order:
            node: Any = nodes[name]
            if weighted(node):
                changes = {"weight": np.abs(np.asarray(node.weight))}
                if hasattr(node, "bias"):
                    changes["bias"] = np.abs(np.asarray(node.bias))
                context = Context(deployment.timing, known.input_shapes[name], torch.float32)
                self.layers[name] = LAYERS[type(node)](replace(node, **changes), context)
        self.squares: dict[str, Array] = {}
        self.counts: dict[str, int] = {}
        self.reach: dict[str, Array] = {}
        self.largest: dict[str, Array] = {}
        self.membrane: dict[str, Array] = {}

    def wants(self, name: str) -> bool:
        return True

    def membranes(self, name: str) -> bool:
        return True

    def see(self, name: str, first: int, steps: int, arriving: Tensor, emitted: Emitted) -> None:
        _raise(self.largest, name, _most(emitted.output))
        if name in self.layers:
            squares = arriving.double().square().flatten(0, 1)
            total = squares.flatten(2).sum((0, 2)) if squares.ndim > 2 else squares.sum(0)
            self.squares[name] = self.squares.get(name, 0) + total.numpy()
            self.counts[name] = self.counts.get(name, 0) + squares[:, 0].numel()
            # Integer products take what arrives as bytes.
            magnitudes = arriving.float().abs().flatten(0, 1)
            _raise(self.reach, name, _most(self.layers[name](magnitudes)[None]))
        if isinstance(self.nodes[name], NEURONS):
            values = emitted.output if emitted.membranes is None else emitted.membranes
            _raise(self.membrane, name, _most(values))


def _most(values: Tensor) -> Array:
    """Of (steps, N, C, ...), by channel (C,)."""
    merged = values.abs().flatten(0, 1)
    found = merged.flatten(2).amax((0, 2)) if merged.ndim > 2 else merged.amax(0)
    return np.asarray(found.double().numpy())


def _raise(kept: dict[str, Array], name: str, found: Array) -> None:
    kept[name] = np.maximum(kept[name], found) if name in kept else found


def worst(deployment: Deployment) -> dict[str, Array]:
    """For each node, the largest sum of magnitudes behind its output, whatever is put in, (C,).

    Interval arithmetic in which no term cancels another, so that it holds for every partial sum as
    well. Infinite where a state adds up for ever.
    """
    known, nodes, timing = plan(deployment.graph), deployment.graph.nodes, deployment.timing
    found: dict[str, Array] = {}
    for name in known.order:
        node: Any = nodes[name]
        channels = known.shapes[name][0]
        if isinstance(node, nir.Input):
            found[name] = np.full(channels, max(map(abs, deployment.input.entering)))
            continue
        if spiking(node):
            found[name] = np.ones(channels)
            continue
        sources = [e.source for e in known.incoming[name]]
        # What comes back from the step before has passed a spiking neuron, or is not bounded.
        given = [
            np.ones(1) if spiking(nodes[s]) else found.get(s, np.array([np.inf])) for s in sources
        ]
        arriving: Array = np.sum(np.broadcast_arrays(*given), axis=0)
        found[name] = np.broadcast_to(_through(node, arriving, known, name, timing), channels)
    return found


def worst_sum(known: Plan, most: Mapping[str, Array], name: str) -> float:
    """The largest sum that can arrive at a node, given what `worst` found."""
    found = [most[e.source] for e in known.incoming[name]]
    return float(np.sum(np.broadcast_arrays(*found), axis=0).max())


def _through(node: Any, x: Array, known: Plan, name: str, timing: Any) -> Array:
    if weighted(node):
        weight = np.abs(np.asarray(node.weight, np.float64))
        # What is not bounded does not pass a weight of 0.
        zeros = np.zeros(weight.shape)
        products = np.multiply(weight, by_input(node, x), out=zeros, where=weight > 0)
        total: Array = products.reshape(len(weight), -1).sum(axis=1) + np.abs(bias_of(node))
        return total
    if isinstance(node, POOLS):
        return x * area(node) / (1 if isinstance(node, nir.SumPool2d) else area(node))
    if isinstance(node, nir.Flatten):
        return spread(x, known.input_shapes[name], known.shapes[name])
    if isinstance(node, nir.Scale):
        factors = np.abs(np.asarray(node.scale, np.float64))
        return x * factors.reshape(len(factors), -1).max(axis=1)
    if isinstance(node, NEURONS):
        gain = np.abs(np.asarray(node.r, np.float64)) * np.abs(
            np.asarray(getattr(node, "w_in", 1.0))
        )
        leaks = not isinstance(node, nir.I) and float(np.max(rate_of(node, timing.dt))) <= 1
        rest = np.abs(np.asarray(getattr(node, "v_leak", np.zeros(gain.shape)), np.float64))
        gain, rest = (values.reshape(len(values), -1).max(axis=1) for values in (gain, rest))
        return (x * gain + rest) * (1 if leaks else timing.steps)
    return x


def spread(values: Array, shape: tuple[int, ...], flat: tuple[int, ...]) -> Array:
    """Numbers of channels (1,) or (C,), on the first axis of the flattened values."""
    if values.size == 1:
        return values
    each: Array = np.broadcast_to(values.reshape(-1, *(1,) * (len(shape) - 1)), shape)
    return each.reshape(flat[0], -1)[:, 0] if flat[0] != shape[0] else values
