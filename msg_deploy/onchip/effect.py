"""What a chip does to a network: accuracy, decisions, spikes, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msg_deploy.errors import GraphError
from msg_deploy.exporters.chips.populations import populations
from msg_deploy.exporters.chips.target import Target
from msg_deploy.onchip.prepare import Prepared
from msg_deploy.onchip.simulator import ChipSimulator
from msg_deploy.sim.fast import Fast
from msg_deploy.stimulus import encoded

BATCH = 32


@dataclass(frozen=True)
class LayerEffect:
    """One layer of neurons.

    Attributes:
        name: of its node.
        decisions: threshold decisions, one a neuron and step.
        spikes: on the chip.
        changed: decisions that differ from those of the network in whole numbers.
        saturated: how often a state left its range on the chip.
    """

    name: str
    decisions: int
    spikes: int
    changed: int
    saturated: int


@dataclass(frozen=True)
class Effect:
    """A network on a chip, as simulated to the bit, against the same elsewhere.

    Attributes:
        samples: their number.
        accuracy: of the network as it was given; None without labels.
        accuracy_whole: of the network in whole numbers.
        accuracy_chip: on the chip.
        flips: samples that the chip decides otherwise than the network as it was given.
        flips_whole: otherwise than the network in whole numbers.
        layers: of neurons.
        operations: of one sample on average: "spike", "synaptic operation", "neuron update".
        joules: of one sample, estimated from the operations; None: no numbers are published.
        joules_source: of the numbers behind it.
    """

    samples: int
    accuracy: float | None
    accuracy_whole: float | None
    accuracy_chip: float | None
    flips: int
    flips_whole: int
    layers: tuple[LayerEffect, ...]
    operations: Mapping[str, float]
    joules: float | None
    joules_source: str

    @property
    def decisions(self) -> int:
        """Threshold decisions."""
        return sum(layer.decisions for layer in self.layers)

    @property
    def changed(self) -> int:
        """Those that the chip brings about otherwise than the network in whole numbers."""
        return sum(layer.changed for layer in self.layers)

    def as_data(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **vars(self),
            "layers": [vars(layer) for layer in self.layers],
            "operations": dict(self.operations),
            "decisions": self.decisions,
            "changed": self.changed,
        }


def effect(
    prepared: Prepared,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Effect:
    """Run the samples as given, in whole numbers, and on the chip.

    Raises:
        GraphError: the chip's arithmetic is not known, or it cannot hold the network.
        UsageError: the samples do not fit.
    """
    chip, labels = prepared.chip, prepared.labels
    simulator = ChipSimulator(chip)
    whole_first, first = Fast(), Fast()
    tally = _Tally(prepared)
    for start in range(0, len(prepared.samples), BATCH):
        batch = np.asarray(prepared.samples[start : start + BATCH], np.float32)
        inputs = encoded(chip.deployment, batch)
        on_chip = simulator.run(inputs)
        whole = whole_first.run(chip.deployment, inputs, "float64")
        given = whole
        if prepared.quantized_here:
            given = first.run(prepared.original, encoded(prepared.original, batch), "float32")
        tally.add(
            None if labels is None else labels[start : start + BATCH],
            [t.scores.reshape(len(batch), -1).argmax(1) for t in (given, whole, on_chip)],
        )
        tally.count(inputs, on_chip, whole.spikes)
        on_progress(start + len(batch), len(prepared.samples), "samples on the chip")
    return tally.result()


class _Tally:
    """Sums over batches."""

    def __init__(self, prepared: Prepared) -> None:
        self.target: Target = prepared.target
        self.labelled = prepared.labels is not None
        self.network = populations(prepared.chip.deployment)
        self.samples = self.flips = self.flips_whole = 0
        self.right = np.zeros(3, np.int64)
        self.counted: dict[str, np.ndarray[Any, np.dtype[np.int64]]] = {}
        self.operations = dict.fromkeys(("spike", "synaptic operation", "neuron update"), 0.0)
        self.updates = sum(item.neurons for item in self.network.items.values())
        self.steps = prepared.chip.steps

    def add(self, labels: Any, decisions: list[Any]) -> None:
        """What three networks decide."""
        given, whole, chip = decisions
        self.samples += len(chip)
        self.flips += int((given != chip).sum())
        self.flips_whole += int((whole != chip).sum())
        if labels is not None:
            self.right += [int((found == labels).sum()) for found in decisions]

    def count(self, inputs: Any, run: Any, expected: Mapping[str, Any]) -> None:
        """Spikes and operations of a batch."""
        if set(run.spikes) != {item.name for item in self.network.spiking}:
            raise GraphError("the chip's populations are not those of the graph.")
        for name, spikes in run.spikes.items():
            states = run.counts.get(name, {})
            found = [
                spikes.size,
                int(spikes.sum()),
                int((spikes != expected[name]).sum()),
                sum(c.outside for c in states.values()),
            ]
            self.counted[name] = self.counted.get(name, np.zeros(4, np.int64)) + found
            self.operations["spike"] += float(spikes.sum())
        for p in self.network.projections:
            source = inputs if p.source == self.network.input else run.spikes[p.source]
            arrived = np.abs(source.reshape(-1, math.prod(p.source_shape))).sum(0)
            self.operations["synaptic operation"] += float(arrived @ p.fan_out.ravel())
        self.operations["neuron update"] += float(self.updates * self.steps * inputs.shape[1])

    def result(self) -> Effect:
        """Everything together."""
        each = {name: count / self.samples for name, count in self.operations.items()}
        energy = self.target.energy
        given, whole, chip = (
            float(r) / self.samples if self.labelled else None for r in self.right
        )
        return Effect(
            self.samples,
            given,
            whole,
            chip,
            self.flips,
            self.flips_whole,
            tuple(LayerEffect(name, *map(int, c)) for name, c in self.counted.items()),
            each,
            energy.estimate(each) if energy else None,
            energy.source if energy else "",
        )
