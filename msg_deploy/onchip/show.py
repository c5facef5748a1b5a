"""What the command line prints about chips, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.table import Table

from msg_deploy.console import out, print_styled
from msg_deploy.exporters.chips.target import Target, Use
from msg_deploy.onchip.check import ChipKind, ChipVerdict
from msg_deploy.onchip.effect import Effect
from msg_deploy.onchip.estimate import Estimate
from msg_deploy.onchip.fit import Fit
from msg_deploy.onchip.vendor import VendorComparison

BAR = 20
STYLES = {
    ChipKind.EXACT: "bold green",
    ChipKind.CHANGED: "bold green",
    ChipKind.DIFFERENT: "bold yellow",
    ChipKind.REFUTED: "bold red",
    ChipKind.DOES_NOT_FIT: "bold red",
    ChipKind.UNKNOWN: "bold yellow",
}
MOST_CORES = 24
"""Lines of cores; more are counted."""


def print_targets(targets: Iterable[Target]) -> None:
    """Each target with what it can and cannot run."""
    for target in targets:
        print_styled(target.name, "bold", target.title)
        out.print(f"  runs: {'; '.join(target.runs)}")
        out.print(f"  not: {'; '.join(target.lacks)}")
        out.print(f"  export: {target.format or 'none'}")
        out.print(f"  evidence: {target.evidence}, {target.evidence_text}")


def print_target(target: Target) -> None:
    """One target with its limits and their sources."""
    print_targets([target])
    table = Table(title="limits", title_justify="left")
    for heading in ("limit", "most", "of what", "source"):
        table.add_column(heading, justify="right" if heading == "most" else "left")
    for name, limit in target.limits.items():
        table.add_row(name, f"{limit.most:,}", limit.unit, limit.source)
    out.print(table)


def bar(use: Use) -> str:
    """How much of something is used, as text."""
    if not use.most:
        return f"{use.used:,} {use.what}"
    filled = min(BAR, round(BAR * use.share))
    shown = "█" * filled + "·" * (BAR - filled)
    return f"{shown} {use.share:7.1%}  {use.used:,} of {use.most:,} {use.what}"


def print_fit(found: Fit) -> None:
    """Layers, cores, uses, problems, and the answer as the last line."""
    if found.quantized_here:
        out.print("the model is of real numbers; it was quantized as the chip needs it")
    if found.layers:
        out.print(_layers(found))
    for line in _cores(found):
        out.print(line)
    if found.effect:
        print_effect(found.effect)
    if found.estimate:
        for line in estimate_lines(found.estimate):
            out.print(line)
    for approximation in found.chip.approximations:
        where = f"node {approximation.node!r}: " if approximation.node else ""
        out.print(f"approximated: {where}{approximation.text}")
    for problem in found.chip.problems:
        out.print(f"problem: {problem}")
    out.print(f"simulation of the chip: {found.evidence}")
    answer, style = ("FITS", "bold green") if found else ("DOES NOT FIT", "bold red")
    print_styled(answer, style, found.title)


def _layers(found: Fit) -> Table:
    table = Table(title=f"{found.name} on {found.title}", title_justify="left")
    names = ("layer", "shape", "neurons", "fan-in", "fan-out", "synapses", "bits", "cores")
    for heading in names:
        table.add_column(heading, justify="left" if heading in ("layer", "cores") else "right")
    for layer in found.layers:
        cores = layer.cores
        table.add_row(
            layer.name,
            "x".join(map(str, layer.shape)),
            f"{layer.neurons:,}",
            f"{layer.fan_in:,}",
            f"{layer.fan_out:,}",
            f"{layer.synapses:,}",
            str(layer.bits),
            cores[0] if len(cores) == 1 else f"{cores[0]} to {cores[-1]}" if cores else "",
        )
    return table


def _cores(found: Fit) -> Iterator[str]:
    for use in found.chip.uses:
        yield f"chip: {bar(use)}"
    for core in found.chip.cores[:MOST_CORES]:
        held = ", ".join(f"{name}[{start}:{stop}]" for name, start, stop in core.populations)
        yield f"{core.name}: {held}"
        for use in core.uses:
            yield f"  {bar(use)}"
    more = len(found.chip.cores) - MOST_CORES
    if more > 0:
        yield f"and {more} more cores"


def print_effect(effect: Effect) -> None:
    """What the chip does to a network."""
    table = Table(title=f"on the chip, {effect.samples} samples", title_justify="left")
    for heading in ("layer", "decisions", "rate", "changed", "out of range"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for layer in effect.layers:
        table.add_row(
            layer.name,
            f"{layer.decisions:,}",
            f"{layer.spikes / max(layer.decisions, 1):.3f}",
            f"{layer.changed:,}",
            f"{layer.saturated:,}",
        )
    out.print(table)
    if effect.accuracy is not None:
        out.print(
            f"accuracy: {effect.accuracy:.2%} as given, {effect.accuracy_whole:.2%} in whole "
            f"numbers, {effect.accuracy_chip:.2%} on the chip"
        )
    out.print(
        f"the chip changes {effect.flips} decisions of the model as given, {effect.flips_whole} "
        "of it in whole numbers"
    )
    counts = effect.operations
    out.print(
        f"a sample takes {counts['spike']:,.0f} spikes, {counts['synaptic operation']:,.0f} "
        f"synaptic operations, {counts['neuron update']:,.0f} neuron updates"
    )
    if effect.joules is not None:
        out.print(f"estimate: {effect.joules * 1e6:.3g} uJ a sample ({effect.joules_source})")


def estimate_lines(estimate: Estimate) -> Iterator[str]:
    """Energy and time by SANA-FE, and how near its spikes are to the chip's."""
    parts = ", ".join(f"{name} {value * 1e6:.3g}" for name, value in estimate.joules.items())
    yield (
        f"estimate by SANA-FE: {estimate.total * 1e6:.3g} uJ ({parts}) and "
        f"{estimate.seconds * 1e6:.3g} us a sample, {estimate.samples} samples of "
        f"{estimate.steps} steps"
    )
    yield (
        f"  in it {estimate.differ:,} of {estimate.decisions:,} spikes are not those of the "
        f"chip; {estimate.source}"
    )


def print_chip_verdict(verdict: ChipVerdict) -> None:
    """The fit, the vendor's model, and the answer as the last line."""
    print_fit(verdict.fit)
    if verdict.vendor is not None:
        out.print(vendor_line(verdict.vendor))
    elif verdict.without_vendor:
        out.print(f"vendor's model: not run, {verdict.without_vendor}")
    print_styled(verdict.kind.value, STYLES[verdict.kind], meaning(verdict))


def vendor_line(vendor: VendorComparison) -> str:
    """Our simulation against the vendor's model."""
    text = (
        f"vendor's model, {vendor.title}: {vendor.spikes_differ} of {vendor.spikes:,} spikes and "
        f"{vendor.membranes_differ} of {vendor.membranes:,} membranes differ, "
        f"{vendor.samples} samples"
    )
    first = vendor.first
    if first is None:
        return text
    step, sample, *neuron = first.place
    return (
        f"{text}; first: {first.what} of {first.node!r} at step {step}, sample {sample}, neuron "
        f"{tuple(neuron)}: {first.ours} here, {first.theirs} there"
    )


def problems(found: Fit) -> str:
    """How many there are."""
    count = len(found.chip.problems)
    return "1 problem" if count == 1 else f"{count} problems"


def meaning(verdict: ChipVerdict) -> str:
    """The answer in words."""
    effect = verdict.fit.effect
    if verdict.kind is ChipKind.DOES_NOT_FIT:
        return problems(verdict.fit)
    if effect is None:
        return "it fits, but the chip's arithmetic is not known, so spikes cannot be compared"
    if verdict.kind is ChipKind.REFUTED:
        return "the vendor's model computes something else than our simulation of the chip"
    share = f"{effect.changed:,} of {effect.decisions:,} spikes"
    decided = f"{effect.flips_whole} of {effect.samples} decisions"
    if verdict.kind is ChipKind.EXACT:
        return f"on the chip every spike is that of the network in whole numbers ({share} differ)"
    return f"the chip changes {share} and {decided} of the network in whole numbers"
