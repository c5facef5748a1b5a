"""Folding TWO into the graph: y = sum_t f_t I_L[t].

Each folding is a pass Deployment -> Deployment from the `host` form and states the error of the
weights that it realizes, as measured by running the folded readout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import READOUT_PREFIX, Deployment, InputSpec
from msg_deploy.errors import UsageError
from msg_deploy.graph import plan
from msg_deploy.options import Fold
from msg_deploy.sim.reference import Reference

Pass = Callable[[Deployment], Deployment]


def fold_two(deployment: Deployment, fold: Fold) -> Deployment:
    """Fold TWO by name.

    Raises:
        UsageError: no such folding, the deployment has no TWO readout, or it is folded already.
    """
    if fold not in FOLDS:
        raise UsageError(f"unknown folding {fold!r}; there are {', '.join(FOLDS)}.")
    if deployment.readout is None:
        raise UsageError("there is no TWO readout to fold.")
    if deployment.readout.fold != "host":
        raise UsageError(f"TWO is already folded by {deployment.readout.fold!r}.")
    return FOLDS[fold](deployment)


def host(deployment: Deployment) -> Deployment:
    """The graph stays per step; f travels in the metadata and the host applies it. Exact."""
    return deployment


def delay(deployment: Deployment) -> Deployment:
    """Parallel Delay(d dt) -> Scale(f_{T-1-d}) branches sum to y at the last step. Exact."""
    readout = deployment.readout
    assert readout is not None
    known = plan(deployment.graph)
    shape, output = known.shapes[readout.source], known.output
    steps, dt = deployment.timing.steps, deployment.timing.dt
    digits = len(str(steps - 1))
    nodes = dict(deployment.graph.nodes)
    edges = [e for e in deployment.graph.edges if tuple(e) != (readout.source, output)]
    for d in range(steps):
        source, scale = readout.source, f"{READOUT_PREFIX}scale_{d:0{digits}d}"
        if d > 0:
            branch = f"{READOUT_PREFIX}delay_{d:0{digits}d}"
            nodes[branch] = nir.Delay(np.full(shape, d * dt))
            edges.append((source, branch))
            source = branch
        nodes[scale] = nir.Scale(np.full(shape, readout.weights[steps - 1 - d]))
        edges += [(source, scale), (scale, output)]
    graph = nir.NIRGraph(nodes, edges, metadata=dict(deployment.graph.metadata), type_check=False)
    folded = deployment.with_graph(graph, readout=replace(readout, fold="delay"))
    error = float(np.max(np.abs(realized_weights(folded) - np.array(readout.weights))))
    return replace(folded, readout=replace(readout, fold="delay", error=error))


FOLDS: dict[Fold, Pass] = {"delay": delay, "host": host}


def realized_weights(deployment: Deployment) -> npt.NDArray[np.float64]:
    """The f (T,) that a folded graph realizes: its answer at the last step to one pulse a step."""
    readout = deployment.readout
    if readout is None:
        raise UsageError("there is no TWO readout.")
    if readout.fold == "host":
        return np.array(readout.weights)
    known = plan(deployment.graph)
    shape, steps = known.shapes[readout.source], deployment.timing.steps
    behind = [n for n in known.order if n.startswith(READOUT_PREFIX) and n != readout.source]
    kept = {readout.source, *behind, known.output}
    nodes = {name: deployment.graph.nodes[name] for name in kept}
    nodes[readout.source] = nir.Input({"input": np.array(shape)})
    edges = [tuple(e) for e in deployment.graph.edges if set(e) <= kept]
    alone = Deployment(
        nir.NIRGraph(nodes, edges, metadata={}, type_check=False),
        deployment.timing,
        InputSpec(shape=shape, encoding="frames"),
    )
    pulses = np.zeros((steps, steps, *shape))
    pulses[np.arange(steps), np.arange(steps)] = 1
    answers = Reference().run(alone, pulses).outputs[-1]
    return answers.reshape(steps, -1)[:, 0]
