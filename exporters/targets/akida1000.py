"""BrainChip Akida AKD1000: layers of weights and steps, nothing kept from one frame to the next.

A neuron of one bit fires where its potential is above the threshold. So a network runs exactly if
its neurons have no memory: Threshold, or LIF with dt/tau = 1, whose membrane is replaced in each
step. Each step is then a frame, and the last layer's potentials are weighted on the host. Source:
akida 2.19.3, docstrings and behaviour of its software backend.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import nir
import numpy as np

from msg_deploy.deployment import Timing
from msg_deploy.exporters.chips import flat
from msg_deploy.exporters.chips.assemble import built
from msg_deploy.exporters.chips.populations import (
    Population,
    Populations,
    Projection,
    populations,
)
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
from msg_deploy.sim.integer.rules import Decay, WeightFormat, WeightMode, signed

AKIDA = "akida 2.19.3, docstrings and errors of its virtual AKD1000"
LAW = IntegerNeuron(
    membrane_decay=Decay("shift"),
    membrane=signed(32),
    reset="none",
    weights=WeightFormat((WeightMode(-7, 7),)),
)
"""v = v - (v >> 0) + sum of w, so v is the sum alone; spike where v > threshold."""


@register
class Akida1000(Target):
    """See the module."""

    name = "akida1000"
    title = "BrainChip Akida AKD1000"
    limits: ClassVar[Mapping[str, Limit]] = {
        "nodes": Limit(78, "layers (neural processors)", AKIDA),
        "inputs": Limit(57_334, "inputs of a fully connected layer", AKIDA),
        "kernel": Limit(7, "side of a kernel", AKIDA),
        "stride": Limit(2, "stride", AKIDA),
        "levels": Limit(15, "largest input (4 bits)", AKIDA),
    }
    runs = (
        "neurons without memory: Threshold, and LIF with tau = dt",
        "convolutions with odd square kernels up to 7, stride 1 or 2; matrices",
        "weights of 4 bits",
    )
    lacks = (
        "membranes: nothing is kept from step to step, so IF and LIF with tau above dt are refused",
        "recurrence, delays, residual additions, sums of windows",
    )
    evidence = "vendor model"
    evidence_text = "akida's software backend runs the exported layers."
    quantize = QuantizeOptions(bits=4, granularity="layer", exact="float64", levels=15)
    vendor = "akida"
    format = "akida.json: layers with weights and thresholds, for akida's Model"

    def place(self, network: Populations, findings: Findings) -> OnChip:
        """See `Target.place`."""
        common_law(network, findings, (nir.IF, nir.LIF, nir.Threshold))
        timing = network.deployment.timing
        flat.no_negative_inputs(network, findings)
        _, high = network.deployment.input.entering
        findings.limit(
            network.input, self.limits["levels"], int(high), "quantize with --levels 15."
        )
        before, neurons = network.input, {}
        for name, item in network.items.items():
            neurons[name] = _neurons(item, timing, findings)
            if len(item.entering) != 1 or item.entering[0].source != before:
                findings.law(name, "does not take from the layer before alone; layers are a chain.")
            for p in item.entering:
                self._projection(p, findings)
            before = name
        findings.limit("", self.limits["nodes"], len(network.items), "use fewer layers.")
        late = dict.fromkeys(network.items, 0)
        return OnChip(
            self.name,
            network.deployment,
            built(network, neurons, findings),
            late=late,
            steps=timing.steps,
            decoder=flat.decoder(network, late, "currents"),
            uses=(Use("layers", len(network.items), self.limits["nodes"].most),),
            problems=tuple(findings.problems),
            approximations=tuple(findings.approximations),
            units=dict.fromkeys(network.items, 1.0),
        )

    def _projection(self, p: Projection, findings: Findings) -> None:
        if p.previous:
            findings.law(p.name, "loops back; train without.")
        if p.delay:
            findings.law(p.name, "has a delay; there are none.")
        if p.pool > 1:
            findings.law(p.name, "sums windows; use a stride of 2.")
        if p.convolution:
            assert p.weight is not None
            height, width = p.weight.shape[2:]
            if height != width or height % 2 == 0:
                findings.law(
                    p.name, f"kernels of {height} x {width}; odd square ones are possible."
                )
            findings.limit(p.name, self.limits["kernel"], height, "use smaller kernels.")
            findings.limit(p.name, self.limits["stride"], max(p.stride), "use a stride of 1 or 2.")
            same = ((height - 1) // 2, (width - 1) // 2)
            if p.padding not in ((0, 0), same) or (p.padding != (0, 0) and p.stride != (1, 1)):
                findings.law(
                    p.name,
                    f"padding {p.padding} with stride {p.stride}; none, or with stride 1 so much "
                    "that maps keep their size.",
                )
            if p.groups != 1 or p.dilation != (1, 1):
                findings.law(p.name, "is grouped or dilated; kernels are whole.")
        else:
            change = "use fewer neurons before it."
            findings.limit(p.name, self.limits["inputs"], p.fan_in, change)

    def files(self, chip: OnChip) -> Mapping[str, bytes]:
        """`akida.json`: a list of layers with kind, weights, threshold, stride and padding.

        Weights of convolutions (out, in, height, width) are flipped in both directions, as akida
        computes true convolutions; those of matrices (out, in) take maps in the order of channel,
        width, height; `threshold` is one number for each neuron, None for the last layer, whose
        potentials are read.
        """
        network = populations(chip.deployment)
        assert chip.network is not None
        layers: list[dict[str, Any]] = []
        for name, item in network.items.items():
            (p,) = item.entering
            weight = np.eye(p.fan_in) if p.weight is None else p.weight
            if p.convolution:
                weight = weight[:, :, ::-1, ::-1]
            elif len(p.source_shape) == 3:
                # There what enters is in the order of channel, width, height.
                by_place = weight.reshape(-1, *p.source_shape)
                weight = by_place.transpose(0, 1, 3, 2).reshape(len(weight), -1)
            numbers = chip.network.numbers[name]
            layers.append(
                {
                    "kind": "Convolutional" if p.convolution else "FullyConnected",
                    "name": name,
                    "shape": list(item.shape),
                    "weights": np.rint(weight).astype(int).tolist(),
                    "stride": list(p.stride),
                    "padding": list(p.padding),
                    "threshold": numbers.threshold.tolist() if item.spiking else None,
                }
            )
        return {"akida.json": (json.dumps(layers) + "\n").encode()}


def _neurons(item: Population, timing: Timing, findings: Findings) -> Neurons:
    bias = np.rint(item.bias).astype(np.int64)
    if item.node is None:
        silent = IntegerNeuron(
            membrane_decay=LAW.membrane_decay,
            membrane=LAW.membrane,
            compare="never",
            weights=LAW.weights,
        )
        return Neurons(silent, Parameters(), item.shape, "membrane")
    if isinstance(item.node, nir.Threshold):
        limit = np.asarray(item.node.threshold, np.float64)
    else:
        leaks = isinstance(item.node, nir.LIF)
        if not leaks or item.node.tau.min() != timing.dt or item.node.tau.max() != timing.dt:
            findings.law(
                item.name,
                "keeps a membrane from step to step, which the chip does not; train with tau = dt "
                "(--tau 1), or with one step.",
            )
        flat.rests_at_zero(item, findings)
        flat.without_gain(item, findings)
        limit = np.asarray(getattr(item.node, "v_threshold", 0.0), np.float64)
    # A bias lowers the threshold.
    threshold = np.floor(np.broadcast_to(limit, item.shape)).astype(np.int64) - bias
    return Neurons(LAW, Parameters(threshold=threshold), item.shape)
