"""What the parser of snn-mlir 1.0.0 reads with the parameters that are meant.

It takes dt for tau_mem/r and wants w_in = tau_syn/dt, v_leak = v_reset = 0 and one value for a
layer, which is how `portable` writes neurons (snn_mlir/nodes/cubalif.py). It takes one layer after
the other, and recurrence flat, as neuron -> matrix -> the same neuron (snn_mlir/_graph.py). To
execute what it exports takes snn-opt, which is built from source, so spikes were not compared.
"""

from __future__ import annotations

from dataclasses import replace

import nir

from msg_deploy.deployment import Deployment
from msg_deploy.exporters.dialects import dialect
from msg_deploy.exporters.dialects.portable import portable
from msg_deploy.exporters.dialects.rewrite import check_chain, terminal_names
from msg_deploy.graph import plan


@dialect
def snn_mlir(deployment: Deployment) -> Deployment:
    """As `portable`, without branches, the terminals named input and output."""
    written = portable(deployment)
    check_chain(written, "snn-mlir takes one layer after the other")
    graph = written.graph
    names = terminal_names(plan(graph), "snn-mlir")
    nodes = {names.get(name, name): node for name, node in graph.nodes.items()}
    edges = [(names.get(a, a), names.get(b, b)) for a, b in graph.edges]
    renamed = nir.NIRGraph(nodes, edges, metadata=dict(graph.metadata), type_check=False)
    return replace(written, graph=renamed)
