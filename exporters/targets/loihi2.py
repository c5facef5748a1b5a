"""Intel Loihi 2, as the bit-accurate model of lava-nc computes it, exported as a netx .net file.

Each step, of a population whose inputs have been weighted and summed to a:

    u = toward zero(u (4096 - iDecay) / 4096) + 64 a         24 bits, wraps
    v = toward zero(v (4096 - vDecay) / 4096) + u + 64 bias  24 bits, saturates
    spike where v > 64 vThMant; then v = 0

Source: lava-nc 0.10.0, `lava/proc/lif/models.py`, `PyLifModelBitAcc`. Every matrix is one step
late; the steps here are those of each layer itself, since a run resets each layer when its first
input arrives.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Timing
from msg_deploy.errors import GraphError
from msg_deploy.exporters.chips.assemble import built
from msg_deploy.exporters.chips.decoder import Decoder
from msg_deploy.exporters.chips.energy import LOIHI
from msg_deploy.exporters.chips.placing import Demand, packed
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
    two_of,
)
from msg_deploy.exporters.quantize.options import QuantizeOptions
from msg_deploy.exporters.targets import register
from msg_deploy.sim.integer.network import Neurons
from msg_deploy.sim.integer.neuron import IntegerNeuron, Parameters
from msg_deploy.sim.integer.rules import Decay, Range, WeightFormat, WeightMode, symmetric

LAVA = "lava-nc 0.10.0, lava/proc/lif/models.py"
NETX = "lava-dl 0.6.0, lava/lib/dl/netx/hdf5.py"
INTEL = "Intel's hardware overview, as open-neuromorphic.org shows it"
UNITY = 4096
SHIFT = 6
NEVER = 2**18 - 1
"""A vThMant that no membrane reaches, as lava-dl's Affine exports it."""

_DECAY = Decay("multiply", 12, "toward_zero")
LAW = IntegerNeuron(
    synapses=1,
    input_shift=SHIFT,
    current_decay=_DECAY,
    current=Range(1 - 2**23, 2**23, "wrap_once"),
    membrane_decay=_DECAY,
    membrane=symmetric(24),
    bias_shift=SHIFT,
    threshold_shift=SHIFT,
    threshold=Range(0, 2**17 - 1),
    bias=Range(-4096, 4095),
    weights=WeightFormat(
        (WeightMode(-128, 127), WeightMode(-256, 254, 2), WeightMode(0, 255), WeightMode(-255, -1))
    ),
)
"""See the module. Weights of both signs are 8 bits, or even numbers of 9; those of one sign may use
all 8 bits for the magnitude."""


@dataclass(frozen=True)
class Constants:
    """One population's numbers; one for all of its neurons, but for the bias.

    Attributes:
        i_decay: of the current, 1 to 4096; 4096: no current is kept.
        v_decay: of the membrane, 0 to 4095; 0: no leak.
        threshold: vThMant.
        bias: one for each neuron.
        unit: the graph's membrane is the chip's times this.
    """

    i_decay: int
    v_decay: int
    threshold: int
    bias: npt.NDArray[np.int64]
    unit: float


@register
class Loihi2(Target):
    """See the module."""

    name = "loihi2"
    title = "Intel Loihi 2"
    limits: ClassVar[Mapping[str, Limit]] = {
        "cores": Limit(128, "neuro cores", INTEL),
        "neurons": Limit(8192, "neurons of a core", "1,048,576 neurons on 128 cores (secondary)"),
        "synapses": Limit(192 * 1024, "bytes of synapses of a core", "192 KiB (secondary source)"),
        "threshold": Limit(2**17 - 1, "vThMant (17 bits)", LAVA),
        "bias": Limit(4095, "bias mantissa (13 bits with sign)", LAVA),
        "delay": Limit(62, "steps of delay", NETX),
    }
    runs = (
        "LIF, IF and CubaLIF, reset to zero",
        "matrices, convolutions (pooling within the weights), delays up to 62 steps",
        "recurrence within a layer",
        "counts as graded spikes",
    )
    lacks = (
        "reset by subtraction",
        "v_reset or v_leak other than 0, parameters that differ within a layer",
        "residual branches in the exported file (netx is a chain of layers)",
        "decays other than k/4096: they are rounded, and so is every membrane, toward zero",
    )
    evidence = "vendor model"
    evidence_text = "lava-nc's bit-accurate model runs the exported file (lava-dl netx)."
    quantize = QuantizeOptions(granularity="layer", exact="float64")
    energy = LOIHI
    format = "network.net, HDF5 as lava-dl's netx reads it"
    vendor = "loihi2"

    def place(self, network: Populations, findings: Findings) -> OnChip:
        """See `Target.place`."""
        common_law(network, findings, (nir.IF, nir.LIF, nir.CubaLIF))
        if network.deployment.timing.reset == "subtract" and network.spiking:
            findings.law("", "it resets to zero only; train with reset=zero.")
        constants = {}
        for name, item in network.items.items():
            if item.node is not None and not isinstance(item.node, (nir.IF, nir.LIF, nir.CubaLIF)):
                continue
            try:
                constants[name] = _constants(item, network.deployment.timing, findings)
            except GraphError as error:
                findings.law("", str(error))
                continue
            self._within(name, constants[name], findings)
        _in_step(network, findings, self.limits["delay"])
        cores = self._cores(network, findings)
        whole = None
        if len(constants) == len(network.items):
            neurons = {n: _neurons(network.items[n], c) for n, c in constants.items()}
            in_range = not any(p.what == self.limits["threshold"].unit for p in findings.problems)
            in_range &= not any(p.what == self.limits["bias"].unit for p in findings.problems)
            whole = built(network, neurons, findings) if in_range else None
        deepest = max(network.depths.values())
        return OnChip(
            self.name,
            network.deployment,
            whole,
            late=dict.fromkeys(network.items, 0),
            steps=network.deployment.timing.steps,
            decoder=_decoder(network),
            cores=cores,
            uses=(Use("cores", len(cores), self.limits["cores"].most),),
            problems=tuple(findings.problems),
            approximations=tuple(findings.approximations),
            units={name: c.unit for name, c in constants.items()},
            settings={
                "reset_interval": network.deployment.timing.steps + deepest,
                "reset_offset": 1,
                "input_message_bits": _message_bits(network),
            },
        )

    def _within(self, name: str, constants: Constants, findings: Findings) -> None:
        change = "quantize with fewer levels of the input, or fewer bits."
        if constants.threshold != NEVER:
            findings.limit(name, self.limits["threshold"], constants.threshold, change)
        largest = int(np.abs(constants.bias).max(initial=0))
        findings.limit(name, self.limits["bias"], largest, change)

    def _cores(self, network: Populations, findings: Findings) -> tuple[Any, ...]:
        capacity = {what: self.limits[what].most for what in ("neurons", "synapses")}
        cores = packed([_demand(item) for item in network.items.values()], capacity)
        if cores is None:
            for item in network.items.values():
                demand = _demand(item)
                needed = demand.each["synapses"] + demand.shared["synapses"]
                change = "use a smaller fan-in or fewer channels."
                findings.limit(item.name, self.limits["synapses"], needed, change)
            return ()
        findings.limit("", self.limits["cores"], len(cores), "use fewer neurons or channels.")
        return cores

    def files(self, chip: OnChip) -> Mapping[str, bytes]:
        """`network.net`.

        The layout is that of lava-dl 0.6.0 (`lava/lib/dl/netx/hdf5.py`): /layer/k with type, shape
        (C, H, W), neuron (iDecay, vDecay, vThMant), weight, and of convolutions kernelSize, stride,
        padding, dilation (height, width) and groups. Weights are those of a cross-correlation.

        Raises:
            GraphError: the populations are no chain, or what loops back is no matrix.
        """
        return {"network.net": _net(populations(chip.deployment))}


def _constants(item: Population, timing: Timing, findings: Findings) -> Constants:
    bias = np.rint(item.bias).astype(np.int64)
    if item.node is None:
        return Constants(UNITY, 0, NEVER, bias, 2.0**-SHIFT)
    for field in ("v_reset", "v_leak"):
        if np.any(getattr(item.node, field, 0)):
            raise GraphError(
                f"node {item.name!r}: {field} is not 0; its neurons rest at 0 and reset to it."
            )
    fading, leak = 1.0, 1.0
    if isinstance(item.node, nir.LIF):
        leak = timing.dt / item.common("tau")
    if isinstance(item.node, nir.CubaLIF):
        fading = timing.dt / item.common("tau_syn")
        leak = timing.dt / item.common("tau_mem")
    for field in ("r", "w_in"):
        if hasattr(item.node, field) and item.common(field) != 1:
            raise GraphError(f"node {item.name!r}: {field} is not 1; msg-deploy quantize makes it.")
    if fading != 1 and bias.any():
        findings.instead(
            item.name,
            "its bias enters the membrane at once, with the value that the current would reach",
            "leave out biases before CubaLIF",
        )
        bias = np.rint(bias / fading).astype(np.int64)
    if isinstance(item.node, nir.IF):
        v_decay, weight = 0, 1.0
    else:
        v_decay, weight = min(UNITY - 1, round(UNITY * leak)), leak
    # The graph's v gains leak fading x where the chip's gains 64 x.
    limit = item.common("v_threshold") / (weight * fading)
    # Without a leak membranes are multiples of 64, so that rounding down changes nothing.
    mantissa = int(np.floor(limit)) if v_decay == 0 and fading == 1 else round(limit)
    i_decay = max(1, round(UNITY * fading))
    return Constants(i_decay, v_decay, mantissa, bias, weight * fading * 2.0**-SHIFT)


def _neurons(item: Population, c: Constants) -> Neurons:
    silent = not item.spiking
    parameters = Parameters(
        threshold=0 if silent else c.threshold,
        bias=c.bias,
        current_decay=c.i_decay,
        membrane_decay=c.v_decay,
    )
    law = replace(LAW, compare="never") if silent else LAW
    return Neurons(law, parameters, item.shape, "membrane" if silent else "spikes")


def _decoder(network: Populations) -> Decoder:
    output, form = network.items[network.output], network.deployment.integers
    scores = form.scores if form else 1.0
    if output.spiking:
        return Decoder("spikes", tuple(two_of(network)), 0, scores)
    return Decoder("membranes", tuple(two_of(network)), 0, scores * 2.0**-SHIFT)


def _in_step(network: Populations, findings: Findings, most: Limit) -> None:
    """What enters a population must come at the same time, if need be by delays."""
    depths = network.depths
    for p in network.projections:
        depth = depths[p.target] if not p.previous else depths[p.source] + 1
        waiting = depths[p.target] - depths[p.source] + p.delay - (0 if p.previous else 1)
        if p.previous and depths[p.source] > depths[p.target]:
            findings.law(
                p.name,
                f"leads back from {p.source!r} to the earlier {p.target!r}, which takes "
                f"{depth - depths[p.target]} steps here and one in the graph; feed back within a "
                "layer, or train with the delay.",
            )
        else:
            findings.limit(p.name, most, waiting, "use a shorter delay.")
        if p.previous and network.items[p.target].bias.any():
            findings.law(
                p.name,
                f"the bias of {p.target!r} acts before its first input arrives, and what it brings "
                "about comes back; leave out the bias of recurrent layers.",
            )
        if p.weight is not None and not np.any(p.weight):
            findings.law(p.name, "all weights are 0, which netx does not read; leave it out.")


def _demand(item: Population) -> Demand:
    """Bytes: a matrix has one for each synapse, a convolution its kernels on each core."""
    each = shared = 0
    for p in item.entering:
        whole = p.without_pool()
        if whole.convolution:
            assert whole.weight is not None
            shared += whole.weight.size
        else:
            each += whole.fan_in
    return Demand(item.name, item.neurons, {"synapses": each}, {"synapses": shared})


def _message_bits(network: Populations) -> int:
    """Of the payload of input spikes; 0: they are 0 or 1."""
    low, high = network.deployment.input.entering
    largest = int(max(abs(low), abs(high)))
    return 0 if (low, largest) == (0, 1) else largest.bit_length() + 1


def _net(network: Populations) -> bytes:
    import h5py

    before = network.input
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["simulation/Ts"] = np.array([1])
        file["simulation/tSample"] = np.array([network.deployment.timing.steps])
        layers = file.create_group("layer")
        flat = not next(iter(network.items.values())).entering[0].convolution
        shape: tuple[int, ...] = network.input_shape
        _layer(layers, "input", (int(np.prod(shape)),) if flat else shape)
        for name, item in network.items.items():
            forward = [p for p in item.entering if not p.previous]
            back = [p for p in item.entering if p.previous]
            if len(forward) != 1 or forward[0].source != before or len(back) > 1:
                sources = ", ".join(p.source for p in item.entering)
                raise GraphError(
                    f"node {name!r}: takes from {sources}; netx is a chain, each layer taking from "
                    f"the one before ({before!r}) and, if need be, from itself."
                )
            if back and (back[0].source != name or back[0].convolution or forward[0].convolution):
                raise GraphError(f"node {name!r}: netx loops a layer of matrices back to itself.")
            if back and (back[0].delay or forward[0].delay):
                raise GraphError(f"node {name!r}: netx has no delays in a layer that loops back.")
            _population(layers, network, item, forward[0], back[0] if back else None)
            before = name
    return buffer.getvalue()


def _layer(layers: Any, kind: str, shape: tuple[int, ...]) -> Any:
    group = layers.create_group(str(len(layers)))
    group.create_dataset("type", data=np.array([kind.encode()], "S10"))
    group.create_dataset("shape", data=np.array(shape, np.int64))
    return group


def _population(
    layers: Any,
    network: Populations,
    item: Population,
    forward: Projection,
    back: Projection | None,
) -> None:
    whole = forward.explicit()
    weight = np.asarray(whole.weight, np.float32)
    if not whole.convolution and len(whole.source_shape) > 1 and len(layers) > 1:
        flat = (1, 1, int(np.prod(whole.source_shape)))
        _layer(layers, "flatten", flat)
    kind = "conv" if whole.convolution else "dense" if back is None else "dense_rec"
    group = _layer(layers, kind, item.shape)
    constants = _constants(item, network.deployment.timing, Findings(approximate=True))
    neuron = group.create_group("neuron")
    neuron["type"] = np.bytes_(b"CUBA")
    numbers = {
        "iDecay": constants.i_decay,
        "vDecay": constants.v_decay,
        "vThMant": constants.threshold,
        "refDelay": 1,
    }
    for field, value in numbers.items():
        neuron[field] = np.int64(value)
    neuron["gradedSpike"] = False
    group["weight"] = weight
    if constants.bias.any():
        group["bias"] = constants.bias if not whole.convolution else _by_channel(item, constants)
    if back is not None:
        group["weight_rec"] = np.asarray(back.explicit().weight, np.float32)
    if whole.convolution:
        group["inChannels"] = np.int64(whole.source_shape[0])
        group["outChannels"] = np.int64(item.shape[0])
        group["kernelSize"] = np.array(weight.shape[2:], np.int64)
        for field in ("stride", "padding", "dilation"):
            group[field] = np.array(getattr(whole, field), np.int64)
        group["groups"] = np.int64(whole.groups)
        if whole.delay:
            raise GraphError(f"node {item.name!r}: netx has no delays of convolutions.")
    else:
        group["inFeatures"], group["outFeatures"] = np.int64(weight.shape[1]), len(weight)
        if whole.delay:
            group["delay"] = np.full(weight.shape[1], whole.delay, np.int64)


def _by_channel(item: Population, constants: Constants) -> npt.NDArray[np.int64]:
    rows = constants.bias.reshape(item.shape[0], -1)
    if np.any(rows != rows[:, :1]):
        raise GraphError(f"node {item.name!r}: netx has one bias for each channel.")
    return rows[:, 0]
