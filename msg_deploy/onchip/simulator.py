"""A network on a chip, run to the bit, in the steps of the graph that it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msg_deploy.errors import GraphError
from msg_deploy.exporters.chips.populations import populations
from msg_deploy.exporters.chips.target import OnChip
from msg_deploy.sim.integer.engine import Count, Engine
from msg_deploy.sim.integer.network import Neurons, Node
from msg_deploy.sim.integer.neuron import Numbers

Array = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ChipRun:
    """What a chip gives for some samples; whole numbers, time-major.

    Attributes:
        spikes: of each population with a threshold, by its name in the graph, (T, B, *shape).
        membranes: of the same at the decision, in the chip's units.
        after: the same after the reset; of a population without a threshold what is read of it, for
            all steps.
        output: of the output population: its spikes or membranes, for all steps of the chip.
        scores: (B, *output shape), in units of the graph's.
        counts: by population, what has left its range.
    """

    spikes: Mapping[str, Array]
    membranes: Mapping[str, Array]
    after: Mapping[str, Array]
    output: Array
    scores: npt.NDArray[np.float64]
    counts: Mapping[str, Mapping[str, Count]]


class ChipSimulator:
    """One network, made ready.

    Args:
        chip: the network as the chip holds it.

    Raises:
        GraphError: its arithmetic is not known, or a value could leave 64 bits.
    """

    def __init__(self, chip: OnChip) -> None:
        if chip.network is None:
            reasons = " ".join(str(problem) for problem in chip.problems)
            raise GraphError(f"{chip.target} cannot run the network. {reasons}".strip())
        self.chip = chip
        items = populations(chip.deployment).items
        self.names = {name: chip.names.get(name, name) for name in items}
        self.engine = Engine(chip.network, chip.steps)

    def run(self, inputs: npt.NDArray[np.generic]) -> ChipRun:
        """Samples from their reset to the last step of the chip.

        Args:
            inputs: whole numbers (T, B, *input shape), T as in the graph.

        Raises:
            UsageError: inputs do not fit.
        """
        chip, network = self.chip, self.engine.network
        steps = chip.deployment.timing.steps
        rest = np.zeros((chip.steps - steps, *inputs.shape[1:]), inputs.dtype)
        found = self.engine.run(np.concatenate([inputs, rest]))
        spiking = [name for name, here in self.names.items() if here in found.spikes]

        def in_time(values: Mapping[str, Array]) -> dict[str, Array]:
            ranges = {name: chip.late.get(name, 0) for name in spiking}
            return {
                name: values[self.names[name]][late : late + steps] for name, late in ranges.items()
            }

        output = found.outputs
        scores = chip.decoder.scores(output) if chip.decoder else output.sum(0).astype(np.float64)
        counts = {
            name: found.counts[here] for name, here in self.names.items() if here in found.counts
        }
        spikes, membranes = in_time(found.spikes), in_time(found.membranes)
        after = {
            name: _after(network.nodes[self.names[name]], network.numbers[self.names[name]], v, n)
            for (name, v), n in zip(membranes.items(), spikes.values(), strict=True)
        }
        if chip.decoder is not None and chip.decoder.reads != "spikes":
            after |= {name: output for name in self.names if name not in spikes}
        return ChipRun(spikes, membranes, after, output, scores, counts)


def _after(node: Node, known: Numbers, membrane: Array, spikes: Array) -> Array:
    """Membranes that a decision leaves."""
    assert isinstance(node, Neurons)
    shape, reset = node.shape, node.neuron.reset
    if reset == "none" or node.neuron.compare_at == "event":
        return membrane
    if reset == "value":
        return np.where(spikes > 0, known.v_reset.reshape(shape), membrane)
    return membrane - spikes * known.threshold.reshape(shape)
