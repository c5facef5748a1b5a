"""What the command line prints: verdicts and graphs, for people and for machines."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from msg_deploy.deployment import Deployment
from msg_deploy.exporters.hazards import hazards
from msg_deploy.graph import plan
from msg_deploy.sim.compare import Comparison, Difference, Kind, Verdict

out = Console(highlight=False, soft_wrap=True)
STYLES = {
    Kind.IDENTICAL: "bold green",
    Kind.DIVERGENT: "bold red",
    Kind.INCOMPARABLE: "bold yellow",
}


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=1))


def verdict_as_data(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON values: its fields, plus kind and totals."""
    return {
        "verdict": verdict.kind.value,
        "spikes": verdict.spikes,
        "mismatches": verdict.mismatches,
        **dataclasses.asdict(verdict),
        "comparisons": [
            {"verdict": c.kind.value, **dataclasses.asdict(c)} for c in verdict.comparisons
        ],
    }


def print_verdict(verdict: Verdict) -> None:
    """Tables of the comparisons, what differs, and the verdict as the last line."""
    for comparison in verdict.comparisons:
        if not comparison.missing:
            out.print(_layers(comparison))
    for problem in verdict.problems:
        out.print(f"cannot be compared: {problem}", markup=False)
    for difference in verdict.parameters:
        out.print(
            f"parameter differs: {difference.node}.{difference.field}: {difference.detail}",
            markup=False,
        )
    for comparison in verdict.comparisons:
        for reason in comparison.missing:
            out.print(f"{comparison.a} against {comparison.b}: {reason}", markup=False)
        if comparison.first:
            title = f"{comparison.a} against {comparison.b}: first difference"
            out.print(f"{title} {_describe(comparison.first)}", markup=False)
    out.print(
        f"[{STYLES[verdict.kind]}]{verdict.kind.value}[/]: {verdict.mismatches} mismatching of "
        f"{verdict.spikes} spikes compared ({verdict.precision})"
    )


def _layers(comparison: Comparison) -> Table:
    table = Table(
        title=f"{comparison.a} against {comparison.b}, {comparison.samples} samples",
        title_justify="left",
    )
    for heading in ("layer", "compared", "rate", "mismatches", "membrane |d|"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for layer in comparison.layers:
        table.add_row(
            layer.node,
            str(layer.spikes),
            f"{layer.fired / max(layer.spikes, 1):.3f}",
            str(layer.mismatches),
            "" if layer.membrane_difference is None else f"{layer.membrane_difference:.1e}",
        )
    table.add_row("scores |d|", "", "", "", f"{comparison.score_difference:.1e}")
    table.add_row("decisions", str(comparison.samples), "", str(comparison.flips), "")
    return table


def _describe(d: Difference) -> str:
    where = f"in {d.node}"
    if d.quantity == "decision":
        return (
            f"in the decision on sample {d.sample}: the score of class {d.neuron[0]}, the largest "
            f"on the left, is {d.a:.9g} against {d.b:.9g}"
        )
    if d.quantity != "score":
        where += f" at step {d.step},"
    where += f" sample {d.sample}, neuron {list(d.neuron)}"
    if d.quantity != "spike":
        return f"{where}: {d.quantity} {d.a:.9g} against {d.b:.9g}"
    membranes = " against ".join(
        "unknown" if v is None else f"{v:.9g}" for v in (d.membrane_a, d.membrane_b)
    )
    return (
        f"{where}: spike {d.a:.0f} against {d.b:.0f}, membranes {membranes}, "
        f"threshold {d.threshold:.9g}, margin {d.margin:.2g}"
    )


def deployment_as_data(deployment: Deployment) -> dict[str, Any]:
    """A deployment as JSON values, without the weights."""
    known = plan(deployment.graph)
    return {
        "timing": dataclasses.asdict(deployment.timing),
        "input": dataclasses.asdict(deployment.input),
        "readout": deployment.readout and dataclasses.asdict(deployment.readout),
        "provenance": dataclasses.asdict(deployment.provenance),
        "hazards": list(hazards(deployment)),
        "nodes": [
            {
                "name": name,
                "type": type(deployment.graph.nodes[name]).__name__,
                "shape": list(known.shapes[name]),
                "from": [e.source for e in known.incoming[name]],
                "parameters": _parameters(deployment.graph.nodes[name], deployment.timing.dt),
            }
            for name in known.order
        ],
    }


def print_deployment(deployment: Deployment) -> None:
    """Nodes with shapes and parameters, then what the metadata say."""
    data = deployment_as_data(deployment)
    table = Table()
    for heading in ("node", "type", "output", "from", "parameters"):
        table.add_column(heading, overflow="fold")
    for node in data["nodes"]:
        table.add_row(
            node["name"],
            node["type"],
            "x".join(map(str, node["shape"])),
            ", ".join(node["from"]),
            ", ".join(f"{k} {v}" for k, v in node["parameters"].items()),
        )
    out.print(table)
    timing, spec = deployment.timing, deployment.input
    out.print(f"timing: dt {timing.dt:g} s, {timing.steps} steps, reset {timing.reset}")
    out.print(f"input: {spec.shape}, {spec.encoding}, {spec.low:g}..{spec.high:g}", markup=False)
    if deployment.readout:
        readout = deployment.readout
        weights = " ".join(f"{f:.4g}" for f in readout.weights)
        out.print(
            f"TWO: folded by {readout.fold} after {readout.source}, error {readout.error:g}, "
            f"f = {weights}",
            markup=False,
        )
    for hazard in data["hazards"]:
        out.print(f"others: {hazard}", markup=False)
    if deployment.provenance.classes:
        out.print(f"classes: {' '.join(deployment.provenance.classes)}", markup=False)


def _parameters(node: Any, dt: float) -> dict[str, str]:
    """Short texts: numbers as they are, uniform arrays as their value, others as their shape.

    Time constants are followed by their length in timesteps.
    """
    hidden = ("input_type", "output_type", "metadata")
    values = {f.name: getattr(node, f.name) for f in dataclasses.fields(node)}
    return {
        name: f"{_short(value)} ({_short(np.asarray(value) / dt)} dt)"
        if name in TIMES
        else _short(value)
        for name, value in values.items()
        if name not in hidden
    }


TIMES = ("tau", "tau_mem", "tau_syn", "delay")


def _short(value: Any) -> str:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        return str(value)
    if array.size and np.all(array == array.flat[0]):
        return f"{array.flat[0]:g}"
    if array.size <= 3:
        return " ".join(f"{v:g}" for v in array.ravel())
    return f"{'x'.join(map(str, array.shape))} {array.dtype}"
