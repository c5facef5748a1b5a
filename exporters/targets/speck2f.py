"""SynSense Speck 2f: nine cores of convolutions that add events as they come.

Every event adds its weight to the membranes that it reaches, one after the other. After each of
them a neuron spikes where v >= threshold, at most once; then v = 0 or v -= threshold. There are no
steps: what the graph sums in a step comes here as a row of events. Their order is not public; this
module states one (by step, layer and address), so "to the bit" means: in that order.

Source: sinabs@904eb89 (docs/speck, sinabs/backend/dynapcnn): limits, and how memory is counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import nir
import numpy as np

from msg_deploy.deployment import Timing
from msg_deploy.errors import GraphError
from msg_deploy.exporters.chips import flat
from msg_deploy.exporters.chips.assemble import built
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
)
from msg_deploy.exporters.quantize.options import QuantizeOptions
from msg_deploy.exporters.targets import register
from msg_deploy.sim.integer.network import Neurons
from msg_deploy.sim.integer.neuron import IntegerNeuron, Parameters
from msg_deploy.sim.integer.rules import Range, signed, signed_weights

OVERVIEW = "sinabs, docs/speck/overview.md"
CONSTRAINTS = "sinabs, backend/dynapcnn/chips/dynapcnn.py"
KERNELS = tuple(n * 1024 for n in (16, 16, 16, 32, 32, 64, 64, 16, 16))
"""8-bit words of each core."""
NEURONS = tuple(n * 1024 for n in (64, 64, 64, 32, 32, 16, 16, 16, 16))
"""16-bit words of each core."""
NEVER = 2**15 - 1

LAW = IntegerNeuron(
    membrane=signed(16),
    compare=">=",
    compare_at="event",
    reset="subtract",
    max_spikes=2**20,
    per_add=True,
    threshold=Range(0, NEVER),
    weights=signed_weights(8),
)


@register
class Speck2f(Target):
    """See the module."""

    name = "speck2f"
    title = "SynSense Speck 2f"
    limits: ClassVar[Mapping[str, Limit]] = {
        "cores": Limit(9, "layers", OVERVIEW),
        "kernels": Limit(max(KERNELS), "8-bit words of kernels of a core", CONSTRAINTS),
        "neurons": Limit(max(NEURONS), "16-bit words of neurons of a core", CONSTRAINTS),
        "kernel": Limit(16, "side of a kernel", OVERVIEW),
        "padding": Limit(7, "padding", OVERVIEW),
        "input": Limit(128, "side of an input", OVERVIEW),
        "output": Limit(64, "side of an output map", OVERVIEW),
        "channels": Limit(1024, "channels", OVERVIEW),
        "destinations": Limit(
            2, "destinations of a layer", "docs/speck, available_network_arch.md"
        ),
        "threshold": Limit(NEVER, "threshold (16 bits)", CONSTRAINTS),
    }
    runs = (
        "IF, reset to zero or by subtraction",
        "convolutions with square kernels, matrices, sums of windows of 2 or 4",
        "residual additions before the same weights",
    )
    lacks = (
        "leaks (a constant one by a slow clock only), so no LIF or CubaLIF",
        "biases, recurrence, delays",
        "steps: neurons decide after every event, and may spike several times in what is a step of "
        "the graph",
    )
    evidence = "equations"
    evidence_text = (
        "the vendor's documents, in a stated order of events; its simulator is not public."
    )
    quantize = QuantizeOptions(granularity="layer", exact="float64")
    format = "speck2f.json, the configuration of each core as sinabs names it"

    def place(self, network: Populations, findings: Findings) -> OnChip:
        """See `Target.place`."""
        timing = network.deployment.timing
        flat.no_negative_inputs(network, findings)
        for item in network.items.values():
            self._neurons(item, findings)
        for p in network.projections:
            self._projection(p, network, findings)
        for name in (network.input, *network.items):
            targets = {p.target for p in network.leaving(name)}
            change = "let fewer layers take from it."
            findings.limit(name, self.limits["destinations"], len(targets), change)
        if network.spiking:
            findings.instead(
                "",
                "neurons decide after every event, and may spike several times a step",
                "there is no training without that difference",
            )
        cores = self._cores(network, findings)
        neurons = {}
        for name, item in network.items.items():
            if item.node is not None and not isinstance(item.node, nir.IF):
                continue
            try:
                neurons[name] = _law(item, timing)
            except GraphError as error:
                findings.law("", str(error))
        whole = None
        if len(neurons) == len(network.items):
            whole = built(network, neurons, findings)
        late = dict.fromkeys(network.items, 0)
        return OnChip(
            self.name,
            network.deployment,
            whole,
            late=late,
            steps=timing.steps,
            decoder=flat.decoder(network, late),
            cores=cores,
            uses=(Use("layers", len(network.items), self.limits["cores"].most),),
            problems=tuple(findings.problems),
            approximations=tuple(findings.approximations),
            units=dict.fromkeys(network.items, 1.0),
        )

    def _neurons(self, item: Population, findings: Findings) -> None:
        if item.node is not None and not isinstance(item.node, nir.IF):
            kind = type(item.node).__name__
            findings.law(
                item.name,
                f"{kind}: has no exponential leak; train with neuron=if (--tau inf), "
                "reset=subtract.",
            )
            return
        flat.without_bias(item, findings)
        flat.without_gain(item, findings)
        if np.any(getattr(item.node, "v_reset", 0)):
            findings.law(item.name, "v_reset is not 0; it resets to 0 or subtracts.")
        rows = item.shape if len(item.shape) == 3 else (item.neurons, 1, 1)
        change = "use smaller maps or fewer channels."
        findings.limit(item.name, self.limits["channels"], rows[0], change)
        findings.limit(item.name, self.limits["output"], max(rows[1:]), change)

    def _projection(self, p: Projection, network: Populations, findings: Findings) -> None:
        if p.previous:
            findings.law(p.name, "loops back, which can end in a deadlock; train without.")
        if p.delay:
            findings.law(p.name, "has a delay; there are none.")
        if p.pool not in (1, 2, 4):
            findings.law(p.name, f"sums windows of {p.pool}; 1, 2 and 4 are possible.")
        side = max(p.source_shape[1:], default=1)
        findings.limit(p.source, self.limits["input"], side, "use smaller maps.")
        if p.convolution:
            assert p.weight is not None
            height, width = p.weight.shape[2:]
            if height != width:
                findings.law(p.name, f"kernels of {height} x {width}; they must be square.")
            findings.limit(p.name, self.limits["kernel"], height, "use smaller kernels.")
            findings.limit(p.name, self.limits["padding"], max(p.padding), "use less padding.")
            if p.dilation != (1, 1):
                findings.law(p.name, "is dilated; kernels are not.")
            if any(s not in (1, 2, 4, 8) for s in p.stride):
                findings.law(p.name, f"stride {p.stride}; 1, 2, 4 and 8 are possible.")
        elif len(p.source_shape) == 3:
            _, height, width = _pooled_shape(p)
            if height != width:
                findings.law(
                    p.name,
                    f"a matrix behind maps of {height} x {width} would be a kernel that is not "
                    "square.",
                )
            findings.limit(p.name, self.limits["kernel"], height, "pool more before it.")

    def _cores(self, network: Populations, findings: Findings) -> tuple[Core, ...]:
        """Each layer on a core of its own, by augmenting paths."""
        needs = {}
        for name, item in network.items.items():
            found = _memory(item)
            if found is None:
                findings.law(name, "adds currents of different weights; a core has one kernel.")
                return ()
            kernels, neurons = needs[name] = found
            change = "use fewer channels or smaller maps."
            findings.limit(name, self.limits["kernels"], kernels, change)
            findings.limit(name, self.limits["neurons"], neurons, change)
        findings.limit("", self.limits["cores"], len(needs), "use fewer layers.")
        possible = {
            name: [
                core
                for core in range(len(KERNELS))
                if kernels <= KERNELS[core] and neurons <= NEURONS[core]
            ]
            for name, (kernels, neurons) in needs.items()
        }
        taken = matching(possible)
        if len(taken) < len(needs) and not findings.problems:
            missing = next(name for name in needs if name not in taken)
            findings.law(
                missing, "no core is left that holds it; use fewer channels or smaller maps."
            )
        return tuple(
            Core(
                f"core {core}",
                ((name, 0, network.items[name].neurons),),
                (
                    Use("kernel words", needs[name][0], KERNELS[core]),
                    Use("neuron words", needs[name][1], NEURONS[core]),
                ),
            )
            for name, core in sorted(taken.items(), key=lambda pair: pair[1])
        )

    def files(self, chip: OnChip) -> Mapping[str, bytes]:
        """`speck2f.json`.

        A list of cores, each with `core`, `layer`, `dimensions` (channel, size of input and output,
        kernel, stride, padding), `weights` (out, in, height, width), `threshold_high`,
        `threshold_low`, `return_to_zero` and `destinations` (layer, pooling), the names of sinabs'
        get_dynapcnn_layer_config_dict.
        """
        network = populations(chip.deployment)
        places = {c.populations[0][0]: int(c.name.split()[1]) for c in chip.cores}
        layers = [_configured(item, network, places) for item in network.items.values()]
        content = {
            "input": [
                {"layer": p.target, "pooling": p.pool} for p in network.leaving(network.input)
            ],
            "cores": sorted(layers, key=lambda layer: layer["core"]),
        }
        return {"speck2f.json": (json.dumps(content) + "\n").encode()}


def matching(possible: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """As many as can be placed, each on one of its cores and alone there (augmenting paths)."""
    held: dict[int, str] = {}

    def place(name: str, seen: set[int]) -> bool:
        for core in possible[name]:
            if core in seen:
                continue
            seen.add(core)
            if core not in held or place(held[core], seen):
                held[core] = name
                return True
        return False

    for name in possible:
        place(name, set())
    return {name: core for core, name in held.items()}


def _pooled_shape(p: Projection) -> tuple[int, int, int]:
    channels, height, width = (*p.source_shape, 1, 1)[:3]
    return channels, height // p.pool, width // p.pool


def _kernel(p: Projection) -> Any:
    """(out, in, height, width), after pooling; a matrix is one kernel as large as the map."""
    channels, height, width = _pooled_shape(p)
    if p.weight is None:
        return np.eye(channels).reshape(channels, channels, 1, 1)
    if not p.convolution:
        return p.weight.reshape(-1, channels, height, width)
    if p.groups == 1:
        return p.weight
    full = np.zeros((len(p.weight), channels, *p.weight.shape[2:]))
    each, taken = len(p.weight) // p.groups, p.weight.shape[1]
    for number, kernels in enumerate(p.weight):
        group = number // each
        full[number, group * taken : (group + 1) * taken] = kernels
    return full


def _memory(item: Population) -> tuple[int, int] | None:
    """Words of kernels and of neurons, by sinabs' memory_summary; None: several kernels."""
    kernels = [_kernel(p) for p in item.entering]
    if any(not np.array_equal(kernels[0], other) for other in kernels[1:]):
        return None
    out, taken, height, width = kernels[0].shape
    bits = _bits(height * width) + _bits(out)
    channels, rows, columns = item.shape if len(item.shape) == 3 else (item.neurons, 1, 1)
    return taken * 2**bits, channels * 2 ** (_bits(rows) + _bits(columns))


def _bits(count: int) -> int:
    return math.ceil(math.log2(count))


def _threshold(item: Population) -> int:
    """Of the chip: above theta is at the next whole number or above."""
    return math.floor(item.common("v_threshold")) + 1


def _law(item: Population, timing: Timing) -> Neurons:
    if item.node is None:
        silent = replace(LAW, compare="never", compare_at="end", reset="none", max_spikes=1)
        return Neurons(silent, Parameters(), item.shape, "membrane")
    reset = "subtract" if timing.reset == "subtract" else "value"
    law = replace(LAW, reset=reset)  # type: ignore[arg-type]
    return Neurons(law, Parameters(threshold=_threshold(item)), item.shape)


def _configured(
    item: Population, network: Populations, places: Mapping[str, int]
) -> dict[str, Any]:
    first = item.entering[0]
    kernel = _kernel(first)
    channels, height, width = _pooled_shape(first)
    out = item.shape if len(item.shape) == 3 else (item.neurons, 1, 1)
    subtracting = network.deployment.timing.reset == "subtract"
    return {
        "core": places[item.name],
        "layer": item.name,
        "dimensions": {
            "input_shape": {"feature_count": channels, "size": {"x": width, "y": height}},
            "output_shape": {"feature_count": out[0], "size": {"x": out[2], "y": out[1]}},
            "kernel_size": kernel.shape[2],
            "stride": {"x": first.stride[1], "y": first.stride[0]},
            "padding": {"x": first.padding[1], "y": first.padding[0]},
        },
        "weights": kernel.astype(int).tolist(),
        "threshold_high": _threshold(item) if item.spiking else NEVER,
        "threshold_low": -(2**15),
        "return_to_zero": not subtracting,
        "destinations": [
            {"layer": p.target, "pooling": p.pool} for p in network.leaving(item.name)
        ],
    }
