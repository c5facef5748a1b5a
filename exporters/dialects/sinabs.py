"""What `sinabs.nir.from_nir` of sinabs 3.1.3 reads to the same spikes.

Its LIF is V = exp(-1/tau) V + x with tau in steps, whatever r says; it gives trunc(V / v_threshold)
spikes and subtracts as many thresholds (sinabs/nir.py, layers/functional/lif.py,
activation/spike_generation.py). So tau becomes the one whose exponential is 1 - dt/tau, the
threshold v_threshold tau/(dt r), and a network is refused that could give two spikes in a step. IF
becomes a LIF of 2^40 steps, because its IF does not go below -v_threshold. LIF of shape (C, H, W)
fails there, so convolutions and poolings become matrices. Recurrent edges are ignored.
"""

from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np

from msg_deploy.deployment import Deployment
from msg_deploy.errors import GraphError
from msg_deploy.exporters.dialects import arrangement, dialect, restoration
from msg_deploy.exporters.dialects.rewrite import (
    Unit,
    check_no_loops,
    check_single_spikes,
    check_skips,
    check_subtract,
    euler,
    exponential,
    mapped,
    rewritten,
)


@dialect
def sinabs(deployment: Deployment) -> Deployment:
    """LIF with gains of one, time in steps."""
    check_no_loops(deployment, "sinabs ignores that edge")
    check_skips(deployment, "sinabs")
    written = rewritten(deployment, _neuron, "sinabs")
    check_subtract(deployment, "sinabs")
    check_single_spikes(deployment, "sinabs")
    return written


def _neuron(unit: Unit) -> nir.LIF:
    if np.any(unit.k_syn != 1):
        raise GraphError("sinabs reads no CubaLIF whose current has a memory (tau_syn above dt).")
    zeros = np.zeros_like(unit.threshold)
    return nir.LIF(unit.k_mem, unit.k_mem.copy(), zeros, unit.threshold, zeros.copy())


@arrangement("sinabs")
def _to_file(graph: nir.NIRGraph) -> nir.NIRGraph:
    return mapped(graph, nir.LIF, lambda node: replace(node, tau=exponential(node.tau)))


@restoration("sinabs")
def _from_file(graph: nir.NIRGraph) -> nir.NIRGraph:
    return mapped(graph, nir.LIF, lambda node: replace(node, tau=euler(node.tau)))
