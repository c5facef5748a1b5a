"""What the two ONNX runtimes share: a model with its layers as extra outputs, its runs, the trace.

The extra outputs are added to a copy; exported files do not have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from msg_deploy.deployment import Deployment, InputSpec, Timing
from msg_deploy.errors import GraphError, UsageError
from msg_deploy.exporters.onnx import layouts
from msg_deploy.exporters.onnx.build import OnnxOptions, build
from msg_deploy.exporters.onnx.contract import Recorded
from msg_deploy.exporters.onnx.file import OnnxModel, in_memory
from msg_deploy.options import Precision
from msg_deploy.sim.compare import Layout
from msg_deploy.sim.simulator import FloatArray, Trace, check_shape, repeats
from msg_deploy.terminals import columns, join

Values = Mapping[str, npt.NDArray[Any]]
Run = Callable[[Values], Values]
"""Inputs by name to outputs by name."""


class OnnxEngine:
    """Runs deployments, written as a `sequence`, and ONNX models of ours in any layout."""

    name: str

    def __init__(self) -> None:
        self._written: tuple[Deployment, Precision, bool, OnnxModel] | None = None
        self._opened: tuple[OnnxModel, Run] | None = None

    def open(self, model: OnnxModel) -> Run:
        """Prepare a model for runs.

        Raises:
            GraphError: the runtime cannot run it.
        """
        raise NotImplementedError

    def unsupported(self, deployment: Deployment, precision: Precision = "float64") -> list[str]:
        """What the runtime says to the model, if it does not take it."""
        try:
            self._ready(self._write(deployment, precision, direct=_direct(deployment.input)))
        except GraphError as error:
            return [f"{error} Try --precision float32."] if precision == "float64" else [str(error)]
        return []

    def run(
        self, deployment: Deployment, inputs: FloatArray, precision: Precision = "float64"
    ) -> Trace:
        """See `Simulator.run`; membranes are not recorded."""
        direct = _direct(deployment.input) and repeats(inputs)
        return self.run_model(self._write(deployment, precision, direct), inputs)

    def run_model(self, model: OnnxModel, inputs: FloatArray) -> Trace:
        """Run a model of any layout on inputs (T, B, *input shape).

        Raises:
            GraphError: the runtime cannot run the model.
            UsageError: the inputs have another shape, or differ from step to step where the model
                takes one sample for all of them.
        """
        metadata, contract = model.metadata, model.contract
        check_shape(metadata.timing, metadata.input, inputs)
        run = self._ready(model)
        inputs = inputs.astype(_dtype(model), copy=False)
        if contract.layout == "step":
            found = _streamed(run, model, inputs)
        else:
            found = run({layouts.INPUT: _sample(metadata.input, inputs)})
        return _trace(self.name, model, found, metadata.timing, inputs.shape[1])

    def _ready(self, model: OnnxModel) -> Run:
        """The runtime with this model; the last one is kept for the next batch."""
        if self._opened is None or self._opened[0] is not model:
            self._opened = (model, self.open(_recording(model)))
        return self._opened[1]

    def _write(self, deployment: Deployment, precision: Precision, direct: bool) -> OnnxModel:
        kept = self._written
        if kept and kept[0] is deployment and kept[1:3] == (precision, direct):
            return kept[3]
        spec = replace(deployment.input, encoding="direct" if direct else "frames")
        written = build(replace(deployment, input=spec), OnnxOptions(precision=precision))
        self._written = (deployment, precision, direct, in_memory(written))
        return self._written[3]


def _direct(spec: InputSpec) -> bool:
    return spec.encoding == "direct"


def _dtype(model: OnnxModel) -> np.dtype[Any]:
    (entering,) = (i for i in model.proto.graph.input if i.name == layouts.INPUT)
    return onnx.helper.tensor_dtype_to_np_dtype(entering.type.tensor_type.elem_type)


def _sample(spec: InputSpec, inputs: FloatArray) -> FloatArray:
    """What a model that runs all steps takes."""
    if not _direct(spec):
        return inputs
    if not repeats(inputs):
        raise UsageError(
            "the model takes one sample for all steps (encoding 'direct'), but the inputs differ "
            "from step to step."
        )
    return inputs[0]


def _recording(model: OnnxModel) -> OnnxModel:
    """The model with the tensors of its layers as further outputs."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    contract = model.contract
    wanted = [t for r in (*contract.spiking, *contract.currents) for t in r.tensors]
    present = {value.name for value in proto.graph.output}
    element = onnx.helper.np_dtype_to_tensor_dtype(_dtype(model))
    for name in dict.fromkeys(wanted):
        if name not in present:
            value = onnx.helper.make_tensor_value_info(name, element, None)
            proto.graph.output.append(value)
    return replace(model, proto=proto)


def _streamed(run: Run, model: OnnxModel, inputs: FloatArray) -> Values:
    """All steps one after the other; what each one gives is joined along the first axis."""
    batch, streamed = inputs.shape[1], model.contract.states
    states = {s.input: np.zeros((batch, *s.shape), inputs.dtype) for s in streamed}
    steps: list[Values] = []
    for t, x in enumerate(inputs):
        found = run({layouts.INPUT: x, layouts.STEP: np.array(t, np.int64), **states})
        states = {s.input: found[s.output] for s in streamed}
        steps.append(found)
    joined = {name: np.concatenate([found[name] for found in steps]) for name in steps[0]}
    scores = next((s.output for s in streamed if s.input == layouts.SCORES), layouts.SCORES)
    return joined | {
        layouts.SCORES: steps[-1][scores],
        layouts.OUTPUTS: np.stack([found[layouts.OUTPUT] for found in steps]),
    }


def _trace(name: str, model: OnnxModel, found: Values, timing: Timing, batch: int) -> Trace:
    scores = found[layouts.SCORES]

    def steps(recorded: Recorded) -> FloatArray:
        return _steps(recorded, found, timing.steps, batch)

    # A model that puts out no steps leaves nothing to compare: no step at all.
    nothing = np.empty((0, *scores.shape), scores.dtype)
    currents = [steps(recorded) for recorded in model.contract.currents]
    return Trace(
        simulator=name,
        spikes={r.node: steps(r).astype(np.uint8) for r in model.contract.spiking},
        membranes={},
        outputs=found.get(layouts.OUTPUTS, nothing),
        currents=join(currents, 2) if currents else nothing,
        scores=scores,
    )


def _steps(recorded: Recorded, found: Values, steps: int, batch: int) -> FloatArray:
    """(T, B, *shape) from tensors that hold all steps, or one that holds for each of them.

    Raises:
        GraphError: the tensors have another size.
    """
    values = [found[tensor] for tensor in recorded.tensors]
    once, size = (batch, *recorded.shape), sum(value.size for value in values)
    if size == int(np.prod(once)):
        return np.broadcast_to(values[0].reshape(once), (steps, *once))
    if size != steps * int(np.prod(once)):
        raise GraphError(f"node {recorded.node!r}: {size} values are not {steps} x {once}.")
    joined = values[0] if len(values) == 1 else np.concatenate(values)
    return joined.reshape(steps, *once)


def layout_of(model: OnnxModel) -> Layout:
    """What a comparison needs to know of a model; thresholds that differ are not known."""
    contract = model.contract
    thresholds = {
        r.node: np.full(r.shape, np.nan if r.threshold is None else r.threshold)
        for r in contract.spiking
    }
    sources = columns({r.node: r.shape for r in contract.currents})
    return Layout(contract.order, thresholds, sources)
