"""Weights by their source: where each event is added on its own, in the order of the sources."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Shape, Timing
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.integer.network import Node, Transform, size

AT_ONCE = 256
"""Sources that are looked at together."""

Array = npt.NDArray[np.int64]


class Columns(NamedTuple):
    """What the events of each source do.

    Attributes:
        first: (J + 1,); source j has the entries first[j] to first[j + 1].
        targets: number of a neuron, for each entry.
        weights: what it adds, 0 included.
        synapse: (J,) which current takes it up.
    """

    first: Array
    targets: Array
    weights: Array
    synapse: Array


def columns(node: Node, shape: Shape, synapse: int, shift: int) -> Columns:
    """Of one edge.

    Args:
        node: where it comes from: a product, or anything else, whose events count 1.
        shape: of the events, without batch.
        synapse: which current takes them up.
        shift: the weights are multiplied by 2^shift.
    """
    count = size(shape)
    if isinstance(node, Transform) and primitive_of(node.node).weighted:
        parts, shifts = _product(node.node, shape), (shift, node.shift)
    else:
        parts, shifts = [(np.array([i]), np.array([1])) for i in range(count)], (shift, 0)
    empty = np.zeros(0, np.int64)
    weights = np.concatenate([empty, *(weights for _, weights in parts)])
    return Columns(
        np.cumsum([0, *(len(targets) for targets, _ in parts)], dtype=np.int64),
        np.concatenate([empty, *(targets for targets, _ in parts)]),
        weights << shifts[0] << shifts[1],
        np.full(count, synapse, np.int64),
    )


def _product(node: Any, shape: Shape) -> list[tuple[Array, Array]]:
    """The neurons that each source reaches, and its weights: by a product of unit vectors.

    What a source reaches is told by a product of ones, since a weight may be 0.
    """
    bias = {"bias": np.zeros_like(node.bias)} if hasattr(node, "bias") else {}
    ones = replace(node, weight=np.ones_like(node.weight), **bias)
    primitive = primitive_of(node)
    laws = [primitive.law(n, Timing(), shape, np.int64) for n in (replace(node, **bias), ones)]
    count, found = size(shape), []
    for begin in range(0, count, AT_ONCE):
        sources = range(begin, min(begin + AT_ONCE, count))
        unit = np.zeros((len(sources), count), np.int64)
        unit[np.arange(len(sources)), sources] = 1
        given, reached = (
            law.step(unit.reshape(-1, *shape), None).output.reshape(len(sources), -1)
            for law in laws
        )
        for row, weights in zip(reached, given, strict=True):
            targets = np.flatnonzero(row).astype(np.int64)
            found.append((targets, weights[targets]))
    return found


def joined(parts: list[Columns]) -> Columns:
    """Sources of several edges, one after the other."""
    ends = np.cumsum([0, *(part.first[-1] for part in parts)])
    starts = [part.first[:-1] + end for part, end in zip(parts, ends, strict=False)]
    return Columns(
        np.concatenate([*starts, ends[-1:]]).astype(np.int64),
        np.concatenate([part.targets for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.synapse for part in parts]),
    )


NOTHING = Columns(*(np.zeros(1, np.int64), *(np.zeros(0, np.int64) for _ in range(3))))
"""Of neurons whose input is summed."""
