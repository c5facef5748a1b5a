"""BrainScaleS-2 by hxtorch's NIR importer. Analog: fit and export only, no exact simulation exists.

Source: electronicvisions/hxtorch@3bfc7aa (utils/from_nir.py, transforms/weight_transforms.py) and
electronicvisions/brainscales2-demos@11e31d8; the software stack is not on PyPI, nothing was run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import nir
import numpy as np

from msg_deploy.errors import GraphError
from msg_deploy.exporters.chips.as_nir import nir_bytes
from msg_deploy.exporters.chips.populations import Populations
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

DEMOS = "brainscales2-demos, fp_brainscales.rst"
HXTORCH = "hxtorch, transforms/weight_transforms.py"


@register
class BrainScaleS2(Target):
    """See the module."""

    name = "brainscales2"
    title = "BrainScaleS-2"
    limits: ClassVar[Mapping[str, Limit]] = {
        "neurons": Limit(512, "neuron circuits", DEMOS),
        "fan-in": Limit(256, "synapse rows of a circuit; two for each signed input", DEMOS),
        "weight": Limit(63, "magnitude of a weight (6 bits)", HXTORCH),
    }
    runs = ("CubaLIF, and CubaLI to be read, parameters alike within a layer", "matrices")
    lacks = (
        "LIF, IF, biases, delays, convolutions in its NIR importer",
        "exact arithmetic: circuits are analog, noisy, and calibrated",
    )
    evidence = "none"
    evidence_text = "the chip is analog, so that nothing can be simulated to the bit."
    quantize = QuantizeOptions(bits=7, granularity="layer", exact="float64")
    format = "network.nir, of nodes that hxtorch's importer knows"

    def place(self, network: Populations, findings: Findings) -> OnChip:
        """See `Target.place`."""
        common_law(network, findings, (nir.CubaLIF, nir.CubaLI))
        for item in network.items.values():
            if item.node is None:
                findings.law(
                    item.name,
                    "has no neurons to be read; put CubaLI behind the last matrix.",
                )
            if item.bias.any():
                findings.law(item.name, "has no bias; train without (bias=False).")
            if item.node is not None and isinstance(item.node, (nir.CubaLIF, nir.CubaLI)):
                for field in ("tau_mem", "tau_syn"):
                    try:
                        item.common(field)
                    except GraphError as error:
                        findings.law("", str(error))
            rows = 2 * sum(p.fan_in for p in item.entering)
            findings.limit(item.name, self.limits["fan-in"], rows, "use fewer neurons before it.")
        for p in network.projections:
            if p.convolution:
                findings.law(p.name, "is a convolution, which its NIR importer does not read.")
            if p.delay:
                findings.law(p.name, "has a delay; there are none.")
            if p.weight is not None:
                most = int(np.abs(p.weight).max(initial=0))
                findings.limit(p.name, self.limits["weight"], most, "quantize to 7 bits or fewer.")
        count = sum(item.neurons for item in network.items.values())
        findings.limit("", self.limits["neurons"], count, "use fewer neurons.")
        used = Use("neuron circuits", count, self.limits["neurons"].most)
        places = tuple((name, 0, item.neurons) for name, item in network.items.items())
        return OnChip(
            self.name,
            network.deployment,
            None,
            steps=network.deployment.timing.steps,
            cores=(Core("array", places, (used,)),),
            uses=(used,),
            problems=tuple(findings.problems),
            approximations=tuple(findings.approximations),
        )

    def files(self, chip: OnChip) -> Mapping[str, bytes]:
        """`network.nir`."""
        return {"network.nir": nir_bytes(chip.deployment)}
