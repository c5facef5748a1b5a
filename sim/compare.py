"""Comparison of traces and of parameters: facts only, and the verdict that follows from them.

Results of batches are joined by `merge`, which is associative, so sharding never changes them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import READOUT_PREFIX, Deployment, Metadata
from msg_deploy.exporters.branches import parts, split
from msg_deploy.graph import plan
from msg_deploy.matching import suggested
from msg_deploy.options import Precision
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.diagnosis.findings import Diagnosis
from msg_deploy.sim.illustration import Illustration
from msg_deploy.sim.simulator import FloatArray, Trace
from msg_deploy.terminals import columns

if TYPE_CHECKING:
    from msg_deploy.sim.explanation import Rounding

READOUT = "readout"
TIMING = "timing"

TOLERANCE: Mapping[Precision, float] = {"float64": 1e-10, "float32": 1e-4}
"""Largest difference of membranes, currents and scores that rounding may cause, relative to the
largest magnitude in the layer (at least 1). Spikes have no tolerance."""
REWRITTEN = 1e-5
"""The same for membranes across dialects: one may move a threshold by 2^-21 of it."""
MARGIN_EDGES = tuple(10.0**exponent for exponent in range(-12, 2))
"""Between the bins of margins: distances from the threshold as shares of the layer's largest
threshold. The first bin of a histogram is for decisions exactly at the threshold."""


class Kind(StrEnum):
    """The verdicts, from the strongest."""

    PROVEN = "PROVEN"
    IDENTICAL = "IDENTICAL"
    TIES = "TIES"
    DIVERGENT = "DIVERGENT"
    INCOMPARABLE = "INCOMPARABLE"


Quantity = Literal["spike", "membrane", "current", "score", "decision"]


@dataclass(frozen=True)
class Difference:
    """One place where two traces differ.

    Attributes:
        node: layer; "readout" for scores.
        rank: position of the layer in the order of execution.
        quantity: what differs.
        step: timestep, from 0.
        sample: index of the sample.
        neuron: index in the layer.
        a: value on the left side.
        b: value on the right side.
        membrane_a: membrane before reset on the left, for spiking layers.
        membrane_b: the same on the right.
        threshold: of that neuron, for spiking layers.
    """

    node: str
    rank: int
    quantity: Quantity
    step: int
    sample: int
    neuron: tuple[int, ...]
    a: float
    b: float
    membrane_a: float | None = None
    membrane_b: float | None = None
    threshold: float | None = None

    @property
    def margin(self) -> float | None:
        """The smallest distance of a known membrane from the threshold."""
        known = [v for v in (self.membrane_a, self.membrane_b) if v is not None]
        if self.threshold is None or not known:
            return None
        return min(abs(v - self.threshold) for v in known)

    @property
    def _key(self) -> tuple[int, bool, int, int]:
        return self.rank, self.quantity != "spike", self.step, self.sample


@dataclass(frozen=True)
class Layer:
    """How one spiking layer compares.

    Attributes:
        node: its name.
        spikes: decisions compared (T x B x neurons).
        fired: spikes on the left side.
        fired_b: spikes on the right side.
        mismatches: decisions that differ.
        membrane_difference: largest absolute difference of membranes; None if a side has not
            recorded them.
        uncertified: decisions that rounding may change; None without a certificate.
        margins: decisions by |v - v_threshold| as a share of the layer's largest |v_threshold|: 0,
            up to each of `MARGIN_EDGES`, and beyond. Of the left side's membranes, or the right
            side's, or those of exact arithmetic; None if none is known.
        smallest_margin: the smallest |v - v_threshold|, in the units of the membrane.
        tolerance: of membranes, relative to the largest magnitude in the layer, at least 1.
        needed: the smallest tolerance by which the membranes would be equal; None as
            `membrane_difference`.
        bound: the largest certified bound of a rounding error; None without a certificate, or if
            there is no bound.
    """

    node: str
    spikes: int
    fired: int
    mismatches: int
    membrane_difference: float | None
    uncertified: int | None = None
    margins: tuple[int, ...] | None = None
    smallest_margin: float | None = None
    tolerance: float | None = None
    needed: float | None = None
    bound: float | None = None
    fired_b: int | None = None


@dataclass(frozen=True)
class Comparison:
    """How two simulators' traces compare.

    Attributes:
        a: simulator on the left.
        b: simulator on the right.
        samples: number of samples.
        layers: spiking layers in the order of execution.
        score_difference: largest absolute difference of class scores.
        flips: samples whose decision differs.
        first: the first difference, by layer, then step, then sample; None if there is none.
        missing: why the traces cannot be compared; empty if they can.
        unexplained: samples in which a side decides otherwise than exact arithmetic where rounding
            is no reason, or in which values differ although all spikes agree; None without a
            certificate.
        unrecorded: spiking layers that only one side has recorded, and "readout" where a side has
            recorded no scores; they are not compared.
    """

    a: str
    b: str
    samples: int = 0
    layers: tuple[Layer, ...] = ()
    score_difference: float = 0.0
    flips: int = 0
    first: Difference | None = None
    missing: tuple[str, ...] = ()
    unexplained: int | None = None
    unrecorded: tuple[str, ...] = ()

    @property
    def scored(self) -> bool:
        """Whether scores and decisions are compared."""
        return READOUT not in self.unrecorded

    @property
    def kind(self) -> Kind:
        """The verdict of this pair alone."""
        if self.missing:
            return Kind.INCOMPARABLE
        explained = self.unexplained == 0
        if self.first is None:
            return Kind.PROVEN if explained and self.uncertified == 0 else Kind.IDENTICAL
        return Kind.TIES if explained and self.mismatches else Kind.DIVERGENT

    @property
    def uncertified(self) -> int | None:
        """Decisions that rounding may change; None if there is a layer without a certificate."""
        counts = [layer.uncertified for layer in self.layers]
        known = [count for count in counts if count is not None]
        return sum(known) if counts and len(known) == len(counts) else None

    @property
    def spikes(self) -> int:
        """Decisions compared in all layers."""
        return sum(layer.spikes for layer in self.layers)

    @property
    def mismatches(self) -> int:
        """Decisions that differ in all layers."""
        return sum(layer.mismatches for layer in self.layers)


@dataclass(frozen=True)
class ParameterDifference:
    """A parameter that differs between two deployments.

    Attributes:
        node: name of the node, "readout" or "timing".
        field: of that node.
        detail: how it differs.
    """

    node: str
    field: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """The answer of an equivalence check.

    Attributes:
        comparisons: of the left side with each simulator of the right side.
        parameters: parameters that differ although node name and type are the same.
        problems: why nothing could be compared.
        precision: arithmetic of the simulations.
        diagnosis: which layers are at fault and why, where spikes or values differ.
        illustration: what a report shows of one sample, if it was asked for.
    """

    comparisons: tuple[Comparison, ...]
    parameters: tuple[ParameterDifference, ...] = ()
    problems: tuple[str, ...] = ()
    precision: Precision = "float64"
    diagnosis: Diagnosis | None = None
    illustration: Illustration | None = dataclasses.field(
        default=None, compare=False, metadata={"reported": False}
    )

    @property
    def kind(self) -> Kind:
        """The weakest of all comparisons; a differing parameter is a difference."""
        kinds = {comparison.kind for comparison in self.comparisons}
        if Kind.DIVERGENT in kinds or self.parameters:
            return Kind.DIVERGENT
        if self.problems or not kinds or Kind.INCOMPARABLE in kinds:
            return Kind.INCOMPARABLE
        return next(k for k in (Kind.TIES, Kind.IDENTICAL, Kind.PROVEN) if k in kinds)

    @property
    def uncertified(self) -> int | None:
        """Decisions compared that rounding may change; None where there is no certificate."""
        counts = [c.uncertified for c in self.comparisons]
        known = [count for count in counts if count is not None]
        return sum(known) if counts and len(known) == len(counts) else None

    @property
    def certified_share(self) -> float | None:
        """Of the decisions compared, those that rounding cannot change; None if not known."""
        left = self.uncertified
        return None if left is None else 1 - left / max(self.spikes, 1)

    @property
    def spikes(self) -> int:
        """Decisions compared, over all comparisons."""
        return sum(c.spikes for c in self.comparisons)

    @property
    def mismatches(self) -> int:
        """Decisions that differ, over all comparisons."""
        return sum(c.mismatches for c in self.comparisons)

    def __bool__(self) -> bool:
        """True if and only if PROVEN or IDENTICAL, for `assert msg_deploy.check(...)`."""
        return self.kind in (Kind.PROVEN, Kind.IDENTICAL)

    def __repr__(self) -> str:
        """One line, short enough for pytest to show it whole where an assertion fails."""
        from msg_deploy.report.words import in_short

        return f"<{in_short(self)}>"

    def __str__(self) -> str:
        """Everything that a person wants to know, in lines."""
        from msg_deploy.report.words import sentences

        return "\n".join(sentences(self))


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
        rounding = None if unrecorded else rounding.fitting(a.spikes)
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


def merge(x: Comparison, y: Comparison) -> Comparison:
    """Join the comparisons of two disjoint sets of samples. Associative and commutative."""
    if x.missing or y.missing:
        return x if x.missing else y
    layers = tuple(
        Layer(
            node=p.node,
            spikes=p.spikes + q.spikes,
            fired=p.fired + q.fired,
            mismatches=p.mismatches + q.mismatches,
            membrane_difference=_larger(p.membrane_difference, q.membrane_difference),
            uncertified=_sum(p.uncertified, q.uncertified),
            margins=_added(p.margins, q.margins),
            smallest_margin=_smaller(p.smallest_margin, q.smallest_margin),
            tolerance=p.tolerance,
            needed=_larger(p.needed, q.needed),
            bound=_larger(p.bound, q.bound),
            fired_b=_sum(p.fired_b, q.fired_b),
        )
        for p, q in zip(x.layers, y.layers, strict=True)
    )
    found = [c.first for c in (x, y) if c.first]
    return Comparison(
        a=x.a,
        b=x.b,
        samples=x.samples + y.samples,
        layers=layers,
        score_difference=_max(x.score_difference, y.score_difference),
        flips=x.flips + y.flips,
        first=min(found, key=lambda d: d._key, default=None),
        unexplained=_sum(x.unexplained, y.unexplained),
        unrecorded=x.unrecorded,
    )


def _larger(x: float | None, y: float | None) -> float | None:
    return None if x is None or y is None else _max(x, y)


def _max(x: float, y: float) -> float:
    """NaN if one of them is, in any order; Python's own max takes what comes first."""
    return math.nan if math.isnan(x) or math.isnan(y) else max(x, y)


def _smaller(x: float | None, y: float | None) -> float | None:
    return None if x is None or y is None else min(x, y)


def _sum(x: int | None, y: int | None) -> int | None:
    return None if x is None or y is None else x + y


def _added(x: tuple[int, ...] | None, y: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if x is None or y is None else tuple(map(operator.add, x, y))


def merge_all(comparisons: Sequence[Comparison]) -> Comparison:
    """Join at least one comparison."""
    return functools.reduce(merge, comparisons)


def compare_metadata(
    a: Deployment | Metadata, b: Deployment | Metadata
) -> tuple[ParameterDifference, ...]:
    """What differs in the timing and in TWO; what a dialect rewrites is left out."""
    rewritten = a.provenance.dialect != b.provenance.dialect
    found = [
        ParameterDifference(TIMING, name, f"{x!r} against {y!r}")
        for name, x, y in _pairs(vars(a.timing), vars(b.timing))
        if not (rewritten and name == "dt")
    ]
    if a.readout and b.readout and not rewritten:
        detail = _field_difference(a.readout.weights, b.readout.weights)
        if detail:
            found.append(ParameterDifference(READOUT, "weights", detail))
    return tuple(found)


def compare_parameters(a: Deployment, b: Deployment) -> tuple[ParameterDifference, ...]:
    """Parameters that differ in nodes of the same name and type, in TWO and in the timing.

    A changed weight is found here even where no sample makes it matter. Nodes that a folding added
    are left to the comparison of scores, and everything that a dialect rewrites to that of spikes,
    membranes and currents.
    """
    found = list(compare_metadata(a, b))
    if a.provenance.dialect != b.provenance.dialect:
        return tuple(found)
    found += _differing_fields(a, b)
    if _edges(a) != _edges(b) and _nodes(a) == _nodes(b):
        changed = sorted(_edges(a) ^ _edges(b))
        listed = ", ".join(f"{x} -> {y}" for x, y in changed)
        found.append(ParameterDifference(changed[0][1], "edges", f"only on one side: {listed}"))
    return tuple(found)


def same_law(a: Deployment, b: Deployment) -> bool:
    """Whether the spikes of two graphs follow the same law, to the last bit of every parameter.

    The nodes must be called alike; how TWO is folded does not matter.
    """
    kinds = ({name: type(x.graph.nodes[name]) for name in _nodes(x)} for x in (a, b))
    return (
        a.timing == b.timing
        and operator.eq(*kinds)
        and _edges(a) == _edges(b)
        and parts(a.graph) == parts(b.graph)
        and not any(True for _ in _differing_fields(a, b))
    )


def _differing_fields(a: Deployment, b: Deployment) -> Iterator[ParameterDifference]:
    """Of nodes of the same name and type."""
    compared = _nodes(a) | _nodes(b)
    for name, node in a.graph.nodes.items():
        other = b.graph.nodes.get(name)
        if type(node) is not type(other) or name not in compared:
            continue
        for field in dataclasses.fields(node):
            if field.name in ("input_type", "output_type", "metadata"):
                continue
            detail = _field_difference(getattr(node, field.name), getattr(other, field.name))
            if detail:
                yield ParameterDifference(name, field.name, detail)


def _pairs(x: Mapping[str, Any], y: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(name, x[name], y[name]) for name in x if x[name] != y[name]]


def _nodes(deployment: Deployment) -> set[str]:
    """All nodes but those that a folding of TWO added.

    Others may be called like them, as those of a nested graph "readout" are: what leads to spikes
    is none of a folding's.
    """
    graph, readout = deployment.graph, deployment.readout
    if readout is None or readout.fold == "host":
        return set(graph.nodes)
    before: dict[str, list[str]] = {}
    for source, target in graph.edges:
        before.setdefault(str(target), []).append(str(source))
    leading: set[str] = set()
    left = [n for n, node in graph.nodes.items() if primitive_of(node).spiking]
    while left:
        name = left.pop()
        if name not in leading:
            leading.add(name)
            left += before.get(name, [])
    return {n for n in graph.nodes if n in leading or not n.startswith(READOUT_PREFIX)}


def _edges(deployment: Deployment) -> set[tuple[str, str]]:
    """The edges outside of the readout, whose folding may differ."""
    graph = deployment.graph
    outputs = {name for name, node in graph.nodes.items() if isinstance(node, nir.Output)}
    inside = _nodes(deployment) - outputs
    return {(str(x), str(y)) for x, y in graph.edges if x in inside and y in inside}


def _field_difference(x: Any, y: Any) -> str:
    left, right = np.asarray(x), np.asarray(y)
    if left.shape != right.shape:
        return f"shape {left.shape} against {right.shape}"
    unequal = left != right
    count = int(np.sum(unequal))
    if count == 0:
        return ""
    place = tuple(int(i) for i in np.argwhere(unequal)[0])
    where = f" at {list(place)}" if place else ""
    return (
        f"{count} of {left.size} entries differ, first{where}: {left[place]} against {right[place]}"
    )


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
    membranes = _membranes(a, b, node)
    difference = _largest(*membranes) if membranes else None
    certified = rounding.joint.certificate.certified[node] if rounding else None
    bound = float(np.max(rounding.certificate.bounds[node], initial=0.0)) if rounding else None
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
        needed=difference / _scale(membranes[0]) if membranes and difference is not None else None,
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
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.abs(membranes - threshold))


def _histogram(margins: FloatArray, threshold: npt.NDArray[Any]) -> tuple[int, ...]:
    """As in `Layer.margins`; NaN counts as the largest."""
    scale = float(np.abs(threshold).max(initial=0.0)) or 1.0
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
    explained: float | FloatArray = 0.0,
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
        return float(np.max(np.where(a == b, 0.0, np.abs(a - b)), initial=0.0))
