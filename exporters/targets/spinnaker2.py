"""SpiNNaker2 by py-spinnaker2's NIR importer. Its arithmetic is not public: fit and export only.

Source: the s2_nir.py and notebooks of the NIR paper (neuromorphs/NIR@7232ada, paper/), and digests
of the py-spinnaker2 documentation; the package is not on PyPI, so nothing was run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import nir
import numpy as np

from msg_deploy.exporters.chips.as_nir import nir_bytes
from msg_deploy.exporters.chips.placing import Demand, packed
from msg_deploy.exporters.chips.populations import Populations
from msg_deploy.exporters.chips.target import (
    Findings,
    Limit,
    OnChip,
    Target,
    Use,
    common_law,
)
from msg_deploy.exporters.quantize.options import QuantizeOptions
from msg_deploy.exporters.targets import register

DIGEST = "a third party's digest of the py-spinnaker2 documentation"
PAPER = "neuromorphs/NIR@7232ada, paper/02_cnn and 03_rnn"


@register
class SpiNNaker2(Target):
    """See the module."""

    name = "spinnaker2"
    title = "SpiNNaker2"
    limits: ClassVar[Mapping[str, Limit]] = {
        "cores": Limit(148, "cores for applications", DIGEST),
        "neurons": Limit(256, "neurons of a core, as the NIR paper sets it", PAPER),
        "memory": Limit(96 * 1024, "bytes of data of a core", DIGEST),
        "weight": Limit(127, "magnitude of a weight (int8)", PAPER),
    }
    runs = (
        "IF, LIF and CubaLIF, reset to zero or by subtraction",
        "convolutions before IF or LIF, sums of windows, matrices, recurrence",
    )
    lacks = (
        "CubaLIF behind convolutions, delays in its NIR importer",
        "a public description of its arithmetic: nothing is simulated here",
    )
    evidence = "none"
    evidence_text = "neither the chip's code nor its simulator is public, so nothing is compared."
    quantize = QuantizeOptions(granularity="layer", exact="float64")
    format = "network.nir, of nodes that py-spinnaker2's importer knows"

    def place(self, network: Populations, findings: Findings) -> OnChip:
        """See `Target.place`."""
        common_law(network, findings, (nir.IF, nir.LIF, nir.CubaLIF))
        for item in network.items.values():
            if isinstance(item.node, nir.CubaLIF) and any(p.convolution for p in item.entering):
                findings.law(item.name, "is a CubaLIF behind a convolution; use LIF there.")
        for p in network.projections:
            if p.delay:
                findings.law(p.name, "has a delay, which its NIR importer does not read.")
            if p.weight is not None:
                most = int(np.abs(p.weight).max(initial=0))
                findings.limit(p.name, self.limits["weight"], most, "quantize to 8 bits.")
        demands = []
        for item in network.items.values():
            kernels = sum(
                p.weight.size for p in item.entering if p.convolution and p.weight is not None
            )
            each = sum(p.fan_in for p in item.entering if not p.convolution)
            # A membrane of 4 bytes for each neuron, and a weight of 1 for each synapse.
            demands.append(
                Demand(item.name, item.neurons, {"memory": each + 4}, {"memory": kernels})
            )
        capacity = {"neurons": self.limits["neurons"].most, "memory": self.limits["memory"].most}
        cores = packed(demands, capacity)
        if cores is None:
            for demand in demands:
                needed = demand.each["memory"] + demand.shared["memory"]
                findings.limit(demand.name, self.limits["memory"], needed, "use a smaller fan-in.")
        else:
            findings.limit("", self.limits["cores"], len(cores), "use fewer neurons.")
        return OnChip(
            self.name,
            network.deployment,
            None,
            steps=network.deployment.timing.steps,
            cores=cores or (),
            uses=(Use("cores", len(cores or ()), self.limits["cores"].most),),
            problems=tuple(findings.problems),
            approximations=tuple(findings.approximations),
        )

    def files(self, chip: OnChip) -> Mapping[str, bytes]:
        """`network.nir`; class scores by TWO's weights in its metadata, on the host."""
        return {"network.nir": nir_bytes(chip.deployment)}
