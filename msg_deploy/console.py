"""What the command line prints: verdicts and graphs, for people and for machines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from msg_deploy.deployment import Deployment, Metadata
from msg_deploy.exporters.hazards import hazards
from msg_deploy.graph import plan
from msg_deploy.report import words
from msg_deploy.sim.verdict import Comparison, Kind, Verdict

if TYPE_CHECKING:
    from msg_deploy.quantization import Quantization
    from msg_deploy.sim.activity import Activity
    from msg_deploy.simulation import Simulation

# Names come from files, and are shown as they are: [b] is no markup, :bug: no picture.
out = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
STYLES = {
    Kind.PROVEN: "bold green",
    Kind.IDENTICAL: "bold green",
    Kind.TIES: "bold yellow",
    Kind.DIVERGENT: "bold red",
    Kind.INCOMPARABLE: "bold yellow",
}


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=1))


def print_verdict(verdict: Verdict) -> None:
    """Tables of the comparisons, what differs, and the verdict as the last line."""
    for comparison in verdict.comparisons:
        if not comparison.missing:
            out.print(_layers(comparison))
    for line in words.notes(verdict):
        out.print(line)
    print_styled(verdict.kind.value, STYLES[verdict.kind], words.counted(verdict))


def print_styled(word: str, style: str, text: str) -> None:
    """A word in a style of rich, a colon, and a text."""
    out.print(Text.assemble((word, style), f": {text}"))


def _layers(comparison: Comparison) -> Table:
    table = Table(
        title=f"{words.pair(comparison)}, {comparison.samples} samples",
        title_justify="left",
    )
    for heading in ("layer", "compared", "rate", "mismatches", "membrane |d|", "certified"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for layer in comparison.layers:
        table.add_row(
            layer.node,
            str(layer.spikes),
            f"{layer.fired / max(layer.spikes, 1):.3f}",
            str(layer.mismatches),
            "" if layer.membrane_difference is None else f"{layer.membrane_difference:.1e}",
            ""
            if layer.uncertified is None
            else words.percent(1 - layer.uncertified / max(layer.spikes, 1)),
        )
    if comparison.scored:
        table.add_row("scores |d|", "", "", "", f"{comparison.score_difference:.1e}")
        table.add_row("decisions", str(comparison.samples), "", str(comparison.flips), "")
    return table


def simulation_as_data(simulation: Simulation) -> dict[str, Any]:
    """A simulation as JSON values."""
    activity = simulation.activity
    data: dict[str, Any] = {
        "samples": len(simulation.scores),
        "accuracy": simulation.accuracy,
        "decisions": simulation.decisions.tolist(),
    }
    if activity is None:
        return data
    spikes = [
        {
            "node": layer.node,
            "neurons": layer.neurons,
            "rate": activity.rate(layer),
            "spikes": layer.counts.tolist(),
        }
        for layer in activity.spikes
    ]
    synapses = [
        {
            "node": layer.node,
            "operation": layer.operation,
            "dense": layer.dense,
            "effective": layer.effective.tolist(),
        }
        for layer in activity.synapses
    ]
    return data | {"steps": activity.steps, "spikes": spikes, "synapses": synapses}


def print_simulation(simulation: Simulation) -> None:
    """Spikes and synaptic operations by layer, means of a sample; then accuracy."""
    activity = simulation.activity
    if activity:
        out.print(_spikes(activity))
        out.print(_synapses(activity))
    count = len(simulation.scores)
    if simulation.accuracy is None:
        out.print(f"{count} samples without labels")
    else:
        out.print(f"accuracy {simulation.accuracy:.2%} on {count} samples")


def _spikes(activity: Activity) -> Table:
    title = f"spikes of a sample, mean of {activity.samples}, T = {activity.steps}"
    table = Table(title=title, title_justify="left")
    for heading in ("layer", "neurons", "rate", "spikes", "at each step"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for layer in activity.spikes:
        each = layer.counts / activity.samples
        table.add_row(
            layer.node,
            str(layer.neurons),
            f"{activity.rate(layer):.4f}",
            f"{each.sum():.1f}",
            _steps(each),
        )
    return table


def _synapses(activity: Activity) -> Table:
    table = Table(title="synaptic operations of a sample", title_justify="left")
    for heading in ("layer", "kind", "dense", "effective", "share", "at each step"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for layer in activity.synapses:
        each = layer.effective / activity.samples
        dense = layer.dense * activity.steps
        share = f"{each.sum() / max(dense, 1):.2%}"
        table.add_row(
            layer.node, layer.operation, str(dense), f"{each.sum():.1f}", share, _steps(each)
        )
    operations = (f"{kind} {activity.operations(kind):.1f}" for kind in ("AC", "MAC"))
    table.add_row("all", "", str(activity.dense), ", ".join(operations), "", "")
    return table


SHOWN_STEPS = 10


def _steps(values: npt.NDArray[Any]) -> str:
    shown = " ".join(f"{v:.0f}" for v in values[:SHOWN_STEPS])
    return shown if len(values) <= SHOWN_STEPS else f"{shown} ..."


def deployment_as_data(deployment: Deployment) -> dict[str, Any]:
    """A deployment as JSON values, without the weights."""
    known = plan(deployment.graph)
    return {
        **metadata_as_data(deployment.metadata),
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


def print_onnx(data: Mapping[str, Any], metadata: Metadata) -> None:
    """Inputs, outputs and operators of an ONNX model, then what its metadata say.

    Args:
        data: as `msg_deploy.exporters.onnx.describe.describe` gives them.
        metadata: of the model.
    """
    table = Table()
    for heading in ("", "name", "type", "shape"):
        table.add_column(heading, overflow="fold")
    for kind in ("inputs", "outputs"):
        for value in data[kind]:
            shape = " x ".join(map(str, value["shape"]))
            table.add_row(kind.removesuffix("s"), value["name"], value["type"], shape)
    out.print(table)
    opsets = ", ".join(f"{name} {version}" for name, version in data["opsets"].items())
    products = ", products of spikes in int8" if data["int8"] else ""
    out.print(f"layout: {data['layout']}; opsets: {opsets}{products}")
    listed = ", ".join(f"{count} {name}" for name, count in data["operators"].items())
    out.print(f"operators: {listed}")
    print_metadata(metadata)


def print_metadata(metadata: Metadata) -> None:
    """Timing, input, readout and classes."""
    timing, spec, readout = metadata.timing, metadata.input, metadata.readout
    out.print(f"timing: dt {timing.dt:g} s, {timing.steps} steps, reset {timing.reset}")
    levels = "" if spec.levels is None else f", {spec.levels} levels"
    ends = f"{spec.low:g}..{spec.high:g}"
    out.print(f"input: {spec.shape}, {spec.encoding}, {ends}{levels}")
    if metadata.integers:
        form = metadata.integers
        out.print(f"integers: weights of {form.bits} bits, scores in units of {form.scores:g}")
    if readout:
        weights = " ".join(f"{f:.4g}" for f in readout.weights)
        out.print(
            f"TWO: folded by {readout.fold} after {readout.source}, error {readout.error:g}, "
            f"f = {weights}"
        )
    if metadata.provenance.classes:
        out.print(f"classes: {' '.join(metadata.provenance.classes)}")


def metadata_as_data(metadata: Metadata) -> dict[str, Any]:
    """Timing, input, readout and provenance as JSON values."""
    return {
        "timing": dataclasses.asdict(metadata.timing),
        "input": dataclasses.asdict(metadata.input),
        "readout": metadata.readout and dataclasses.asdict(metadata.readout),
        "provenance": dataclasses.asdict(metadata.provenance),
        "integers": metadata.integers and dataclasses.asdict(metadata.integers),
    }


def quantization_as_data(result: Quantization) -> dict[str, Any]:
    """A quantized network and what became of it, as JSON values."""
    return {
        "accuracy": result.accuracy,
        "quantized": dataclasses.asdict(result.plain),
        "finetuned": result.finetuned and dataclasses.asdict(result.finetuned),
        "layers": [dataclasses.asdict(layer) for layer in result.layers],
        "warnings": list(result.warnings),
        **metadata_as_data(result.deployment.metadata),
    }


def print_quantization(result: Quantization) -> None:
    """Layers, then what quantization did to held-out samples."""
    table = Table(title="layers in whole numbers", title_justify="left")
    for heading in ("layer", "bits", "scale", "largest sum", "digits", "exact in"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for layer in result.layers:
        low, high = layer.scale
        table.add_row(
            layer.name,
            str(layer.bits),
            f"{low:.3g}" if low == high else f"{low:.3g}..{high:.3g}",
            str(layer.largest_sum),
            "no grid" if layer.digits is None else str(layer.digits),
            layer.exact or "",
        )
    out.print(table)
    spec = result.deployment.input
    out.print(f"input: {spec.low:g}..{spec.high:g} in {spec.levels} levels")
    if result.accuracy is not None:
        out.print(f"accuracy {result.accuracy:.2%} on {result.plain.samples} held-out samples")
    for name, effect in (("quantized", result.plain), ("fine-tuned", result.finetuned)):
        if effect is None:
            continue
        accuracy = "" if effect.accuracy is None else f"accuracy {effect.accuracy:.2%}, "
        out.print(
            f"{name}: {accuracy}{effect.flips} of {effect.samples} decisions and "
            f"{effect.spikes_changed:.2%} of the spikes changed, {effect.certified:.4%} certified "
            "in float32"
        )
    for warning in result.warnings:
        out.print(f"note: {warning}")


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
    print_metadata(deployment.metadata)
    latency = deployment.provenance.latency
    if latency:
        dialect = deployment.provenance.dialect
        out.print(f"latency: outputs come {latency} steps later there (dialect {dialect})")
    for hazard in data["hazards"]:
        out.print(f"others: {hazard}")


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
