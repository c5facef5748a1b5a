"""A diagnosis in words."""

from __future__ import annotations

from collections.abc import Iterator

from msg_deploy.sim.diagnosis.findings import Cause, Diagnosis, Fault
from msg_deploy.sim.diagnosis.reduce import Reduction

SHOWN = 8
"""Causes of a layer, and values of an input, that are listed."""
SIDES = {"a": "the left side", "b": "the right side"}


def sentences(diagnosis: Diagnosis) -> Iterator[str]:
    """Lines for people: faulty layers with their causes, what is downstream, the input."""
    if not diagnosis.forced:
        names = ", ".join(fault.node for fault in diagnosis.faulty)
        yield f"first layer that differs: {names} (without a graph no cause can be tested)"
    for fault in diagnosis.faulty if diagnosis.forced else ():
        yield from _fault(fault, SIDES[diagnosis.subject])
    if diagnosis.downstream:
        yield f"differ only because of what they receive: {', '.join(diagnosis.downstream)}"
    if not diagnosis.complete:
        yield "not all hypotheses were tested within the time allowed"
    if diagnosis.reduced:
        yield reduced(diagnosis.reduced)


def _fault(fault: Fault, side: str) -> Iterator[str]:
    yield (
        f"faulty: {fault.node}, fed alike, {fault.mismatches} of {fault.compared} "
        f"{'spikes' if fault.quantity == 'spike' else 'values'} differ"
        + (f" and {fault.ties} neurons at the threshold" if fault.ties else "")
    )
    for found in fault.causes[:SHOWN]:
        yield f"  {side} behaves as if {cause(found, fault)}"
    if len(fault.causes) > SHOWN:
        yield f"  and {len(fault.causes) - SHOWN} more that explain the same"
    if not fault.causes:
        yield f"  none of {fault.tested} changes explains it"
    if fault.closest:
        yield (f"  closest: {cause(fault.closest, fault)}; {fault.remaining} differences remain")


def cause(found: Cause, fault: Fault) -> str:
    """What a layer behaves as, where, and what speaks for and against it."""
    where = "" if found.node == fault.node else f" in {found.node}"
    known = "; the parameters say so, too" if found.parameters == 0 else ""
    doubt = "; but its membranes are others" if found.membranes is False else ""
    return f"{found.sentence}{where} ({found.name}{known}{doubt})"


def reduced(found: Reduction) -> str:
    """The smallest input, in a sentence."""
    listed = ", ".join(
        f"{list(place)} = {value:.6g}"
        for place, value in zip(found.places[:SHOWN], found.values, strict=False)
    )
    more = ", ..." if len(found.places) > SHOWN else ""
    return (
        f"smallest input that differs in {found.node}: of sample {found.sample}, "
        f"{len(found.places)} of {found.size} values are left, the rest {found.blank:g}"
        + (f": {listed}{more}" if listed else "")
    )
