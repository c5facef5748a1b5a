"""Several Input or Output nodes: simulators and samples see one array that holds them all.

With one Input, its array is (T, B, *shape). With several, each is flattened and they stand next to
each other in the order of their names: (T, B, N). Outputs likewise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Shape
from msg_deploy.errors import UsageError
from msg_deploy.graph import plan

Array = npt.NDArray[Any]


def columns(shapes: Mapping[str, Shape]) -> dict[str, slice]:
    """Where each terminal stands on the last axis of the joined array; one alone has all of it."""
    if len(shapes) == 1:
        return dict.fromkeys(shapes, slice(None))
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])
    return {
        name: slice(int(end) - math.prod(shape), int(end))
        for (name, shape), end in zip(shapes.items(), ends, strict=True)
    }


def split(joined: Any, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The array of each terminal, (..., *its shape), of any array library.

    Args:
        joined: (..., *shape of the only terminal) or (..., N).
        shapes: of the terminals, in the order of their names.
    """
    if len(shapes) == 1:
        return dict.fromkeys(shapes, joined)
    return {
        name: joined[..., part].reshape(*joined.shape[:-1], *shapes[name])
        for name, part in columns(shapes).items()
    }


def join(arrays: Sequence[Array], leading: int) -> Array:
    """The opposite of `split`.

    Args:
        arrays: one for each terminal, in the order of their names.
        leading: number of axes before the terminal's own, such as 2 for (T, B).
    """
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate([a.reshape(*a.shape[:leading], -1) for a in arrays], axis=-1)


def join_inputs(graph: nir.NIRGraph, inputs: Mapping[str, Array]) -> Array:
    """What simulators take, from one array (T, B, *shape) for each Input node.

    Raises:
        UsageError: a node is missing or unknown, or an array has another shape.
    """
    shapes = plan(graph).input_shapes
    return join([_fitting(name, inputs, shapes[name]) for name in _names(graph, inputs)], 2)


def _names(graph: nir.NIRGraph, inputs: Iterable[str]) -> tuple[str, ...]:
    known = plan(graph).inputs
    if set(inputs) != set(known):
        raise UsageError(
            f"arrays are given for {', '.join(sorted(inputs))}; the Input nodes are "
            f"{', '.join(known)}."
        )
    return known


def _fitting(name: str, inputs: Mapping[str, Array], shape: Shape) -> Array:
    array = np.asarray(inputs[name])
    if array.shape[2:] != shape:
        raise UsageError(f"input {name!r} must be (T, B, *{shape}), not {array.shape}.")
    return array


def split_outputs(graph: nir.NIRGraph, outputs: Array) -> dict[str, Array]:
    """The outputs (T, B, *shape) of each Output node, from those of a trace."""
    known = plan(graph)
    return split(outputs, {name: known.shapes[name] for name in known.outputs})
