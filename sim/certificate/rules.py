"""How far any engine's values may be from the exact ones, through nodes without state and Delay.

A rule takes the exact input and its deviation and gives the deviation of the output. To support
another primitive, add a function decorated with `rule`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import nir
import numpy as np
import torch
from torch import Tensor

from msg_deploy.deployment import Shape, Timing
from msg_deploy.grid import dyadic
from msg_deploy.primitives import pair
from msg_deploy.sim.certificate.arithmetic import LEAST, PARAMETER, PRODUCT, Arithmetic
from msg_deploy.sim.fast.packed import dense
from msg_deploy.sim.torch_layers import LAYERS, Context, Layer

FLOAT32_UNIT = 2.0**-24
SLIGHT = 2.0**-20
"""Relative error of a few operations in float32, upward."""


@dataclass(frozen=True)
class Deviation:
    """What engines may have in place of the exact values of a node, at some steps.

    Attributes:
        error: bound of |engine's value - exact value|, float32 (steps or 1, B, *shape); None: 0.
        step: powers of two, float64 (steps or 1, B); a sample's values without error are integer
            multiples of its own. 0: not known.
        reach: bound of the sum of the magnitudes of all summands, float32 (steps or 1, B).
        terms: most summands that are not 0, float32 (steps or 1, B).
        open: the error where a sum does not end here, but goes on with what other edges bring or
            with a membrane: sums that are exact for themselves need not be then. None: as `error`.
    """

    error: Tensor | None
    step: Tensor
    reach: Tensor
    terms: Tensor
    open: Tensor | None = None

    @property
    def going_on(self) -> Tensor | None:
        """The error where the sum goes on; None: 0."""
        return self.error if self.open is None else self.open

    @property
    def exact(self) -> Tensor:
        """Whether a sample has no error at a step, (steps or 1, B)."""
        if self.error is None:
            return torch.ones_like(self.terms, dtype=torch.bool)
        return self.error.flatten(2).amax(2) == 0

    def part(self, steps: slice) -> Deviation:
        """At some of the steps."""

        def cut(values: Tensor) -> Tensor:
            return values[steps] if len(values) > 1 else values

        error, opened = (None if e is None else cut(e) for e in (self.error, self.open))
        return Deviation(error, cut(self.step), cut(self.reach), cut(self.terms), opened)


@dataclass(frozen=True)
class Place:
    """What a rule needs to know beside the node.

    Attributes:
        timing: of the deployment.
        shape: of the node's input, without batch.
        arithmetic: of the engines.
        beside: most summands of other edges into the nodes behind, which may be summed together.
    """

    timing: Timing
    shape: Shape
    arithmetic: Arithmetic
    beside: int = 0

    def layer(self, node: nir.NIRNode, **fields: Any) -> Layer:
        """A layer in float32 with other parameters."""
        changed = replace(node, **fields)
        return dense(changed, Context(self.timing, self.shape, torch.float32))


Rule = Callable[[Tensor, Deviation, Tensor], Deviation]
"""(exact input (steps or 1, B, *shape), its deviation, exact output) -> deviation of the output."""
Maker = Callable[[Any, Place], Rule]
MakerType = TypeVar("MakerType", bound=Maker)
RULES: dict[type[nir.NIRNode], Maker] = {}


def rule(*kinds: type[nir.NIRNode]) -> Callable[[MakerType], MakerType]:
    """Decorator: the function makes the rule of nodes of these types."""

    def add(maker: MakerType) -> MakerType:
        RULES.update(dict.fromkeys(kinds, maker))
        return maker

    return add


def broadcast(each: Tensor, like: Tensor) -> Tensor:
    """(steps or 1, B) with as many dimensions as `like`."""
    return each.view(*each.shape, *[1] * (like.ndim - 2))


def most(values: Tensor) -> Tensor:
    """The largest of each sample at each step, (steps or 1, B)."""
    return values.flatten(2).amax(2)


def over(layer: Layer, values: Tensor) -> Tensor:
    """A layer on (steps or 1, B, *shape)."""
    merged = values.flatten(0, 1)
    if values.ndim == 5:
        # oneDNN likes channels last.
        merged = merged.contiguous(memory_format=torch.channels_last)
    return layer(merged).unflatten(0, values.shape[:2])


def settled(
    error: Tensor, exact: Tensor | None, step: Tensor, reach: Tensor, terms: Tensor
) -> Deviation:
    """A deviation whose error is 0 where the sum is exact, unless it goes on."""
    if exact is None or not bool(exact.any()):
        return Deviation(error if bool(error.any()) else None, step, reach, terms)
    closed = error.masked_fill(exact, 0)
    return Deviation(closed if bool(closed.any()) else None, step, reach, terms, error)


def without_overflow(
    error: Tensor, magnitudes: Tensor, reach: Tensor, arithmetic: Arithmetic
) -> None:
    """No bound where an engine may overflow; in place."""
    if not bool((reach <= arithmetic.largest).all()):
        error.masked_fill_(~(magnitudes <= arithmetic.largest), torch.inf)


@rule(nir.Output, nir.Flatten)
def _moved(node: nir.NIRNode, place: Place) -> Rule:
    layer = LAYERS[type(node)](node, Context(place.timing, place.shape, torch.float32))

    def follow(x: Tensor, d: Deviation, y: Tensor) -> Deviation:
        error, opened = (None if e is None else over(layer, e) for e in (d.error, d.open))
        return replace(d, error=error, open=opened)

    return follow


@rule(nir.Affine, nir.Linear, nir.Conv1d, nir.Conv2d)
def _weighted(node: Any, place: Place) -> Rule:
    """Sums of products: each addition errs by u of a partial sum, each product by gamma.

    A partial sum is at most the sum of all positive terms, or of all negative ones: half of the sum
    of magnitudes and of the magnitude of the sum.
    """
    arithmetic, weight = place.arithmetic, np.abs(np.asarray(node.weight, np.float64))
    bias = np.abs(np.asarray(getattr(node, "bias", 0.0), np.float64))
    biased = hasattr(node, "bias")
    fan_in = math.prod(weight.shape[1:])
    magnitudes = place.layer(node, weight=weight, **({"bias": bias} if biased else {}))
    unbiased = place.layer(node, weight=weight, **({"bias": np.zeros_like(bias)} if biased else {}))
    active = _active(node, place)
    grid, heaviest = dyadic(weight), float(weight.max(initial=0.0))
    bias_grid, highest = dyadic(bias), float(bias.max(initial=0.0))
    product = arithmetic.gamma(PRODUCT)
    # The magnitudes are themselves summed in float32.
    upward = 1 + 2 * (fan_in + 4) * FLOAT32_UNIT
    able = heaviest <= arithmetic.exactly(grid) and highest <= arithmetic.exactly(bias_grid)

    def follow(x: Tensor, d: Deviation, y: Tensor) -> Deviation:
        x = x.abs().to(torch.float32)
        sums = over(magnitudes, x).mul_(upward)
        terms = over(active, (x != 0).to(torch.float32)) + 1
        exact = broadcast(d.exact, sums)
        if d.error is not None:
            terms = torch.where(exact, terms, fan_in + 1)
        terms_together = terms + place.beside
        gamma = arithmetic.gamma(terms_together + PRODUCT)
        share = arithmetic.gamma(terms_together)
        partial = (y.abs().to(torch.float32) * (1 + SLIGHT)).add_(sums).mul_(0.5)
        # Each operation and each operand may be flushed to zero.
        least = LEAST * (fan_in + 1) * (1 + heaviest + float(x.max()))
        error = partial.mul_(share).add_((share * gamma + product) * sums).add_(least)
        if d.error is not None:
            error += (1 + gamma) * over(unbiased, d.error).mul_(upward)
        reach, step = most(sums), (grid * d.step).clamp(max=bias_grid)
        without_overflow(error, sums, reach, arithmetic)
        fits = exact & (sums <= broadcast(arithmetic.exactly(step), sums)) if able else None
        return settled(error, fits, step, reach, most(terms))

    return follow


def _active(node: Any, place: Place) -> Layer:
    """How many inputs that are not 0 each output sums, as far as that is quickly counted."""
    if isinstance(node, (nir.Affine, nir.Linear)):
        return lambda x: x.sum(-1, keepdim=True)
    groups, outputs = int(node.groups), node.weight.shape[0]
    ones = np.ones((groups, 1, *node.weight.shape[2:]))
    count = place.layer(node, weight=ones, bias=np.zeros(groups))

    def counted(x: Tensor) -> Tensor:
        found = count(x.unflatten(1, (groups, -1)).sum(2))
        return found if groups == 1 else found.repeat_interleave(outputs // groups, dim=1)

    return counted


@rule(nir.Scale)
def _scale(node: nir.Scale, place: Place) -> Rule:
    arithmetic, scale = place.arithmetic, np.abs(np.asarray(node.scale, np.float64))
    factor = torch.as_tensor(scale, dtype=torch.float32)
    grid, largest = dyadic(scale), float(scale.max(initial=0.0))
    able = largest <= arithmetic.exactly(grid)
    gamma = arithmetic.gamma(PARAMETER)

    def follow(x: Tensor, d: Deviation, y: Tensor) -> Deviation:
        x = x.abs().to(torch.float32)
        known, opened = (torch.zeros_like(x) if e is None else e for e in (d.error, d.going_on))
        values = factor * x
        error = factor * opened * (1 + gamma) + gamma * values + LEAST * (1 + largest)
        reach, step = d.reach * largest * (1 + SLIGHT), grid * d.step
        without_overflow(error, values, reach, arithmetic)
        fits = broadcast(reach <= arithmetic.exactly(step), error) & (known == 0) if able else None
        return settled(error, fits, step, reach, d.terms)

    return follow


@rule(nir.SumPool2d, nir.AvgPool2d)
def _pool(node: Any, place: Place) -> Rule:
    arithmetic, area = place.arithmetic, math.prod(pair(node, "kernel_size", 1))
    layer = place.layer(node)
    divisor = area if isinstance(node, nir.AvgPool2d) else 1
    able = divisor & (divisor - 1) == 0
    gamma = arithmetic.gamma(area + place.beside + PRODUCT)
    upward = 1 + 2 * (area + 4) * FLOAT32_UNIT

    def follow(x: Tensor, d: Deviation, y: Tensor) -> Deviation:
        x = x.abs().to(torch.float32)
        sums = over(layer, x).mul_(upward)
        error = (gamma * sums).add_(LEAST * (area + 1))
        fits = torch.ones_like(sums, dtype=torch.bool)
        if d.error is not None:
            carried = over(layer, d.error).mul_(upward)
            fits = over(layer, (d.error > 0).to(torch.float32)) == 0
            error += (1 + gamma) * carried
        step, reach = d.step / divisor, d.reach * (area / divisor * (1 + SLIGHT))
        without_overflow(error, sums, reach, arithmetic)
        fits &= broadcast(reach <= arithmetic.exactly(step), error)
        return settled(error, fits if able else None, step, reach, d.terms * area)

    return follow
