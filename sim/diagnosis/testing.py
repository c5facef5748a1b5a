"""Testing hypotheses: a change is a cause if the changed layer gives what the faulty side gave."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from msg_deploy.errors import GraphError
from msg_deploy.options import Precision
from msg_deploy.sim.diagnosis.evidence import (
    Agreement,
    Evidence,
    Given,
    agreement,
    give,
)
from msg_deploy.sim.diagnosis.findings import ROUNDING, Cause, Fault
from msg_deploy.sim.diagnosis.hypotheses import (
    Family,
    Hypothesis,
    Setting,
    Variant,
    hypotheses,
)
from msg_deploy.sim.diagnosis.segments import BORDER, Segment
from msg_deploy.sim.parameters import compare_parameters

FITTED = 4
"""Hypotheses of this cost explain anything, so they are asked only if no other one does."""
AT_THRESHOLD = "at-threshold"
SCREENED = 2
"""Samples on which a change is tested first: those with the most differences."""
HALVINGS = 40
"""How often the interval of a factor is narrowed, at most."""
HOPE = 6
"""After so many the search goes on only if half of the differences are gone."""
PRECISE = 6
"""A factor is told with as few digits, below this, as explain the same."""


@dataclass
class Deadline:
    """When to stop testing.

    Args:
        seconds: from now.
    """

    seconds: float

    def __post_init__(self) -> None:
        self.end = time.monotonic() + self.seconds

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.end


@dataclass(frozen=True)
class Found:
    """A change with what came of it.

    Attributes:
        hypothesis: that it belongs to.
        variant: the changed layer.
        result: its agreement with the evidence.
    """

    hypothesis: Hypothesis
    variant: Variant
    result: Agreement


class Tester:
    """Tests changes of one layer.

    Args:
        setting: the layer and the evidence.
        precision: in which the evidence was computed.
        explained: difference of scores that a folding states.
        deadline: when to stop.
    """

    def __init__(
        self, setting: Setting, precision: Precision, explained: float, deadline: Deadline
    ) -> None:
        self.setting, self.precision = setting, precision
        self.explained, self.deadline = explained, deadline
        self.tested = 0
        self.baseline = self.result(Variant("", "", setting.segment), setting.evidence)
        self.few = self._screening()

    def result(self, variant: Variant, evidence: Evidence) -> Agreement:
        """How a variant agrees with the evidence; a graph that is not valid does not at all."""
        try:
            found = give(variant.segment, variant.receive(evidence.received))
        except (GraphError, RuntimeError):  # torch refuses some windows that NIR can state
            return Agreement(evidence.given.size, evidence.given.size, 0, None)
        found, evidence = _aligned(found, evidence, variant.lead)
        return agreement(variant.segment, found, evidence, self.precision, self.explained)

    def explains(self, result: Agreement) -> bool:
        """Whether nothing differs, or only what rounding explains where more differed before."""
        ties = result.ties == 0 or self.baseline.mismatches > 0
        return result.mismatches == 0 and ties and not self._worse(result)

    def _worse(self, result: Agreement) -> bool:
        """Membranes that agree show nothing; ones that do not are no explanation of membranes."""
        only_membranes = self.baseline.spikes and self.baseline.membranes is False
        return only_membranes and result.membranes is False

    def fault(self) -> Fault:
        """The layer's causes, or the change that comes closest."""
        segment, base = self.setting.segment, self.baseline
        fault = Fault(segment.node, segment.quantity, base.compared, base.mismatches, base.ties)
        if base.mismatches == 0 and base.ties:
            causes = self._of_ties()
            return replace(fault, causes=causes, tested=self.tested)
        explaining, closest = self._all()
        fault = replace(fault, causes=self._ordered(explaining), tested=self.tested)
        if explaining or closest is None or closest.result.mismatches >= base.mismatches:
            return fault
        return replace(fault, closest=self.cause(closest), remaining=closest.result.mismatches)

    def _of_ties(self) -> tuple[Cause, ...]:
        """Where only ties differ, `>=` must explain each of them; anything else is rounding."""
        decides = [h for h in hypotheses() if h.name == AT_THRESHOLD]
        found = [f for one in decides for f in self._tested(one, self._listed(one))]
        explaining = [f for f in found if self.explains(f.result)]
        text = "it rounds otherwise: only decisions at the threshold differ"
        rounding = Cause(ROUNDING, self.setting.segment.node, text)
        return self._ordered(explaining) or (rounding,)

    def _ordered(self, explaining: list[Found]) -> tuple[Cause, ...]:
        """Causes, the likeliest first; those with other membranes only if there are no others."""
        whole = [found for found in explaining if found.result.membranes is not False]
        causes = [(self.cause(found), found.hypothesis.cost) for found in whole or explaining]
        return tuple(
            cause for cause, _ in sorted(causes, key=lambda c: (c[0].parameters or 0, c[1]))
        )

    def cause(self, found: Found) -> Cause:
        """A change as it is told."""
        other = self.setting.other
        parameters = None if other is None else _apart(found.variant, self.setting.segment, other)
        node = found.variant.node.removeprefix(BORDER)
        name, sentence = found.hypothesis.name, found.variant.sentence
        return Cause(name, node, sentence, parameters, found.result.membranes)

    def _all(self) -> tuple[list[Found], Found | None]:
        """What explains: listed changes, else searched factors, else what is fitted."""
        listed = [h for h in hypotheses() if h.cost < FITTED]
        fitted = [h for h in hypotheses() if h.cost >= FITTED]
        explaining: list[Found] = []
        closest: Found | None = None
        for ones, variants in (
            (listed, self._listed),
            (listed, self._searched),
            (fitted, self._listed),
        ):
            found = [f for one in ones for f in self._tested(one, variants(one))]
            explaining += [f for f in found if self.explains(f.result)]
            closest = min([f for f in [closest, *found] if f], key=_mismatches, default=None)
            whole = any(f.result.membranes is not False for f in explaining)
            if whole or self.deadline.passed:
                break
        return explaining, closest

    def _tested(self, one: Hypothesis, variants: Iterator[Variant]) -> Iterator[Found]:
        """Of each node the variants up to the first that explains everything."""
        seen: set[str] = set()
        for variant in variants:
            if self.deadline.passed:
                return
            if variant.node in seen:
                continue
            found = self._test(one, variant)
            if self.explains(found.result) and found.result.membranes is not False:
                seen.add(variant.node)
            yield found

    def _listed(self, one: Hypothesis) -> Iterator[Variant]:
        for change in one.changes(self.setting):
            if isinstance(change, Variant):
                yield change
            else:
                yield from (change.at(factor) for factor in change.factors)

    def _searched(self, one: Hypothesis) -> Iterator[Variant]:
        for change in one.changes(self.setting):
            if isinstance(change, Family) and not self.deadline.passed:
                yield from self._factors(change)

    def _factors(self, family: Family) -> Iterator[Variant]:
        """The factor that a search around the best listed one finds, with as few digits as do."""
        tried = {factor: self._distance(family, factor) for factor in (1.0, *family.factors)}
        positive = sorted(factor for factor in tried if factor > 0)
        place = positive.index(min(positive, key=tried.__getitem__))
        low, high = positive[max(place - 1, 0)], positive[min(place + 1, len(positive) - 1)]
        found = self._narrowed(family, low, positive[place], high)
        for digits in range(1, PRECISE):
            short = float(f"{found:.{digits}g}")
            if self.explains(self.result(family.at(short), self.few)):
                yield family.at(short)
        yield family.at(found)

    def _distance(self, family: Family, factor: float) -> tuple[int, float]:
        result = self.result(family.at(factor), self.few)
        return result.mismatches + result.ties, result.distance

    def _narrowed(self, family: Family, low: float, best: float, high: float) -> float:
        """The factor between two others that leaves the smallest difference."""
        least = self._distance(family, best)
        hopeless = self._distance(family, 1.0)[0] / 2
        for number in range(HALVINGS):
            if number == HOPE and least[0] > hopeless:
                break
            if self.deadline.passed or self.explains(self.result(family.at(best), self.few)):
                break
            middles = [math.sqrt(low * best), math.sqrt(best * high)]
            found = [self._distance(family, middle) for middle in middles]
            if min(found) < least:
                least = min(found)
                side = found.index(least)
                low, high = (low, best) if side == 0 else (best, high)
                best = middles[side]
            else:
                low, high = middles
        return best

    def _test(self, one: Hypothesis, variant: Variant) -> Found:
        """On a few samples, and if nothing differs there on all of them."""
        self.tested += 1
        few = self.result(variant, self.few)
        if self.explains(few):
            return Found(one, variant, self.result(variant, self.setting.evidence))
        whole = self.setting.evidence.given.size
        scaled = int(few.mismatches * whole / max(1, few.compared))
        return Found(one, variant, replace(few, mismatches=scaled))

    def _screening(self) -> Evidence:
        """The samples that differ most."""
        evidence = self.setting.evidence
        found = give(self.setting.segment, evidence.received)
        given = evidence.given.reshape(found.values.shape)
        axis = 0 if given.ndim == 2 and self.setting.segment.quantity == "score" else 1
        apart = np.abs(np.moveaxis(found.values - given, axis, 0))
        counts = apart.reshape(len(apart), -1).sum(axis=1)
        return evidence.of(np.argsort(-counts, kind="stable")[:SCREENED].tolist())


def _aligned(found: Given, evidence: Evidence, lead: int) -> tuple[Given, Evidence]:
    """Both without the steps that one of them has not, if the layer runs ahead or behind."""
    if lead == 0 or evidence.given.ndim == 2:
        return found, evidence
    later, earlier = slice(abs(lead), None), slice(None, -abs(lead))
    mine, theirs = (later, earlier) if lead > 0 else (earlier, later)
    membranes = evidence.membranes
    return (
        Given(found.values[mine], None if found.membranes is None else found.membranes[mine]),
        Evidence(
            evidence.received,
            evidence.given[theirs],
            None if membranes is None else membranes[theirs],
        ),
    )


def _apart(variant: Variant, own: Segment, other: Segment) -> int:
    """Parameters that still differ from the other side's graph under a change.

    A change that is not one of the graph leaves what differed before.
    """
    changed = compare_parameters(variant.segment.deployment, other.deployment)
    before = compare_parameters(own.deployment, other.deployment)
    return min(len(changed), len(before)) if variant.segment is own else len(changed)


def _mismatches(found: Found) -> int:
    return found.result.mismatches
