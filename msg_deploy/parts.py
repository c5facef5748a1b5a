"""Which original layers the layers of a graph consist of that were fused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import nir
import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from msg_deploy.deployment import explain
from msg_deploy.errors import GraphError
from msg_deploy.sim.simulator import Trace

Array = npt.NDArray[Any]
Parts = dict[str, dict[str, tuple[int, int]]]
"""Fused layer -> original layer -> from where to where it is found on the first axis."""
_PARTS = TypeAdapter(Parts)
PARTS_KEY = "msg_deploy_parts"
"""Metadata of a graph: its `Parts`, as JSON. Neurons that only pass spikes on are no layer's."""


def parts(graph: nir.NIRGraph) -> Parts:
    """Which original layers the fused layers of a graph consist of.

    Raises:
        GraphError: the metadata that say so are not acceptable.
    """
    try:
        found = _PARTS.validate_json(graph.metadata.get(PARTS_KEY, "{}"))
    except ValidationError as error:
        raise GraphError(f"metadata {PARTS_KEY!r}: {explain(error)}") from error
    names = [name for name in graph.nodes if name not in found]
    names += [name for places in found.values() for name in places]
    if len(set(names)) < len(names):
        raise GraphError(f"metadata {PARTS_KEY!r}: a layer is found in two places.")
    for layer, places in found.items():
        size = (*np.shape(getattr(graph.nodes.get(layer), "v_threshold", 0)), 0)[0]
        if any(not 0 <= start < stop <= size for start, stop in places.values()):
            raise GraphError(f"metadata {PARTS_KEY!r}: no such neurons in a layer {layer!r}.")
    return found


def unfused(trace: Trace, graph: nir.NIRGraph) -> Trace:
    """A trace of a graph with its layers called, and cut, as before they were fused.

    Raises:
        GraphError: the metadata of the graph are not acceptable.
    """
    found = parts(graph)
    return replace(
        trace,
        spikes=split(trace.spikes, found, axis=2),
        membranes=split(trace.membranes, found, axis=2),
    )


def split(values: Mapping[str, Array], found: Parts, axis: int) -> dict[str, Array]:
    """Values by layer, by original layer; `axis` is the first one of a neuron's index."""
    return {
        name: value[(slice(None),) * axis + place]
        for layer, value in values.items()
        for name, place in _places(layer, found).items()
    }


def _places(layer: str, found: Parts) -> dict[str, tuple[slice, ...]]:
    if layer not in found:
        return {layer: ()}
    return {name: (slice(*ends),) for name, ends in found[layer].items()}
