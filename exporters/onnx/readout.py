"""TWO in ONNX: y = sum_t f_t (W s_t + b) as W (sum_t f_t s_t) + b sum_t f_t, one matrix product."""

from __future__ import annotations

import math

import nir
import numpy as np
import onnx_ir as ir

from msg_deploy.exporters.onnx import layouts
from msg_deploy.exporters.onnx.builder import BATCH, Builder
from msg_deploy.exporters.onnx.layouts import Request
from msg_deploy.exporters.onnx.terminals import join, output_shape
from msg_deploy.exporters.onnx.whole import Signal, Whole, weighted


def results(whole: Whole) -> tuple[ir.Value, ...]:
    """The outputs of a model that runs all steps: scores, decision and, if wanted, each step's."""
    build, request = whole.build, whole.request
    shape = output_shape(request.known)
    scores = build.result(_scores(whole), layouts.SCORES, (BATCH, *shape))
    outputs = [scores, decision(build, scores)]
    if request.step_outputs:
        value = whole.stacked(_joined(whole))
        outputs.append(build.result(value, layouts.OUTPUTS, (whole.steps, BATCH, *shape)))
    return tuple(outputs)


def decision(build: Builder, scores: ir.Value) -> ir.Value:
    """The class with the largest score, (B,)."""
    flat = build("Flatten", scores, axis=1, name="scores.flat")
    chosen = build("ArgMax", flat, axis=1, keepdims=0, name="decision.index")
    return build.result(chosen, layouts.DECISION, (BATCH,), ir.DataType.INT64)


def time_weights(request: Request) -> tuple[float, ...] | None:
    """The weights of the sum over time that gives the scores; None: the last step's output does."""
    readout = request.deployment.readout
    if readout is None:
        return (1.0,) * request.deployment.timing.steps
    return readout.weights if readout.fold == "host" else None


def _scores(whole: Whole) -> ir.Value:
    weights = time_weights(whole.request)
    if weights is None:
        return _last(whole)
    product = _closing_product(whole)
    if product is None:
        return weighted(whole, _joined(whole), weights)
    name, source = product
    spikes = weighted(whole, whole.signals[source], weights)
    node = whole.request.deployment.graph.nodes[name]
    return _folded(whole.build, name, node, spikes, math.fsum(weights))


def _closing_product(whole: Whole) -> tuple[str, str] | None:
    """The matrix product that alone gives the only output, and the only node that it takes."""
    known, nodes = whole.request.known, whole.request.deployment.graph.nodes
    if len(known.outputs) > 1 or len(known.incoming[known.outputs[0]]) > 1:
        return None
    name = known.incoming[known.outputs[0]][0].source
    if not isinstance(nodes[name], (nir.Affine, nir.Linear)) or len(known.incoming[name]) > 1:
        return None
    (edge,) = known.incoming[name]
    # On a cycle the values that the product takes may not leave the Scan.
    reachable = not edge.previous and edge.source in whole.signals
    return (name, edge.source) if reachable else None


def _folded(build: Builder, name: str, node: nir.NIRNode, x: ir.Value, share: float) -> ir.Value:
    weight = build.model.constant(node.weight, f"{name}.weight")
    if isinstance(node, nir.Linear):
        return build("Gemm", x, weight, transB=1, name="scores.sum")
    bias = build.model.constant(np.asarray(node.bias, np.float64) * share, f"{name}.bias.folded")
    return build("Gemm", x, weight, bias, transB=1, name="scores.sum")


def _last(whole: Whole) -> ir.Value:
    """The output at the last step, where the graph itself has folded TWO."""
    signal = _joined(whole)
    if signal.constant:
        return signal.value
    index = whole.build.model.integers(whole.steps - 1, "last")
    return whole.build("Gather", whole.stacked(signal), index, axis=0, name="last.output")


def _joined(whole: Whole) -> Signal:
    """The outputs of all Output nodes, side by side."""
    signals = [whole.signals[name] for name in whole.request.known.outputs]
    if len(signals) == 1:
        return signals[0]
    constant = all(s.constant for s in signals)
    alike = [
        s if constant or not s.constant else Signal(whole.stacked(s), s.shape, stacked=True)
        for s in signals
    ]
    value = join(whole.build, [whole.merged(s) for s in alike])
    return Signal(value, output_shape(whole.request.known), constant)
