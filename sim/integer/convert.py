"""From a NIR graph whose numbers are integers, or on a power-of-two grid, to an integer network.

A node's values are integers times 2^-p, with a point p that is known beforehand, so nothing is
rounded and spikes and membranes are those of the reference simulator to the bit:

- Linear, Affine, Conv, Scale, the threshold, gains, v_leak and v_reset stand on a grid of at least
  2^-16; AvgPool2d has a window of 2^n values. With reset "zero" a threshold may be any number: a
  membrane on a grid is above it if it is above the grid's point below it.
- IF, I and Threshold need no more digits with time, so they can always be represented.
- LIF, LI, CubaLIF and CubaLI: dt/tau = 2^-k. Each step may add k digits to a membrane (and k_syn to
  a current), so T steps need up to T k (T (k + k_syn)) digits behind the point.
- All magnitudes, times 2^p, stay within 2^53, which float64 holds. Otherwise a graph is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Deployment, Shape
from msg_deploy.errors import GraphError
from msg_deploy.graph import Plan, plan
from msg_deploy.grid import dyadic
from msg_deploy.options import Precision, ResetMode
from msg_deploy.primitives import pair, primitive_of
from msg_deploy.primitives.delay import delay_steps
from msg_deploy.sim.integer.bounds import bounds
from msg_deploy.sim.integer.network import (
    Edge,
    Entry,
    Exit,
    IntegerNetwork,
    Neurons,
    Node,
    Postponed,
    Transform,
)
from msg_deploy.sim.integer.neuron import IntegerNeuron, Parameters
from msg_deploy.sim.integer.rules import LARGEST, Decay

FINEST = 16
"""Binary digits behind the point that a number of a graph may have."""
EXACT_IN_FLOAT64 = 2.0**53

Array = npt.NDArray[np.float64]

MEMBRANE = IntegerNeuron()
"""v += gain x; spike where v > threshold; v = v_reset. Nothing saturates or wraps."""
SILENT = replace(MEMBRANE, compare="never")
LEAK = Decay("shift")


@dataclass(frozen=True)
class Converted:
    """A node in integers.

    Attributes:
        node: that node.
        point: of its values.
        membrane_point: of its membrane, where it has one.
    """

    node: Node
    point: int = 0
    membrane_point: int | None = None


@dataclass(frozen=True)
class Setting:
    """What a conversion needs beside the node.

    Attributes:
        deployment: of the node.
        shape: of its input.
        point: of its input.
        precision: in which parameters are understood.
    """

    deployment: Deployment
    shape: Shape
    point: int
    precision: Precision

    @property
    def steps(self) -> int:
        """T."""
        return self.deployment.timing.steps

    @property
    def reset(self) -> ResetMode:
        """Of all neurons."""
        return self.deployment.timing.reset

    def values(self, node: nir.NIRNode, field: str) -> Array:
        """A parameter as an engine of this precision has it."""
        return np.asarray(getattr(node, field), self.precision).astype(np.float64)

    def point_of(self, node: nir.NIRNode, field: str) -> int:
        """Digits behind the point of a parameter.

        Raises:
            GraphError: more than `FINEST`.
        """
        step = dyadic(self.values(node, field))
        digits = max(0, int(-np.log2(step))) if np.isfinite(step) else 0
        if digits > FINEST:
            raise GraphError(
                f"{field} is not in integers: its numbers are no multiples of 2^-{FINEST} or of "
                "a coarser power of two."
            )
        return digits

    def halvings(self, node: nir.NIRNode, field: str) -> npt.NDArray[np.int64]:
        """K where dt/tau = 2^-k, of each neuron.

        Raises:
            GraphError: it is no such number.
        """
        tau = np.asarray(getattr(node, field), np.float64)
        rate = np.asarray(self.deployment.timing.dt / tau, self.precision).astype(np.float64)
        mantissa, exponent = np.frexp(rate)
        if np.any(mantissa != 0.5) or np.any(rate > 1):
            raise GraphError(f"dt/{field} is not 1, 1/2, 1/4, ... for every neuron.")
        return np.asarray(1 - exponent, np.int64)


Conversion = Callable[[Any, Setting], Converted]
CONVERSIONS: dict[type[nir.NIRNode], Conversion] = {}


def converts(*kinds: type[nir.NIRNode]) -> Callable[[Conversion], Conversion]:
    """Decorator: the function converts nodes of these types."""

    def add(conversion: Conversion) -> Conversion:
        CONVERSIONS.update(dict.fromkeys(kinds, conversion))
        return conversion

    return add


def from_deployment(deployment: Deployment, precision: Precision = "float64") -> IntegerNetwork:
    """The same network in integers.

    Args:
        deployment: whose numbers are integers; see above.
        precision: in which its parameters are understood.

    Raises:
        GraphError: naming every node that is not in integers.
    """
    network, problems = converted(deployment, precision)
    if network is None:
        raise GraphError(" ".join(problems))
    return network


def converted(
    deployment: Deployment, precision: Precision = "float64"
) -> tuple[IntegerNetwork | None, list[str]]:
    """The network, or why there is none: one reason an entry, each naming a node.

    Raises:
        GraphError: the graph is not valid.
    """
    known = plan(deployment.graph)
    found, points, problems = _nodes(deployment, known, precision)
    if problems:
        return None, problems
    edges = [
        Edge(e.source, name, int(e.previous), 0, points[name] - found[e.source].point)
        for name in known.order
        for e in known.incoming[name]
    ]
    try:
        network = IntegerNetwork(
            {name: found[name].node for name in known.order},
            edges,
            points={name: c.point for name, c in found.items()},
            membrane_points={
                name: c.membrane_point for name, c in found.items() if c.membrane_point is not None
            },
        )
    except GraphError as error:
        return None, [str(error)]
    problems = _too_large(deployment, network)
    return (None, problems) if problems else (network, [])


def _nodes(
    deployment: Deployment, known: Plan, precision: Precision
) -> tuple[dict[str, Converted], dict[str, int], list[str]]:
    """Each node, the point of what enters it, and what is wrong."""
    nodes = deployment.graph.nodes
    leaving = {name: 0 for name, node in nodes.items() if primitive_of(node).spiking}
    entering: dict[str, int] = {}
    found: dict[str, Converted] = {}
    problems: list[str] = []
    waiting = list(known.order)
    while waiting:
        ready = [n for n in waiting if all(e.source in leaving for e in known.incoming[n])]
        if not ready:
            around = _on_a_cycle(waiting, known, leaving)
            problems.append(
                f"node {around!r}: no neuron with a threshold is on its cycle; how many digits "
                "its values need is not known beforehand."
            )
            break
        for name in ready:
            point = max((leaving[e.source] for e in known.incoming[name]), default=0)
            entering[name] = point
            setting = Setting(deployment, known.input_shapes[name], point, precision)
            try:
                found[name] = CONVERSIONS[type(nodes[name])](nodes[name], setting)
                leaving[name] = found[name].point
            except GraphError as error:
                problems.append(f"node {name!r} ({type(nodes[name]).__name__}): {error}")
                leaving.setdefault(name, 0)
            waiting.remove(name)
    return found, entering, problems


def _on_a_cycle(waiting: list[str], known: Plan, leaving: Mapping[str, int]) -> str:
    """A node that waits for itself: from any that waits, back to the first met twice."""
    name, met = waiting[0], set[str]()
    while name not in met:
        met.add(name)
        name = next(e.source for e in known.incoming[name] if e.source not in leaving)
    return name


def _too_large(deployment: Deployment, network: IntegerNetwork) -> list[str]:
    """What float64 would round."""
    try:
        reach = bounds(network, deployment.timing.steps)
    except GraphError as error:
        return [str(error)]
    return [
        f"node {name!r} ({type(deployment.graph.nodes[name]).__name__}): its values may need "
        f"{np.log2(bound.largest):.0f} bits, of which up to "
        f"{network.membrane_points.get(name, network.points.get(name, 0))} behind the point; "
        "53 are exact. Fewer steps, smaller weights or coarser numbers need less."
        for name, bound in reach.items()
        if bound.largest > EXACT_IN_FLOAT64
    ]


@converts(nir.Input)
def _input(node: nir.Input, s: Setting) -> Converted:
    low, high = s.deployment.input.entering
    return Converted(Entry(s.shape, int(np.floor(low)), int(np.ceil(high))))


@converts(nir.Output)
def _output(node: nir.Output, s: Setting) -> Converted:
    return Converted(Exit(), s.point)


@converts(nir.Flatten, nir.SumPool2d)
def _unchanged(node: nir.NIRNode, s: Setting) -> Converted:
    return Converted(Transform(node), s.point)


@converts(nir.AvgPool2d)
def _average(node: nir.AvgPool2d, s: Setting) -> Converted:
    height, width = pair(node, "kernel_size", 1)
    count = height * width
    if count & (count - 1):
        raise GraphError(f"divides by {count}, which is no power of two.")
    pool = nir.SumPool2d(node.kernel_size, node.stride, node.padding)
    return Converted(Transform(pool), s.point + count.bit_length() - 1)


@converts(nir.Delay)
def _delay(node: nir.Delay, s: Setting) -> Converted:
    return Converted(Postponed(delay_steps(node, s.deployment.timing)), s.point)


@converts(nir.Linear, nir.Affine, nir.Conv1d, nir.Conv2d, nir.Scale)
def _product(node: Any, s: Setting) -> Converted:
    field = "scale" if isinstance(node, nir.Scale) else "weight"
    digits = s.point_of(node, field)
    changes = {}
    if hasattr(node, "bias"):
        digits = max(digits, s.point_of(node, "bias") - s.point)
        changes["bias"] = _integers("bias", s.values(node, "bias"), s.point + digits)
    changes[field] = _integers(field, s.values(node, field), digits)
    whole = {name: value.astype(np.float64) for name, value in changes.items()}
    return Converted(Transform(replace(node, **whole)), s.point + digits)


@converts(nir.Threshold)
def _threshold(node: nir.Threshold, s: Setting) -> Converted:
    neuron = replace(MEMBRANE, membrane_decay=LEAK, reset="none")  # x - x / 2^0: no memory
    threshold = _below(s.values(node, "threshold"), s.point)
    parameters = Parameters(threshold=threshold)
    return Converted(Neurons(neuron, parameters, s.shape), 0, s.point)


@converts(nir.IF)
def _if(node: nir.IF, s: Setting) -> Converted:
    point = max(s.point + s.point_of(node, "r"), _point_of_reset(node, s))
    gain = _integers("r", s.values(node, "r"), point - s.point)
    return _spiking(node, s, MEMBRANE, Parameters(gain=gain), point)


@converts(nir.I)
def _i(node: nir.I, s: Setting) -> Converted:
    point = s.point + s.point_of(node, "r")
    gain = _integers("r", s.values(node, "r"), point - s.point)
    return _integrator(s, SILENT, Parameters(gain=gain), point)


@converts(nir.LIF)
def _lif(node: nir.LIF, s: Setting) -> Converted:
    parameters, point = _leaky(node, s, _point_of_reset(node, s))
    return _spiking(node, s, replace(MEMBRANE, membrane_decay=LEAK), parameters, point)


@converts(nir.LI)
def _li(node: nir.LI, s: Setting) -> Converted:
    parameters, point = _leaky(node, s, 0)
    return _integrator(s, replace(SILENT, membrane_decay=LEAK), parameters, point)


@converts(nir.CubaLIF)
def _cuba_lif(node: nir.CubaLIF, s: Setting) -> Converted:
    parameters, point = _current_based(node, s, _point_of_reset(node, s))
    return _spiking(node, s, _with_current(MEMBRANE), parameters, point)


@converts(nir.CubaLI)
def _cuba_li(node: nir.CubaLI, s: Setting) -> Converted:
    parameters, point = _current_based(node, s, 0)
    return _integrator(s, _with_current(SILENT), parameters, point)


def _with_current(neuron: IntegerNeuron) -> IntegerNeuron:
    return replace(neuron, synapses=1, current_decay=LEAK, membrane_decay=LEAK)


def _leaky(node: Any, s: Setting, least: int) -> tuple[Parameters, int]:
    """V += 2^-k ((v_leak - v) + r x), as v - v / 2^k + 2^-k r x + 2^-k v_leak."""
    halvings = s.halvings(node, "tau")
    digits = max(s.point + s.point_of(node, "r"), s.point_of(node, "v_leak"), least)
    point = digits + int(halvings.max(initial=0)) * s.steps
    return Parameters(
        membrane_decay=halvings,
        gain=_integers("r", s.values(node, "r"), point - s.point - halvings),
        bias=_integers("v_leak", s.values(node, "v_leak"), point - halvings),
        start=_integers("v_leak", s.values(node, "v_leak"), point),
    ), point


def _current_based(node: Any, s: Setting, least: int) -> tuple[Parameters, int]:
    """The current likewise, by tau_syn and w_in; then the membrane with r times the current."""
    fading, halvings = s.halvings(node, "tau_syn"), s.halvings(node, "tau_mem")
    of_current = s.point + s.point_of(node, "w_in") + int(fading.max(initial=0)) * s.steps
    digits = max(of_current + s.point_of(node, "r"), s.point_of(node, "v_leak"), least)
    point = digits + int(halvings.max(initial=0)) * s.steps
    return Parameters(
        current_decay=fading,
        membrane_decay=halvings,
        gain=_integers("w_in", s.values(node, "w_in"), of_current - s.point - fading),
        current_gain=_integers("r", s.values(node, "r"), point - of_current - halvings),
        bias=_integers("v_leak", s.values(node, "v_leak"), point - halvings),
        start=_integers("v_leak", s.values(node, "v_leak"), point),
    ), point


def _point_of_reset(node: Any, s: Setting) -> int:
    """Digits that a spike may leave behind."""
    return s.point_of(node, "v_threshold" if s.reset == "subtract" else "v_reset")


def _spiking(
    node: Any, s: Setting, neuron: IntegerNeuron, parameters: Parameters, point: int
) -> Converted:
    threshold = s.values(node, "v_threshold")
    if s.reset == "subtract":
        neuron = replace(neuron, reset="subtract")
        known = replace(parameters, threshold=_integers("v_threshold", threshold, point))
    else:
        v_reset = _integers("v_reset", s.values(node, "v_reset"), point)
        known = replace(parameters, threshold=_below(threshold, point), v_reset=v_reset)
    return Converted(Neurons(neuron, known, s.shape), 0, point)


def _integrator(s: Setting, neuron: IntegerNeuron, parameters: Parameters, point: int) -> Converted:
    return Converted(Neurons(neuron, parameters, s.shape, "membrane"), point, point)


def _integers(field: str, values: Array, digits: Any) -> npt.NDArray[np.int64]:
    """Values times 2^digits, which are whole.

    Raises:
        GraphError: more than float64 holds.
    """
    scaled = np.ldexp(values, digits)
    if np.any(np.abs(scaled) > EXACT_IN_FLOAT64):
        raise GraphError(
            f"{field} needs {int(np.max(digits))} digits behind the point, with the steps and "
            "numbers of this graph: 53 bits do not hold it."
        )
    return scaled.astype(np.int64)


def _below(threshold: Array, digits: int) -> npt.NDArray[np.int64]:
    """The largest integer whose multiple of 2^-digits is not above a threshold."""
    scaled = np.floor(np.ldexp(threshold, digits))
    return np.clip(scaled, -float(LARGEST), float(LARGEST)).astype(np.int64)


def in_units(values: npt.NDArray[np.int64], points: Mapping[str, int], name: str) -> Array:
    """Integers of a node as what they stand for, float64."""
    return np.ldexp(values.astype(np.float64), -points.get(name, 0))
