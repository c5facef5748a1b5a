"""What targets of rows of neurons share: checks, each on its own, and how outputs are read."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from msg_deploy.exporters.chips.decoder import Decoder, Reads, offsets_of
from msg_deploy.exporters.chips.populations import Population, Populations
from msg_deploy.exporters.chips.target import Findings, two_of


def only_matrices(network: Populations, findings: Findings) -> bool:
    """Names images, delays and loops; whether there is nothing but matrices."""
    fine = True
    for item in network.items.values():
        if len(item.shape) > 1:
            shape = "x".join(map(str, item.shape))
            findings.law(item.name, f"is an image ({shape}); its neurons stand in a row.")
            fine = False
    for p in network.projections:
        if p.previous:
            findings.law(p.name, "loops back; train without.")
        if p.delay:
            findings.law(p.name, "has a delay; there are none.")
        fine = fine and not (p.previous or p.delay or p.convolution)
    return fine


def without_bias(item: Population, findings: Findings) -> None:
    """Names a bias of neurons; that of an output layer which only adds up is the host's."""
    if item.node is not None and item.bias.any():
        findings.law(item.name, "has no bias; train without (bias=False).")


def rests_at_zero(item: Population, findings: Findings) -> None:
    """Names what neurons that rest at 0 and reset to it do not have."""
    for field in ("v_reset", "v_leak"):
        if np.any(getattr(item.node, field, 0)):
            findings.law(item.name, f"{field} is not 0; its neurons rest at 0 and reset to it.")


def without_gain(item: Population, findings: Findings) -> None:
    """Names a gain of the input: charges arrive as they are."""
    if np.any(getattr(item.node, "r", 1) != 1):
        findings.law(item.name, "r is not 1; msg-deploy quantize makes it.")


def no_negative_inputs(network: Populations, findings: Findings) -> None:
    """Names an input range that goes below 0, where events are all that enters."""
    if network.deployment.input.entering[0] < 0:
        findings.law(network.input, "its values are numbers of events; use values from 0 on.")


def decoder(network: Populations, late: Mapping[str, int], silent: Reads = "membranes") -> Decoder:
    """Of spikes, or of membranes (or currents) where the output layer only adds up, its bias aside.

    Args:
        network: on the chip.
        late: of each population.
        silent: what is read of an output layer without a threshold.
    """
    output, form = network.items[network.output], network.deployment.integers
    weights, unit = tuple(two_of(network)), form.scores if form else 1.0
    start = late[network.output]
    if output.spiking:
        return Decoder("spikes", weights, start, unit)
    return Decoder(silent, weights, start, unit, offsets_of(output.bias, weights, unit))


def inputs(network: Populations) -> int:
    """Numbers that enter in a step."""
    return math.prod(network.input_shape)


def matrices(network: Populations) -> list[tuple[Population, list[list[int]]]]:
    """Of each population, in order, the weights (targets, sources) as whole numbers."""
    found = []
    for item in network.items.values():
        total = sum(np.rint(p.matrix()) for p in item.entering)
        found.append((item, np.asarray(total, np.int64).tolist()))
    return found
