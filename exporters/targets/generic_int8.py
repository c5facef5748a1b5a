"""A digital core of our own definition: int8 weights, a membrane of 24 bits that saturates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import nir
import numpy as np

from msg_deploy.deployment import Timing
from msg_deploy.errors import GraphError
from msg_deploy.exporters.chips import flat
from msg_deploy.exporters.chips.assemble import built
from msg_deploy.exporters.chips.decoder import Decoder
from msg_deploy.exporters.chips.placing import Demand, packed
from msg_deploy.exporters.chips.populations import Population, Populations
from msg_deploy.exporters.chips.target import (
    Findings,
    Limit,
    OnChip,
    Target,
    Use,
    common_law,
    two_of,
)
from msg_deploy.exporters.quantize.options import QuantizeOptions
from msg_deploy.exporters.targets import register
from msg_deploy.sim.integer.network import Neurons
from msg_deploy.sim.integer.neuron import IntegerNeuron, Parameters
from msg_deploy.sim.integer.rules import Decay, WeightFormat, WeightMode, symmetric

DECAY_BITS = 12
SHIFT = 6
"""Binary digits of a membrane behind the unit of the weights, which a leak needs."""
OWN = "own definition"

LAW = IntegerNeuron(
    input_shift=SHIFT,
    membrane_decay=Decay("multiply", DECAY_BITS, "toward_zero"),
    membrane=symmetric(24),
    bias_shift=SHIFT,
    compare=">=",
    weights=WeightFormat((WeightMode(-127, 127),)),
)
"""v <- clip(toward zero(v (4096 - d) / 4096) + 64 (sum of w + b)); spike where v >= threshold."""


@register
class GenericInt8(Target):
    """The least that a digital neuromorphic core has; every number is a field above."""

    name = "generic_int8"
    title = "Generic int8 core"
    limits: ClassVar[Mapping[str, Limit]] = {
        "neurons": Limit(4096, "neurons of a core", OWN),
        "synapses": Limit(2**20, "8-bit synapse words of a core", OWN),
        "cores": Limit(64, "cores", OWN),
    }
    runs = ("LIF and IF, reset to zero or by subtraction", "convolutions", "recurrence", "delays")
    lacks = ("synaptic currents", "v_reset or v_leak other than 0")
    evidence = "equations"
    evidence_text = "its definition here, tested against a table worked by hand."
    quantize = QuantizeOptions(granularity="channel", exact="float64")

    def place(self, network: Populations, findings: Findings) -> OnChip:
        """See `Target.place`."""
        common_law(network, findings, (nir.IF, nir.LIF))
        deployment = network.deployment
        neurons, units = {}, {}
        for name, item in network.items.items():
            if item.node is not None and not isinstance(item.node, (nir.IF, nir.LIF)):
                continue
            flat.rests_at_zero(item, findings)
            flat.without_gain(item, findings)
            try:
                neurons[name] = _neurons(item, deployment.timing)
                units[name] = _unit(item, deployment.timing)
            except GraphError as error:
                findings.law("", str(error))
        cores = packed(_demands(network), self._capacity())
        if cores is not None:
            findings.limit("", self.limits["cores"], len(cores), "use fewer neurons or channels.")
        else:
            for item in network.items.values():
                fan_in = sum(p.synapses for p in item.entering) // item.neurons
                findings.limit(item.name, self.limits["synapses"], fan_in, "use a smaller fan-in.")
        whole = built(network, neurons, findings)
        f = tuple(two_of(network))
        output = network.items[network.output]
        form = deployment.integers
        unit = (form.scores if form else 1.0) * (1.0 if output.spiking else 2.0**-SHIFT)
        return OnChip(
            self.name,
            deployment,
            whole,
            late=dict.fromkeys(network.items, 0),
            steps=deployment.timing.steps,
            decoder=Decoder("spikes" if output.spiking else "membranes", f, 0, unit),
            cores=cores or (),
            uses=(Use("cores", len(cores or ()), self.limits["cores"].most),),
            problems=tuple(findings.problems),
            approximations=tuple(findings.approximations),
            units=units,
        )

    def _capacity(self) -> dict[str, int]:
        return {what: self.limits[what].most for what in ("neurons", "synapses")}


def _rate(item: Population, timing: Timing) -> float:
    """dt/tau; 1 for IF and for the output layer."""
    return timing.dt / item.common("tau") if isinstance(item.node, nir.LIF) else 1.0


def _unit(item: Population, timing: Timing) -> float:
    """The graph's membrane is the chip's times this: v gains rate x where the chip gains 64 x."""
    return _rate(item, timing) * 2.0**-SHIFT


def _neurons(item: Population, timing: Timing) -> Neurons:
    bias = np.rint(item.bias).astype(np.int64)
    if item.node is None:
        silent = replace(LAW, compare="never")
        return Neurons(silent, Parameters(bias=bias), item.shape, "membrane")
    rate = _rate(item, timing)
    leaks = isinstance(item.node, nir.LIF)
    decay = round(rate * 2**DECAY_BITS) if leaks else 0
    # v > theta of the graph is v' >= floor(theta / unit) + 1 of whole numbers.
    limit = np.asarray(item.node.v_threshold, np.float64) / _unit(item, timing)
    parameters = Parameters(
        threshold=(np.floor(limit) + 1).astype(np.int64), bias=bias, membrane_decay=decay
    )
    law = replace(LAW, reset="subtract" if timing.reset == "subtract" else "value")
    return Neurons(law, parameters, item.shape)


def _demands(network: Populations) -> list[Demand]:
    found: list[Demand] = []
    for name, item in network.items.items():
        shared, each = 0, 0
        for p in item.entering:
            whole: Any = p.without_pool()
            if whole.convolution:
                shared += whole.weight.size
            elif whole.weight is not None:
                each += whole.weight.shape[1]
        found.append(Demand(name, item.neurons, {"synapses": each}, {"synapses": shared}))
    return found
