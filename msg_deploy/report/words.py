"""A verdict in words, for the terminal, for pytest and for reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from msg_deploy.sim.diagnosis import told
from msg_deploy.sim.verdict import Comparison, Difference, Kind, Verdict

HARDER = "Add --adversarial 32 to run inputs that are searched to be as hard as possible."
SHORT = 230
"""Characters that pytest shows of a value without cutting it, less those around it."""


def sentences(verdict: Verdict) -> Iterator[str]:
    """All lines, the verdict last."""
    yield from notes(verdict)
    yield f"{verdict.kind.value}: {counted(verdict)}"


def notes(verdict: Verdict) -> Iterator[str]:
    """What differs, where first, why, and what the certificate says."""
    for problem in verdict.problems:
        yield f"cannot be compared: {problem}"
    for difference in verdict.parameters:
        yield f"parameter differs: {difference.node}.{difference.field}: {difference.detail}"
    for comparison in verdict.comparisons:
        for reason in comparison.missing:
            yield f"{pair(comparison)}: {reason}"
        if comparison.unrecorded:
            listed = ", ".join(comparison.unrecorded)
            yield f"{pair(comparison)}: not recorded on both sides, so not compared: {listed}"
        if comparison.first:
            yield f"{pair(comparison)}: first difference {describe(comparison.first)}"
        elif comparison.flips:
            yield (
                f"{pair(comparison)}: {comparison.flips} of {comparison.samples} samples are put "
                "into another class, as their largest scores are equal but for rounding"
            )
    if verdict.diagnosis:
        yield from told.sentences(verdict.diagnosis)
    yield from certified(verdict)


def counted(verdict: Verdict) -> str:
    """How many spikes were compared and differ."""
    return (
        f"{verdict.mismatches} mismatching of {verdict.spikes} spikes compared "
        f"({verdict.precision})"
    )


def pair(comparison: Comparison) -> str:
    """The two simulators."""
    return f"{comparison.a} against {comparison.b}"


def in_short(verdict: Verdict) -> str:
    """One line of at most `SHORT` characters: the verdict, the cause, the place."""
    parts = [f"{verdict.kind.value}: {verdict.mismatches} of {verdict.spikes} spikes differ"]
    diagnosis = verdict.diagnosis
    for fault in diagnosis.faulty if diagnosis and diagnosis.forced else ():
        causes = fault.causes or ((fault.closest,) if fault.closest else ())
        parts.append(
            f"{fault.node}: {told.cause(causes[0], fault)}" if causes else f"{fault.node} is faulty"
        )
    parts += [f"first {place(c.first)}" for c in verdict.comparisons if c.first][:1]
    parts += [f"{p.node}.{p.field}: {p.detail}" for p in verdict.parameters]
    parts += [*verdict.problems, *(reason for c in verdict.comparisons for reason in c.missing)]
    line = "; ".join(" ".join(part.split()) for part in parts)
    return line if len(line) <= SHORT else f"{line[: SHORT - 3]}..."


def certified(verdict: Verdict) -> Iterator[str]:
    """What the certificate says, if there is one."""
    left, share = verdict.uncertified, verdict.certified_share
    if left is None or share is None:
        return
    rest = f"{left} could be otherwise by rounding" if left else "rounding can change none of them"
    yield f"certified: {percent(share)} of the spikes compared; {rest}"
    if verdict.kind is Kind.TIES:
        yield "the first differences are all among those: see docs/certificate.md"


def percent(share: float) -> str:
    """Never rounded up to 100 %."""
    return "100 %" if share == 1 else f"{math.floor(share * 1e6) / 1e4:.4f} %"


def describe(d: Difference) -> str:
    """Where a difference is, and the values on both sides."""
    where = place(d)
    if d.quantity == "decision":
        return (
            f"{where}: the score of class {d.neuron[0]}, the largest on the left, is {d.a:.9g} "
            f"against {d.b:.9g}"
        )
    if d.quantity != "spike":
        return f"{where}: {d.quantity} {d.a:.9g} against {d.b:.9g}"
    membranes = " against ".join(
        "unknown" if v is None else f"{v:.9g}" for v in (d.membrane_a, d.membrane_b)
    )
    threshold, margin = (
        "unknown" if v is None else f"{v:.{digits}g}"
        for v, digits in ((d.threshold, 9), (d.margin, 2))
    )
    return (
        f"{where}: spike {d.a:.0f} against {d.b:.0f}, membranes {membranes}, "
        f"threshold {threshold}, margin {margin}"
    )


def place(d: Difference) -> str:
    """Where a difference is."""
    if d.quantity == "decision":
        return f"in the decision on sample {d.sample}"
    step = "" if d.quantity == "score" else f" at step {d.step},"
    return f"in {d.node}{step} sample {d.sample}, neuron {list(d.neuron)}"


def meaning(verdict: Verdict) -> str:
    """What the verdict says, in a sentence or two for somebody who sees it for the first time."""
    return MEANINGS[verdict.kind](verdict)


def advice(verdict: Verdict) -> list[str]:
    """What to do next."""
    return list(ADVICE[verdict.kind](verdict))


def _samples(verdict: Verdict) -> str:
    count = max((c.samples for c in verdict.comparisons), default=0)
    return f"{count} sample" if count == 1 else f"{count} samples"


def _identical(verdict: Verdict) -> str:
    agree = f"Both sides spike exactly alike on {_samples(verdict)}."
    if verdict.uncertified is None:
        return f"{agree} Nothing is known about rounding, as there is no certificate."
    if verdict.uncertified == 0:
        return f"{agree} But both decide somewhere otherwise than exact arithmetic does."
    return (
        f"{agree} Another engine could decide {verdict.uncertified:,} of these spikes otherwise by "
        "rounding alone."
    )


def _divergent(verdict: Verdict) -> str:
    if verdict.mismatches:
        known = verdict.uncertified is not None
        return (
            "The two sides are not the same: "
            f"{verdict.mismatches:,} of {verdict.spikes:,} spikes differ"
            + (", and rounding does not explain it." if known else ".")
        )
    if any(c.first for c in verdict.comparisons):
        return (
            "All spikes agree, but membranes, currents, scores or decisions differ by more than "
            "rounding explains."
        )
    if not verdict.spikes:
        return (
            "Parameters differ between the two sides, and nothing could be run to compare spikes."
        )
    return (
        "Parameters differ between the two sides, although no spike on the samples that were run "
        "shows it."
    )


MEANINGS: Mapping[Kind, Callable[[Verdict], str]] = {
    Kind.PROVEN: lambda verdict: (
        f"Both sides spike exactly alike on {_samples(verdict)}, and no rounding in any "
        f"{verdict.precision} engine can change one of these spikes."
    ),
    Kind.IDENTICAL: _identical,
    Kind.TIES: lambda verdict: (
        f"{verdict.mismatches:,} of {verdict.spikes:,} spikes differ, but every difference begins "
        "at a membrane so close to its threshold that rounding alone decides it. The models are "
        "the same as far as can be told."
    ),
    Kind.DIVERGENT: _divergent,
    Kind.INCOMPARABLE: lambda _: "The two sides could not be compared, so nothing is known.",
}


def _next_identical(verdict: Verdict) -> Iterator[str]:
    if verdict.uncertified is None:
        yield "Leave out --no-certificate to find out whether rounding could change a spike."
    else:
        yield (
            "Deploy it, if single spikes at a threshold may differ between engines. Weights and "
            "time constants that are multiples of powers of two leave no rounding: such networks "
            "can be PROVEN."
        )
    yield HARDER


def _next_proven(verdict: Verdict) -> Iterator[str]:
    if verdict.precision == "float64":
        yield "Check again with --precision float32, in which most engines run."
    else:
        yield "Deploy it. The proof holds for the samples that were run; more of them widen it."
    yield HARDER


def _next_ties(_: Verdict) -> Iterator[str]:
    yield "Accept them with --accept-ties if single spikes at the threshold may differ."
    yield "Or check with --precision float64, which leaves (nearly) no ties."
    yield (
        "Or export integer weights with thresholds off their grid, so that no membrane can reach a "
        "threshold exactly."
    )


def _next_divergent(verdict: Verdict) -> Iterator[str]:
    diagnosis = verdict.diagnosis
    for fault in diagnosis.faulty if diagnosis and diagnosis.forced else ():
        if fault.causes:
            cause = fault.causes[0]
            side = told.SIDES[diagnosis.subject] if diagnosis else ""
            yield f"Look at {cause.node} on {side}: it behaves as if {cause.sentence}."
        else:
            yield f"Look at {fault.node} and what feeds it; no change that was tested explains it."
    for node in dict.fromkeys(p.node for p in verdict.parameters):
        fields = ", ".join(p.field for p in verdict.parameters if p.node == node)
        yield f"Compare {node} of both sides, which differ in {fields}."
    if diagnosis is None and any(c.first for c in verdict.comparisons):
        yield "Leave out --no-diagnosis to find out which layers are at fault, and why."
    if diagnosis and diagnosis.reduced:
        yield "Save the smallest input that shows it, --save-failure FILE.npz, and debug on that."


def _next_incomparable(_: Verdict) -> Iterator[str]:
    yield "Check that both files are the same network, exported with the same shapes and timesteps."
    yield "If layers are only called otherwise, say which is which: --map LEFT=RIGHT."
    yield "If a simulator lacks a primitive, name another one: --with reference."


ADVICE: Mapping[Kind, Callable[[Verdict], Iterator[str]]] = {
    Kind.PROVEN: _next_proven,
    Kind.IDENTICAL: _next_identical,
    Kind.TIES: _next_ties,
    Kind.DIVERGENT: _next_divergent,
    Kind.INCOMPARABLE: _next_incomparable,
}
