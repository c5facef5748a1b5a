"""How far the values of an integer network can go, before it runs: interval arithmetic.

For every input within the range of its `Entry`, over so many steps. Spikes are known beforehand, so
cycles through neurons with a threshold are bounded, too. What passes fits int64 by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msg_deploy.bounds import RULES, Interval, between
from msg_deploy.deployment import Shape, Timing
from msg_deploy.errors import GraphError
from msg_deploy.sim.integer.network import (
    Edge,
    Entry,
    IntegerNetwork,
    Neurons,
    Node,
    Postponed,
    Transform,
)
from msg_deploy.sim.integer.neuron import Numbers
from msg_deploy.sim.integer.rules import Decay, Range

Array = npt.NDArray[np.float64]

INT64 = 2.0**62
"""Half of what int64 holds: bounds are computed in float64, which rounds them."""
MOST_EVENTS = 2.0**20
"""Of one source in one step, where each is added on its own."""


@dataclass(frozen=True)
class Bound:
    """Of one node. Arrays are float64, without batch.

    Attributes:
        output: what it gives.
        partial: largest magnitude of any partial sum of its products, in whatever order.
        largest: largest magnitude of any number on the way.
        membrane: of neurons: largest magnitude of the membrane, before its range puts it right.
        current: the same of the currents.
    """

    output: Interval
    partial: Array
    largest: float
    membrane: float = 0.0
    current: float = 0.0


def bounds(network: IntegerNetwork, steps: int) -> dict[str, Bound]:
    """Bounds of every node.

    Args:
        network: checked already.
        steps: T.

    Raises:
        GraphError: naming the node: an accumulator that may overflow and must not, values that
            int64 may not hold, a cycle that nothing bounds, too many events to add one by one.
    """
    outputs = {
        name: known
        for name, node in network.nodes.items()
        if (known := _beforehand(node)) is not None
    }
    partials = {name: _magnitude(value) for name, value in outputs.items()}
    found: dict[str, Bound] = {}
    waiting = list(network.plan.order)
    while waiting:
        ready = [n for n in waiting if all(e.source in outputs for e in network.incoming[n])]
        if not ready:
            around = next(c for c, cyclic in network.components if cyclic and set(c) <= {*waiting})
            raise GraphError(
                f"node {around[0]!r}: nothing bounds the values of its cycle; give a membrane on "
                "it a range that saturates or wraps."
            )
        for name in ready:
            bound = _of_node(name, network, steps, outputs, partials)
            if bound.largest > INT64:
                raise GraphError(
                    f"node {name!r}: values may reach 2^{np.log2(bound.largest):.0f}, which 64 "
                    "bits do not hold; give it smaller weights or ranges, or fewer steps."
                )
            found[name], outputs[name], partials[name] = bound, bound.output, bound.partial
            waiting.remove(name)
    return found


def _beforehand(node: Node) -> Interval | None:
    """What is known of neurons' output without their input: spikes, or a range that holds it."""
    if not isinstance(node, Neurons):
        return None
    if node.output == "spikes":
        return between(0.0, float(node.neuron.max_spikes), node.shape)
    many, limits = 1, node.neuron.membrane
    if node.output == "current":
        many, limits = node.neuron.synapses, node.neuron.current
    if limits.overflow not in ("saturate", "wrap"):
        return None
    return between(many * float(limits.low), many * float(limits.high), node.shape)


def _of_node(
    name: str,
    network: IntegerNetwork,
    steps: int,
    outputs: Mapping[str, Interval],
    partials: Mapping[str, Array],
) -> Bound:
    node, shape = network.nodes[name], network.plan.input_shapes[name]
    if isinstance(node, Entry):
        return _plain(between(float(node.low), float(node.high), shape))
    edges = network.incoming[name]
    if isinstance(node, Neurons):
        if node.neuron.per_add:
            _check_events(name, network, outputs)
        drives = _drives(node, edges, outputs, partials)
        return _neurons(node, network.numbers[name], drives, steps)
    arriving = _arriving(edges, outputs, shape)
    if isinstance(node, Transform):
        return _transform(name, node, arriving)
    return _plain(_or_nothing(arriving) if isinstance(node, Postponed) else arriving)


def _check_events(name: str, network: IntegerNetwork, outputs: Mapping[str, Interval]) -> None:
    for edge in network.incoming[name]:
        behind = network.incoming[edge.source] if edge.source in network.as_events else (edge,)
        for source in (e.source for e in behind):
            most = _highest(_magnitude(outputs[source]))
            if most > MOST_EVENTS:
                raise GraphError(
                    f"node {name!r}: {source!r} may give {most:.0f} at once, too much to be added "
                    "one by one; per_add is for spikes."
                )


def _plain(x: Interval) -> Bound:
    largest = _magnitude(x)
    return Bound(x, largest, _highest(largest))


def _arriving(edges: tuple[Edge, ...], outputs: Mapping[str, Interval], shape: Shape) -> Interval:
    total = between(0.0, 0.0, shape)
    for edge in edges:
        value = outputs[edge.source]
        value = _or_nothing(value) if edge.delay else value
        scale = 2.0**edge.shift
        total = Interval(total.low + scale * value.low, total.high + scale * value.high)
    return total


def _drives(
    node: Neurons,
    edges: tuple[Edge, ...],
    outputs: Mapping[str, Interval],
    partials: Mapping[str, Array],
) -> list[Array]:
    """The largest magnitude that enters each current (or the membrane), flat."""
    drives = []
    for synapse in range(max(1, node.neuron.synapses)):
        mine = tuple(e for e in edges if e.synapse == synapse)
        if node.neuron.per_add:
            zero = np.zeros(node.shape)
            total = sum((partials[e.source] * 2.0**e.shift for e in mine), zero)
        else:
            total = _magnitude(_arriving(mine, outputs, node.shape))
        drives.append(np.ravel(total))
    return drives


def _transform(name: str, node: Transform, x: Interval) -> Bound:
    largest = _magnitude(x)
    scale = 2.0**node.shift
    rule, timing = RULES[type(node.node)], Timing()
    output = rule(node.node, timing, x)[0]
    # Of -m..m both bounds are the sum of all magnitudes.
    partial = _magnitude(rule(node.node, timing, Interval(-largest, largest))[0])
    output = Interval(np.floor(output.low * scale), np.floor(output.high * scale))
    if node.accumulator is not None:
        output = _accumulated(name, output, node.accumulator)
    partial = partial * max(scale, 1.0)
    return Bound(output, partial, max(_highest(largest), _highest(partial)))


def _accumulated(name: str, x: Interval, limits: Range) -> Interval:
    low, high = float(limits.low), float(limits.high)
    if not x.low.size or (x.low.min() >= low and x.high.max() <= high):
        return x
    if limits.overflow == "forbid":
        raise GraphError(
            f"node {name!r}: sums may go from {x.low.min():.0f} to {x.high.max():.0f}, but its "
            f"accumulator holds {limits.low}..{limits.high}."
        )
    if limits.overflow == "saturate":
        return Interval(np.clip(x.low, low, high), np.clip(x.high, low, high))
    inside = between(low, high, x.low.shape)
    return inside if limits.overflow == "wrap" else inside.hull(x)


def _neurons(node: Neurons, given: Numbers, drives: list[Array], steps: int) -> Bound:
    neuron = node.neuron
    driven = [drive * np.abs(given.gain) for drive in drives]
    still = np.zeros(given.gain.shape)
    currents, entering, current, widest = still, still, 0.0, 0.0
    for k in range(neuron.synapses):
        decay, amount = neuron.current_decay, given.current_decay[k]
        lost = decay.lost(amount)
        step = driven[k] + _subtracted(decay, amount)
        after, before = _reach(neuron.current, still, step, lost, steps)
        currents = currents + after
        entering = entering + after * np.abs(given.current_gain)
        current = max(current, _highest(before))
        widest = max(widest, current * 2.0**decay.bits)
    decay, amount = neuron.membrane_decay, given.membrane_decay
    step = (entering if neuron.synapses else driven[0]) + np.abs(given.bias)
    step = step + _subtracted(decay, amount)
    start = np.abs(given.start).astype(np.float64)
    if neuron.spiking and neuron.reset == "value":
        start = np.maximum(start, np.abs(given.v_reset))
    if neuron.spiking and neuron.reset == "subtract":
        step = step + np.maximum(0, -given.threshold)
    # One that spikes at every step never leaks, if spikes prevent that.
    lost = decay.lost(amount) if neuron.leak_on_spike else still
    after, before = _reach(neuron.membrane, start, step, lost, steps)
    membrane = _highest(before)
    widest = max(widest, membrane * 2.0**decay.bits)
    output = _output(node, after, currents)
    return Bound(output, _magnitude(output), widest, membrane, current)


def _subtracted(decay: Decay, amount: npt.NDArray[Any]) -> Array:
    return np.abs(amount) * float(decay.kind == "subtract")


def _output(node: Neurons, membrane: Array, currents: Array) -> Interval:
    largest = (membrane if node.output == "membrane" else currents).reshape(node.shape)
    found, known = Interval(-largest, largest), _beforehand(node)
    if known is None or node.output == "spikes":
        return known or found
    return Interval(np.maximum(found.low, known.low), np.minimum(found.high, known.high))


def _reach(
    limits: Range, start: Array, step: Array, lost: Array, steps: int
) -> tuple[Array, Array]:
    """Largest magnitude of a state between the steps, and before its range puts it right.

    |x| grows by at most `step` a step; where a share l of it is lost at each, up to the rounding,
    it stays below start + (step + 1) / l. That is so until it wraps: then it may be anywhere in
    the range and, where it is put right only once, go on from there.
    """
    with np.errstate(divide="ignore"):
        fades = np.where(lost > 0, start + (step + 1) / lost, np.inf)
    after = np.minimum(start + steps * step, fades)
    if limits.overflow == "saturate":
        after = np.minimum(after, limits.magnitude)
    elif limits.overflow != "forbid":
        held = limits.overflow == "wrap" or _highest(step) < limits.period
        wrapped = limits.magnitude + (0.0 if held else steps * step)
        after = np.where(after <= min(-limits.low, limits.high), after, wrapped)
    return after, after + step


def _or_nothing(x: Interval) -> Interval:
    return x.hull(between(0.0, 0.0, x.low.shape))


def _magnitude(x: Interval) -> Array:
    return np.maximum(np.abs(x.low), np.abs(x.high))


def _highest(values: Any) -> float:
    return float(np.max(values, initial=0.0))
