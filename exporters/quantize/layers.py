"""What became of the layers of weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from msg_deploy.deployment import Deployment
from msg_deploy.errors import UsageError
from msg_deploy.exporters.quantize.nodes import LEAKY, NEURONS, rate_of, weighted
from msg_deploy.exporters.quantize.options import DIGITS
from msg_deploy.exporters.quantize.statistics import Statistics, measured, worst, worst_sum
from msg_deploy.exporters.quantize.thresholds import state_bits
from msg_deploy.graph import plan
from msg_deploy.options import Precision
from msg_deploy.samples import Samples


@dataclass(frozen=True)
class QuantizedLayer:
    """What became of a layer of weights.

    Attributes:
        name: of its node.
        bits: that its weights need, sign included.
        scale: what a 1 of its output stands for, by channel; the smallest and the largest.
        largest_sum: that any input can cause, whatever the order of summation.
        digits: binary digits that sums and states behind it needed on the calibration samples;
            None: states stand on no grid.
        exact: the narrowest precision that had so many; None: none has.
    """

    name: str
    bits: int
    scale: tuple[float, float]
    largest_sum: int
    digits: int | None
    exact: Precision | None


def layers_of(deployment: Deployment, samples: Samples) -> tuple[QuantizedLayer, ...]:
    """What became of the layers of weights.

    Args:
        deployment: a quantized network.
        samples: (N, ...) on which states are measured.

    Raises:
        UsageError: the network is not quantized.
    """
    form = deployment.integers
    if form is None:
        raise UsageError("the network is not quantized.")
    known, nodes = plan(deployment.graph), deployment.graph.nodes
    statistics, most = measured(deployment, samples), worst(deployment)
    found = []
    for name in known.order:
        node: Any = nodes[name]
        if not weighted(node):
            continue
        consumers = [n for n in known.order if any(e.source == name for e in known.incoming[n])]
        largest = int(np.abs(node.weight).max())
        sums = max(worst_sum(known, most, consumer) for consumer in consumers)
        each = [_digits(deployment, statistics, consumer) for consumer in consumers]
        needed = None if None in each else max(d for d in each if d is not None)
        wide = max(needed or 0, math.ceil(math.log2(max(sums, 1))))
        exact = [] if needed is None else [p for p, digits in DIGITS.items() if wide <= digits]
        scale = form.scales[name]
        found.append(
            QuantizedLayer(
                name,
                largest.bit_length() + 1,
                (min(scale), max(scale)),
                int(sums),
                needed,
                exact[0] if exact else None,
            )
        )
    return tuple(found)


def _digits(deployment: Deployment, statistics: Statistics, name: str) -> int | None:
    """Binary digits of a node's states and of the sums that arrive."""
    node, timing = deployment.graph.nodes[name], deployment.timing
    reach = float(statistics.arriving(plan(deployment.graph), name).max())
    if not isinstance(node, NEURONS):
        return math.ceil(math.log2(max(reach, 1)))
    bits = state_bits(node, timing)
    if bits is None:
        return None
    rate = float(rate_of(node, timing.dt).max()) if isinstance(node, LEAKY) else 1.0
    state = float(statistics.membrane[name].max())
    if hasattr(node, "v_threshold"):
        state = max(state, 2 * float(np.abs(node.v_threshold).max()) / (1 + rate))
    return bits + math.ceil(math.log2(max((1 + rate) * state + rate * reach, 1)))
