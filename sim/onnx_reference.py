"""The reference evaluator of ONNX as a simulator: every operator in numpy, as the standard says."""

from __future__ import annotations

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from msg_deploy.errors import GraphError, reason
from msg_deploy.exporters.onnx.file import OnnxModel
from msg_deploy.sim.onnx_engine import OnnxEngine, Run, Values
from msg_deploy.sim.simulator import register


@register
class OnnxReference(OnnxEngine):
    """onnx.reference.ReferenceEvaluator: slow, and independent of every runtime."""

    name = "onnx_reference"

    def open(self, model: OnnxModel) -> Run:
        """An evaluator; see `OnnxEngine.open`."""
        if model.folder is not None:
            onnx.load_external_data_for_model(model.proto, str(model.folder))
        names = [value.name for value in model.proto.graph.output]
        try:
            evaluator = ReferenceEvaluator(model.proto)
        except Exception as error:  # whatever its operators raise
            raise GraphError(f"onnx.reference cannot run the model ({reason(error)}).") from error

        def run(feeds: Values) -> Values:
            try:
                with np.errstate(all="ignore"):
                    return dict(zip(names, evaluator.run(names, dict(feeds)), strict=True))
            except Exception as error:  # as above
                raise GraphError(f"onnx.reference failed ({reason(error)}).") from error

        return run
