"""What one NIR node computes in one step, in ONNX; the same in every layout.

Found by the node's type: to support another primitive, add a function decorated with `writes` to a
module of this package.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import nir
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from msg_deploy.deployment import Shape, Timing
from msg_deploy.errors import GraphError
from msg_deploy.exporters.onnx.builder import Builder

Values = tuple[ir.Value, ...]


@dataclass(frozen=True)
class Place:
    """Where a node stands.

    Attributes:
        name: of the node.
        timing: of the deployment.
        shape: of the node's input, without batch.
        output_shape: of its output.
        bound: the arriving values are integers from 0 to this, and products shall be computed in
            8-bit integers; None if they are not, or shall not.
    """

    name: str
    timing: Timing
    shape: Shape
    output_shape: Shape
    bound: int | None = None


@dataclass(frozen=True, eq=False)
class State:
    """What a node carries from step to step.

    Attributes:
        name: after that of the node, such as "membrane".
        shape: without batch.
        start: value before the first step, of that shape.
    """

    name: str
    shape: Shape
    start: npt.NDArray[Any]


Step = Callable[[Builder, ir.Value, Values, str], tuple[ir.Value, Values]]
"""(builder, input (B, *shape), states, name for the output) -> output and new states."""


@dataclass(frozen=True)
class Cell:
    """The law of one node.

    Attributes:
        step: one step. Without states it maps any number of samples, so also (T*B, *shape).
        states: in the order in which `step` takes and gives them.
        drive: what is done to the input without looking at states; it can be done for all steps
            at once.
    """

    step: Step
    states: tuple[State, ...] = ()
    drive: Callable[[Builder, ir.Value], ir.Value] = lambda build, x: x


Writer = Callable[[Any, Place], Cell]
WriterType = TypeVar("WriterType", bound=Writer)
_REGISTRY: dict[type[nir.NIRNode], Writer] = {}


def writes(*kinds: type[nir.NIRNode]) -> Callable[[WriterType], WriterType]:
    """Decorator: the function makes the cell of nodes of these types."""

    def add(writer: WriterType) -> WriterType:
        _REGISTRY.update(dict.fromkeys(kinds, writer))
        return writer

    return add


def stateless(function: Callable[[Builder, ir.Value, str], ir.Value]) -> Cell:
    """The cell of a node that maps each step on its own: (builder, input, name) -> output."""
    return Cell(lambda build, x, states, name: (function(build, x, name), ()))


@functools.cache
def writers() -> dict[type[nir.NIRNode], Writer]:
    """All writers by nir class."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return _REGISTRY


def cell_of(node: nir.NIRNode, place: Place) -> Cell:
    """The cell of a node.

    Raises:
        GraphError: its type has no writer.
    """
    known = writers()
    if type(node) not in known:
        names = ", ".join(sorted(kind.__name__ for kind in known))
        raise GraphError(
            f"node {place.name!r}: {type(node).__name__} is not written to ONNX; {names} are."
        )
    return known[type(node)](node, place)


def zeros(name: str, shape: Shape) -> State:
    """A state that starts at 0."""
    return State(name, shape, np.zeros(shape))
