"""SANA-FE, which counts what a network on Loihi does, and adds up energy and time of it.

No vendor's model, and what it gives are estimates. It runs what `msg_deploy.onchip.estimate`
writes, `network.json` and `network.npz`, on its own description of Loihi 1 (32 tiles of 4 cores,
1024 neurons a core; energies and latencies of Davies et al., IEEE Micro 38(1), 2018). Besides
`spikes_NAME` it gives of each sample `energy` (B, 4), by the parts of PARTS, and `time` (B,), both
in units of 1e-18 (J, s), and `operations` (B, 4), by OPERATIONS.

Each sample has the chip to itself, in a state of zeros. A layer is one step later than what it
takes from. An input that brings the value x in a step is a neuron of its own for each x, whose
weights are those of the input times x: it sends one message, as one graded spike is.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

TITLE = "SANA-FE 2.2.9"
# Its wheel does not name numpy, which it needs.
INSTALL = (("numpy==1.26.4", "sanafe==2.2.9"),)
PARTS = ("synapse", "dendrite", "soma", "network")
OPERATIONS = {
    "synaptic operation": "spikes",
    "packet": "packets_sent",
    "neuron update": "neurons_updated",
    "spike": "neurons_fired",
}
"""What we call its counts; inputs are among the last two."""
UNIT = 1e-18
CORE = 1024
"""Neurons of a core."""


def main(export: str, given: str, output: str) -> None:
    """Run all samples, one after the other."""
    folder = Path(export)
    about = json.loads((folder / "network.json").read_text())
    with np.load(folder / "network.npz", allow_pickle=False) as content:
        numbers = dict(content)
    np.savez(output, **run(about, numbers, np.load(given)["inputs"]))


def run(about: dict[str, Any], numbers: dict[str, Any], inputs: Any) -> dict[str, Any]:
    """Spikes of all layers, each in its own time, and what they cost."""
    import sanafe

    steps, samples = inputs.shape[:2]
    architecture = sanafe.load_loihi()
    cores = [core for tile in architecture.tiles for core in tile.cores]
    chip = sanafe.SpikingChip(architecture)
    found = {
        "energy": np.zeros((samples, len(PARTS)), np.int64),
        "time": np.zeros(samples, np.int64),
        "operations": np.zeros((samples, len(OPERATIONS)), np.int64),
    }
    spiking = [item for item in about["populations"] if item["spiking"]]
    for item in spiking:
        found[f"spikes_{item['name']}"] = np.zeros((steps, samples, item["neurons"]), np.int64)
    for sample in range(samples):
        network = _network(sanafe, cores, about, numbers, inputs[:, sample].reshape(steps, -1))
        chip.load(network, overwrite=True)
        late = {item["name"]: (item["depth"], found[f"spikes_{item['name']}"]) for item in spiking}
        begin = 0
        for results in _segments(chip, about, numbers, steps):
            for part, name in enumerate(PARTS):
                found["energy"][sample, part] += round(results["energy"][name] / UNIT)
            found["time"][sample] += round(results["sim_time"] / UNIT)
            for number, name in enumerate(OPERATIONS.values()):
                found["operations"][sample, number] += results[name]
            for step, addresses in enumerate(results["spike_trace"], start=begin):
                for address in addresses:
                    depth, spikes = late[address.group_name]
                    if 0 <= step - depth < steps:
                        spikes[step - depth, sample, address.neuron_offset] = 1
            begin += results["timesteps_executed"]
    for item in spiking:
        name = f"spikes_{item['name']}"
        found[name] = found[name].reshape(steps, samples, *item["shape"])
    return found


def _segments(chip: Any, about: dict[str, Any], numbers: dict[str, Any], steps: int) -> Any:
    """Run a sample until the last layer is through.

    A bias acts in the steps of its layer only: not before the first input can arrive.
    """
    end = steps + max(item["depth"] for item in about["populations"])
    changes = {0, end}
    biased = [item for item in about["populations"] if numbers[f"bias_{item['name']}"].any()]
    for item in biased:
        changes |= {item["depth"], item["depth"] + steps}
    times = sorted(changes)
    for start, stop in pairwise(times):
        for item in biased:
            on = item["depth"] <= start < item["depth"] + steps
            biases = numbers[f"bias_{item['name']}"] * on
            neurons = chip.mapped_neuron_groups[item["name"]]
            for neuron, bias in zip(neurons, biases.tolist(), strict=True):
                neuron.set_attributes(model_attributes={"bias": float(bias)})
        # One thread each: samples are small, and sums must not depend on the machine.
        yield chip.sim(stop - start, "detailed", 1, 0, spike_trace=True)


def _network(
    sanafe: Any, cores: list[Any], about: dict[str, Any], numbers: dict[str, Any], frames: Any
) -> Any:
    """Layers on their cores, then the inputs (T, N) on cores of their own."""
    network = sanafe.Network()
    groups = {}
    for item in about["populations"]:
        groups[item["name"]] = network.create_neuron_group(
            item["name"],
            item["neurons"],
            {
                "threshold": item["threshold"],
                "leak_decay": item["leak_decay"],
                "input_decay": item["input_decay"],
                "reset_mode": "hard",
                "reset": 0.0,
                "bias": 0.0,
            },
            default_synapse_hw_name=f"loihi_{item['synapse']}_synapse",
            default_dendrite_hw_name="loihi_dendrites",
            log_spikes=item["spiking"],
            soma_hw_name="loihi_lif",
        )
    for core, parts in zip(cores, about["cores"], strict=False):
        for name, start, stop in parts:
            for number in range(start, stop):
                groups[name][number].map_to_core(core)
    entering = lines(frames)
    free = cores[len(about["cores"]) :]
    source = input_group(network, about["input"], free, entering, frames)
    for number, item in enumerate(about["projections"]):
        triple = [numbers[f"{what}_{number}"] for what in ("source", "target", "weight")]
        if item["source"] == about["input"]:
            triple = of_lines(entering, *triple)
        start, stop, weight = (values.tolist() for values in triple)
        if not weight:
            continue
        first = source if item["source"] == about["input"] else groups[item["source"]]
        pairs = list(zip(start, stop, strict=True))
        first.connect_neurons_sparse(groups[item["target"]], {"weight": weight}, pairs)
    return network


def input_group(network: Any, name: str, cores: list[Any], entering: Any, frames: Any) -> Any:
    """A neuron for each line, which spikes in the steps in which its input has its value."""
    if len(entering) > CORE * len(cores):
        raise RuntimeError(
            f"{len(entering):,} inputs with a value of their own; {len(cores)} cores hold "
            f"{CORE * len(cores):,} of them."
        )
    group = network.create_neuron_group(name, max(1, len(entering)))
    for number in range(max(1, len(entering))):
        place, value = entering[number] if len(entering) else (0, None)
        neuron = group[number]
        neuron.set_attributes(
            soma_hw_name=f"loihi_inputs[{number % CORE}]",
            model_attributes={"spikes": [bool(x == value) for x in frames[:, place]]},
        )
        neuron.map_to_core(cores[number // CORE])
    return group


def lines(frames: Any) -> Any:
    """(place, value) of all that enters, in order, (L, 2)."""
    _, places = np.nonzero(frames)
    return np.unique(np.stack([places, frames[frames != 0]], axis=1), axis=0)


def of_lines(entering: Any, source: Any, target: Any, weight: Any) -> list[Any]:
    """The synapses of the lines, from those of the inputs."""
    order = np.argsort(source, kind="stable")
    first = np.searchsorted(source[order], entering[:, 0])
    count = np.searchsorted(source[order], entering[:, 0], side="right") - first
    number = np.repeat(np.arange(len(entering)), count)
    chosen = order[np.arange(len(number)) + np.repeat(first - np.cumsum(count) + count, count)]
    return [number, target[chosen], weight[chosen] * entering[number, 1]]


if __name__ == "__main__":
    main(*sys.argv[1:])
