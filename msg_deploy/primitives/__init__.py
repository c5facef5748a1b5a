"""NIR primitives: one module each, found by themselves.

A primitive states the shape it produces and its discrete-time law, exactly as executed. The
reference simulator runs these laws; every other engine is tested against them. To add one, write
a module in this package with a class decorated by `register`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Shape, Timing
from msg_deploy.errors import GraphError

Array = npt.NDArray[Any]


class Emission(NamedTuple):
    """What a node gives at one step.

    Attributes:
        output: (B, *shape).
        state: to hand in at the next step.
        membrane: the membrane at the threshold decision, before reset; None without a threshold.
    """

    output: Any
    state: Any = None
    membrane: Any = None


@dataclass(frozen=True)
class Law:
    """The discrete-time law of one node.

    Attributes:
        step: (input (B, *shape), state) -> Emission.
        initial: batch size -> state before the first step.
    """

    step: Callable[[Any, Any], Emission]
    initial: Callable[[int], Any] = lambda batch: None


class Primitive(ABC):
    """One type of NIR node.

    Attributes:
        node_type: the nir class.
        stateful: the node carries state from step to step; every cycle must pass such a node.
        spiking: the output is a threshold decision.
        weighted: the output is a sum of products with `weight`: a matrix or a convolution.
    """

    node_type: ClassVar[type[Any]]
    stateful: ClassVar[bool] = False
    spiking: ClassVar[bool] = False
    weighted: ClassVar[bool] = False

    @abstractmethod
    def output_shape(self, node: Any, input_shape: Shape) -> Shape:
        """Shape without batch of the output for an input of `input_shape`.

        Raises:
            GraphError: the node's parameters are not acceptable or do not fit that input.
        """

    @abstractmethod
    def law(self, node: Any, timing: Timing, shape: Shape, dtype: npt.DTypeLike) -> Law:
        """The law in numpy, for input of `shape`, computed in `dtype`."""


class Elementwise(Primitive):
    """A node whose parameters and output have the shape of its input.

    Attributes:
        per_neuron: names of the parameters.
        above_zero: those that must be above 0, such as time constants.
    """

    per_neuron: ClassVar[tuple[str, ...]]
    above_zero: ClassVar[tuple[str, ...]] = ()

    def output_shape(self, node: Any, input_shape: Shape) -> Shape:
        """Unchanged."""
        for name in self.per_neuron:
            found = np.shape(getattr(node, name))
            if found != input_shape:
                raise GraphError(
                    f"{name} has shape {found}, but the node's input has {input_shape}."
                )
        for name in self.above_zero:
            if np.any(np.asarray(getattr(node, name)) <= 0):
                raise GraphError(f"{name} must be above 0 everywhere.")
        return input_shape


PrimitiveType = TypeVar("PrimitiveType", bound=type[Primitive])
_REGISTRY: dict[type[Any], Primitive] = {}


def register(primitive: PrimitiveType) -> PrimitiveType:
    """Class decorator: make a primitive known by its node type."""
    _REGISTRY[primitive.node_type] = primitive()
    return primitive


@functools.cache
def registry() -> dict[type[Any], Primitive]:
    """All primitives by nir class."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return _REGISTRY


def primitive_of(node: nir.NIRNode) -> Primitive:
    """The primitive of a node.

    Raises:
        GraphError: the type is not known.
    """
    known = registry()
    if type(node) not in known:
        names = ", ".join(sorted(t.__name__ for t in known))
        raise GraphError(
            f"the primitive {type(node).__name__} is not supported; supported are {names}."
        )
    return known[type(node)]


def stateless(function: Callable[[Array], Array]) -> Law:
    """The law of a node that maps each step on its own."""
    return Law(lambda x, state: Emission(function(x)))


def rank(input_shape: Shape, expected: int, layout: str) -> None:
    """Check the number of dimensions of the input."""
    if len(input_shape) != expected:
        raise GraphError(f"expects input {layout}, not shape {input_shape}.")


def integers(node: Any, name: str, minimum: int, count: int) -> tuple[int, ...]:
    """A field that is one integer for all axes or one for each, as one for each."""
    value = np.asarray(getattr(node, name))
    if value.size not in (1, count) or value.dtype.kind not in "iu" or np.any(value < minimum):
        numbers = "one integer" if count == 1 else f"one or {count} integers"
        raise GraphError(f"{name} must be {numbers} of at least {minimum}, not {value}.")
    return tuple(int(n) for n in np.broadcast_to(value.ravel(), (count,)))


def pair(node: Any, name: str, minimum: int) -> tuple[int, int]:
    """A field that is an integer or a pair of integers (height, width), as a pair."""
    height, width = integers(node, name, minimum, 2)
    return height, width
