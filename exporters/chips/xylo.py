"""SynSense Xylo: what its chips share; `exporters.targets.xylo_audio2` and `..3` state the limits.

One step, as xylosim 0.1.3 computes it (src/v2/cpp), in 16 bits that saturate; x >> d is an
arithmetic shift, and dec(x, d) = x >> d, or sign(x) where that is 0:

1. spikes of the inputs in this step and of the hidden neurons in the last one, one after the other:
   I = I + (w << shift), with one shift for each of the three matrices (input, hidden, output)
2. I = I - dec(I, dash_syn)
3. v = v + (-dec(v, dash_mem) + I + bias)
4. n spikes, v = v - n threshold: the largest n for which v stays at 0 or above, at most 31 for
   hidden neurons and 1 for output neurons

Input to hidden takes no step, hidden to hidden and to output one. All hidden layers are blocks of
one hidden matrix; there are no delays.

CubaLIF (docs/contract.md) with dt/tau_syn = 2^-s, dt/tau_mem = 2^-m, r = w_in = 1, reset by
subtraction is this law in real numbers, with dash_syn = s, dash_mem = m, weights times 2^shift, and

    I = 2^shift (2^s - 1) i,  v = 2^shift (2^s - 1) 2^m v_graph,

so thresholds are multiplied as v is. What differs in the chip's arithmetic is dec, which rounds: a
state fades by 1 or more in each step. That is the chip's rounding. Several spikes a step are
another law, and stated. Where membranes stay below twice the threshold there are none; training
with a penalty on max(0, v - 1.5 threshold) makes networks that the chip changes little.

The files are `specification.json`, an object with the arguments of rockpool's
`config_from_specification` (rockpool/devices/xylo/syns61201 and syns65302): weights_in
(input, hidden, 1), weights_rec (hidden, hidden, 1), weights_out (hidden, output), dash_mem,
dash_mem_out, dash_syn, dash_syn_out, threshold, threshold_out, bias_hidden, bias_out (None: all 0),
weight_shift_in, weight_shift_rec, weight_shift_out, aliases (None); all whole numbers, neurons in
the order of `target.json`'s cores.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Timing
from msg_deploy.errors import GraphError
from msg_deploy.exporters.chips import flat
from msg_deploy.exporters.chips.assemble import built
from msg_deploy.exporters.chips.charges import ChargeDecoder
from msg_deploy.exporters.chips.decoder import Decoder, offsets_of
from msg_deploy.exporters.chips.populations import (
    Population,
    Populations,
    Projection,
    populations,
)
from msg_deploy.exporters.chips.target import (
    Core,
    Findings,
    Limit,
    OnChip,
    Target,
    Use,
    common_law,
    two_of,
)
from msg_deploy.exporters.chips.xylo_numbers import (
    HIGH,
    MOST_SHIFT,
    MOST_SPIKES,
    Array,
    Chosen,
    Constants,
    Layout,
    laid_out,
)
from msg_deploy.exporters.names import free_name
from msg_deploy.exporters.quantize.options import QuantizeOptions
from msg_deploy.sim.integer.network import Edge, Exit, IntegerNetwork, Neurons, Postponed
from msg_deploy.sim.integer.neuron import IntegerNeuron, Parameters
from msg_deploy.sim.integer.rules import Decay, signed, signed_weights

XYLOSIM = "xylosim 0.1.3, src/v2/cpp/XyloIAFNeuron.h"
OVERVIEW = "rockpool, docs/devices/xylo-overview.ipynb"
MOST_DASH = 15

_DECAY = Decay("shift", least=True)
LAW = IntegerNeuron(
    synapses=1,
    current_decay=_DECAY,
    current=signed(16),
    decay_current_at="after",
    membrane_decay=_DECAY,
    membrane=signed(16),
    increment=True,
    compare=">=",
    reset="subtract",
    max_spikes=MOST_SPIKES,
    per_add=True,
    threshold=signed(16),
    bias=signed(16),
    weights=signed_weights(8),
)
"""A hidden neuron; see the module."""
OUTPUT = replace(LAW, max_spikes=1)
"""An output neuron; one that is read has the threshold 32767, where it would start again at 0."""

COMMON: Mapping[str, Limit] = {
    "inputs": Limit(16, "input channels", OVERVIEW),
    "events": Limit(15, "events of an input channel in a step", XYLOSIM),
    "spikes": Limit(MOST_SPIKES, "spikes of a hidden neuron in a step", XYLOSIM),
    "neuron_synapses": Limit(2, "synaptic currents of a hidden neuron", OVERVIEW),
    "weight": Limit(127, "weight (int8)", XYLOSIM),
    "shift": Limit(
        MOST_SHIFT, "shift of a matrix (3 bits)", "rockpool, syns61201/xa2_devkit_utils.py"
    ),
    "dash": Limit(MOST_DASH, "shift of a decay (4 bits)", XYLOSIM),
    "threshold": Limit(HIGH, "threshold (int16)", XYLOSIM),
    "bias": Limit(HIGH, "magnitude of a bias (int16)", XYLOSIM),
}
"""Limits that the chips have in common."""


class Xylo(Target):
    """See the module."""

    runs = (
        "CubaLIF, reset by subtraction, time constants of 2, 4, 8, ... steps, each neuron its own",
        "matrices; convolutions unrolled",
        "recurrence within a layer",
        "inputs of 0 to 15 events",
    )
    lacks = (
        "reset to a value, v_leak",
        "delays, branches of different length",
        "LIF and IF as they are: every input passes a current that fades, every membrane leaks "
        "by 1 a step or more",
        "a single spike a step: what is left above the threshold spikes again at once, where that "
        "cannot be excluded",
        "decays other than by shifts that round down: they are the chip's rounding",
    )
    evidence = "vendor model"
    evidence_text = "xylosim, which its vendor calls bit-exact, runs the exported specification."
    quantize = QuantizeOptions(granularity="layer", leak="power-of-two", exact="float64")
    format = "specification.json, arguments of rockpool's config_from_specification"
    vendor = "xylo"
    limits: ClassVar[Mapping[str, Limit]]

    def place(self, network: Populations, findings: Findings) -> OnChip:
        """See `Target.place`."""
        allowed = (nir.CubaLIF, nir.LIF, nir.IF)
        common_law(network, findings, allowed)
        timing = network.deployment.timing
        if timing.reset != "subtract" and network.spiking:
            findings.law("", "it resets by subtraction only; train with reset=subtract.")
        late = _late(network, findings)
        steps = timing.steps + late[network.output]
        self._ways(network, findings)
        constants = {}
        for name, item in network.items.items():
            if item.node is None or isinstance(item.node, allowed):
                constants[name] = _constants(item, timing, late[name], findings)
        self._count(network, findings)
        layout = self._laid_out(network, findings)
        shifts = dict.fromkeys(("in", "rec", "out"), 0)
        whole, units, names = None, {}, {}
        if layout is not None and len(constants) == len(network.items):
            chosen = Chosen(network, layout, constants, steps)
            shifts = chosen.shifts
            self._say(chosen, findings)
            neurons = {n: _neurons(n, chosen) for n in network.items}
            shift = {n: chosen.shift(n) for n in network.items}
            held = {self.limits[what].unit for what in ("threshold", "bias")}
            if not held & {problem.what for problem in findings.problems}:
                whole = built(_on_chip(network, layout), neurons, findings, shifts=shift)
                if whole is not None and not network.items[network.output].spiking:
                    whole, names[network.output] = _read(whole, network.output)
            units = {n: 2.0 ** -shift[n] / float(c.gain.flat[0]) for n, c in constants.items()}
        return OnChip(
            self.name,
            network.deployment,
            whole,
            names=names,
            late=late,
            steps=steps,
            decoder=_decoder(network, late[network.output], shifts["out"]),
            cores=self._cores(network, layout),
            uses=self._uses(network, layout),
            problems=tuple(findings.problems),
            approximations=tuple(findings.approximations),
            units=units,
            settings={f"weight_shift_{name}": shift for name, shift in shifts.items()},
        )

    def _ways(self, network: Populations, findings: Findings) -> None:
        """What may lead where."""
        output = network.output
        for name, item in network.items.items():
            sources = [p.source for p in item.entering]
            for source in dict.fromkeys(sources):
                if sources.count(source) > 1:
                    findings.law(
                        name,
                        f"{source!r} leads into it {sources.count(source)} times; there is one "
                        "synapse between two neurons: add the weights up.",
                    )
        for p in network.projections:
            if p.target == output and p.source == network.input:
                findings.law(
                    p.name,
                    "the input reaches hidden neurons only; put a layer of neurons before the "
                    "output.",
                )
            if p.source == output:
                findings.law(
                    p.name,
                    f"leads out of the output layer {output!r}, whose spikes reach no neuron; put "
                    "a layer behind it.",
                )
            if p.weight is not None:
                most = int(max(p.weight.max(initial=0), -p.weight.min(initial=0) - 1))
                change = "quantize to 8 bits."
                findings.limit(p.name, self.limits["weight"], most, change)
        flat.no_negative_inputs(network, findings)
        _, high = network.deployment.input.entering
        change = f"scale it to 0..15 (`msg-deploy quantize --levels {self.limits['events'].most}`)."
        findings.limit(network.input, self.limits["events"], math.ceil(high), change)

    def _count(self, network: Populations, findings: Findings) -> None:
        hidden = sum(i.neurons for n, i in network.items.items() if n != network.output)
        findings.limit(
            network.input,
            self.limits["inputs"],
            math.prod(network.input_shape),
            "read fewer values a step, such as an image row by row.",
        )
        findings.limit("", self.limits["hidden"], hidden, "use fewer neurons.")
        findings.limit(
            network.output,
            self.limits["outputs"],
            network.items[network.output].neurons,
            "use fewer classes.",
        )

    def _laid_out(self, network: Populations, findings: Findings) -> Layout | None:
        """Matrices and what is counted of them; None where they are missing or far too large."""
        hidden = sum(i.neurons for n, i in network.items.items() if n != network.output)
        if hidden > 2 * self.limits["hidden"].most:
            return None
        try:
            layout = laid_out(network)
        except GraphError as error:
            findings.law("", str(error))
            return None
        if not layout.hidden:
            return None
        fewer = "use fewer neurons, or prune weights to 0."
        reached = (layout.weights_rec != 0).sum(axis=0)
        for name in layout.hidden:
            mine = layout.part(name, network.items[name].neurons)
            most = int(reached[mine].max(initial=0))
            findings.limit(name, self.limits["fan_out"], most, fewer)
        findings.limit("", self.limits["synapses"], int(reached.sum()), fewer)
        for what in ("input_reach", "output_reach"):
            found = getattr(layout, what)
            findings.limit("", self.limits[what], found, "use a smaller first or last layer.")
        return layout

    def _say(self, chosen: Chosen, findings: Findings) -> None:
        """What the chosen numbers exceed, and what cannot be excluded."""
        less = "quantize with fewer bits, or train with lower thresholds or shorter time constants."
        for name, item in chosen.network.items.items():
            shift, c = chosen.shift(name), chosen.constants[name]
            if item.spiking:
                most = int(c.thresholds(shift).max(initial=0))
                findings.limit(name, self.limits["threshold"], most, less)
            most = int(np.abs(c.biases(shift)).max(initial=0))
            findings.limit(name, self.limits["bias"], most, less)
            reach = chosen.reach(name)
            most = int(reach.spikes.max(initial=0))
            if most > 1 and name != chosen.network.output:
                findings.instead(
                    name,
                    f"its neurons may spike up to {most} times in one step, where the graph's "
                    "spike once and keep the rest",
                    "train with a threshold that the input of one step cannot reach twice",
                )
            most = int(reach.state.max(initial=0))
            if most > chosen.room(name):
                findings.instead(
                    name,
                    f"its currents or membranes may reach {most:,} and stay at the ends of 16 bits",
                    "quantize with fewer bits, or train with smaller weights or fewer steps",
                )

    def _cores(self, network: Populations, layout: Layout | None) -> tuple[Core, ...]:
        if layout is None:
            return ()
        starts = {name: layout.starts[name] for name in layout.hidden}
        hidden = tuple((n, s, s + network.items[n].neurons) for n, s in starts.items())
        count = network.items[layout.output].neurons
        return (
            Core("hidden", hidden, (self._use("hidden", len(layout.weights_rec)),)),
            Core("output", ((layout.output, 0, count),), (self._use("outputs", count),)),
        )

    def _uses(self, network: Populations, layout: Layout | None) -> tuple[Use, ...]:
        inputs = self._use("inputs", math.prod(network.input_shape))
        if layout is None:
            return (inputs,)
        reached = (layout.weights_rec != 0).sum(axis=0)
        return (
            inputs,
            self._use("synapses", int(reached.sum())),
            self._use("fan_out", int(reached.max(initial=0))),
            self._use("input_reach", layout.input_reach),
            self._use("output_reach", layout.output_reach),
        )

    def _use(self, what: str, used: int) -> Use:
        return Use(self.limits[what].unit, used, self.limits[what].most)

    def files(self, chip: OnChip) -> Mapping[str, bytes]:
        """`specification.json`, see the module."""
        assert chip.network is not None
        network = populations(chip.deployment)
        layout = laid_out(network)
        known = {name: chip.network.numbers[name] for name in network.items}

        def hidden(field: Callable[[Any], Any]) -> list[int]:
            return [int(x) for name in layout.hidden for x in field(known[name])]

        def output(field: Callable[[Any], Any]) -> list[int]:
            return [int(x) for x in field(known[layout.output])]

        count = len(layout.weights_rec)
        into = count if self.limits["input_reach"].most >= count else layout.input_reach
        out_of = count if self.limits["output_reach"].most >= count else layout.output_reach
        biases = {"bias_hidden": hidden(_bias), "bias_out": output(_bias)}
        biased = any(map(any, biases.values()))
        found = {
            "weights_in": layout.weights_in[:into].T[:, :, None].tolist(),
            "weights_rec": layout.weights_rec.T[:, :, None].tolist(),
            "weights_out": layout.weights_out.T[count - out_of :].tolist(),
            "dash_mem": hidden(lambda n: n.membrane_decay),
            "dash_mem_out": output(lambda n: n.membrane_decay),
            "dash_syn": hidden(lambda n: n.current_decay[0]),
            "dash_syn_out": output(lambda n: n.current_decay[0]),
            "threshold": hidden(lambda n: n.threshold),
            "threshold_out": output(lambda n: n.threshold),
            **(biases if biased else dict.fromkeys(biases)),
            **chip.settings,
            "aliases": None,
        }
        return {"specification.json": (json.dumps(found) + "\n").encode()}


def _bias(numbers: Any) -> Any:
    return numbers.bias


def _late(network: Populations, findings: Findings) -> dict[str, int]:
    """By how many steps each population is later than in the graph."""
    late = {network.input: 0}

    def arrives(p: Projection) -> int:
        return late[p.source] + int(p.source != network.input) - p.steps

    for name, item in network.items.items():
        forward = [p for p in item.entering if not p.previous and p.source in late]
        late[name] = max(0, *(arrives(p) for p in forward)) if forward else 0
    for p in network.projections:
        early = late[p.target] - arrives(p)
        if early:
            findings.law(
                p.name,
                f"brings {p.source!r} to {p.target!r} {abs(early)} "
                f"{'step' if abs(early) == 1 else 'steps'} too {'early' if early > 0 else 'late'}: "
                "each layer takes one step and there are no other delays; give all ways from the "
                "input the same number of layers, and let layers feed back to themselves only.",
            )
    del late[network.input]
    return late


def _constants(item: Population, timing: Timing, late: int, findings: Findings) -> Constants:
    """Numbers of a population, before weights are shifted; what they approximate is found."""
    node, count = item.node, item.neurons
    ones, unit = np.ones(count, np.int64), np.ones(count)
    if node is None:
        # Its membranes tell what arrives, see `charges`; biases are for the host.
        return Constants(ones, ones, unit, 0 * unit, 0 * unit)

    def of(field: str) -> npt.NDArray[np.float64]:
        values = np.asarray(getattr(node, field), np.float64)
        return np.broadcast_to(values, item.shape).ravel()

    name = item.name
    if hasattr(node, "v_leak") and np.any(of("v_leak")):
        findings.law(name, "v_leak is not 0; its neurons rest at 0.")
    for field in ("r", "w_in"):
        if hasattr(node, field) and np.any(of(field) != 1):
            findings.law(name, f"{field} is not 1; msg-deploy quantize makes it.")
    if np.any(of("v_threshold") <= 0):
        findings.law(name, "v_threshold is not above 0, where it spikes for ever.")
    bias = item.bias.ravel()
    if isinstance(node, nir.CubaLIF):
        dash_syn = _dash(name, "tau_syn", of("tau_syn") / timing.dt, findings)
        dash_mem = _dash(name, "tau_mem", of("tau_mem") / timing.dt, findings)
    else:
        dash_syn = ones
        findings.instead(
            name,
            "its input passes a current of which half is lost in each step, so that it arrives "
            "spread over several",
            "train with CubaLIF",
        )
        if isinstance(node, nir.LIF):
            dash_mem = _dash(name, "tau", of("tau") / timing.dt, findings)
        else:
            dash_mem = ones * MOST_DASH
            findings.instead(
                name, "its membranes come closer to 0 by 1 in each step", "train with CubaLIF"
            )
    charge = 2.0**dash_syn - 1
    if bias.any():
        _biased(name, isinstance(node, nir.CubaLIF), late, findings)
    gain = charge * (1.0 if isinstance(node, nir.IF) else 2.0**dash_mem)
    return Constants(dash_syn, dash_mem, gain, of("v_threshold"), bias * charge)


def _dash(name: str, field: str, ratio: npt.NDArray[np.float64], findings: Findings) -> Array:
    """Tau in steps as an exponent of 2, 1 to 15: the nearest, by ratio."""
    exact = np.log2(ratio)
    nearest = np.clip(np.rint(exact), 1, MOST_DASH)
    off = np.abs(exact - nearest) > 1e-4
    if off.any():
        first = float(ratio[off][0])
        findings.instead(
            name,
            f"{field} is {first:g} steps, and becomes {2.0 ** nearest[off][0]:g}",
            "train with 2, 4, 8, ... steps, or use `msg-deploy quantize --leak power-of-two`",
        )
    return nearest.astype(np.int64)


def _biased(name: str, coupled: bool, late: int, findings: Findings) -> None:
    said = []
    if coupled:
        said.append(
            "its bias enters the membrane at once, with the value that the current would reach"
        )
    if late:
        steps = "step" if late == 1 else "steps"
        said.append(f"its bias acts {late} {steps} before its first input arrives")
    if said:
        findings.instead(name, ", and ".join(said), "leave out the bias")


def _neurons(name: str, chosen: Chosen) -> Neurons:
    item, c, shift = chosen.network.items[name], chosen.constants[name], chosen.shift(name)
    parameters = Parameters(
        threshold=c.thresholds(shift).reshape(item.shape) if item.spiking else HIGH,
        bias=c.biases(shift).reshape(item.shape),
        membrane_decay=c.dash_mem.reshape(item.shape),
        current_decay=c.dash_syn.reshape(item.shape),
    )
    law = OUTPUT if name == chosen.network.output else LAW
    return Neurons(law, parameters, item.shape, "spikes" if item.spiking else "membrane")


def _read(network: IntegerNetwork, name: str) -> tuple[IntegerNetwork, str]:
    """With a node that only passes on the membranes of a layer, which is not one that spikes."""
    read = free_name(name, network.nodes, "_membrane")
    edges = [
        replace(e, source=read) if isinstance(network.nodes[e.target], Exit) else e
        for e in network.edges
    ]
    nodes = {**network.nodes, read: Postponed(0)}
    return IntegerNetwork(nodes, [*edges, Edge(name, read)]), read


def _on_chip(network: Populations, layout: Layout) -> Populations:
    """With the chip's latencies, and in the order in which it delivers spikes."""

    def order(p: Projection) -> int:
        return layout.starts.get(p.source, -1)

    items = {}
    for name, item in network.items.items():
        entering = [
            replace(p.explicit(), delay=int(p.source != network.input), previous=False)
            for p in sorted(item.entering, key=order)
        ]
        items[name] = replace(item, entering=tuple(entering))
    return replace(network, items=items)


def _decoder(network: Populations, late: int, shift: int) -> Decoder:
    output, form = network.items[network.output], network.deployment.integers
    scores, weights = form.scores if form else 1.0, tuple(two_of(network))
    if output.spiking:
        return Decoder("spikes", weights, late, scores)
    said = offsets_of(output.bias, weights, scores)
    return ChargeDecoder("membranes", weights, late, scores * 2.0**-shift, said)
