"""A neuron that feeds back into itself through one matrix: all steps in one compiled loop.

What comes back at a step is the sum of the columns of the neurons that fired at the step before, so
it is added column by column. Larger layers, and other cycles, run step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import numpy.typing as npt
from numba import prange

from msg_deploy.graph import Incoming, Plan
from msg_deploy.sim.fast.kernels import kernel
from msg_deploy.sim.fast.memory import Array
from msg_deploy.sim.fast.stateful import Neuron

LARGEST = 512
"""Neurons up to which columns win over matrix products."""
KINDS = (nir.LIF, nir.IF, nir.CubaLIF)
LIF, IF = 0, 1


@dataclass(frozen=True)
class Loop:
    """The two nodes of such a cycle.

    Attributes:
        neuron: name of the neuron.
        matrix: name of the matrix behind it, whose edge to the neuron closes the cycle.
        columns: (N, N), of each neuron what it adds to the others.
        bias: (N,).
    """

    neuron: str
    matrix: str
    columns: Array
    bias: Array


def loop_of(
    nodes: Sequence[str], graph: nir.NIRGraph, known: Plan, dtype: npt.DTypeLike
) -> Loop | None:
    """The loop that these nodes of a cycle are, or None."""
    if len(nodes) != 2:
        return None
    neuron, matrix = nodes
    fits = (
        isinstance(graph.nodes[neuron], KINDS)
        and isinstance(graph.nodes[matrix], (nir.Affine, nir.Linear))
        and known.incoming[matrix] == (Incoming(neuron, False),)
        and [e for e in known.incoming[neuron] if e.previous] == [Incoming(matrix, True)]
        and [b for a, b in graph.edges if a == matrix] == [neuron]
        and len(known.shapes[neuron]) == 1
        and known.shapes[neuron][0] <= LARGEST
    )
    if not fits:
        return None
    weights: Any = graph.nodes[matrix]
    columns = np.ascontiguousarray(np.asarray(weights.weight, dtype).T)
    bias = np.asarray(getattr(weights, "bias", np.zeros(len(columns))), dtype)
    return Loop(neuron, matrix, columns, bias)


@kernel
def run_loop(  # type: ignore[no-untyped-def]
    kind, x, current, v, fade, gain_in, leak, gain, rest, limit, after, subtract, columns, bias,
    before, begun, emitted, membranes,
):  # fmt: skip
    """The laws of `kernels`, on x plus what comes back.

    Columns (N, N): of neuron i, what it adds to each; before (B, N): spikes of the step before,
    moved on; begun: there was a step before.
    """
    steps, batch, count = emitted.shape
    for b in prange(batch):
        sums, u = np.empty_like(bias), np.empty_like(bias)
        for t in range(steps):
            arriving = x[t if len(x) > 1 else 0, b]
            for j in range(count):
                sums[j] = arriving[j] + bias[j] if begun or t > 0 else arriving[j]
            for i in range(count):
                if (begun or t > 0) and before[b, i] != 0:
                    for j in range(count):
                        sums[j] += columns[i, j]
            if kind == LIF:
                for j in range(count):
                    u[j] = v[b, j] + leak[j] * ((rest[j] - v[b, j]) + gain[j] * sums[j])
            elif kind == IF:
                for j in range(count):
                    u[j] = v[b, j] + gain[j] * sums[j]
            else:
                for j in range(count):
                    c = current[b, j] + fade[j] * (-current[b, j] + gain_in[j] * sums[j])
                    current[b, j] = c
                    u[j] = v[b, j] + leak[j] * ((rest[j] - v[b, j]) + gain[j] * c)
            for j in range(count):
                fired = u[j] > limit[j]
                spike = 1 if fired else 0
                emitted[t, b, j] = spike
                before[b, j] = spike
                left = u[j] - limit[j] if subtract else after[j]
                v[b, j] = left if fired else u[j]
            if len(membranes):
                membranes[t, b] = u


def arguments(node: Any, neuron: Neuron, state: tuple[Array, ...], x: Array) -> tuple[Any, ...]:
    """The first arguments of `run_loop`: kind, input, states and parameters; unused ones empty."""
    none, no_state = np.empty(0, x.dtype), np.empty((0, 0), x.dtype)
    if isinstance(node, nir.LIF):
        leak, gain, rest, limit, after = neuron.parameters
        return (LIF, x, no_state, *state, none, none, leak, gain, rest, limit, after)
    if isinstance(node, nir.IF):
        gain, limit, after = neuron.parameters
        return (IF, x, no_state, *state, none, none, none, gain, none, limit, after)
    fade, gain_in, leak, gain, rest, limit, after = neuron.parameters
    return (2, x, *state, fade, gain_in, leak, gain, rest, limit, after)
