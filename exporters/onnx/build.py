"""From a deployment to an ONNX model in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np
import onnx
import onnx_ir as ir

from msg_deploy import __version__
from msg_deploy.deployment import METADATA_KEY, Deployment, Metadata, metadata_to_json
from msg_deploy.errors import UsageError
from msg_deploy.exporters.onnx.builder import DOMAIN, DOMAIN_VERSION, Builder, Model
from msg_deploy.exporters.onnx.contract import (
    CONTRACT_KEY,
    Contract,
    Recorded,
    contract_to_json,
)
from msg_deploy.exporters.onnx.integers import check_some
from msg_deploy.exporters.onnx.layouts import Request, Written, layouts
from msg_deploy.exporters.onnx.writers import Cell, Place, cell_of
from msg_deploy.graph import Plan, plan
from msg_deploy.integers import arriving_integers
from msg_deploy.options import Layout, Precision

OLDEST_OPSET, DEFAULT_OPSET, NEWEST_OPSET = 18, 20, 24


@dataclass(frozen=True)
class OnnxOptions:
    """How a network is written.

    Attributes:
        layout: "sequence", "step" or "unrolled"; see docs/onnx.md.
        opset: version of the standard operators.
        int8: products that take spikes are computed in 8-bit integers; None: of quantized networks.
        step_outputs: the outputs of every step leave the model, too.
        precision: of everything else; files are float32.
    """

    layout: Layout = "sequence"
    opset: int = DEFAULT_OPSET
    int8: bool | None = None
    step_outputs: bool = True
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.layout not in layouts():
            raise UsageError(f"layout must be {' or '.join(layouts())}, not {self.layout!r}.")
        if not OLDEST_OPSET <= self.opset <= NEWEST_OPSET:
            raise UsageError(f"opset must be {OLDEST_OPSET} to {NEWEST_OPSET}, not {self.opset}.")


def build(deployment: Deployment, options: OnnxOptions | None = None) -> ir.Model:
    """The ONNX model of a deployment.

    Raises:
        GraphError: the graph is not valid, or int8 is wanted and weights stand on no grid.
        UsageError: an option is not accepted.
    """
    options = options or OnnxOptions()
    known = plan(deployment.graph)
    if options.int8 is None:
        options = replace(options, int8=deployment.integers is not None)
    request = Request(deployment, known, _cells(deployment, known, options), options.step_outputs)
    builder = Builder(Model(np.dtype(options.precision), options.opset))
    written = layouts()[options.layout](request, builder)
    contract = _contract(request, written, options)
    recorded = {t for r in (*contract.spiking, *contract.currents) for t in r.tensors}
    nodes, used = _needed(builder.nodes, recorded | {str(v.name) for v in written.outputs})
    graph = ir.Graph(
        written.inputs,
        written.outputs,
        nodes=nodes,
        initializers=[v for v in builder.model.constants.values() if v.name in used],
        opset_imports={"": options.opset, DOMAIN: DOMAIN_VERSION},
        name="network",
    )
    return ir.Model(
        graph,
        ir_version=_ir_version(options.opset),
        producer_name="msg-deploy",
        producer_version=__version__,
        functions=list(builder.model.functions.values()),
        metadata_props=_properties(deployment.metadata, contract),
    )


def _needed(nodes: Sequence[ir.Node], wanted: set[str]) -> tuple[list[ir.Node], set[str]]:
    """The nodes that lead to the wanted values, and the names of all values on the way.

    Without the outputs of each step, the product that would give them is needed for none.
    """
    kept: list[ir.Node] = []
    used = set(wanted)
    for node in reversed(nodes):
        if used.isdisjoint(str(value.name) for value in node.outputs):
            continue
        kept.append(node)
        graphs = [a for a in node.attributes.values() if a.type is ir.AttributeType.GRAPH]
        for reading in (node, *(inner for graph in graphs for inner in graph.as_graph())):
            used |= {str(value.name) for value in reading.inputs if value is not None}
    return kept[::-1], used


def _ir_version(opset: int) -> int:
    """The oldest file format that has this opset, so that older runtimes can read it."""
    return int(onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)]))


def _cells(deployment: Deployment, known: Plan, options: OnnxOptions) -> dict[str, Cell]:
    arriving = arriving_integers(deployment) if options.int8 else {}
    if options.int8 and deployment.integers is None:
        check_some(deployment, arriving, known)
    return {
        name: cell_of(
            deployment.graph.nodes[name],
            Place(
                name=name,
                timing=deployment.timing,
                shape=known.input_shapes[name],
                output_shape=known.shapes[name],
                bound=arriving.get(name),
            ),
        )
        for name in known.order
    }


def _contract(request: Request, written: Written, options: OnnxOptions) -> Contract:
    nodes, known = request.deployment.graph.nodes, request.known

    def recorded(name: str) -> Recorded:
        tensors = tuple(str(value.name) for value in written.values[name])
        return Recorded(name, known.shapes[name], tensors, _threshold(nodes[name]))

    currents = request.sources if options.step_outputs or options.layout == "step" else ()
    return Contract(
        layout=options.layout,
        order=known.order,
        spiking=tuple(recorded(name) for name in request.spiking),
        currents=tuple(recorded(name) for name in currents),
        states=written.states,
        int8=bool(options.int8),
    )


def _threshold(node: nir.NIRNode) -> float | None:
    value: Any = getattr(node, "threshold", getattr(node, "v_threshold", None))
    if value is None or not np.all(np.asarray(value) == np.asarray(value).flat[0]):
        return None
    return float(np.asarray(value).flat[0])


def _properties(metadata: Metadata, contract: Contract) -> dict[str, str]:
    """What the model says about itself: two JSON texts for us, and plain texts for people."""
    readout = metadata.readout
    return {
        METADATA_KEY: metadata_to_json(metadata),
        CONTRACT_KEY: contract_to_json(contract),
        "dt": repr(metadata.timing.dt),
        "steps": str(metadata.timing.steps),
        "reset": metadata.timing.reset,
        "two": " ".join(map(repr, readout.weights)) if readout else "",
        "classes": " ".join(metadata.provenance.classes),
        "source_sha256": metadata.provenance.sha256,
    }
