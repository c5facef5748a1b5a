"""ONNX Runtime as a simulator: what most deployed models run in."""

from __future__ import annotations

from collections.abc import Sequence

import onnxruntime

from msg_deploy.errors import GraphError, UsageError, reason
from msg_deploy.exporters.onnx.file import OnnxModel
from msg_deploy.sim.onnx_engine import OnnxEngine, Run, Values
from msg_deploy.sim.simulator import register

FATAL = 4
FOLDER = "session.model_external_initializers_file_folder_path"
"""Where the runtime looks for weights that are not in the model's own file."""


@register
class OnnxRuntime(OnnxEngine):
    """ONNX Runtime.

    Args:
        threads: that one operator may use; None: as many as the machine has cores.
        providers: execution providers, in the order of preference; none: the CPU.

    Raises:
        UsageError: a provider is not in this installation.
    """

    name = "onnxruntime"

    def __init__(self, threads: int | None = None, providers: Sequence[str] = ()) -> None:
        super().__init__()
        available = onnxruntime.get_available_providers()
        for provider in providers:
            if provider not in available:
                raise UsageError(
                    f"onnxruntime has no provider {provider!r} here; it has {', '.join(available)}."
                )
        self.threads = threads
        self.providers = list(providers) or ["CPUExecutionProvider"]

    def open(self, model: OnnxModel) -> Run:
        """A session; see `OnnxEngine.open`."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        if model.folder is not None:
            options.add_session_config_entry(FOLDER, str(model.folder))
        names = [value.name for value in model.proto.graph.output]
        try:
            session = onnxruntime.InferenceSession(
                model.proto.SerializeToString(), options, self.providers
            )
        except Exception as error:  # its exceptions have no common base
            raise GraphError(f"onnxruntime cannot run the model ({reason(error)}).") from error

        def run(feeds: Values) -> Values:
            try:
                return dict(zip(names, session.run(names, dict(feeds)), strict=True))
            except Exception as error:  # as above
                raise GraphError(f"onnxruntime failed ({reason(error)}).") from error

        return run
