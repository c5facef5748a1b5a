"""How far values can go: interval arithmetic over a graph, from the declared range of the input.

What holds for every input within `InputSpec.low` and `high`, at every step, in real numbers. Spikes
are 0 or 1; linear layers take each weight by its sign; a leaky state is a geometric sum. Where a
cycle holds no spiking node, or a state is not stable, nothing is known: from -inf to inf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Deployment, Shape, Timing
from msg_deploy.graph import Plan, plan
from msg_deploy.options import ResetMode
from msg_deploy.primitives import primitive_of

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Bounds of each element, without batch.

    Attributes:
        low: smallest value.
        high: largest value, of the same shape.
    """

    low: Array
    high: Array

    @property
    def known(self) -> bool:
        """All bounds are finite."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def hull(self, other: Interval) -> Interval:
        """Everything in one or the other, or between."""
        return Interval(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


@dataclass(frozen=True)
class Bounds:
    """Of one node.

    Attributes:
        arriving: the summed input.
        output: what it gives.
        membrane: at the threshold decision, before reset; None without a membrane.
    """

    arriving: Interval
    output: Interval
    membrane: Interval | None = None


Rule = Callable[[Any, Timing, Interval], tuple[Interval, Interval | None]]
"""(node, timing, arriving) -> (output, membrane)."""
RULES: dict[type[nir.NIRNode], Rule] = {}


def rule(*kinds: type[nir.NIRNode]) -> Callable[[Rule], Rule]:
    """Decorator: the function bounds nodes of these types."""

    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return add


def bounds(deployment: Deployment) -> dict[str, Bounds]:
    """Bounds of every node.

    Raises:
        GraphError: the graph is not valid.
    """
    known = plan(deployment.graph)
    outputs = {
        name: between(0.0, 1.0, known.shapes[name])
        for name, node in deployment.graph.nodes.items()
        if primitive_of(node).spiking
    }
    found: dict[str, Bounds] = {}
    waiting = list(known.order)
    while waiting:
        ready = [n for n in waiting if all(e.source in outputs for e in known.incoming[n])]
        # What waits for itself, through no spiking node, is not bounded.
        for name in ready or waiting[:1]:
            found[name] = _of_node(deployment, known, name, outputs)
            outputs[name] = found[name].output
            waiting.remove(name)
    return found


def between(low: float, high: float, shape: Shape) -> Interval:
    """The same bounds for every element."""
    return Interval(np.full(shape, low), np.full(shape, high))


def _of_node(
    deployment: Deployment, known: Plan, name: str, outputs: Mapping[str, Interval]
) -> Bounds:
    node, spec = deployment.graph.nodes[name], deployment.input
    anything = between(-np.inf, np.inf, known.shapes[name])
    if isinstance(node, nir.Input):
        entering = between(*spec.entering, known.shapes[name])
        return Bounds(entering, entering)
    arriving = between(0.0, 0.0, known.input_shapes[name])
    for edge in known.incoming[name]:
        if edge.source not in outputs:
            return Bounds(between(-np.inf, np.inf, known.input_shapes[name]), anything, anything)
        value = outputs[edge.source]
        if edge.previous:  # nothing at the first step
            value = value.hull(between(0.0, 0.0, known.shapes[edge.source]))
        arriving = Interval(arriving.low + value.low, arriving.high + value.high)
    if not arriving.known or type(node) not in RULES:
        spiking = primitive_of(node).spiking
        return Bounds(arriving, outputs[name] if spiking else anything, anything)
    output, membrane = RULES[type(node)](node, deployment.timing, arriving)
    return Bounds(arriving, output, membrane)


def _apply(node: nir.NIRNode, timing: Timing, values: Array) -> Array:
    """One step of a node without state."""
    law = primitive_of(node).law(node, timing, values.shape, np.float64)
    output: Array = law.step(values[None], None).output[0]
    return output


@rule(nir.Output, nir.Flatten, nir.SumPool2d, nir.AvgPool2d)
def _monotone(node: Any, timing: Timing, x: Interval) -> tuple[Interval, None]:
    return Interval(_apply(node, timing, x.low), _apply(node, timing, x.high)), None


@rule(nir.Threshold)
def _threshold(node: Any, timing: Timing, x: Interval) -> tuple[Interval, Interval]:
    return between(0.0, 1.0, x.low.shape), x


@rule(nir.Affine, nir.Linear, nir.Scale, nir.Conv1d, nir.Conv2d)
def _linear(node: Any, timing: Timing, x: Interval) -> tuple[Interval, None]:
    field = "scale" if isinstance(node, nir.Scale) else "weight"
    weight = np.asarray(getattr(node, field), np.float64)
    no_bias = {"bias": np.zeros_like(node.bias)} if hasattr(node, "bias") else {}
    above = replace(node, **{field: np.maximum(weight, 0)})
    below = replace(node, **{field: np.minimum(weight, 0)}, **no_bias)
    return Interval(
        _apply(above, timing, x.low) + _apply(below, timing, x.high),
        _apply(above, timing, x.high) + _apply(below, timing, x.low),
    ), None


@rule(nir.Delay)
def _delay(node: Any, timing: Timing, x: Interval) -> tuple[Interval, None]:
    return x.hull(between(0.0, 0.0, x.low.shape)), None


def _times(factor: Array, x: Interval) -> Interval:
    a, b = factor * x.low, factor * x.high
    return Interval(np.minimum(a, b), np.maximum(a, b))


def _geometric(decay: Array, steps: int) -> Array:
    """1 + decay + ... + decay^(steps - 1)."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(decay == 1, float(steps), np.expm1(steps * np.log(decay)) / (decay - 1))


def _decaying(decay: Array, drive: Interval, start: Array, steps: int) -> Interval:
    """The range of v = decay v + drive over the steps 1..T.

    For 0 <= decay <= 1 each bound moves one way, so it is largest at the first step or the last.
    """
    ends = []
    for bound in (drive.low, drive.high):
        first = decay * start + bound
        last = decay**steps * start + bound * _geometric(decay, steps)
        ends.append((first, last))
    unstable = (decay < 0) | (decay > 1)
    return Interval(
        np.where(unstable, -np.inf, np.minimum(*ends[0])),
        np.where(unstable, np.inf, np.maximum(*ends[1])),
    )


def _leak(tau: Any, timing: Timing) -> tuple[Array, Array]:
    """(rate, decay) of one Euler step."""
    rate = timing.dt / np.asarray(tau, np.float64)
    return rate, 1 - rate


def _drive(node: Any, rate: Array, current: Interval) -> Interval:
    """What is added to the decayed membrane: rate (v_leak + r x)."""
    pushed = _times(rate * np.asarray(node.r, np.float64), current)
    rest = rate * np.asarray(node.v_leak, np.float64)
    return Interval(pushed.low + rest, pushed.high + rest)


def _current(node: Any, timing: Timing, x: Interval) -> Interval:
    rate, decay = _leak(node.tau_syn, timing)
    drive = _times(rate * np.asarray(node.w_in, np.float64), x)
    return _decaying(decay, drive, np.zeros_like(decay), timing.steps)


@rule(nir.LI)
def _li(node: nir.LI, timing: Timing, x: Interval) -> tuple[Interval, None]:
    rate, decay = _leak(node.tau, timing)
    start = np.asarray(node.v_leak, np.float64)
    return _decaying(decay, _drive(node, rate, x), start, timing.steps), None


@rule(nir.CubaLI)
def _cuba_li(node: nir.CubaLI, timing: Timing, x: Interval) -> tuple[Interval, None]:
    rate, decay = _leak(node.tau_mem, timing)
    drive = _drive(node, rate, _current(node, timing, x))
    start = np.asarray(node.v_leak, np.float64)
    return _decaying(decay, drive, start, timing.steps), None


@rule(nir.I)
def _i(node: nir.I, timing: Timing, x: Interval) -> tuple[Interval, None]:
    r = np.asarray(node.r, np.float64)
    return _decaying(np.ones_like(r), _times(r, x), np.zeros_like(r), timing.steps), None


@rule(nir.LIF)
def _lif(node: nir.LIF, timing: Timing, x: Interval) -> tuple[Interval, Interval]:
    rate, decay = _leak(node.tau, timing)
    return _spiking(node, decay, _drive(node, rate, x), node.v_leak, timing)


@rule(nir.CubaLIF)
def _cuba_lif(node: nir.CubaLIF, timing: Timing, x: Interval) -> tuple[Interval, Interval]:
    rate, decay = _leak(node.tau_mem, timing)
    drive = _drive(node, rate, _current(node, timing, x))
    return _spiking(node, decay, drive, node.v_leak, timing)


@rule(nir.IF)
def _if(node: nir.IF, timing: Timing, x: Interval) -> tuple[Interval, Interval]:
    r = np.asarray(node.r, np.float64)
    return _spiking(node, np.ones_like(r), _times(r, x), np.zeros_like(r), timing)


def _spiking(
    node: Any, decay: Array, drive: Interval, start: Any, timing: Timing
) -> tuple[Interval, Interval]:
    """The membrane before reset.

    What is left after a step is at most the threshold, or what the reset leaves of a spike.
    """
    threshold = np.asarray(node.v_threshold, np.float64)
    start = np.asarray(start, np.float64)
    after = _after_reset(node, timing.reset)
    low = _decaying(decay, drive, np.minimum(start, after), timing.steps).low
    rest = np.maximum(np.maximum(start, threshold), after)
    high = decay * rest + drive.high
    if timing.reset == "subtract":
        # A spike can leave more than a threshold; then it goes on from there.
        excess = Interval(drive.low, drive.high - threshold)
        left = _decaying(decay, excess, rest, timing.steps).high
        high = np.maximum(high, decay * np.maximum(rest, left) + drive.high)
    unstable = (decay < 0) | (decay > 1) | (threshold <= 0)
    return between(0.0, 1.0, threshold.shape), Interval(
        np.where(unstable, -np.inf, low), np.where(unstable, np.inf, high)
    )


def _after_reset(node: Any, reset: ResetMode) -> Array:
    """The value right after a spike: v_reset, or above 0 where the threshold is subtracted."""
    v_reset = np.asarray(node.v_reset, np.float64)
    return np.zeros_like(v_reset) if reset == "subtract" else v_reset
