"""Layouts: how the steps of a network become one ONNX graph; one module each, found by name."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from msg_deploy.deployment import Deployment
from msg_deploy.exporters.onnx.builder import Builder
from msg_deploy.exporters.onnx.contract import Streamed
from msg_deploy.exporters.onnx.writers import Cell
from msg_deploy.graph import Plan
from msg_deploy.primitives import primitive_of

INPUT, OUTPUT, OUTPUTS = "input", "output", "outputs"
SCORES, DECISION, STEP = "scores", "decision", "step"
"""Names of a model's inputs and outputs; see docs/onnx.md."""


@dataclass(frozen=True)
class Request:
    """What is to be written.

    Attributes:
        deployment: the network.
        known: its plan.
        cells: of all nodes.
        step_outputs: the outputs of every step leave the model, not only scores and decision.
    """

    deployment: Deployment
    known: Plan
    cells: Mapping[str, Cell]
    step_outputs: bool = True

    @property
    def sources(self) -> tuple[str, ...]:
        """The nodes that give the currents I_L."""
        readout = self.deployment.readout
        return (readout.source,) if readout else self.known.outputs

    @property
    def spiking(self) -> tuple[str, ...]:
        """The spiking nodes, in the order of execution."""
        nodes = self.deployment.graph.nodes
        return tuple(n for n in self.known.order if primitive_of(nodes[n]).spiking)


@dataclass(frozen=True)
class Written:
    """A graph in the making.

    Attributes:
        inputs: of the model.
        outputs: of the model.
        values: for each node the tensors that hold its values, see `Recorded`.
        states: of the layout "step".
    """

    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    values: Mapping[str, tuple[ir.Value, ...]]
    states: tuple[Streamed, ...] = ()


LayoutWriter = Callable[[Request, Builder], Written]
_REGISTRY: dict[str, LayoutWriter] = {}


def layout(name: str) -> Callable[[LayoutWriter], LayoutWriter]:
    """Decorator: the function writes the layout of this name."""

    def add(function: LayoutWriter) -> LayoutWriter:
        _REGISTRY[name] = function
        return function

    return add


@functools.cache
def layouts() -> Mapping[str, LayoutWriter]:
    """All layouts by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return _REGISTRY
