"""Engines that a certificate must hold for: any order of sums, any form of the law, any rounding.

Each runs graphs of matrices, convolutions (groups 1), pools and neurons in numpy, one operation at
a time, and shares nothing with the simulators but the order of execution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import torch

from msg_deploy.deployment import Deployment
from msg_deploy.graph import plan
from msg_deploy.primitives import Array, Emission, Law, pair, primitive_of
from msg_deploy.primitives.convolution import conv_padding
from msg_deploy.sim.simulator import FloatArray, Trace
from msg_deploy.sim.stepper import Backend, run

Sum = Callable[[Array, Array, Array], Array]
"""(weights (O, n), inputs (M, n), start (M, O)) -> start + inputs weights^T, (M, O)."""


def forward(weights: Array, x: Array, start: Array) -> Array:
    total = start
    for i in range(x.shape[1]):
        total = total + x[:, i, None] * weights[:, i]
    return total


def shuffled(weights: Array, x: Array, start: Array) -> Array:
    """Each time in another order; the start somewhere in it."""
    order = np.random.default_rng(x.size + int(x.sum())).permutation(x.shape[1] + 1)
    total = np.zeros_like(start)
    for i in order:
        total = total + (start if i == x.shape[1] else x[:, i, None] * weights[:, i])
    return total


def pairwise(weights: Array, x: Array, start: Array) -> Array:
    terms = [x[:, i, None] * weights[:, i] for i in range(x.shape[1])] + [start]
    while len(terms) > 1:
        pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + ([terms[-1]] if len(terms) % 2 else [])
    return terms[0]


def blocked(weights: Array, x: Array, start: Array) -> Array:
    """Eight lanes, as vector units sum; the start last."""
    lanes = [np.zeros_like(start) for _ in range(8)]
    for i in range(x.shape[1]):
        lanes[i % 8] = lanes[i % 8] + x[:, i, None] * weights[:, i]
    while len(lanes) > 1:
        lanes = [a + b for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
    return start + lanes[0]


def fused(weights: Array, x: Array, start: Array) -> Array:
    """Multiply-adds that are rounded once (twice, where float64 rounds before float32)."""
    total = start
    wide = np.float64 if start.dtype == np.float32 else np.longdouble
    for i in range(x.shape[1]):
        total = (total.astype(wide) + x[:, i, None].astype(wide) * weights[:, i]).astype(
            start.dtype
        )
    return total


def wide(weights: Array, x: Array, start: Array) -> Array:
    """In twice the precision, rounded at the end."""
    more = np.float64 if start.dtype == np.float32 else np.longdouble
    return (start.astype(more) + x.astype(more) @ weights.astype(more).T).astype(start.dtype)


def signs(weights: Array, x: Array, start: Array) -> Array:
    """First what is positive, then what is negative: the largest intermediate sums."""
    total = start
    for sign in (1, -1):
        for i in range(x.shape[1]):
            term = x[:, i, None] * weights[:, i]
            total = total + np.where(np.sign(term) == sign, term, term.dtype.type(0))
    return total


@dataclass(frozen=True)
class Engine:
    """A way to compute.

    Attributes:
        sum: how products are summed.
        form: of the law: "euler", "decay", "division", "folded" (dt/tau as dt times 1/tau, the
            decay through its logarithm) or "events" (weights times rate and r, added to the
            membrane one by one, where a matrix leads to LIF neurons alone).
        bias_first: sums start from the bias.
        dtype: of the arithmetic.
        flush: results below the smallest normal number become 0.
    """

    sum: Sum
    form: str = "euler"
    bias_first: bool = True
    dtype: Any = np.float32
    flush: bool = False

    def flushed(self, values: Array) -> Array:
        if not self.flush:
            return values
        return np.where(np.abs(values) < np.finfo(self.dtype).tiny, self.dtype(0), values)

    def run(self, deployment: Deployment, inputs: FloatArray) -> Trace:
        known = plan(deployment.graph)
        nodes = deployment.graph.nodes
        laws = {
            name: self.law(x, deployment, known.input_shapes[name]) for name, x in nodes.items()
        }
        if self.form == "events":
            for name, node in nodes.items():
                before = known.incoming[name]
                source = before[0].source if len(before) == 1 else name
                users = [n for n in nodes for e in known.incoming[n] if e.source == source]
                matrix = isinstance(nodes[source], (nir.Affine, nir.Linear))
                if isinstance(node, nir.LIF) and matrix and users == [name]:
                    laws[source] = Law(lambda x, state: Emission(x))
                    laws[name] = self._events(node, nodes[source], deployment)
        backend = Backend(lambda shape: np.zeros(shape, self.dtype), np.asarray)
        return run("engine", deployment, known, laws, inputs.astype(self.dtype), backend)

    def law(self, node: Any, deployment: Deployment, shape: tuple[int, ...]) -> Law:
        if isinstance(node, (nir.Affine, nir.Linear)):
            return self._matrix(node)
        if isinstance(node, nir.Conv2d):
            return self._conv2d(node)
        if type(node) in (nir.LIF, nir.IF, nir.CubaLIF, nir.LI, nir.CubaLI, nir.I):
            return self._neuron(node, deployment)
        return primitive_of(node).law(node, deployment.timing, shape, self.dtype)

    def _product(self, weight: Array, bias: Array, x: Array) -> Array:
        start = np.broadcast_to(bias, (len(x), len(weight)))
        if self.bias_first:
            return self.flushed(self.sum(weight, x, start))
        return self.flushed(self.sum(weight, x, np.zeros_like(start)) + start)

    def _matrix(self, node: Any) -> Law:
        weight = np.asarray(node.weight, self.dtype)
        bias = np.asarray(getattr(node, "bias", np.zeros(len(weight))), self.dtype)
        return Law(lambda x, state: Emission(self._product(weight, bias, x)))

    def _conv2d(self, node: nir.Conv2d) -> Law:
        assert int(node.groups) == 1
        weight, bias = (np.asarray(v, self.dtype) for v in (node.weight, node.bias))
        (top, _), (left, _) = conv_padding(node, 2)
        stride, dilation = pair(node, "stride", 1), pair(node, "dilation", 1)
        kernel = weight.shape[2:]

        def convolve(x: Array, state: Any) -> Emission:
            windows = torch.nn.functional.unfold(
                torch.from_numpy(np.ascontiguousarray(x)), kernel, dilation, (top, left), stride
            ).numpy()
            rows = windows.transpose(0, 2, 1).reshape(-1, windows.shape[1])
            found = self._product(weight.reshape(len(weight), -1), bias, rows)
            height = (x.shape[2] + 2 * top - dilation[0] * (kernel[0] - 1) - 1) // stride[0] + 1
            image = found.reshape(len(x), height, -1, len(weight))
            return Emission(np.moveaxis(image, -1, 1))

        return Law(convolve)

    def moved(self, state: Array, x: Array, tau: Any, r: Array, rest: Array, dt: float) -> Array:
        """A state one step later."""
        one = self.dtype(1)
        if tau is None:
            return self.flushed(state + r * x)
        rate = np.asarray(dt / np.asarray(tau, np.float64), self.dtype)
        if self.form in ("euler", "events"):
            return self.flushed(state + rate * ((rest - state) + r * x))
        if self.form == "decay":
            return self.flushed((one - rate) * state + (rate * rest + (rate * r) * x))
        if self.form == "division":
            steps = np.asarray(np.asarray(tau, np.float64) / dt, self.dtype)
            return self.flushed(state + ((r * x + rest) - state) / steps)
        keep = np.exp(np.log1p(-dt / np.asarray(tau, np.float64))) if np.all(rate < 1) else 1 - rate
        gain = self.dtype(dt) * np.asarray(1 / np.asarray(tau, np.float64), self.dtype)
        return self.flushed((gain * r * x + gain * rest) + np.asarray(keep, self.dtype) * state)

    def _events(self, node: nir.LIF, matrix: Any, deployment: Deployment) -> Law:
        timing = deployment.timing

        def of(value: Any) -> Array:
            return np.asarray(value, self.dtype)

        rate = of(timing.dt / np.asarray(node.tau, np.float64))
        pull, threshold, rest = rate * of(node.r), of(node.v_threshold), rate * of(node.v_leak)
        weight = pull[:, None] * of(matrix.weight)
        bias = pull * of(getattr(matrix, "bias", np.zeros(len(weight)))) + rest

        def step(x: Array, v: Array) -> Emission:
            v = self.flushed(self.sum(weight, x, (self.dtype(1) - rate) * v) + bias)
            spikes = v > threshold
            after = v - threshold if timing.reset == "subtract" else of(node.v_reset)
            return Emission(spikes.astype(self.dtype), np.where(spikes, after, v), membrane=v)

        return Law(step, lambda batch: np.broadcast_to(of(node.v_leak), (batch, len(weight))))

    def _neuron(self, node: Any, deployment: Deployment) -> Law:
        timing = deployment.timing
        dt = timing.dt

        def of(name: str, default: Any = 0.0) -> Array:
            return np.asarray(getattr(node, name, default), self.dtype)

        shape = np.shape(node.r)
        tau_mem = getattr(node, "tau_mem", getattr(node, "tau", None))
        r, rest = of("r"), of("v_leak", np.zeros(shape))
        cuba = hasattr(node, "tau_syn")
        spiking = hasattr(node, "v_threshold")
        zero = np.zeros(shape, self.dtype)

        def step(x: Array, state: tuple[Array, Array]) -> Emission:
            current, v = state
            if cuba:
                current = self.moved(current, x, node.tau_syn, of("w_in"), zero, dt)
            v = self.moved(v, current if cuba else x, tau_mem, r, rest, dt)
            if not spiking:
                return Emission(v, (current, v))
            threshold = of("v_threshold")
            spikes = v > threshold
            after = v - threshold if timing.reset == "subtract" else of("v_reset")
            return Emission(
                spikes.astype(self.dtype), (current, np.where(spikes, after, v)), membrane=v
            )

        def initial(batch: int) -> Any:
            return np.zeros((batch, *shape), self.dtype), np.broadcast_to(rest, (batch, *shape))

        return Law(step, initial)


ENGINES = {
    "forward": Engine(forward),
    "bias last": Engine(forward, bias_first=False),
    "shuffled": Engine(shuffled, "decay"),
    "pairwise": Engine(pairwise, "division"),
    "blocked": Engine(blocked, "folded", bias_first=False),
    "fused": Engine(fused, "decay"),
    "wide": Engine(wide),
    "events": Engine(shuffled, "events"),
    "signs": Engine(signs, "division", flush=True),
    "float64": Engine(wide, dtype=np.float64),
}
"""Of float32, and one of float64, which is better than each of them."""
