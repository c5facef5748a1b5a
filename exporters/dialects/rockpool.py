"""What `rockpool.nn.modules.torch.nir.from_nir` of rockpool 3.1.0 reads to the same spikes.

Of all neurons it reads CubaLIF alone: I = (I + x) exp(-dt/tau_syn); V = exp(-dt/tau_mem) V + I; it
gives floor(V / v_threshold) spikes and subtracts as many thresholds; dt is min(tau_mem / (1 + r))
of each layer, r and w_in mean nothing else (rockpool/nn/modules/torch/nir.py, lif_torch.py). So
dt = 1, r = tau_mem - 1, the time constants are those whose exponentials are 1 - dt/tau, and the
threshold takes the factor that x loses. A current without memory would lose all of x, so it keeps
exp(-32). As the threshold is scaled alike, membranes are small numbers there.
Recurrence is a nested graph of four nodes. What is no matrix and no CubaLIF is refused there, so
convolutions become matrices, and samples are to be flattened before they enter.
"""

from __future__ import annotations

import math
from dataclasses import replace

import nir
import numpy as np

from msg_deploy.deployment import Deployment
from msg_deploy.exporters.dialects import arrangement, dialect, restoration
from msg_deploy.exporters.dialects.loops import nested
from msg_deploy.exporters.dialects.rewrite import (
    Unit,
    check_loops,
    check_single_spikes,
    check_skips,
    check_subtract,
    current_based,
    euler,
    exponential,
    flat_input,
    mapped,
    rewritten,
    shaped_input,
)

SHORT = 2.0**-5
KEPT = math.exp(-1 / SHORT)
"""Of a current without memory, from one step to the next: 1e-14, rounded away by float32, in which
SHORT is exact: an error of tau_syn would be 32 times as large in the input's gain."""


@dialect
def rockpool(deployment: Deployment) -> Deployment:
    """CubaLIF that loses of its input what it loses of its current."""
    check_loops(deployment)
    check_skips(deployment, "rockpool")
    written = rewritten(deployment, _neuron, "rockpool")
    check_subtract(deployment, "rockpool")
    check_single_spikes(deployment, "rockpool")
    return written


def _neuron(unit: Unit) -> nir.CubaLIF:
    kept = np.maximum(1 - 1 / unit.k_syn, KEPT)
    k_syn = 1 / (1 - kept)
    own = current_based(replace(unit, k_syn=k_syn, threshold=unit.threshold * kept))
    return replace(own, w_in=k_syn * kept)


@arrangement("rockpool")
def _to_file(graph: nir.NIRGraph) -> nir.NIRGraph:
    return nested(flat_input(mapped(graph, nir.CubaLIF, _exponential)))


def _exponential(node: nir.CubaLIF) -> nir.CubaLIF:
    tau_mem = exponential(node.tau_mem)
    tau_syn = np.where(node.tau_syn < 1 + 2 * KEPT, SHORT, exponential(node.tau_syn))
    return replace(node, tau_syn=tau_syn, tau_mem=tau_mem, r=tau_mem - 1)


@restoration("rockpool")
def _from_file(graph: nir.NIRGraph) -> nir.NIRGraph:
    return shaped_input(mapped(graph, nir.CubaLIF, _euler))


def _euler(node: nir.CubaLIF) -> nir.CubaLIF:
    tau_mem = euler(node.tau_mem)
    return replace(node, tau_syn=euler(node.tau_syn), tau_mem=tau_mem, r=tau_mem.copy())
