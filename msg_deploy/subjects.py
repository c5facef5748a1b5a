"""One side of a check: a model of any kind, opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msg_deploy import checkpoint, saved
from msg_deploy.deployment import Deployment, Metadata
from msg_deploy.errors import UsageError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.adapters import ForeignNetwork
from msg_deploy.exporters.trace import trace
from msg_deploy.networks import SpikingNetwork
from msg_deploy.options import Precision
from msg_deploy.saved import SavedTrace
from msg_deploy.sim.compare import Layout, layout
from msg_deploy.sim.framework import FrameworkModule
from msg_deploy.sim.simulator import Simulator
from msg_deploy.sim.torch_core import TorchCore

if TYPE_CHECKING:
    from msg_deploy.exporters.onnx.file import OnnxModel

Model = str | Path | SpikingNetwork | ForeignNetwork | Deployment
LARGEST_BATCH = 128
TRACE_BYTES = 2**29
"""What the membranes of one trace may take; the batch is made to fit."""


@dataclass(frozen=True)
class Subject:
    """One side of a check.

    Attributes:
        name: file or type.
        content: its graph, or the ONNX model or the recording that it is.
        own: the simulator that it brings along (the torch module of a checkpoint), if any.
    """

    name: str
    content: Deployment | OnnxModel | SavedTrace
    own: Simulator | None = None

    @property
    def has_graph(self) -> bool:
        """Whether there is a graph of NIR."""
        return isinstance(self.content, Deployment)

    @property
    def deployment(self) -> Deployment:
        """Its graph.

        Raises:
            UsageError: an .onnx file or a recording, which have none.
        """
        if not isinstance(self.content, Deployment):
            raise UsageError(
                f"{self.name}: has no graph of NIR; a .pt or .nir file is needed here."
            )
        return self.content

    @property
    def onnx(self) -> OnnxModel:
        """Its ONNX model.

        Raises:
            UsageError: it is not an .onnx file.
        """
        if isinstance(self.content, (Deployment, SavedTrace)):
            raise UsageError(f"{self.name}: is no ONNX model; an .onnx file is needed here.")
        return self.content

    @property
    def precision(self) -> Precision | None:
        """The highest that it can be computed in; None if that is not known."""
        if isinstance(self.content, SavedTrace):
            return self.content.about.precision
        return "float64" if self.has_graph else "float32"

    @property
    def metadata(self) -> Metadata:
        """Timing, input, readout and provenance."""
        return self.content.metadata

    @property
    def layout(self) -> Layout:
        """What a comparison needs to know."""
        if isinstance(self.content, Deployment):
            return layout(self.content)
        if isinstance(self.content, SavedTrace):
            return self.content.layout
        from msg_deploy.sim.onnx_engine import layout_of

        return layout_of(self.content)


def open_model(model: Model, foreign: nir_file.ForeignTiming | None = None) -> Subject:
    """Load a model of any kind.

    Args:
        model: a .pt, .nir or .onnx file, a recording (.npz), a SpikingNetwork, a ForeignNetwork
            or a Deployment.
        foreign: timing for .nir files that carry none.

    Raises:
        FileError: the file cannot be used.
        UsageError: the file has another ending.
    """
    if isinstance(model, Deployment):
        return Subject("Deployment", model)
    if isinstance(model, SpikingNetwork):
        return Subject("SpikingNetwork", trace(model), TorchCore(model))
    if isinstance(model, ForeignNetwork):
        return Subject(type(model.module).__name__, trace(model), FrameworkModule(model))
    path = Path(model)
    if path.suffix == ".nir":
        return Subject(str(path), nir_file.read(path, foreign))
    if path.suffix == ".onnx":
        from msg_deploy.exporters.onnx import file as onnx_file

        return Subject(str(path), onnx_file.read(path))
    if path.suffix == ".npz":
        return Subject(str(path), saved.read(path))
    if path.suffix in (".pt", ".pth"):
        network = checkpoint.load(path)
        provenance = replace(network.provenance, source=path.name, sha256=checkpoint.sha256(path))
        return Subject(str(path), trace(network, provenance=provenance), TorchCore(network))
    raise UsageError(
        f"{path}: unknown kind of file {path.suffix!r}; .pt, .nir, .onnx and .npz are read."
    )


def batch_size(side: Subject) -> int:
    """Samples that are run at once."""
    neurons = sum(threshold.size for threshold in side.layout.thresholds.values())
    a_sample = max(neurons, 1) * side.metadata.timing.steps * np.dtype(np.float64).itemsize
    return max(1, min(LARGEST_BATCH, TRACE_BYTES // a_sample))
