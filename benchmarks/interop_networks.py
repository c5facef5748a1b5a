"""Random networks of every kind that the interoperability suite compares."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np

from msg_deploy.bounds import bounds
from msg_deploy.deployment import Deployment, InputSpec, Timing
from msg_deploy.options import ResetMode

STEPS, BATCH, DT = 40, 4, 1e-3
TAUS = (1.5, 2.0, 5.0, 20.0)
REACH = 1.9
"""Thresholds that a membrane of a tamed network reaches at most, so that it spikes once a step."""
SMALL = 2.0**-12


def row(nodes: list[nir.NIRNode], shape: tuple[int, ...], skips: list[Any]) -> Deployment:
    """Nodes one after the other, and skip edges by their numbers."""
    names = ["input", *(f"n{i}" for i in range(len(nodes))), "output"]
    terminals = {"input": nir.Input({"input": np.array(shape)})}
    inner = {f"n{i}": node for i, node in enumerate(nodes)}
    ends = {"output": nir.Output({"output": np.array([3])})}
    edges = [*itertools.pairwise(names), *((f"n{a}", f"n{b}") for a, b in skips)]
    graph = nir.NIRGraph(terminals | inner | ends, edges, metadata={}, type_check=False)
    return Deployment(graph, Timing(DT, STEPS), InputSpec(shape, "frames"))


class Networks:
    """Random networks of each kind; a seed and a time constant in steps give one."""

    def __init__(self, seed: int, tau: float, excitation: float = 0.0) -> None:
        self.random = np.random.default_rng([seed, int(10 * tau)])
        self.tau = tau * DT
        self.excitation = excitation

    def weights(self, shape: tuple[int, ...], scale: float) -> Any:
        """Normal, around the excitation."""
        return self.random.normal(self.excitation, size=shape) * scale

    def affine(self, inputs: int, outputs: int) -> nir.Affine:
        """Weights that make the layer behind fire now and then, at any time constant."""
        scale = 1.2 * (self.tau / DT) ** 0.5
        bias = self.random.normal(size=outputs) * 0.3
        return nir.Affine(self.weights((outputs, inputs), scale), bias)

    def conv(self, outputs: int, inputs: int, groups: int = 1) -> nir.Conv2d:
        """3x3, the image's size kept."""
        scale = 0.8 * (self.tau / DT) ** 0.5
        weight = self.weights((outputs, inputs // groups, 3, 3), scale)
        bias = self.random.normal(size=outputs) * 0.3
        return nir.Conv2d(None, weight, 1, 1, 1, groups, bias)

    def lif(self, *shape: int) -> nir.LIF:
        """Threshold 1."""
        one, zero = np.ones(shape), np.zeros(shape)
        return nir.LIF(self.tau * one, one, zero, one, zero)

    def mlp(self) -> Deployment:
        """Two layers of LIF."""
        return row([self.affine(6, 12), self.lif(12), self.affine(12, 3), self.lif(3)], (6,), [])

    def without_memory(self) -> Deployment:
        """Two layers of LIF with tau = dt."""
        self.tau = DT
        return self.mlp()

    def integrate_and_fire(self) -> Deployment:
        """Two layers of IF."""

        def neuron(n: int) -> nir.IF:
            return nir.IF(np.ones(n), np.full(n, 2.0), np.zeros(n))

        return row([self.affine(6, 12), neuron(12), self.affine(12, 3), neuron(3)], (6,), [])

    def current_based(self) -> Deployment:
        """Two layers of CubaLIF."""

        def neuron(n: int) -> nir.CubaLIF:
            one, zero = np.ones(n), np.zeros(n)
            return nir.CubaLIF(3e-3 * one, self.tau * one, 2 * one, zero, one, zero, 1.5 * one)

        return row([self.affine(6, 12), neuron(12), self.affine(12, 3), neuron(3)], (6,), [])

    def convolutions(self) -> Deployment:
        """Convolution, groups, both poolings, flatten."""
        two, none = np.array([2, 2]), np.array([0, 0])
        return row(
            [
                self.conv(4, 2),
                self.lif(4, 8, 8),
                nir.AvgPool2d(two, two, none),
                self.conv(4, 4, groups=2),
                self.lif(4, 4, 4),
                nir.SumPool2d(two, two, none),
                nir.Flatten({"input": np.array([4, 2, 2])}, 0, -1),
                self.affine(16, 3),
                self.lif(3),
            ],
            (2, 8, 8),
            [],
        )

    def residual(self) -> Deployment:
        """A skip past one layer."""
        nodes = [self.affine(6, 12), self.lif(12), self.affine(12, 12), self.lif(12)]
        return row([*nodes, self.affine(12, 3), self.lif(3)], (6,), [(1, 4)])

    def recurrent(self) -> Deployment:
        """A layer that feeds back into itself."""
        back = nir.Linear(self.random.normal(size=(12, 12)) * 0.8)
        nodes = [self.affine(6, 12), self.lif(12), self.affine(12, 3), self.lif(3)]
        deployment = row(nodes, (6,), [])
        deployment.graph.nodes["back"] = back
        deployment.graph.edges += [("n1", "back"), ("back", "n1")]
        return deployment


Make = Callable[[Networks], Deployment]
NETWORKS: dict[str, Make] = {
    "MLP, LIF": Networks.mlp,
    "MLP, IF": Networks.integrate_and_fire,
    "MLP, CubaLIF": Networks.current_based,
    "conv, pool, flatten": Networks.convolutions,
    "residual": Networks.residual,
    "recurrent": Networks.recurrent,
}
Grid = Callable[[float], float | None]
"""(largest weight of a layer) -> the step of its grid; None: weights as they are."""
WEIGHTS: dict[str, Grid] = {
    "float": lambda largest: None,
    "int8 on 1/8": lambda largest: 1 / 8,
    "int8 of the largest": lambda largest: largest / 127,
}


@dataclass(frozen=True)
class Kind:
    """One row of a table.

    Attributes:
        network: a name of NETWORKS, or "MLP, LIF with tau = dt".
        weights: a name of WEIGHTS.
        reset: of all neurons.
        tamed: weights are scaled such that no membrane reaches two thresholds in a step.
    """

    network: str
    weights: str = "float"
    reset: ResetMode = "zero"
    tamed: bool = False

    def build(self, seed: int, tau: float) -> Deployment:
        """One network of this kind."""
        networks = Networks(seed, tau, excitation=1.5 if self.tamed else 0.0)
        make = NETWORKS.get(self.network, Networks.without_memory)
        deployment = make(networks)
        deployment = replace(deployment, timing=replace(deployment.timing, reset=self.reset))
        if self.tamed:
            tame(deployment)
        quantize(deployment, WEIGHTS[self.weights])
        return deployment


def quantize(deployment: Deployment, grid: Grid) -> None:
    """Weights and biases towards zero to the grid of their layer, in place."""
    for node in deployment.graph.nodes.values():
        if hasattr(node, "weight"):
            step = grid(float(np.abs(node.weight).max()))
            for field in ("weight", "bias") if step and hasattr(node, "bias") else ():
                whole = np.clip(np.trunc(getattr(node, field) / step), -127, 127)
                setattr(node, field, whole * step)
            if step and not hasattr(node, "bias"):
                node.weight = np.clip(np.trunc(node.weight / step), -127, 127) * step


def tame(deployment: Deployment) -> None:
    """Scale weights, in place, until membranes can just reach REACH thresholds."""
    graph = deployment.graph
    for name, node in graph.nodes.items():
        if not hasattr(node, "v_threshold"):
            continue
        before = [graph.nodes[a] for a, b in graph.edges if b == name]
        layers = [layer for layer in before if hasattr(layer, "weight")]

        def reach(name: str = name, node: Any = node) -> float:
            membrane = bounds(deployment)[name].membrane
            assert membrane is not None
            return float(np.max(membrane.high / node.v_threshold))

        # With small weights it is linear in them: what a threshold leaves, and the drive.
        scale(layers, SMALL)
        one = reach()
        scale(layers, 2.0)
        drive = reach() - one
        scale(layers, (REACH - one + drive) / (2 * drive))


def scale(layers: list[Any], factor: float) -> None:
    """Weights and biases times a factor, in place."""
    for layer in layers:
        layer.weight = layer.weight * factor
        if hasattr(layer, "bias"):
            layer.bias = layer.bias * factor
