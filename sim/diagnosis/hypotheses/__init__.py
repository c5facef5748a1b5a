"""Hypotheses of what a faulty layer does: one function each, found by themselves.

A hypothesis takes a layer as it should be and yields it changed; the change under which nothing
differs any more is named. To add one, decorate a function (setting) -> iterator of variants with
`hypothesis` in a module of this package.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np

from msg_deploy.deployment import Deployment
from msg_deploy.sim.diagnosis.evidence import Evidence
from msg_deploy.sim.diagnosis.segments import Segment
from msg_deploy.sim.simulator import FloatArray

SAME = 1e-6
"""Relative difference of factors that are told as one."""
Values = Mapping[str, FloatArray]
"""What a segment receives, by border, (T, B, *shape)."""


@dataclass(frozen=True)
class Setting:
    """What a hypothesis starts from.

    Attributes:
        segment: the layer as it should be.
        model: the whole graph that it is from.
        other: the same layer in the faulty side's graph, if it has one.
        evidence: what the faulty side receives and gives.
    """

    segment: Segment
    model: Deployment
    other: Segment | None
    evidence: Evidence

    def nodes(self, *kinds: type[nir.NIRNode]) -> Iterator[tuple[str, Any]]:
        """Nodes of some types by name, those next to the layer first."""
        for name, node in reversed(self.segment.nodes.items()):
            if isinstance(node, kinds):
                yield name, node

    def theirs(self, name: str, field: str) -> Any:
        """A parameter in the faulty side's graph, where it fits but differs; else None."""
        node = self.segment.deployment.graph.nodes[name]
        other = self.other and self.other.deployment.graph.nodes.get(name)
        if type(other) is not type(node):
            return None
        own, value = (np.asarray(getattr(x, field)) for x in (node, other))
        alike = own.shape != value.shape or np.array_equal(own, value)
        return None if alike else value


@dataclass(frozen=True)
class Variant:
    """A layer under a hypothesis.

    Attributes:
        node: what was changed.
        sentence: what the faulty side does then.
        segment: the changed layer.
        receive: applied to what it receives.
        lead: the layer gives at each step what it should give so many steps later.
    """

    node: str
    sentence: str
    segment: Segment
    receive: Callable[[Values], Values] = lambda values: values
    lead: int = 0


@dataclass(frozen=True)
class Family:
    """Variants by a factor that is to be found.

    Attributes:
        at: factor -> variant.
        factors: tried first; then between those on both sides of the best one.
    """

    at: Callable[[float], Variant]
    factors: tuple[float, ...]


Change = Variant | Family
Function = Callable[[Setting], Iterator[Change]]


@dataclass(frozen=True)
class Hypothesis:
    """One kind of mistake.

    Attributes:
        name: as causes call it.
        sentence: for people, from the function's docstring.
        cost: how much must be wrong for it; of what explains the same, the cheapest comes first.
        changes: the variants of a layer, the likeliest first.
    """

    name: str
    sentence: str
    cost: int
    changes: Function


_REGISTRY: dict[str, Hypothesis] = {}


def hypothesis(cost: int) -> Callable[[Function], Function]:
    """Decorator: test a function's variants; its name becomes the cause's.

    Args:
        cost: 1: another choice of the same law; 2: a number, or what is left out; 3: another
            structure; 4: fitted to the evidence, or taken from the faulty side's own graph.
    """

    def add(function: Function) -> Function:
        name = function.__name__.replace("_", "-")
        sentence = (function.__doc__ or "").strip().splitlines()[0]
        _REGISTRY[name] = Hypothesis(name, sentence, cost, function)
        return function

    return add


@functools.cache
def hypotheses() -> tuple[Hypothesis, ...]:
    """All of them, the simplest first, then by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return tuple(sorted(_REGISTRY.values(), key=lambda h: (h.cost, h.name)))


def changed(segment: Segment, name: str, **fields: Any) -> Segment:
    """A segment with other parameters of one node."""
    node = segment.deployment.graph.nodes[name]
    # torch takes no array that runs backwards.
    arrays = {f: x.copy() if isinstance(x, np.ndarray) else x for f, x in fields.items()}
    return segment.with_nodes({name: replace(node, **arrays)})


def number(value: Any) -> str:
    """An array for people: its value if it has one, else its range."""
    array = np.asarray(value, np.float64)
    if array.size and np.all(array == array.flat[0]):
        return f"{array.flat[0]:.6g}"
    return f"{array.min():.6g} to {array.max():.6g}"


def factor(own: Any, theirs: Any) -> float | None:
    """By what one array is multiplied to give another; None if not by one number."""
    x, y = np.asarray(own, np.float64), np.asarray(theirs, np.float64)
    with np.errstate(all="ignore"):
        factors = y / x
    if not factors.size or not np.all(np.isfinite(factors)):
        return None
    by = float(factors.flat[0])
    return by if np.ptp(factors) <= SAME * abs(by) else None


def ratio(own: Any, theirs: Any) -> str:
    """How one array compares to another: "2 times", if by one factor, or else its numbers."""
    by = factor(own, theirs)
    return f"{number(theirs)}, not {number(own)}" if by is None else f"{by:.6g} times {number(own)}"
