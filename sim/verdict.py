"""The facts of a comparison, and the verdict that follows from them.

Facts of batches are joined by `merge`, which is associative, so sharding never changes them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from msg_deploy.options import Precision
from msg_deploy.sim.diagnosis.findings import Diagnosis
from msg_deploy.sim.illustration import Illustration

READOUT = "readout"
"""The node of differences of scores, decisions and TWO's weights."""
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
        return _total([layer.uncertified for layer in self.layers])

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
        return _total([c.uncertified for c in self.comparisons])

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


def _total(counts: Sequence[int | None]) -> int | None:
    """The sum; None if one is not known, or there is none."""
    return functools.reduce(_sum, counts) if counts else None


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
