"""Thresholds that membranes would hit exactly, because the weights behind stand on a grid.

spikingjelly, sinabs and rockpool spike at the threshold, NIR, Norse and snnTorch above it; and
where the grid's step is no power of two, float32 decides such a tie by rounding. So the threshold
moves up a little: by more than float32 rounds off, and no more, since a membrane that really is
that little above it would be lost.
"""

from __future__ import annotations

import math
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy import grid
from msg_deploy.graph import Plan
from msg_deploy.primitives import pair, primitive_of

Array = npt.NDArray[np.float64]
UP = 1 + 2.0**-21
"""What such a threshold is multiplied with: 8 times the rounding of float32. With 2^-18, a few
membranes that a leak brings close to the threshold fell between the two, and spikes differed."""
FINER = 16
"""Membranes are looked for between the steps too: a leak of tau = 2 dt halves them every step."""
WEIGHTS = ("weight", "bias", "scale")


def off_grid(threshold: Array, graph: nir.NIRGraph, known: Plan, name: str) -> Array:
    """The thresholds of a neuron, those on the grid of what arrives moved up.

    Args:
        threshold: in the units of what arrives, that is, for a gain of one.
        graph: in which the neuron is.
        known: its plan.
        name: of the neuron.
    """
    arriving = [v for e in known.incoming[name] for v in _values(graph, known, e.source, 1.0)]
    size = grid.step(np.concatenate(arriving)) if arriving else None
    if size is None:
        return threshold
    counts = threshold / size * FINER
    on_it = np.abs(counts - np.rint(counts)) < 1e-6 * np.abs(counts)
    return np.where(on_it, threshold * UP, threshold)


def _values(graph: nir.NIRGraph, known: Plan, name: str, factor: float) -> list[Array]:
    """What one spike makes of a node's output; NaN if that is not a fixed set of numbers."""
    node: Any = graph.nodes[name]
    weights = [getattr(node, field) for field in WEIGHTS if hasattr(node, field)]
    if weights:
        return [np.ravel(np.asarray(w, np.float64)) * factor for w in weights]
    if primitive_of(node).spiking or isinstance(node, nir.Input):
        return [np.array([factor])]
    if isinstance(node, nir.AvgPool2d):
        factor /= math.prod(pair(node, "kernel_size", 1))
    elif not isinstance(node, (nir.SumPool2d, nir.Flatten)):
        return [np.array([np.nan])]
    return [v for e in known.incoming[name] for v in _values(graph, known, e.source, factor)]
