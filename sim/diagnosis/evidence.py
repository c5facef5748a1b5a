"""Teacher forcing: what a layer receives and gives on the side that is to be explained.

A layer of B that is fed with A's spikes, or A's law that is fed with what B's layer received: both
show whether the layer itself differs. The second needs B's trace alone, so it works for every kind
of file and for mistakes of a simulator; the first sees faults behind layers that B leaves silent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import nir
import numpy as np

from msg_deploy.deployment import Deployment
from msg_deploy.graph import plan
from msg_deploy.options import Precision
from msg_deploy.sim.compare import TOLERANCE
from msg_deploy.sim.diagnosis.segments import BORDER, CURRENT, Segment, feed
from msg_deploy.sim.simulator import FloatArray, Trace, simulator
from msg_deploy.terminals import split

ENGINE = "fast"
TIE: Mapping[Precision, float] = {"float64": 1e-10, "float32": 1e-5}
"""How far from a threshold rounding may decide, relative to the
largest threshold (at least 1)."""


@dataclass(frozen=True)
class Evidence:
    """What a layer received and gave, T steps of B samples.

    Attributes:
        received: by border of its segment, (T, B, *shape).
        given: spikes or currents (T, B, *shape), or scores (B, C).
        membranes: of spiking layers, as `given`; None if they are not recorded.
    """

    received: Mapping[str, FloatArray]
    given: FloatArray
    membranes: FloatArray | None = None

    def of(self, samples: Sequence[int]) -> Evidence:
        """That of some samples only."""
        chosen = list(samples)
        scores = self.given.ndim == 2
        return Evidence(
            {name: value[:, chosen] for name, value in self.received.items()},
            self.given[chosen] if scores else self.given[:, chosen],
            None if self.membranes is None else self.membranes[:, chosen],
        )


@dataclass(frozen=True)
class Given:
    """What a segment gives in our simulator.

    Attributes:
        values: spikes, currents or scores, as in `Evidence`.
        membranes: of spiking layers.
    """

    values: FloatArray
    membranes: FloatArray | None = None


def give(segment: Segment, received: Mapping[str, FloatArray]) -> Given:
    """Run a segment on what it receives, in float64.

    Raises:
        GraphError: its graph is not valid.
    """
    trace = simulator(ENGINE).run(segment.deployment, feed(segment, received))
    if segment.quantity == "score":
        return Given(trace.scores)
    return Given(trace.outputs, trace.membranes.get(segment.node))


def inputs_of(deployment: Deployment, stimulus: FloatArray) -> dict[str, FloatArray]:
    """The array of each Input node, by border, from what a simulator takes."""
    known = plan(deployment.graph)
    arrays = split(stimulus, {name: known.shapes[name] for name in known.inputs})
    return {f"{BORDER}{name}": array for name, array in arrays.items()}


def is_recorded(segment: Segment, trace: Trace, entering: Mapping[str, FloatArray]) -> bool:
    """Whether a trace holds what a segment receives and gives; recordings may lack layers."""
    known = {*entering, *(f"{BORDER}{name}" for name in trace.spikes)}
    known |= {CURRENT} if trace.currents.size else set()
    given = {
        "spike": segment.node in trace.spikes,
        "current": trace.currents.size > 0,
        "score": trace.scored,
    }
    return given[segment.quantity] and known >= set(segment.borders)


def recorded(segment: Segment, trace: Trace, entering: Mapping[str, FloatArray]) -> Evidence:
    """What a side recorded of a layer: what it received and what it made of that.

    Args:
        segment: of the other side's graph.
        trace: of the side.
        entering: as `inputs_of` gives it.
    """
    received = borders(segment, trace, entering)
    if segment.quantity == "score":
        return Evidence(received, trace.scores)
    if segment.quantity == "current":
        return Evidence(received, trace.currents)
    return Evidence(received, trace.spikes[segment.node], trace.membranes.get(segment.node))


def borders(
    segment: Segment, trace: Trace, entering: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """What a segment receives according to a trace."""
    values = {**entering, CURRENT: trace.currents}
    values |= {f"{BORDER}{name}": spikes for name, spikes in trace.spikes.items()}
    return {name: values[name] for name in segment.borders}


def forced(
    segment: Segment, theirs: Segment, trace: Trace, entering: Mapping[str, FloatArray]
) -> Evidence:
    """What the other side's segment makes of this side's spikes.

    Args:
        segment: of this side's graph, which names the borders.
        theirs: the same layer in the other side's graph.
        trace: of this side.
        entering: as `inputs_of` gives it.
    """
    given = give(theirs, borders(theirs, trace, entering))
    return Evidence(borders(segment, trace, entering), given.values, given.membranes)


@dataclass(frozen=True)
class Agreement:
    """How what a segment gives agrees with the evidence.

    Attributes:
        compared: values.
        mismatches: those that differ, but for neurons whose first difference may be rounding.
        ties: neurons whose first difference rounding may have caused.
        membranes: whether membranes agree; None if one side has none.
        distance: the largest difference of membranes, currents or scores.
    """

    compared: int
    mismatches: int
    ties: int
    membranes: bool | None
    distance: float = 0.0

    @property
    def spikes(self) -> bool:
        """Whether nothing but membranes can differ."""
        return self.mismatches == self.ties == 0

    @property
    def whole(self) -> bool:
        """Whether nothing differs."""
        return self.spikes and self.membranes is not False


def agreement(
    segment: Segment, found: Given, evidence: Evidence, precision: Precision, explained: float = 0.0
) -> Agreement:
    """Compare what a segment gives with the evidence.

    Args:
        segment: what gave it; its thresholds decide what is a tie.
        found: what it gave.
        evidence: what was to be given.
        precision: in which the evidence was computed.
        explained: difference of scores that a folding states.
    """
    # A dialect may have written images flat.
    x, y = found.values, evidence.given.reshape(found.values.shape)
    if segment.quantity != "spike":
        finite = np.abs(y[np.isfinite(y)])
        largest = max(1.0, float(finite.max(initial=0.0)))
        bound = TOLERANCE[precision] * largest + explained
        with np.errstate(invalid="ignore"):
            apart = np.abs(x - y)
            return Agreement(y.size, int((~(apart <= bound)).sum()), 0, None, _largest(apart))
    unequal = (x != y).reshape(len(x), -1)
    ties = _ties(segment, found, unequal, precision)
    mismatches, tied = int((unequal & ~ties).sum()), int(ties.sum())
    if found.membranes is None or evidence.membranes is None:
        return Agreement(y.size, mismatches, tied, None)
    apart = np.abs(found.membranes - evidence.membranes.reshape(found.membranes.shape))
    finite = evidence.membranes[np.isfinite(evidence.membranes)]
    scale = max(1.0, float(np.abs(finite).max(initial=0.0)))
    same = bool(np.all(apart <= TOLERANCE[precision] * scale))
    return Agreement(y.size, mismatches, tied, same, _largest(apart))


def _largest(apart: FloatArray) -> float:
    """NaN counts as infinite."""
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))


def _ties(segment: Segment, found: Given, unequal: FloatArray, precision: Precision) -> FloatArray:
    """Neurons and samples, (B*N,), whose first difference lies at the threshold."""
    if found.membranes is None:
        return np.zeros(unequal.shape[1:], bool)
    node: nir.NIRNode = segment.deployment.graph.nodes[segment.node]
    threshold = np.asarray(getattr(node, "v_threshold", getattr(node, "threshold", 0.0)))
    margins = np.abs(found.membranes - threshold).reshape(unequal.shape)
    # Not the largest membrane: one that explodes must not excuse everything.
    scale = max(1.0, float(np.abs(threshold).max(initial=0.0)))
    first = unequal.argmax(axis=0)
    near = np.take_along_axis(margins, first[None], axis=0)[0] <= TIE[precision] * scale
    return near & unequal.any(axis=0)


def together(parts: Sequence[Evidence]) -> Evidence:
    """Evidence on all samples of several; membranes only if all have them."""
    first = parts[0]
    axis = 0 if first.given.ndim == 2 else 1
    membranes = [part.membranes for part in parts if part.membranes is not None]
    return Evidence(
        {n: np.concatenate([p.received[n] for p in parts], 1) for n in first.received},
        np.concatenate([part.given for part in parts], axis),
        np.concatenate(membranes, 1) if len(membranes) == len(parts) else None,
    )
