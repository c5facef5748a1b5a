"""Does a network fit a chip: layers, cores, limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from msg_deploy.errors import GraphError
from msg_deploy.exporters.chips.populations import Population, Populations, populations
from msg_deploy.exporters.chips.target import OnChip
from msg_deploy.onchip.effect import Effect, effect
from msg_deploy.onchip.estimate import Estimate, estimate_of
from msg_deploy.onchip.prepare import Job, Prepared, prepare
from msg_deploy.subjects import Model


@dataclass(frozen=True)
class LayerUse:
    """One population on the chip.

    Attributes:
        name: of its node.
        shape: without batch.
        neurons: their number.
        fan_in: synapses of one neuron, at most.
        fan_out: synapses of one of its neurons into others, at most.
        synapses: with shared weights counted for each pair of neurons.
        bits: of the weights that enter it, sign included.
        cores: names of the cores that hold it.
    """

    name: str
    shape: tuple[int, ...]
    neurons: int
    fan_in: int
    fan_out: int
    synapses: int
    bits: int
    cores: tuple[str, ...]


@dataclass(frozen=True)
class Fit:
    """Whether and how a network fits.

    Attributes:
        name: of the model.
        title: of the chip.
        chip: the network on the chip, with cores, uses, problems and approximations.
        layers: what each layer takes; empty if the graph is no chip's.
        quantized_here: the model was not whole, and has been made so.
        effect: what the chip does to accuracy and spikes; None: not measured.
        evidence: what stands behind the simulation of the chip, in a sentence.
        estimate: of energy and latency, by SANA-FE; None: not asked for, or it does not fit.
    """

    name: str
    title: str
    chip: OnChip
    layers: tuple[LayerUse, ...]
    quantized_here: bool
    effect: Effect | None
    evidence: str
    estimate: Estimate | None = None

    def __bool__(self) -> bool:
        """Whether the network fits."""
        return self.chip.fits


def fit(
    model: Model,
    job: Job,
    measure: bool = False,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    estimate: bool = False,
    environments: str | Path | None = None,
) -> Fit:
    """The network as the chip would hold it, and every limit that it violates.

    Args:
        model: a .pt or .nir file, a SpikingNetwork, a ForeignNetwork or a Deployment; what is not
            quantized yet is quantized as the target asks.
        job: the target, and what it is asked about.
        measure: also run it on samples, if its arithmetic is known.
        on_progress: called with what is done, what there is in all, and of what.
        estimate: also run a few samples in SANA-FE, for energy and latency; loihi2 only.
        environments: folder with SANA-FE's environment, see `vendor.python_of`.

    Raises:
        FileError: a file cannot be used.
        GraphError: a node cannot be quantized, or SANA-FE cannot run the network.
        UsageError: an argument is not accepted, or SANA-FE is not installed.
        VendorError: SANA-FE failed.
    """
    prepared = prepare(model, job, on_progress)
    found = fit_of(prepared, measure, on_progress)
    if not estimate or not found:
        return found
    on_progress(0, 1, "samples in SANA-FE")
    return replace(found, estimate=estimate_of(prepared, environments))


def fit_of(
    prepared: Prepared,
    measure: bool = False,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Fit:
    """As `fit`, of what is prepared."""
    chip, target = prepared.chip, prepared.target
    measured = None
    if measure and chip.network is not None:
        measured = effect(prepared, on_progress)
    return Fit(
        prepared.name,
        target.title,
        chip,
        _layers(chip),
        prepared.quantized_here,
        measured,
        f"{target.evidence}: {target.evidence_text}",
    )


def _layers(chip: OnChip) -> tuple[LayerUse, ...]:
    try:
        network = populations(chip.deployment)
    except GraphError:
        return ()
    return tuple(_layer(item, network, chip) for item in network.items.values())


def _layer(item: Population, network: Populations, chip: OnChip) -> LayerUse:
    leaving = network.leaving(item.name)
    largest = max(
        (int(np.abs(p.weight).max(initial=0)) for p in item.entering if p.weight is not None),
        default=1,
    )
    return LayerUse(
        item.name,
        item.shape,
        item.neurons,
        sum(p.fan_in for p in item.entering),
        int(sum((p.fan_out for p in leaving), np.zeros(item.shape)).max(initial=0)),
        sum(p.synapses for p in item.entering),
        largest.bit_length() + 1,
        tuple(c.name for c in chip.cores if any(p[0] == item.name for p in c.populations)),
    )


def fit_as_data(found: Fit) -> dict[str, Any]:
    """As JSON values."""
    chip = found.chip
    return {
        "model": found.name,
        "target": chip.target,
        "title": found.title,
        "fits": chip.fits,
        "quantized_here": found.quantized_here,
        "evidence": found.evidence,
        "steps": chip.steps,
        "problems": [
            {"node": p.node, "what": p.what, "found": p.found, "most": p.most, "text": p.text}
            for p in chip.problems
        ],
        "approximations": [{"node": a.node, "text": a.text} for a in chip.approximations],
        "layers": [
            {**vars(layer), "shape": list(layer.shape), "cores": list(layer.cores)}
            for layer in found.layers
        ],
        "cores": [
            {
                "name": core.name,
                "populations": [list(p) for p in core.populations],
                "uses": [vars(use) for use in core.uses],
            }
            for core in chip.cores
        ],
        "uses": [vars(use) for use in chip.uses],
        "effect": found.effect.as_data() if found.effect else None,
        "estimate": found.estimate.as_data() if found.estimate else None,
    }
