"""msg-deploy: train spiking networks with MSG and TWO, export them, prove the export.

The names below are the public API; they are imported when first used, so that importing this
package is quick.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msg_deploy.api import export as export
    from msg_deploy.api import export_onnx as export_onnx
    from msg_deploy.checking import check as check
    from msg_deploy.checkpoint import load as load
    from msg_deploy.checkpoint import save as save
    from msg_deploy.data import DataOptions as DataOptions
    from msg_deploy.data import load_dataset as load_dataset
    from msg_deploy.data.recordings import read_recording as read_recording
    from msg_deploy.deployment import Deployment as Deployment
    from msg_deploy.deployment import InputSpec as InputSpec
    from msg_deploy.deployment import Provenance as Provenance
    from msg_deploy.deployment import Readout as Readout
    from msg_deploy.deployment import Timing as Timing
    from msg_deploy.errors import MsgDeployError as MsgDeployError
    from msg_deploy.exporters.adapters import ForeignNetwork as ForeignNetwork
    from msg_deploy.exporters.nir import ForeignTiming as ForeignTiming
    from msg_deploy.exporters.onnx.build import OnnxOptions as OnnxOptions
    from msg_deploy.exporters.quantize.options import QuantizeOptions as QuantizeOptions
    from msg_deploy.exporters.trace import trace as trace
    from msg_deploy.exporters.untrace import to_torch as to_torch
    from msg_deploy.masking import MaskedSurrogate as MaskedSurrogate
    from msg_deploy.masking import MaskedSurrogateGradient as MaskedSurrogateGradient
    from msg_deploy.networks import Residual as Residual
    from msg_deploy.networks import SpikingNetwork as SpikingNetwork
    from msg_deploy.neuron import LIF as LIF
    from msg_deploy.onchip.check import check_on_chip as check_on_chip
    from msg_deploy.onchip.export import export_to_chip as export_to_chip
    from msg_deploy.onchip.fit import fit as fit
    from msg_deploy.onchip.prepare import Job as Job
    from msg_deploy.quantization import quantize as quantize
    from msg_deploy.quantization import to_integers as to_integers
    from msg_deploy.readout import TWO as TWO
    from msg_deploy.recorder import record as record
    from msg_deploy.report.html import verdict_as_html as verdict_as_html
    from msg_deploy.report.junit import verdict_as_junit as verdict_as_junit
    from msg_deploy.runners import RuntimeOptions as RuntimeOptions
    from msg_deploy.sim.certificate import Certificate as Certificate
    from msg_deploy.sim.certificate import certify as certify
    from msg_deploy.sim.verdict import Verdict as Verdict
    from msg_deploy.simulation import simulate as simulate
    from msg_deploy.terminals import join_inputs as join_inputs
    from msg_deploy.terminals import split_outputs as split_outputs
    from msg_deploy.train import TrainingOptions as TrainingOptions
    from msg_deploy.zoo import build as build

__version__ = importlib.metadata.version("msg-deploy")

PUBLIC = {
    "check": "checking",
    "export": "api",
    "export_onnx": "api",
    "RuntimeOptions": "runners",
    "load": "checkpoint",
    "save": "checkpoint",
    "DataOptions": "data",
    "load_dataset": "data",
    "read_recording": "data.recordings",
    "Deployment": "deployment",
    "InputSpec": "deployment",
    "Provenance": "deployment",
    "Readout": "deployment",
    "Timing": "deployment",
    "MsgDeployError": "errors",
    "ForeignNetwork": "exporters.adapters",
    "ForeignTiming": "exporters.nir",
    "OnnxOptions": "exporters.onnx.build",
    "QuantizeOptions": "exporters.quantize.options",
    "trace": "exporters.trace",
    "to_torch": "exporters.untrace",
    "MaskedSurrogate": "masking",
    "MaskedSurrogateGradient": "masking",
    "Residual": "networks",
    "SpikingNetwork": "networks",
    "LIF": "neuron",
    "Job": "onchip.prepare",
    "check_on_chip": "onchip.check",
    "export_to_chip": "onchip.export",
    "fit": "onchip.fit",
    "quantize": "quantization",
    "to_integers": "quantization",
    "TWO": "readout",
    "record": "recorder",
    "verdict_as_html": "report.html",
    "verdict_as_junit": "report.junit",
    "Certificate": "sim.certificate",
    "certify": "sim.certificate",
    "Verdict": "sim.verdict",
    "simulate": "simulation",
    "join_inputs": "terminals",
    "split_outputs": "terminals",
    "TrainingOptions": "train",
    "build": "zoo",
}

__all__ = sorted([*PUBLIC, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'msg_deploy' has no attribute {name!r}")
    return getattr(importlib.import_module(f"msg_deploy.{PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
