"""A verdict as JUnit XML, as continuous integration reads it.

One suite a comparison: a case for each layer, for the scores and for the decisions. What concerns
the models as such is in a suite of its own, `models`. The form is that of the xUnit plugin's
junit-10.xsd.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from msg_deploy.report import words
from msg_deploy.sim.compare import TOLERANCE
from msg_deploy.sim.diagnosis import told
from msg_deploy.sim.verdict import Comparison, Kind, Layer, Verdict

NAME = "equivalence-check"
Outcome = Literal["passed", "failure", "error", "system-out"]
"""What a case holds beside its name; "system-out": it passed, and something is to be said."""
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not have."""


@dataclass(frozen=True)
class Case:
    """One test case.

    Attributes:
        name: layer, or what is compared.
        outcome: whether it passed.
        message: one line, if there is something to say.
        detail: all that is known.
    """

    name: str
    outcome: Outcome = "passed"
    message: str = ""
    detail: str = ""


def verdict_as_junit(verdict: Verdict, accept_ties: bool = False) -> str:
    """An XML document.

    Args:
        verdict: to report.
        accept_ties: whether cases pass that differ only by ties.
    """
    suites = [("models", _models(verdict), verdict.kind)]
    accepted = accept_ties and verdict.kind is Kind.TIES
    for comparison in verdict.comparisons:
        cases = list(_cases(comparison, verdict, accepted))
        suites.append((words.pair(comparison), cases, comparison.kind))
    root = ElementTree.Element("testsuites", name=NAME)
    for name, cases, kind in suites:
        root.append(_suite(name, cases, kind, verdict.precision))
    for counted in ("tests", "failures", "errors"):
        root.set(counted, str(sum(int(suite.get(counted, 0)) for suite in root)))
    ElementTree.indent(root, " ")
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _models(verdict: Verdict) -> list[Case]:
    """What holds for all simulators."""
    inputs, parameters = Case("input and timing"), Case("parameters")
    if verdict.problems:
        detail = "\n".join(verdict.problems)
        inputs = Case(inputs.name, "error", "nothing could be run", detail)
    if verdict.parameters:
        names = ", ".join(f"{p.node}.{p.field}" for p in verdict.parameters)
        lines = (f"{p.node}.{p.field}: {p.detail}" for p in verdict.parameters)
        message = f"parameters differ: {names}"
        parameters = Case(parameters.name, "failure", message, "\n".join(lines))
    return [inputs, parameters]


def _cases(comparison: Comparison, verdict: Verdict, accepted: bool) -> Iterator[Case]:
    """Of one comparison. None fails where the comparison does not."""
    if comparison.missing:
        detail = "\n".join(comparison.missing)
        yield Case("comparable", "error", "the two sides cannot be compared", detail)
        return
    differs = comparison.kind not in (Kind.PROVEN, Kind.IDENTICAL)
    outcome: Outcome = "system-out" if accepted else "failure"
    first = comparison.first
    for layer in comparison.layers:
        if differs and (layer.mismatches or (first and first.node == layer.node)):
            yield Case(layer.node, outcome, *_layer(layer, comparison, verdict))
        else:
            yield Case(layer.node)
    if comparison.scored or (first and first.quantity == "current"):
        yield from _decoded(comparison, verdict, differs, outcome)


def _decoded(
    comparison: Comparison, verdict: Verdict, differs: bool, outcome: Outcome
) -> Iterator[Case]:
    """Scores and decisions."""
    first = comparison.first
    if differs and first and first.quantity in ("current", "score"):
        yield Case("scores", outcome, words.describe(first), _diagnosis(verdict))
    elif differs and not comparison.score_difference <= TOLERANCE[verdict.precision]:
        message = f"scores differ by {comparison.score_difference:.2g}"
        yield Case("scores", outcome, message, _diagnosis(verdict))
    else:
        yield Case("scores")
    if differs and (comparison.flips or (first and first.quantity == "decision")):
        message = f"{comparison.flips} of {comparison.samples} decisions differ"
        yield Case("decisions", outcome, message, _diagnosis(verdict))
    else:
        yield Case("decisions")


def _layer(layer: Layer, comparison: Comparison, verdict: Verdict) -> tuple[str, str]:
    """Message and detail of a layer that differs."""
    message = f"{layer.mismatches} of {layer.spikes} spikes differ"
    lines = []
    if comparison.first and comparison.first.node == layer.node:
        lines.append(f"first difference {words.describe(comparison.first)}")
        message = f"{message}, first {words.place(comparison.first)}"
    diagnosis = verdict.diagnosis
    if diagnosis and layer.node in diagnosis.downstream:
        lines.append("differs only because of what it receives")
    lines.append(_diagnosis(verdict))
    return message, "\n".join(line for line in lines if line)


def _diagnosis(verdict: Verdict) -> str:
    return "\n".join(told.sentences(verdict.diagnosis)) if verdict.diagnosis else ""


def _suite(name: str, cases: list[Case], kind: Kind, precision: str) -> ElementTree.Element:
    counts = {
        "tests": len(cases),
        "failures": sum(case.outcome == "failure" for case in cases),
        "errors": sum(case.outcome == "error" for case in cases),
        "skipped": 0,
    }
    suite = ElementTree.Element("testsuite", {"name": _clean(name), **_text(counts)})
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in (("verdict", kind.value), ("precision", precision)):
        ElementTree.SubElement(properties, "property", name=key, value=value)
    for case in cases:
        # Some readers take what is before a dot for a package.
        classname = f"{NAME}.{name}"
        element = ElementTree.SubElement(
            suite, "testcase", classname=_clean(classname), name=_clean(case.name)
        )
        if case.outcome == "system-out":
            said = ElementTree.SubElement(element, "system-out")
            said.text = _clean(f"{case.message}\n{case.detail}")
        elif case.outcome != "passed":
            failed = ElementTree.SubElement(
                element, case.outcome, message=_clean(case.message), type=kind.value
            )
            failed.text = _clean(f"{case.message}\n{case.detail}")
    return suite


def _text(counts: dict[str, int]) -> dict[str, str]:
    return {key: str(count) for key, count in counts.items()}


def _clean(text: str) -> str:
    return FORBIDDEN.sub("\ufffd", text)
