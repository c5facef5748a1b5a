"""Spiker+, an FPGA accelerator of dense layers, with weights of 8 and membranes of 16 bits.

Each step of a neuron, x >> k an arithmetic shift, every addition saturating:

    if v > threshold: spike; v = v - threshold, or 0; no leak in this step
    else: v = v - (v >> k)
    v = v + w for each input that spikes, in order

so the spike that a step brings about is given at the start of the next one; the next layer takes it
up in the step after that. Source: the VHDL that spikerplus 2.0.3 generates.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import nir
import numpy as np

from msg_deploy.deployment import Timing
from msg_deploy.errors import GraphError
from msg_deploy.exporters.chips import flat
from msg_deploy.exporters.chips.assemble import built
from msg_deploy.exporters.chips.populations import Population, Populations, populations
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
from msg_deploy.sim.integer.network import Neurons
from msg_deploy.sim.integer.neuron import IntegerNeuron, Parameters
from msg_deploy.sim.integer.rules import Decay, Range, signed, signed_weights

VHDL = "VHDL of spikerplus 2.0.3"
NEURON_BITS = 16
WEIGHT_BITS = 8
MOST = 2 ** (NEURON_BITS - 1) - 1
LEAST = NEURON_BITS - 1
"""Shift of the smallest leak: 0 from 0 on, and -1 below."""
LAW = IntegerNeuron(
    membrane_decay=Decay("shift"),
    membrane=signed(NEURON_BITS),
    leak_on_spike=False,
    compare_at="start",
    per_add=True,
    threshold=Range(0, MOST),
    weights=signed_weights(WEIGHT_BITS),
)


@register
class SpikerPlus(Target):
    """See the module."""

    name = "spikerplus"
    title = "Spiker+ (FPGA)"
    limits: ClassVar[Mapping[str, Limit]] = {
        "threshold": Limit(MOST, "threshold (16 bits, our choice)", VHDL),
        "events": Limit(1, "events of an input in a step", VHDL),
    }
    runs = (
        "LIF with dt/tau a power of two, reset to zero (exact but for rounding) or by subtraction",
        "matrices in a chain",
    )
    lacks = (
        "biases, delays, convolutions, synaptic currents; loops are not exported",
        "membranes without a leak: below 0 they gain at least 1 a step",
        "a leak in the step after a spike",
    )
    evidence = "HDL"
    evidence_text = "the VHDL that its generator makes of the exported files, under GHDL."
    quantize = QuantizeOptions(granularity="layer", leak="power-of-two", exact="float64", levels=1)
    vendor = "spikerplus"
    format = "network.json (spikerplus' net_dict and optim_config) and weights.npz"

    def place(self, network: Populations, findings: Findings) -> OnChip:
        """See `Target.place`."""
        common_law(network, findings, (nir.IF, nir.LIF))
        timing = network.deployment.timing
        fine = flat.only_matrices(network, findings)
        flat.no_negative_inputs(network, findings)
        _, high = network.deployment.input.entering
        findings.limit(
            network.input, self.limits["events"], int(high), "feed spikes (frames of 0 and 1)."
        )
        late = {
            name: 2 * depth - (1 if network.items[name].spiking else 2)
            for name, depth in network.depths.items()
            if name in network.items
        }
        neurons, units = {}, {}
        for name, item in network.items.items():
            flat.without_bias(item, findings)
            if item.node is not None and not isinstance(item.node, (nir.IF, nir.LIF)):
                continue
            flat.rests_at_zero(item, findings)
            flat.without_gain(item, findings)
            if len(item.entering) > 1:
                findings.law(name, "takes from several layers; layers stand in a chain.")
            try:
                neurons[name] = self._neurons(item, timing, findings)
                units[name] = _rate(item, timing)
            except GraphError as error:
                findings.law("", str(error))
        whole = None
        limited = any(p.what == self.limits["threshold"].unit for p in findings.problems)
        if fine and len(neurons) == len(network.items) and not limited:
            whole = built(_following(network), neurons, findings)
        return OnChip(
            self.name,
            network.deployment,
            whole,
            late=late,
            steps=timing.steps + max(late.values()),
            decoder=flat.decoder(network, late),
            uses=(Use("neurons", sum(i.neurons for i in network.items.values()), 0),),
            problems=tuple(findings.problems),
            approximations=tuple(findings.approximations),
            units=units,
        )

    def _neurons(self, item: Population, timing: Timing, findings: Findings) -> Neurons:
        if item.node is None:
            silent = replace(LAW, compare="never", compare_at="end", leak_on_spike=True)
            leaking = Parameters(membrane_decay=LEAST)
            findings.instead(
                item.name,
                "the output layer gains 1 a step below 0, which decode.py does not undo",
                "there is no layer without a leak",
            )
            return Neurons(silent, leaking, item.shape, "membrane")
        rate = _rate(item, timing)
        shift = LEAST
        if isinstance(item.node, nir.LIF):
            exact = -np.log2(rate)
            shift = min(max(0, round(float(exact))), LEAST)
            if abs(exact - shift) > 1e-6:
                findings.instead(
                    item.name,
                    f"dt/tau = {rate:.4g} becomes 1/{2**shift}",
                    f"train with tau = {2**shift} dt",
                )
            if shift == 0:
                findings.law(
                    item.name,
                    "keeps nothing from step to step, which its generator cannot mix with layers "
                    "that do; train with tau = 2 dt or more.",
                )
            if timing.reset == "subtract" and shift:
                findings.instead(
                    item.name, "does not leak in the step after a spike", "train with reset=zero"
                )
        else:
            findings.instead(
                item.name, "gains 1 a step below 0", "train with a leak (tau = 2 dt, for example)"
            )
        mantissa = int(np.floor(item.common("v_threshold") / rate))
        findings.limit(item.name, self.limits["threshold"], mantissa, "quantize with fewer bits.")
        law = replace(LAW, reset="subtract" if timing.reset == "subtract" else "value")
        threshold = min(mantissa, self.limits["threshold"].most)
        return Neurons(law, Parameters(threshold=threshold, membrane_decay=shift), item.shape)

    def files(self, chip: OnChip) -> Mapping[str, bytes]:
        """`network.json` and `weights.npz` with fc1, fc2, ... (targets, sources), int64.

        network.json has `net_dict` for spikerplus.NetBuilder (its weights are then those of
        weights.npz) and `optim_config` for spikerplus.VhdlGenerator.
        """
        network = populations(chip.deployment)
        assert chip.network is not None
        subtracting = chip.deployment.timing.reset == "subtract"
        net: dict[str, Any] = {
            "n_cycles": chip.steps,
            "n_inputs": flat.inputs(network),
        }
        weights = {}
        for number, (item, matrix) in enumerate(flat.matrices(network)):
            numbers = chip.network.numbers[item.name]
            reset = "none" if not item.spiking else "subtract" if subtracting else "zero"
            net[f"layer_{number}"] = {
                "neuron_model": "lif",
                "n_neurons": item.neurons,
                "beta": 1 - 2.0 ** -int(numbers.membrane_decay[0]),
                "learn_beta": False,
                "threshold": int(numbers.threshold[0]) if item.spiking else MOST,
                "learn_threshold": False,
                "reset_mechanism": reset,
            }
            weights[f"fc{number + 1}"] = np.array(matrix, np.int64)
        bits = {"weights_bw": WEIGHT_BITS, "neurons_bw": NEURON_BITS, "fp_dec": 0}
        buffer = io.BytesIO()
        np.savez(buffer, **weights)  # type: ignore[arg-type]
        content = json.dumps({"net_dict": net, "optim_config": bits}, indent=1)
        return {"network.json": (content + "\n").encode(), "weights.npz": buffer.getvalue()}


def _following(network: Populations) -> Populations:
    """Each layer takes up spikes a step after they are given."""

    def delayed(item: Population) -> Population:
        entering = tuple(
            p if p.source == network.input else replace(p, delay=1) for p in item.entering
        )
        return replace(item, entering=entering)

    return replace(network, items={name: delayed(item) for name, item in network.items.items()})


def _rate(item: Population, timing: Timing) -> float:
    return timing.dt / item.common("tau") if isinstance(item.node, nir.LIF) else 1.0
