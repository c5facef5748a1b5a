"""Folding TWO into the graph: y = sum_t f_t I_L[t].

Each folding is a pass Deployment -> Deployment from the `host` form and states the error of the
weights that it realizes, as measured by running the folded readout.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import READOUT_PREFIX, Deployment, InputSpec
from msg_deploy.errors import UsageError
from msg_deploy.graph import plan
from msg_deploy.options import Fold, Precision
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.simulator import FloatArray

Pass = Callable[[Deployment], Deployment]


def fold_two(deployment: Deployment, fold: Fold) -> Deployment:
    """Fold TWO by name.

    Raises:
        UsageError: no such folding, the deployment has no TWO readout, it is folded already, or a
            node is called like one that a folding adds.
    """
    if fold not in FOLDS:
        raise UsageError(f"unknown folding {fold!r}; there are {', '.join(FOLDS)}.")
    if deployment.readout is None:
        raise UsageError("there is no TWO readout to fold.")
    if deployment.readout.fold != "host":
        raise UsageError(f"TWO is already folded by {deployment.readout.fold!r}.")
    taken = {n for n in deployment.graph.nodes if n.startswith(READOUT_PREFIX)}
    if fold != "host" and taken - {deployment.readout.source}:
        raise UsageError(
            f"node {min(taken)!r}: names that begin with {READOUT_PREFIX!r} are for what a folding "
            "adds; rename it, or leave TWO to the host (fold 'host')."
        )
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
    return _measured(deployment, "delay", nodes, edges)


def bank(deployment: Deployment) -> Deployment:
    """Only LI and Linear: I_L -> K copies -> LI with decays a_k -> Linear with coefficients c_k.

    c solves sum_k c_k (1 - a_k) a_k^(T-1-t) = f_t. Exact in real numbers with K = T. The
    coefficients grow with K, and with them what float32 rounds off, so of K = 1..T the bank is
    taken whose measured error is smallest.
    """
    banks = [_bank(deployment, a) for a in _decays(deployment.timing.steps)]
    return min(banks, key=_error)


def leak(deployment: Deployment) -> Deployment:
    """One LI per class, whose decay and gain come closest to f. Cheapest, approximate."""
    f = _weights(deployment)
    powers = np.arange(len(f))[::-1]
    # One decay a and gain g by least squares: f_t = g a^(T-1-t).
    decays = 1 - np.geomspace(1, 1e-6, 20_001)
    shapes = decays[:, None] ** powers
    gains = shapes @ f / (shapes**2).sum(axis=1)
    errors = np.abs(gains[:, None] * shapes - f).max(axis=1)
    best = int(errors.argmin())
    rate = 1 - decays[best]
    readout = deployment.readout
    assert readout is not None
    shape = plan(deployment.graph).shapes[readout.source]
    name = f"{READOUT_PREFIX}leak"
    node = nir.LI(
        tau=np.full(shape, deployment.timing.dt / rate),
        r=np.full(shape, gains[best] / rate),
        v_leak=np.zeros(shape),
    )
    return _behind(deployment, "leak", {name: node}, [name])


def _bank(deployment: Deployment, decays: npt.NDArray[np.float64]) -> Deployment:
    """The bank with these decays, and the coefficients that fit best."""
    f = _weights(deployment)
    readout = deployment.readout
    assert readout is not None
    powers = np.arange(len(f))[::-1]
    responses = (1 - decays) * decays ** powers[:, None]
    coefficients = np.linalg.lstsq(responses, f, rcond=None)[0]
    shape = plan(deployment.graph).shapes[readout.source]
    if len(shape) != 1:
        raise UsageError(f"fold 'bank' needs class scores (C,), not outputs of shape {shape}.")
    one = np.eye(shape[0])
    taus = np.repeat(deployment.timing.dt / (1 - decays), shape[0])
    nodes = {
        "copy": nir.Linear(np.tile(one, (len(decays), 1))),
        "decay": nir.LI(tau=taus, r=np.ones_like(taus), v_leak=np.zeros_like(taus)),
        "sum": nir.Linear(np.kron(coefficients, one)),
    }
    named = {f"{READOUT_PREFIX}{name}": node for name, node in nodes.items()}
    return _behind(deployment, "bank", named, list(named))


def _decays(steps: int) -> list[npt.NDArray[np.float64]]:
    """Candidates: K decays spread over 0..1, denser towards 1 where f is smooth, for K = 1..T."""
    return [
        limit * (1 - np.cos(np.pi * (np.arange(k) + 0.5) / k)) / 2
        for k in range(1, steps + 1)
        for limit in (0.8, 0.9, 0.95)
    ]


def _behind(
    deployment: Deployment, fold: Fold, added: dict[str, nir.NIRNode], chain: list[str]
) -> Deployment:
    """Nodes in a row between the readout's source and the output; the error as measured."""
    readout = deployment.readout
    assert readout is not None
    output = plan(deployment.graph).output
    edges = [e for e in deployment.graph.edges if tuple(e) != (readout.source, output)]
    edges += list(itertools.pairwise([readout.source, *chain, output]))
    return _measured(deployment, fold, dict(deployment.graph.nodes) | added, edges)


def _measured(
    deployment: Deployment,
    fold: Fold,
    nodes: dict[str, nir.NIRNode],
    edges: list[tuple[str, str]],
) -> Deployment:
    """The folded deployment with the largest error of f in float64 and, if worse, in float32."""
    readout = deployment.readout
    assert readout is not None
    graph = nir.NIRGraph(nodes, edges, metadata=dict(deployment.graph.metadata), type_check=False)
    folded = deployment.with_graph(graph, readout=replace(readout, fold=fold))
    f = np.array(readout.weights)
    exact = np.abs(realized_weights(folded) - f).max()
    # Rounding f itself to float32 is no error of the folding.
    rounded = np.abs(realized_weights(folded, "float32") - f.astype(np.float32)).max()
    return replace(folded, readout=replace(readout, fold=fold, error=float(max(exact, rounded))))


def _weights(deployment: Deployment) -> npt.NDArray[np.float64]:
    assert deployment.readout is not None
    return np.array(deployment.readout.weights)


def _error(deployment: Deployment) -> float:
    assert deployment.readout is not None
    return deployment.readout.error


FOLDS: dict[Fold, Pass] = {"delay": delay, "bank": bank, "leak": leak, "host": host}
APPROXIMATE: tuple[Fold, ...] = ("leak", "bank")
"""Cheapest first, by the numbers they keep per class: 1 and K <= T; delay, exact, keeps T."""


def cheapest(deployment: Deployment, tolerance: float) -> Deployment:
    """The cheapest folding whose measured error is at most `tolerance` times the largest |f|."""
    limit = tolerance * float(np.abs(_weights(deployment)).max())
    for fold in APPROXIMATE:
        folded = fold_two(deployment, fold)
        if _error(folded) <= limit:
            return folded
    return fold_two(deployment, "delay")


def realized_weights(
    deployment: Deployment, precision: Precision = "float64"
) -> npt.NDArray[np.float64]:
    """The f (T,) that a folded graph realizes: its answer at the last step to one pulse a step."""
    readout = deployment.readout
    if readout is None:
        raise UsageError("there is no TWO readout.")
    if readout.fold == "host":
        return np.array(readout.weights)
    steps = deployment.timing.steps
    shape = plan(deployment.graph).shapes[readout.source]
    pulses = np.zeros((steps, steps, *shape))
    pulses[np.arange(steps), np.arange(steps)] = 1
    answers = decode(deployment, pulses, precision)
    return answers.reshape(steps, -1)[:, 0].astype(np.float64)


def decode(
    deployment: Deployment, currents: FloatArray, precision: Precision = "float64"
) -> FloatArray:
    """Class scores (B, C) that the readout alone makes of currents I_L (T, B, C).

    Raises:
        UsageError: there is no TWO readout.
    """
    readout = deployment.readout
    if readout is None:
        raise UsageError("there is no TWO readout.")
    if readout.fold == "host":
        return np.tensordot(np.array(readout.weights, precision), currents.astype(precision), 1)
    known = plan(deployment.graph)
    shape = known.shapes[readout.source]
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
    return Reference().run(alone, currents, precision).outputs[-1]


@dataclass(frozen=True)
class FoldEffect:
    """What a folding does to decisions, measured on data.

    Attributes:
        samples: number of samples.
        flips: samples whose decision differs from that of y = sum_t f_t I_L[t].
        error: largest absolute difference of class scores.
        scale: largest absolute class score.
    """

    samples: int
    flips: int
    error: float
    scale: float


def fold_effect(
    deployment: Deployment, currents: FloatArray, precision: Precision = "float32"
) -> FoldEffect:
    """Compare the folded readout in `precision` with the written sum in float64.

    Args:
        deployment: folded.
        currents: I_L of the unfolded network, (T, B, C).
        precision: arithmetic of the folded readout.
    """
    exact = np.tensordot(_weights(deployment), currents.astype(np.float64), 1)
    found = decode(deployment, currents, precision)
    return FoldEffect(
        samples=len(exact),
        flips=int((exact.argmax(axis=1) != found.argmax(axis=1)).sum()),
        error=float(np.abs(exact - found).max()),
        scale=float(np.abs(exact).max()),
    )
