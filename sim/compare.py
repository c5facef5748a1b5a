"""Comparison of two traces of the same samples, layer by layer."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Deployment
from msg_deploy.graph import plan
from msg_deploy.matching import suggested
from msg_deploy.options import Precision
from msg_deploy.parts import parts, split
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.simulator import FloatArray, Trace
from msg_deploy.sim.verdict import MARGIN_EDGES, READOUT, Comparison, Difference, Layer, Quantity
from msg_deploy.terminals import columns

if TYPE_CHECKING:
    from msg_deploy.sim.explanation import Rounding

TOLERANCE: Mapping[Precision, float] = {"float64": 1e-10, "float32": 1e-4}
"""Largest difference of membranes, currents and scores that rounding may cause, relative to the
largest magnitude in the layer (at least 1). Spikes have no tolerance."""
REWRITTEN = 1e-5
"""The same for membranes across dialects: one may move a threshold by 2^-21 of it."""


@dataclass(frozen=True)
class Layout:
    """What a comparison needs to know of the graph.

    Attributes:
        order: node names in the order of execution.
        thresholds: of the spiking nodes, of their shape; NaN where they are not known.
        sources: nodes that give the currents, and which of the last axis each one gives.
    """

    order: tuple[str, ...]
    thresholds: Mapping[str, npt.NDArray[Any]]
    sources: Mapping[str, slice]


def layout(deployment: Deployment) -> Layout:
    """The layout of a deployment; layers that were fused count as they were before."""
    known, found = plan(deployment.graph), parts(deployment.graph)
    thresholds = {
        name: np.asarray(node.threshold if isinstance(node, nir.Threshold) else node.v_threshold)
        for name, node in deployment.graph.nodes.items()
        if primitive_of(node).spiking
    }
    sources = (deployment.readout.source,) if deployment.readout else known.outputs
    return Layout(
        tuple(name for layer in known.order for name in found.get(layer, [layer])),
        split(thresholds, found, axis=0),
        columns({name: known.shapes[name] for name in sources}),
    )


def compare(
    a: Trace,
    b: Trace,
    known: Layout,
    tolerance: float,
    first_sample: int = 0,
    fold_error: float = 0.0,
    other: Layout | None = None,
    rounding: Rounding | None = None,
) -> Comparison:
    """Compare two traces of the same inputs.

    Args:
        a: left side.
        b: right side.
        known: the layout of the left side's graph.
        tolerance: relative, see `TOLERANCE`.
        first_sample: index of the traces' first sample in the whole run.
        fold_error: stated error of f by the foldings of both sides. Scores may differ by as much
            as it explains, decisions may not.
        other: the layout of the right side, if it is written in another dialect: its membranes
            are then compared, and shown, in the left side's units, by the ratio of the thresholds.
        rounding: what rounding can change, if it is known.
    """
    if other:
        b = _shaped_like(a, b)
    missing = _missing(a, b)
    if missing:
        return Comparison(a.simulator, b.simulator, missing=missing)
    if other:
        b = _in_units_of(known, other, b)
    unrecorded = tuple(sorted(a.spikes.keys() ^ b.spikes.keys()))
    if rounding:
        # What follows from a layer that is not recorded could not be told from what does not.
        rounding = None if unrecorded or not a.spikes else rounding.fitting(a.spikes)
    differences: list[Difference] = []
    layers = []
    near = max(tolerance, REWRITTEN) if other else tolerance
    for rank, node in enumerate(known.order):
        if node in a.spikes and node in b.spikes:
            layers.append(_layer(a, b, node, known.thresholds[node], rounding, near))
            bounds = rounding.certificate.bounds[node] if rounding else 0.0
            differences += _spiking(a, b, node, rank, known.thresholds[node], near, 2 * bounds)
        if node in known.sources:
            x, y = (trace.currents[..., known.sources[node]] for trace in (a, b))
            differences += _values(x, y, node, rank, "current", tolerance)
    rank = len(known.order)
    explained = folded_away(fold_error, a.currents if a.currents.size else b.currents)
    scored = a.scored and b.scored
    if scored:
        differences += _values(
            a.scores[None], b.scores[None], READOUT, rank, "score", tolerance, explained
        )
    if fold_error and scored:
        differences += _flipped(a, b, rank)
    first = min(differences, key=lambda d: d._key, default=None)
    allowed = (tolerance, near, explained)
    return Comparison(
        a=a.simulator,
        b=b.simulator,
        samples=len(a.scores),
        layers=tuple(layers),
        score_difference=_largest(a.scores, b.scores) if scored else 0.0,
        flips=int((a.decisions != b.decisions).sum()) if scored else 0,
        first=first and replace(first, sample=first.sample + first_sample),
        unexplained=_unexplained(a, b, rounding, first, allowed),
        unrecorded=unrecorded if scored else (*unrecorded, READOUT),
    )


def folded_away(fold_error: float, currents: FloatArray) -> float:
    """What the stated error of TWO's weights may change in scores of currents (T, B, C)."""
    return fold_error * float(np.abs(currents).sum(axis=0).max(initial=0.0))


def _missing(a: Trace, b: Trace) -> tuple[str, ...]:
    problems: list[str] = []
    mine, theirs = ([n for n in x.spikes if n not in y.spikes] for x, y in ((a, b), (b, a)))
    for one, alone, other, others in ((a, mine, b, theirs), (b, theirs, a, mine)):
        # A recording may lack layers; if it has others besides, it calls them otherwise.
        if others or not other.partial:
            problems += [
                f"spiking layer {node!r} is only on the side of {one.simulator}" for node in alone
            ]
    shapes = [{n: x.spikes[n].shape[2:] for n in names} for x, names in ((a, mine), (b, theirs))]
    problems += [f"perhaps --map {x}={y}" for x, y in suggested(*shapes).items()]
    problems += [
        f"layer {node!r} has shape {a.spikes[node].shape} against {b.spikes[node].shape}"
        for node in a.spikes
        if node in b.spikes and a.spikes[node].shape != b.spikes[node].shape
    ]
    if a.scored and b.scored and a.scores.shape != b.scores.shape:
        problems.append(f"scores have shape {a.scores.shape} against {b.scores.shape}")
    if (a.partial or b.partial) and a.currents.size and b.currents.size:
        shapes_of = (a.currents.shape, b.currents.shape)
        if operator.ne(*shapes_of):
            problems.append(f"currents have shape {shapes_of[0]} against {shapes_of[1]}")
    alike = a.currents.size > 0 and a.currents.shape == b.currents.shape
    if not (problems or a.spikes.keys() & b.spikes.keys() or alike or (a.scored and b.scored)):
        problems.append("there is nothing that both sides have recorded")
    return tuple(problems)


def _membranes(a: Trace, b: Trace, node: str) -> tuple[FloatArray, FloatArray] | None:
    """Both sides' membranes; other people's neurons do not show theirs."""
    if node not in a.membranes or node not in b.membranes:
        return None
    return a.membranes[node], b.membranes[node]


def _layer(
    a: Trace,
    b: Trace,
    node: str,
    threshold: npt.NDArray[Any],
    rounding: Rounding | None,
    tolerance: float,
) -> Layer:
    membranes, difference, needed = _membranes(a, b, node), None, None
    if membranes:
        difference = _largest(*membranes)
        needed = difference / _scale(membranes[0])
    certified = rounding.joint.certificate.certified[node] if rounding else None
    bound = float(np.max(rounding.certificate.bounds[node])) if rounding else None
    margins = _margins_of(a, b, node, threshold, rounding)
    smallest = math.inf
    if margins is not None:
        smallest = float(np.min(margins, initial=math.inf, where=np.isfinite(margins)))
    return Layer(
        node=node,
        spikes=a.spikes[node].size,
        fired=int(a.spikes[node].sum(dtype=np.int64)),
        fired_b=int(b.spikes[node].sum(dtype=np.int64)),
        mismatches=int((a.spikes[node] != b.spikes[node]).sum()),
        membrane_difference=difference,
        uncertified=None if certified is None else int((~certified).sum()),
        margins=None if margins is None else _histogram(margins, threshold),
        smallest_margin=smallest if math.isfinite(smallest) else None,
        tolerance=tolerance,
        needed=needed,
        bound=bound if bound is not None and math.isfinite(bound) else None,
    )


def _margins_of(
    a: Trace, b: Trace, node: str, threshold: npt.NDArray[Any], rounding: Rounding | None
) -> FloatArray | None:
    """The distances of membranes from their threshold; None if they are not known."""
    if not np.isfinite(threshold).all():
        return None
    membranes = a.membranes.get(node, b.membranes.get(node))
    if membranes is None:
        return np.abs(rounding.certificate.margins[node]) if rounding else None
    with np.errstate(over="ignore"):
        return np.asarray(np.abs(membranes - threshold))


def _histogram(margins: FloatArray, threshold: npt.NDArray[Any]) -> tuple[int, ...]:
    """As in `Layer.margins`; NaN counts as the largest."""
    scale = float(np.abs(threshold).max()) or 1.0
    within, left = [], margins
    for edge in reversed((0.0, *MARGIN_EDGES)):
        inside = left <= edge * scale
        within.append(int(np.count_nonzero(inside)))
        if within[-1] <= left.size // 2:
            # Few decisions are close: what is left to be looked at shrinks quickly.
            left = left[inside]
    return tuple(np.diff([0, *reversed(within), margins.size]).tolist())


def _unexplained(
    a: Trace,
    b: Trace,
    rounding: Rounding | None,
    first: Difference | None,
    allowed: tuple[float, float, float],
) -> int | None:
    """How many samples differ as rounding does not explain; None if it is not known.

    Args:
        a: left side.
        b: right side.
        rounding: what rounding can change.
        first: the first difference, if there is one.
        allowed: relative differences of values and of membranes, and what a folding explains.
    """
    if rounding is None:
        return None
    found = rounding.between(a.spikes, b.spikes)
    if first is None:
        return int(found.sum())
    agreeing = np.ones(len(found), np.bool_)
    for node, spikes in a.spikes.items():
        agreeing &= (spikes == b.spikes[node]).reshape(*spikes.shape[:2], -1).all(axis=(0, 2))
    values, near, folded = allowed
    bounds = rounding.certificate.bounds
    found_apart = [
        apart(*membranes, near, 2 * bounds[node])
        for node in a.spikes
        if (membranes := _membranes(a, b, node))
    ]
    if a.currents.shape == b.currents.shape:
        found_apart.append(apart(a.currents, b.currents, values))
    scored = a.scored and b.scored
    if scored:
        found_apart.append(apart(a.scores[None], b.scores[None], values, folded))
    for places in found_apart:
        found[places[:, 1]] |= agreeing[places[:, 1]]
    if folded and scored:
        found |= agreeing & (a.decisions != b.decisions)
    return int(found.sum())


def _spiking(
    a: Trace,
    b: Trace,
    node: str,
    rank: int,
    threshold: npt.NDArray[Any],
    tolerance: float,
    explained: float | FloatArray,
) -> list[Difference]:
    unequal = np.argwhere(a.spikes[node] != b.spikes[node])
    membranes = _membranes(a, b, node)
    quantity: Quantity = "spike" if len(unequal) else "membrane"
    if membranes and not len(unequal):
        unequal = apart(*membranes, tolerance, explained)
    if not len(unequal):
        return []
    place = tuple(int(i) for i in unequal[0])
    step, sample, *neuron = place
    left, right = a.membranes.get(node), b.membranes.get(node)
    x, y = (a.spikes[node], b.spikes[node]) if quantity == "spike" or not membranes else membranes
    return [
        Difference(
            node,
            rank,
            quantity,
            step,
            sample,
            tuple(neuron),
            float(x[place]),
            float(y[place]),
            membrane_a=None if left is None else float(left[place]),
            membrane_b=None if right is None else float(right[place]),
            threshold=_of(np.broadcast_to(threshold, a.spikes[node].shape[2:]), tuple(neuron)),
        )
    ]


def _of(threshold: npt.NDArray[Any], neuron: tuple[int, ...]) -> float | None:
    """The threshold of one neuron; NaN stands for one that is not known."""
    value = float(threshold[neuron])
    return None if np.isnan(value) else value


def as_written(a: Trace, b: Trace, known: Layout, other: Layout) -> Trace:
    """The right side's layers in the left side's shapes, their membranes in its units."""
    return _in_units_of(known, other, _shaped_like(a, b))


def _in_units_of(known: Layout, other: Layout, b: Trace) -> Trace:
    """Membranes scaled by the ratio of two thresholds; any state may be scaled freely."""
    found = {}
    for name, membrane in b.membranes.items():
        mine = known.thresholds[name]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = mine / np.reshape(other.thresholds[name], mine.shape)
        # Thresholds of 0, or that are not known, say nothing about units.
        found[name] = membrane * np.where(np.isfinite(ratio) & (ratio != 0), ratio, 1.0)
    return replace(b, membranes=found)


def _shaped_like(a: Trace, b: Trace) -> Trace:
    """The right side's layers in the shape of the left side's: a dialect may write images flat."""

    def shaped(arrays: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        shapes = {name: spikes.shape for name, spikes in a.spikes.items()}
        return {
            name: array.reshape(shapes[name])
            if name in shapes and array.size == math.prod(shapes[name])
            else array
            for name, array in arrays.items()
        }

    return replace(b, spikes=shaped(b.spikes), membranes=shaped(b.membranes))


def _flipped(a: Trace, b: Trace, rank: int) -> list[Difference]:
    """The first sample that the two sides decide differently."""
    samples = np.flatnonzero(a.decisions != b.decisions)
    if not len(samples):
        return []
    sample = int(samples[0])
    chosen = int(a.decisions[sample])
    scores = (float(trace.scores[sample].ravel()[chosen]) for trace in (a, b))
    return [Difference(READOUT, rank, "decision", 0, sample, (chosen,), *scores)]


def _values(
    a: FloatArray,
    b: FloatArray,
    node: str,
    rank: int,
    quantity: Quantity,
    tolerance: float,
    explained: float = 0.0,
) -> list[Difference]:
    if a.shape != b.shape:
        return []
    unequal = apart(a, b, tolerance, explained)
    if not len(unequal):
        return []
    place = tuple(int(i) for i in unequal[0])
    step, sample, *neuron = place
    return [
        Difference(
            node, rank, quantity, step, sample, tuple(neuron), float(a[place]), float(b[place])
        )
    ]


def apart(
    a: FloatArray, b: FloatArray, tolerance: float, explained: float | FloatArray = 0.0
) -> npt.NDArray[np.int64]:
    """Indices where a and b differ by more than rounding; NaN differs from everything."""
    with np.errstate(invalid="ignore", over="ignore"):
        close = (a == b) | (np.abs(a - b) <= tolerance * _scale(a) + explained)
    return np.argwhere(~close)


def _scale(values: FloatArray) -> float:
    """The largest magnitude, at least 1."""
    return max(1.0, float(np.max(np.abs(values[np.isfinite(values)]), initial=0.0)))


def _largest(a: FloatArray, b: FloatArray) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.max(np.where(a == b, 0.0, np.abs(a - b))))
