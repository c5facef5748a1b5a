"""Energy and latency of a network on Loihi, estimated by SANA-FE.

SANA-FE (Boyle et al., IEEE Trans. Comput.-Aided Des. 2025; GPL-3, in an environment of its own)
runs spikes through a model of cores and network and adds up published costs. Its neuron, in double
precision (version 2.2.9, src/models.cpp, `LoihiLifModel`), with weights w and spikes s:

    u = input_decay u + sum(w s)
    v = toward zero(64 leak_decay v) / 64 + bias + u
    spike where v > threshold; then v = 0

With w as Loihi holds them, threshold = vThMant, leak_decay = (4096 - vDecay) / 4096 and input_decay
= (4096 - iDecay) / 4096 this is the law of `msg_deploy.exporters.targets.loihi2` in units of 64,
but for currents that decay, which are not rounded, and that nothing saturates or wraps. So spikes
should be the same where no current decays, and nearly the same elsewhere; `Estimate` says.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from msg_deploy.errors import GraphError, UsageError
from msg_deploy.exporters.chips.placing import Demand, packed
from msg_deploy.exporters.chips.populations import Populations, populations
from msg_deploy.exporters.chips.target import OnChip
from msg_deploy.exporters.targets.loihi2 import NEVER, SHIFT, UNITY
from msg_deploy.onchip import vendor as vendors
from msg_deploy.onchip.prepare import Prepared
from msg_deploy.onchip.simulator import ChipRun, ChipSimulator
from msg_deploy.onchip.vendors.sanafe import CORE, OPERATIONS, PARTS, TITLE, UNIT
from msg_deploy.stimulus import encoded

VENDOR = "sanafe"
SAMPLES = 10
"""At most: it builds the network anew for each."""
CORES = 128
"""Of SANA-FE's Loihi 1: 32 tiles of 4 (loihi.yaml)."""


@dataclass(frozen=True)
class LayerSpikes:
    """One layer of neurons, in SANA-FE and in our simulation of the chip.

    Attributes:
        name: of its node.
        decisions: one a neuron, step and sample.
        ours: spikes in our simulation, which is exact.
        theirs: spikes in SANA-FE.
        differ: decisions that are not the same.
    """

    name: str
    decisions: int
    ours: int
    theirs: int
    differ: int


@dataclass(frozen=True)
class Estimate:
    """What a sample takes, on average, as SANA-FE estimates it; nothing was measured.

    Attributes:
        samples: that were run.
        steps: of a sample on the chip, those included that it takes to pass all layers.
        joules: by part: "synapse", "dendrite", "soma", "network" (messages and their way).
        seconds: from the first step to the last.
        operations: by name: "synaptic operation", "packet", "neuron update" and "spike", the last
            two with the inputs.
        layers: spikes, to be held against ours.
    """

    samples: int
    steps: int
    joules: Mapping[str, float]
    seconds: float
    operations: Mapping[str, float]
    layers: tuple[LayerSpikes, ...]

    source: ClassVar[str] = (
        f"an estimate by {TITLE}, not a measurement, with its numbers of Loihi 1 (Davies et al., "
        "IEEE Micro 38(1), 2018: 1024 neurons a core; of Loihi 2 none are published); without "
        "leakage of the chip, and without what brings inputs to it"
    )

    @property
    def total(self) -> float:
        """Joules of all parts."""
        return sum(self.joules.values())

    @property
    def decisions(self) -> int:
        """Of all layers."""
        return sum(layer.decisions for layer in self.layers)

    @property
    def differ(self) -> int:
        """Decisions that are not the chip's: with many, something else is estimated."""
        return sum(layer.differ for layer in self.layers)

    def __bool__(self) -> bool:
        """Whether what was estimated spikes as the chip does."""
        return self.differ == 0

    def as_data(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **vars(self),
            "joules": dict(self.joules),
            "operations": dict(self.operations),
            "layers": [vars(layer) for layer in self.layers],
            "total": self.total,
            "decisions": self.decisions,
            "differ": self.differ,
            "source": self.source,
        }


def estimate_of(prepared: Prepared, environments: str | Path | None = None) -> Estimate:
    """As `estimate`, of the first samples of what is prepared."""
    batch = np.asarray(prepared.samples[:SAMPLES], np.float32)
    return estimate(prepared.chip, encoded(prepared.chip.deployment, batch), environments)


def estimate(
    chip: OnChip, inputs: npt.NDArray[Any], environments: str | Path | None = None
) -> Estimate:
    """Run samples in SANA-FE and in our simulation.

    Args:
        chip: a network on loihi2 that fits.
        inputs: whole numbers (T, B, *input shape), T as in the graph.
        environments: folder of the vendors' environments, see `vendor.python_of`.

    Raises:
        GraphError: SANA-FE cannot run the network.
        UsageError: it is not on loihi2, there are no samples, or SANA-FE is not installed.
        VendorError: SANA-FE failed.
    """
    files = description(chip)
    if inputs.shape[1] == 0:
        raise UsageError("an estimate needs samples.")
    python = vendors.python_of(VENDOR, environments)
    if python is None:
        raise UsageError(f"{TITLE} is not installed here; `make chips` does it.")
    ours = ChipSimulator(chip).run(inputs)
    return estimated(chip, ours, vendors.run(VENDOR, python, files, inputs))


def estimated(chip: OnChip, ours: ChipRun, theirs: Mapping[str, npt.NDArray[np.int64]]) -> Estimate:
    """Averages of what SANA-FE gave.

    Args:
        chip: the network.
        ours: our simulation of some samples.
        theirs: of the same, as `msg_deploy.onchip.vendors.sanafe` says.

    Raises:
        VendorError: spikes are missing or of another shape.
    """
    # Raises where shapes differ.
    vendors.compared(VENDOR, ours, theirs)
    layers = tuple(
        LayerSpikes(
            name,
            spikes.size,
            int(spikes.sum()),
            int(theirs[f"spikes_{name}"].sum()),
            int((theirs[f"spikes_{name}"] != spikes).sum()),
        )
        for name, spikes in ours.spikes.items()
    )
    joules = theirs["energy"].mean(0) * UNIT
    return Estimate(
        len(theirs["time"]),
        chip.settings["reset_interval"],
        dict(zip(PARTS, joules.tolist(), strict=True)),
        float(theirs["time"].mean() * UNIT),
        dict(zip(OPERATIONS, theirs["operations"].mean(0).tolist(), strict=True)),
        layers,
    )


def description(chip: OnChip) -> dict[str, bytes]:
    """The files that `msg_deploy.onchip.vendors.sanafe` reads.

    `network.json` holds populations (numbers of the law above), projections, and what lies on each
    core, layer after layer; `network.npz` of each population `bias_NAME` (N,) and of projection k
    its synapses that are not 0, `source_k`, `target_k` and `weight_k` (S,), neurons in C order.

    Args:
        chip: a network on loihi2 that fits.

    Raises:
        GraphError: a projection is delayed, or the layers need more cores than there are.
        UsageError: it is not on loihi2, or does not fit.
    """
    if chip.target != "loihi2" or chip.network is None or chip.problems:
        raise UsageError(f"SANA-FE estimates networks that fit loihi2; this is on {chip.target}.")
    network = populations(chip.deployment)
    cores = _cores(network)
    items, arrays = [], {}
    for name, item in network.items.items():
        known = chip.network.numbers[name]
        numbers = {
            "threshold": int(known.threshold[0]) >> SHIFT if item.spiking else NEVER,
            "leak_decay": 1 - int(known.membrane_decay[0]) / UNITY,
            "input_decay": 1 - int(known.current_decay[0, 0]) / UNITY,
        }
        items.append(
            {
                "name": name,
                "shape": list(item.shape),
                "neurons": item.neurons,
                "spiking": item.spiking,
                "depth": network.depths[name],
                "synapse": "conv" if all(p.convolution for p in item.entering) else "dense",
                **{what: float(number) for what, number in numbers.items()},
            }
        )
        arrays[f"bias_{name}"] = known.bias >> SHIFT
    projections = []
    for number, p in enumerate(network.projections):
        _in_step(network, p.source, p.target, p.delay, p.previous, p.name)
        projections.append({"source": p.source, "target": p.target})
        matrix = p.matrix()
        arrays[f"target_{number}"], arrays[f"source_{number}"] = np.nonzero(matrix)
        arrays[f"weight_{number}"] = matrix[matrix != 0]
    about = {
        "input": network.input,
        "populations": items,
        "projections": projections,
        "cores": cores,
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return {"network.json": json.dumps(about).encode(), "network.npz": buffer.getvalue()}


def _in_step(
    network: Populations, source: str, target: str, delay: int, previous: bool, name: str
) -> None:
    """Every way takes one step: delays of SANA-FE 2.2.9 lose spikes that no other follows."""
    depths = network.depths
    late = depths[target] - depths[source] + delay - (0 if previous else 1)
    if late:
        raise GraphError(
            f"node {name!r}: takes {late + 1} steps from {source!r} to {target!r}; SANA-FE's "
            "delays do not work, so that it takes chains of layers only."
        )


def _cores(network: Populations) -> list[list[tuple[str, int, int]]]:
    demands = [Demand(item.name, item.neurons, {}, {}) for item in network.items.values()]
    cores = packed(demands, {"neurons": CORE})
    # The inputs need one at least.
    if cores is None or len(cores) >= CORES:
        count = sum(item.neurons for item in network.items.values())
        raise GraphError(
            f"{count:,} neurons; SANA-FE's Loihi holds {CORE * (CORES - 1):,}, and the inputs."
        )
    return [list(core.populations) for core in cores]
