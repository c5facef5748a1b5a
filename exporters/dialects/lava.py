"""Numbers for the floating-point LIF process of lava-nc 0.10.0, which has no NIR importer.

u = (1 - du) u + a; v = (1 - dv) v + u; s = v > vth; v = 0 (lava/proc/lif/process.py), with one du,
dv and vth for a layer. Neurons are written as CubaLIF in time steps, so that du = 1/tau_syn,
dv = 1/tau_mem, vth = v_threshold and nothing else is to be computed. The sum that its Dense process
makes at one step arrives at the next: outputs come one step later for each matrix that they pass,
and a bias must be switched on with the first spike that can arrive. benchmarks/frameworks/lava.py
loads such a file.
"""

from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np

from msg_deploy.deployment import Deployment
from msg_deploy.errors import GraphError
from msg_deploy.exporters.dialects import dialect
from msg_deploy.exporters.dialects.rewrite import (
    Unit,
    check_chain,
    check_loops,
    current_based,
    delayed,
    rewritten,
)


@dialect
def lava(deployment: Deployment) -> Deployment:
    """CubaLIF with gains of one, time in steps."""
    if deployment.timing.reset != "zero":
        raise GraphError("lava's LIF resets to zero; reset 'subtract' has no form there.")
    check_loops(deployment)
    check_chain(deployment, "each matrix takes a step in lava, so branches would part in time")
    written = rewritten(deployment, _neuron, "lava")
    return delayed(written, nir.Affine)


def _neuron(unit: Unit) -> nir.CubaLIF:
    if any(np.ptp(v) > 1e-12 * np.max(v) for v in (unit.k_syn, unit.k_mem, unit.threshold)):
        raise GraphError("lava's LIF takes one du, dv and vth for a layer; here they vary.")
    return current_based(replace(unit, threshold=np.full_like(unit.threshold, unit.threshold[0])))
