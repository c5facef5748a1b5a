"""Inputs that bring a threshold decision to the edge: where rounding can change what happens.

Two inputs on which a decision differs are joined by a line; halving it again and again leaves two
inputs next to each other in float32, between which some decision turns: the chosen one, or an
earlier one that it depends on. Its margin is then about as small as the inputs allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from msg_deploy.deployment import Deployment, InputSpec, Shape
from msg_deploy.networks import encode
from msg_deploy.options import Precision
from msg_deploy.sim.certificate import certify
from msg_deploy.sim.fast import Fast
from msg_deploy.sim.simulator import FloatArray

HALVINGS = 40
"""More than the bits of a float32, whose neighbours cannot be told apart any further."""
BATCH = 64
Spikes = Mapping[str, npt.NDArray[np.uint8]]


@dataclass(frozen=True)
class Target:
    """A decision of one sample.

    Attributes:
        node: its layer.
        place: step, then the neuron's index.
    """

    node: str
    place: tuple[int, ...]

    def of(self, spikes: Spikes, sample: int) -> bool:
        """Whether it is a spike."""
        step, *neuron = self.place
        return bool(spikes[self.node][(step, sample, *neuron)])


def search(
    deployment: Deployment, count: int, precision: Precision = "float32", seed: int = 0
) -> FloatArray:
    """Samples within the declared input range on which a decision is as close as can be.

    Args:
        deployment: to attack.
        count: number of samples.
        precision: of the engines that shall be brought to differ.
        seed: of everything random.

    Returns:
        Samples, float32 (count, *shape), or (count, T, *shape) with encoding "frames".

    Raises:
        GraphError: the graph is not valid.
    """
    random = np.random.default_rng(seed)
    sizes = [min(BATCH, count - first) for first in range(0, count, BATCH)]
    found = [_batch(deployment, size, precision, random) for size in sizes]
    return np.concatenate([_draw(deployment, 0, random), *found])


def _batch(
    deployment: Deployment, count: int, precision: Precision, random: np.random.Generator
) -> FloatArray:
    ends = _draw(deployment, count, random), _draw(deployment, count, random)
    low, high = _halved(deployment, *ends, random)
    nearness = np.stack([_nearness(deployment, side, precision) for side in (low, high)])
    nearer = nearness[0] <= nearness[1]
    return np.where(nearer.reshape(-1, *[1] * (low.ndim - 1)), low, high)


def _draw(deployment: Deployment, count: int, random: np.random.Generator) -> FloatArray:
    """Random samples of several kinds: uniform, at the ends of the range, mostly at the low end."""
    spec, shape = deployment.input, (count, *_sample_shape(deployment))
    uniform = random.uniform(spec.low, spec.high, shape)
    ends = np.where(random.random(shape) < 0.5, spec.low, spec.high)
    sparse = np.where(random.random(shape) < 0.8, spec.low, uniform)
    kind = random.integers(0, 3, count).reshape(-1, *[1] * (len(shape) - 1))
    mixed = np.where(kind == 0, uniform, np.where(kind == 1, ends, sparse))
    return _within(mixed.astype(np.float32), spec)


def _sample_shape(deployment: Deployment) -> Shape:
    spec = deployment.input
    return spec.shape if spec.encoding == "direct" else (deployment.timing.steps, *spec.shape)


def _within(samples: FloatArray, spec: InputSpec) -> FloatArray:
    """Rounding to float32 must not leave the range."""
    low, high = np.float32(spec.low), np.float32(spec.high)
    low = np.nextafter(low, np.float32(np.inf)) if low < spec.low else low
    high = np.nextafter(high, np.float32(-np.inf)) if high > spec.high else high
    return samples.clip(low, max(low, high))


def _inputs(deployment: Deployment, samples: FloatArray) -> FloatArray:
    encoded = encode(torch.from_numpy(samples), deployment.input, deployment.timing.steps)
    return np.asarray(encoded.numpy())


def _spikes(deployment: Deployment, samples: FloatArray) -> Spikes:
    return Fast().run(deployment, _inputs(deployment, samples), "float64").spikes


def _halved(
    deployment: Deployment, a: FloatArray, b: FloatArray, random: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Inputs between a and b, next to each other, that decide some decision differently."""
    before, after = _spikes(deployment, a), _spikes(deployment, b)
    targets = [_target(before, after, sample, random) for sample in range(len(a))]
    for _ in range(HALVINGS):
        middle = a + (b - a) / 2
        if all(np.array_equal(middle, end) for end in (a, b)):
            break
        now = _spikes(deployment, middle)
        same = np.array([_same(t, now, before, i) for i, t in enumerate(targets)])
        same = same.reshape(-1, *[1] * (a.ndim - 1))
        a, b = np.where(same, middle, a), np.where(same, b, middle)
    return a, b


def _same(target: Target | None, now: Spikes, before: Spikes, sample: int) -> bool:
    return target is None or target.of(now, sample) == target.of(before, sample)


def _target(a: Spikes, b: Spikes, sample: int, random: np.random.Generator) -> Target | None:
    """A decision that differs, in any layer with the same chance; None if all are the same."""
    places: dict[str, npt.NDArray[Any]] = {
        name: np.argwhere(a[name][:, sample] != b[name][:, sample]) for name in a
    }
    layers = [name for name, found in places.items() if len(found)]
    if not layers:
        return None
    name = layers[random.integers(len(layers))]
    place = places[name][random.integers(len(places[name]))]
    return Target(name, tuple(int(i) for i in place))


def _nearness(deployment: Deployment, samples: FloatArray, precision: Precision) -> FloatArray:
    """The smallest margin of each sample, as a share of its bound, (B,)."""
    certificate = certify(deployment, _inputs(deployment, samples), precision)
    nearest = np.full(len(samples), np.inf)
    for name, margins in certificate.margins.items():
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.abs(margins) / certificate.bounds[name]
        shares = np.where(certificate.bounds[name] == 0, np.inf, shares)
        each = np.moveaxis(shares, 1, 0).reshape(len(samples), -1)
        nearest = np.minimum(nearest, each.min(axis=1, initial=np.inf))
    return nearest
