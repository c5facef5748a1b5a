"""ODIN: 256 neurons, one crossbar of 3-bit synapses whose sign is that of the source.

Every event adds its weight, v = min(255, v + w) or max(0, v - w); after each of them a neuron with
v >= threshold spikes, and v = 0. A step of the graph is the events of its sources by address, then
one time reference event, which takes the leak from v. Source: ChFrenkel/ODIN, doc/README.md and
src/LIF_neuron_blocks/lif_neuron_state.v.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import ClassVar

import nir
import numpy as np

from msg_deploy.exporters.chips import flat
from msg_deploy.exporters.chips.assemble import built
from msg_deploy.exporters.chips.energy import ODIN
from msg_deploy.exporters.chips.populations import Populations, populations
from msg_deploy.exporters.chips.target import (
    Core,
    Findings,
    Limit,
    OnChip,
    Target,
    Use,
    common_law,
)
from msg_deploy.exporters.quantize.options import QuantizeOptions
from msg_deploy.exporters.targets import register
from msg_deploy.sim.integer.network import Neurons
from msg_deploy.sim.integer.neuron import IntegerNeuron, Parameters
from msg_deploy.sim.integer.rules import WeightFormat, WeightMode, unsigned

MANUAL = "ChFrenkel/ODIN, doc/README.md"
LAW = IntegerNeuron(
    membrane=unsigned(8),
    compare=">=",
    compare_at="event",
    max_spikes=2**20,
    per_add=True,
    threshold=unsigned(8),
    weights=WeightFormat((WeightMode(0, 7), WeightMode(-7, 0)), "source"),
)


@register
class Odin(Target):
    """See the module."""

    name = "odin"
    title = "ODIN (256 neurons)"
    limits: ClassVar[Mapping[str, Limit]] = {
        "neurons": Limit(256, "rows of the crossbar (inputs and neurons)", MANUAL),
        "threshold": Limit(255, "threshold (8 bits)", MANUAL),
        "events": Limit(1, "events of an input in a step", MANUAL),
    }
    runs = ("IF, reset to zero", "matrices whose sources excite only, or inhibit only")
    lacks = (
        "membranes below 0: they stop there",
        "exponential leaks (a constant one only), biases, delays, resets by subtraction",
        "a layer that does not spike: TWO needs one, so give the output layer neurons",
        "steps: neurons decide after every event",
    )
    evidence = "HDL"
    evidence_text = (
        "spikes and membranes are those of its Verilog neuron (lif_neuron_state.v) under Icarus "
        "Verilog, in the tests where that is installed."
    )
    quantize = QuantizeOptions(bits=4, granularity="layer", exact="float64", levels=1)
    energy = ODIN
    vendor = "odin"
    format = "odin.json: neuron and synapse words by address"

    def place(self, network: Populations, findings: Findings) -> OnChip:
        """See `Target.place`."""
        common_law(network, findings, (nir.IF,))
        timing = network.deployment.timing
        if timing.reset == "subtract":
            findings.law("", "it resets to zero only; train with reset=zero.")
        fine = flat.only_matrices(network, findings)
        count = sum(item.neurons for item in network.items.values()) + flat.inputs(network)
        findings.limit("", self.limits["neurons"], count, "use fewer inputs and neurons.")
        flat.no_negative_inputs(network, findings)
        _, high = network.deployment.input.entering
        findings.limit(
            network.input, self.limits["events"], int(high), "feed spikes (frames of 0 and 1)."
        )
        neurons = {}
        for name, item in network.items.items():
            flat.without_bias(item, findings)
            if item.node is None:
                findings.law(
                    name, "does not spike, and its membrane could not go below 0; add neurons."
                )
                continue
            if not isinstance(item.node, nir.IF):
                continue
            flat.rests_at_zero(item, findings)
            flat.without_gain(item, findings)
            threshold = np.floor(np.asarray(item.node.v_threshold, np.float64)).astype(np.int64) + 1
            most = int(threshold.max())
            findings.limit(name, self.limits["threshold"], most, "quantize with fewer bits.")
            if threshold.min() < 1:
                findings.law(name, "v_threshold is below 0, where it spikes for ever.")
            held = np.clip(threshold, 1, 255)
            neurons[name] = Neurons(LAW, Parameters(threshold=held), item.shape)
        if network.spiking:
            findings.instead(
                "",
                "membranes stop at 0, and neurons decide after every event",
                "there is no training without that difference",
            )
        whole = None
        if fine and len(neurons) == len(network.items):
            whole = built(network, neurons, findings)
        late = dict.fromkeys(network.items, 0)
        used = Use("rows of the crossbar", count, self.limits["neurons"].most)
        return OnChip(
            self.name,
            network.deployment,
            whole,
            late=late,
            steps=timing.steps,
            decoder=flat.decoder(network, late),
            cores=(
                Core("crossbar", tuple((n, 0, i.neurons) for n, i in network.items.items()), ()),
            ),
            uses=(used,),
            problems=tuple(findings.problems),
            approximations=tuple(findings.approximations),
            units=dict.fromkeys(network.items, 1.0),
        )

    def files(self, chip: OnChip) -> Mapping[str, bytes]:
        """`odin.json`.

        Rows: inputs first, then the neurons in order. `inhibitory`: of each row (SPI_SYN_SIGN);
        `synapses`: (row, row) magnitudes 0..7; `neurons`: thresholds of the rows that are neurons,
        from `first_neuron` on; `leak`: 0.
        """
        network = populations(chip.deployment)
        assert chip.network is not None
        start = {network.input: 0}
        count = flat.inputs(network)
        for name, item in network.items.items():
            start[name] = count
            count += item.neurons
        synapses = np.zeros((count, count), np.int64)
        for p in network.projections:
            block = np.rint(p.matrix().T).astype(np.int64)
            rows, columns = start[p.source], start[p.target]
            synapses[rows : rows + block.shape[0], columns : columns + block.shape[1]] += block
        thresholds = [
            int(t) for name in network.items for t in chip.network.numbers[name].threshold
        ]
        content = {
            "inhibitory": (synapses.min(axis=1) < 0).tolist(),
            "synapses": np.abs(synapses).tolist(),
            "first_neuron": flat.inputs(network),
            "neurons": thresholds,
            "leak": 0,
        }
        return {"odin.json": (json.dumps(content) + "\n").encode()}
