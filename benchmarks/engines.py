"""The same network with the same weights in several frameworks, for the benchmarks."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import nir
import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from torch import Tensor, nn

from msg_deploy import Deployment, InputSpec, SpikingNetwork, build
from msg_deploy.exporters.onnx.build import OnnxOptions
from msg_deploy.exporters.onnx.build import build as build_onnx
from msg_deploy.graph import Plan, plan
from msg_deploy.neuron import LIF
from msg_deploy.options import Layout
from msg_deploy.primitives import pair

Array = np.ndarray[Any, np.dtype[np.float32]]
Engine = Callable[[Array], Array]
"""Inputs (T, B, ...) to scores (B, C)."""
Step = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""(B, ...) and the state, None at first, to spikes and state."""
Sequence = Callable[[Tensor], Tensor]
"""(T, B, ...) to (T, B, ...)."""
NETWORKS: dict[str, tuple[InputSpec, int, dict[str, Any]]] = {
    "mlp": (InputSpec((784,), "frames"), 16, {"hidden": (512, 512)}),
    "convnet": (InputSpec((1, 28, 28), "frames"), 8, {}),
    "vggsnn": (InputSpec((2, 48, 48), "frames"), 10, {}),
    "sew_resnet34": (InputSpec((3, 64, 64), "frames"), 4, {}),
}


RATE = 0.15
"""The share of neurons that fire at a step, as in trained networks."""


@functools.cache
def network_of(name: str) -> SpikingNetwork:
    """Random weights; BatchNorm has seen inputs, and thresholds let every layer fire."""
    spec, steps, options = NETWORKS[name]
    torch.manual_seed(0)
    network = build(name, spec, 10, steps, **options)
    for module in network.modules():
        if isinstance(module, LIF):
            module.register_forward_pre_hook(_let_fire)
    with torch.no_grad():
        for _ in range(10):
            network.train()(torch.rand(steps, 2, *spec.shape))
        network.eval()(torch.rand(steps, 2, *spec.shape))
    for module in network.modules():
        module._forward_pre_hooks.clear()
    return network


def _let_fire(layer: nn.Module, arriving: tuple[Tensor]) -> None:
    """Move the threshold to where the layer fires at `RATE`, by bisection."""
    assert isinstance(layer, LIF)
    low, high = 0.0, float(arriving[0].max()) + 1e-3
    for _ in range(10):
        layer.v_threshold = (low + high) / 2
        rate = float(layer.forward(arriving[0]).mean())
        low, high = (layer.v_threshold, high) if rate > RATE else (low, layer.v_threshold)


def torch_step(rate: float, threshold: float) -> Step:
    """Written out."""

    def step(x: Tensor, v: Any) -> tuple[Tensor, Any]:
        v = torch.zeros_like(x) if v is None else v
        v = v + rate * (x - v)
        spikes = (v > threshold).to(x.dtype)
        return spikes, v * (1 - spikes)

    return step


def norse_step(rate: float, threshold: float) -> Step:
    """LIFBoxCell."""
    import norse.torch as norse

    parameters = norse.LIFBoxParameters(
        tau_mem_inv=torch.tensor(rate / 1e-3),
        v_th=torch.tensor(threshold),
        v_reset=torch.tensor(0.0),
    )
    cell: Step = norse.LIFBoxCell(parameters, dt=1e-3)
    return cell


def snntorch_step(rate: float, threshold: float) -> Step:
    """Leaky, which does not scale its input: its threshold is scaled instead."""
    import snntorch

    cell = snntorch.Leaky(1 - rate, threshold / rate, reset_mechanism="zero", reset_delay=False)
    return lambda x, v: cell(x, torch.zeros_like(x) if v is None else v)


def over_time(step: Step) -> Sequence:
    """All steps of one layer."""

    def run(x: Tensor) -> Tensor:
        state, spikes = None, []
        for now in x:
            s, state = step(now, state)
            spikes.append(s)
        return torch.stack(spikes)

    return run


def spikingjelly_sequence(rate: float, threshold: float) -> Sequence:
    """LIFNode in its multi-step mode, torch backend."""
    from spikingjelly.activation_based import functional, neuron

    cell = neuron.LIFNode(tau=1 / rate, v_threshold=threshold, v_reset=0.0, step_mode="m")

    def run(x: Tensor) -> Tensor:
        functional.reset_net(cell)
        result: Tensor = cell(x)
        return result

    return run


def sinabs_sequence(rate: float, threshold: float) -> Sequence:
    """LIF with one spike a step and reset to zero; time after the batch."""
    import math

    from sinabs import layers
    from sinabs.activation import MembraneReset, SingleSpike

    cell = layers.LIF(
        tau_mem=-1 / math.log1p(-rate),
        spike_threshold=threshold,
        spike_fn=SingleSpike,
        reset_fn=MembraneReset(),
        norm_input=True,
    )

    def run(x: Tensor) -> Tensor:
        cell.reset_states()
        result: Tensor = cell(x.transpose(0, 1)).transpose(0, 1)
        return result

    return run


STEPS = {"plain torch": torch_step, "norse": norse_step, "snntorch": snntorch_step}
SEQUENCES: dict[str, Callable[[float, float], Sequence]] = {
    "spikingjelly": spikingjelly_sequence,
    "sinabs": sinabs_sequence,
    "plain torch": lambda *a: over_time(torch_step(*a)),
    "norse": lambda *a: over_time(norse_step(*a)),
    "snntorch": lambda *a: over_time(snntorch_step(*a)),
}


def static(node: Any) -> Sequence:
    """A node without state, on (N, ...)."""
    if isinstance(node, (nir.Input, nir.Output)):
        return lambda x: x
    if isinstance(node, nir.Flatten):
        return lambda x: x.flatten(1)
    if isinstance(node, nir.AvgPool2d):
        kernel, stride, padding = (pair(node, n, 0) for n in ("kernel_size", "stride", "padding"))
        return lambda x: nn.functional.avg_pool2d(x, kernel, stride, padding)
    weight = torch.tensor(node.weight, dtype=torch.float32)
    bias = torch.tensor(node.bias, dtype=torch.float32)
    if isinstance(node, nir.Affine):
        return lambda x: nn.functional.linear(x, weight, bias)
    stride, padding = pair(node, "stride", 1), pair(node, "padding", 0)
    return lambda x: nn.functional.conv2d(x, weight, bias, stride, padding)


def parameters(deployment: Deployment, node: nir.LIF) -> tuple[float, float]:
    """dt/tau and the threshold, of all neurons of a layer."""
    return float(deployment.timing.dt / node.tau.flat[0]), float(node.v_threshold.flat[0])


def follow(
    known: Plan, entering: Tensor, layers: Mapping[str, Sequence], before: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """All values of the graph; edges that close a cycle carry those of the step before."""
    values: dict[str, Tensor] = {}
    for name in known.order:
        edges = known.incoming[name]
        arriving = [values[e.source] for e in edges if not e.previous]
        arriving += [before[e.source] for e in edges if e.previous and e.source in before]
        values[name] = layers[name](sum(arriving[1:], arriving[0]) if arriving else entering)
    return values


def scores_of(deployment: Deployment, outputs: Tensor) -> Array:
    """Class scores (B, C) by TWO: sum_t f_t I_L[t]."""
    readout = deployment.readout
    f = torch.tensor(readout.weights if readout else [1.0] * len(outputs), dtype=torch.float32)
    scores: Array = torch.tensordot(f, outputs, 1).numpy()
    return scores


def by_layer(deployment: Deployment, framework: str) -> Engine:
    """All steps of a layer before the next layer."""
    known = plan(deployment.graph)

    def merged(function: Sequence) -> Sequence:
        return lambda x: function(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    layers = {
        name: SEQUENCES[framework](*parameters(deployment, node))
        if isinstance(node, nir.LIF)
        else merged(static(node))
        for name, node in deployment.graph.nodes.items()
    }

    @torch.no_grad()
    def run(inputs: Array) -> Array:
        values = follow(known, torch.from_numpy(inputs), layers, {})
        return scores_of(deployment, values[known.output])

    return run


def by_step(deployment: Deployment, framework: str) -> Engine:
    """The whole network at each step."""
    known = plan(deployment.graph)
    states: dict[str, Any] = {}

    def stateful(name: str, step: Step) -> Sequence:
        def run(x: Tensor) -> Tensor:
            spikes, states[name] = step(x, states.get(name))
            return spikes

        return run

    layers = {
        name: stateful(name, STEPS[framework](*parameters(deployment, node)))
        if isinstance(node, nir.LIF)
        else static(node)
        for name, node in deployment.graph.nodes.items()
    }

    @torch.no_grad()
    def run(inputs: Array) -> Array:
        states.clear()
        values: dict[str, Tensor] = {}
        outputs = []
        for now in torch.from_numpy(inputs):
            values = follow(known, now, layers, values)
            outputs.append(values[known.output])
        return scores_of(deployment, torch.stack(outputs))

    return run


def core(network: SpikingNetwork) -> Engine:
    """Our torch core, as trained."""

    @torch.no_grad()
    def run(inputs: Array) -> Array:
        scores: Array = network(torch.from_numpy(inputs)).numpy()
        return scores

    return run


def exported(deployment: Deployment, layout: Layout, threads: int) -> Engine:
    """The exported model in onnxruntime, as a user runs it."""
    options = OnnxOptions(layout=layout, step_outputs=False)
    model = ir.to_proto(build_onnx(deployment, options))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )

    def run(inputs: Array) -> Array:
        scores: Array = session.run(["scores"], {"input": inputs})[0]
        return scores

    return run


def check(engines: Mapping[str, Engine], inputs: Array) -> float:
    """The largest difference of scores, relative to the largest score.

    Single spikes may differ by rounding, and a few of them must not change what is timed.
    """
    found = [engine(inputs) for engine in engines.values()]
    scale = float(np.abs(found[0]).max())
    return max(float(np.abs(f - found[0]).max()) / scale for f in found)


def measure(engines: Mapping[str, Engine], inputs: Array, rounds: int) -> dict[str, float]:
    """Median seconds of each engine; the first round warms up.

    Within a round each engine runs twice and is timed the second time: else it would pay for what
    the engine before it left in the caches.
    """
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds + 1):
        for name, engine in engines.items():
            engine(inputs)
            start = time.perf_counter()
            engine(inputs)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t[1:]) for name, t in times.items()}
