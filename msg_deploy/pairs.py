"""Two sides of a check made comparable.

The right side gets the left side's names, a recording what the other side knows besides.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import nir

from msg_deploy.deployment import Deployment, Readout
from msg_deploy.exporters.inline import origins
from msg_deploy.matching import matched
from msg_deploy.options import Precision
from msg_deploy.parts import PARTS_KEY, parts
from msg_deploy.saved import SavedTrace
from msg_deploy.sim.simulator import FloatArray, Simulator, Trace

if TYPE_CHECKING:
    from msg_deploy.exporters.onnx.file import OnnxModel
    from msg_deploy.subjects import Subject

Names = Mapping[str, str]
"""Old names of nodes to new ones; others stay as they are."""


def paired(left: Subject, right: Subject, mapping: Names | None = None) -> tuple[Subject, Subject]:
    """Both sides with the names of the left one.

    Args:
        left: left side.
        right: right side.
        mapping: names of nodes of the left side to those of the right, where neither names nor
            origins agree.

    Raises:
        UsageError: the mapping names no node, or one twice.
    """
    names = matched(nodes_of(left), nodes_of(right), mapping or {})
    right = _called(right, names) if names else right
    return _completed(left, right), _completed(right, left)


def nodes_of(side: Subject) -> dict[str, str]:
    """The nodes of a side in its own order, and under which name each was exported first."""
    content = side.content
    if isinstance(content, Deployment):
        inside = parts(content.graph)
        split = {name: name for places in inside.values() for name in places}
        return {n: o for n, o in origins(content.graph).items() if n not in inside} | split
    if isinstance(content, SavedTrace):
        about = content.about
        named = dict.fromkeys((*about.order, *content.layers, *about.sources))
        return {name: about.origins.get(name, name) for name in named}
    return {name: name for name in content.contract.order}


def _completed(side: Subject, other: Subject) -> Subject:
    if not isinstance(side.content, SavedTrace):
        return side
    return replace(side, content=side.content.completed(other.metadata, other.layout))


def _called(side: Subject, names: Names) -> Subject:
    """A side with other names."""
    content, own = side.content, side.own
    if isinstance(content, Deployment):
        return replace(side, content=renamed(content, names), own=own and Renamed(own, names))
    if isinstance(content, SavedTrace):
        return replace(side, content=content.renamed(names))
    return replace(side, content=_renamed_onnx(content, names))


def renamed(deployment: Deployment, names: Names) -> Deployment:
    """The same graph with nodes called otherwise."""
    graph = deployment.graph
    nodes = {names.get(name, name): node for name, node in graph.nodes.items()}
    edges = [(names.get(str(a), str(a)), names.get(str(b), str(b))) for a, b in graph.edges]
    metadata = dict(graph.metadata)
    if PARTS_KEY in metadata:
        found = {
            names.get(layer, layer): {names.get(n, n): ends for n, ends in places.items()}
            for layer, places in parts(graph).items()
        }
        metadata[PARTS_KEY] = json.dumps(found)
    called = nir.NIRGraph(nodes, edges, metadata=metadata, type_check=False)
    return deployment.with_graph(called, readout=_renamed_readout(deployment.readout, names))


def _renamed_readout(readout: Readout | None, names: Names) -> Readout | None:
    return readout and replace(readout, source=names.get(readout.source, readout.source))


def _renamed_onnx(model: OnnxModel, names: Names) -> OnnxModel:
    """The same model; its tensors keep their names."""
    contract = model.contract

    def called(name: str) -> str:
        return names.get(name, name)

    return replace(
        model,
        contract=replace(
            contract,
            order=tuple(map(called, contract.order)),
            spiking=tuple(replace(r, node=called(r.node)) for r in contract.spiking),
            currents=tuple(replace(r, node=called(r.node)) for r in contract.currents),
        ),
        metadata=replace(model.metadata, readout=_renamed_readout(model.metadata.readout, names)),
    )


class Renamed:
    """A simulator whose layers are called otherwise.

    Args:
        simulator: what runs.
        names: old names to new ones.
    """

    def __init__(self, simulator: Simulator, names: Names) -> None:
        self.simulator, self.names = simulator, dict(names)
        self.name = simulator.name

    def unsupported(self, deployment: Deployment, precision: Precision = "float64") -> list[str]:
        """See `Simulator.unsupported`."""
        return self.simulator.unsupported(deployment, precision)

    def run(
        self, deployment: Deployment, inputs: FloatArray, precision: Precision = "float64"
    ) -> Trace:
        """See `Simulator.run`."""
        trace = self.simulator.run(deployment, inputs, precision)
        spikes, membranes = (
            {self.names.get(name, name): values for name, values in arrays.items()}
            for arrays in (trace.spikes, trace.membranes)
        )
        return replace(trace, spikes=spikes, membranes=membranes)
