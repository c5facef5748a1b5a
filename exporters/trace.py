"""From a torch module to a NIR graph, layer by layer, by symbolic tracing (torch.fx).

A module maps merged time and batch, (T*B, ...), so every layer but LIF and TWO acts on one step.
To support another layer, add a function decorated with `converts`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import nir
import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from msg_deploy.checkpoint import library_versions
from msg_deploy.deployment import (
    INPUT,
    OUTPUT,
    READOUT_PREFIX,
    Deployment,
    InputSpec,
    Provenance,
    Readout,
    Shape,
    node_name,
)
from msg_deploy.errors import GraphError, MsgDeployError, TraceError, reason
from msg_deploy.graph import plan
from msg_deploy.networks import SpikingNetwork, timing_of
from msg_deploy.neuron import LIF
from msg_deploy.primitives import Array, primitive_of
from msg_deploy.readout import TWO


class Context(NamedTuple):
    """What a converter may need beside the layer.

    Attributes:
        shape: of the layer's input, without batch.
        dt: length of a timestep in seconds.
    """

    shape: Shape
    dt: float


Converter = Callable[[Any, Context], nir.NIRNode]
ConverterType = TypeVar("ConverterType", bound=Converter)
CONVERTERS: dict[type[nn.Module], Converter] = {}
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def converts(layer: type[nn.Module]) -> Callable[[ConverterType], ConverterType]:
    """Decorator: the function turns layers of this type into NIR nodes."""

    def add(converter: ConverterType) -> ConverterType:
        CONVERTERS[layer] = converter
        return converter

    return add


def trace(
    module: nn.Module,
    input_spec: InputSpec | None = None,
    dt: float = 1e-3,
    provenance: Provenance | None = None,
) -> Deployment:
    """The NIR graph of a module in evaluation mode, with TWO left to the host.

    Args:
        module: a SpikingNetwork, which brings everything else along, or any nn.Module made of
            supported layers that maps (T*B, *input shape) to (T*B, C), or to (B, C) by a TWO layer
            at its end.
        input_spec: what a sample looks like.
        dt: length of a timestep in seconds.
        provenance: data set and class names.

    Returns:
        A checked deployment. Weights keep their dtype; those with a BatchNorm folded in, and all
        neuron parameters, are float64 so that nothing is rounded.

    Raises:
        TraceError: naming the layer that has no counterpart.
    """
    if isinstance(module, SpikingNetwork):
        body, readout = module.body, module.readout
        input_spec, timing = module.input_spec, module.timing
        provenance = provenance or module.provenance
    elif input_spec is None:
        raise TraceError("a plain module needs an input_spec: the shape of one sample.")
    else:
        body, readout, timing = module, None, timing_of(module, dt)
    builder = _Builder(Context(input_spec.shape, timing.dt))
    value = builder.follow(body)
    readout = readout or value.readout
    described = builder.finish(value, readout)
    provenance = provenance or Provenance(source=type(module).__name__)
    deployment = Deployment(
        builder.graph(),
        timing,
        input_spec,
        described,
        replace(provenance, versions=library_versions()),
    )
    try:
        plan(deployment.graph)
    except GraphError as error:
        raise TraceError(str(error)) from error
    return deployment


@dataclass(frozen=True)
class _Value:
    """What flows along an edge of the fx graph.

    Attributes:
        sources: NIR nodes whose outputs are summed to this value.
        shape: of one timestep of one sample.
        readout: TWO, if the value came out of it.
    """

    sources: tuple[str, ...]
    shape: Shape
    readout: TWO | None = None


class _LayerTracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = (*CONVERTERS, *BATCH_NORMS, *IDENTITIES, LIF, TWO)
        return isinstance(m, known) or super().is_leaf_module(m, module_qualified_name)


@dataclass
class _Builder:
    context: Context
    nodes: dict[str, nir.NIRNode] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def follow(self, body: nn.Module) -> _Value:
        """Walk the traced body and collect nodes and edges."""
        try:
            graph = _LayerTracer().trace(body)
        except MsgDeployError:
            raise
        except Exception as error:  # fx raises what the user's forward raises
            raise TraceError(
                f"{type(body).__name__}.forward cannot be traced ({reason(error)}); it must be "
                "layers and additions only, without control flow on values."
            ) from error
        self.nodes[INPUT] = nir.Input({"input": np.array(self.context.shape)})
        values: dict[fx.Node, _Value] = {}
        used: set[str] = set()
        for step in graph.nodes:
            if step.op == "output":
                if not isinstance(step.args[0], fx.Node):
                    raise TraceError("forward must return one tensor.")
                return values[step.args[0]]
            if step.op == "placeholder":
                if values:
                    raise TraceError("forward must take one tensor, (T*B, ...).")
                values[step] = _Value((INPUT,), self.context.shape)
            elif step.op == "call_module":
                path = str(step.target)
                if path in used:
                    raise TraceError(f"layer {path!r} is used twice; give each use its own layer.")
                used.add(path)
                values[step] = self._layer(path, body.get_submodule(path), step, values)
            else:
                values[step] = self._operation(step, values)
        raise TraceError("forward returns nothing.")

    def finish(self, value: _Value, readout: TWO | None) -> Readout | None:
        """Add the Output node; describe the readout."""
        sources = value.sources
        if readout is not None and len(sources) > 1:
            # The readout's source must be one node.
            name = f"{READOUT_PREFIX}current"
            self._add(name, nir.Scale(np.ones(value.shape)), sources)
            sources = (name,)
        self._add(OUTPUT, nir.Output({"output": np.array(value.shape)}), sources)
        if readout is None:
            return None
        weights = tuple(float(f) for f in readout.weights.double())
        return Readout(weights=weights, source=sources[0], fold="host")

    def graph(self) -> nir.NIRGraph:
        """The collected graph."""
        return nir.NIRGraph(self.nodes, self.edges, metadata={}, type_check=False)

    def _layer(
        self, path: str, layer: nn.Module, step: fx.Node, values: dict[fx.Node, _Value]
    ) -> _Value:
        (argument,) = step.args
        assert isinstance(argument, fx.Node)
        value = self._plain(values[argument], path)
        if isinstance(layer, IDENTITIES):
            return value
        if isinstance(layer, TWO):
            return replace(value, readout=layer)
        try:
            if isinstance(layer, BATCH_NORMS):
                self._fold_batch_norm(layer, value, alone=len(argument.users) == 1)
                return value
            converter = _converter_of(layer)
            node = converter(layer, self.context._replace(shape=value.shape))
            shape = primitive_of(node).output_shape(node, value.shape)
        except (GraphError, TraceError) as error:
            raise TraceError(f"layer {path!r} ({type(layer).__name__}): {error}") from None
        name = node_name(path)
        self._add(name, node, value.sources)
        return _Value((name,), shape)

    def _operation(self, step: fx.Node, values: dict[fx.Node, _Value]) -> _Value:
        operands = [a for a in step.args if isinstance(a, fx.Node)]
        inputs = [self._plain(values[a], str(step.name)) for a in operands]
        if step.target in (operator.add, operator.iadd, torch.add, "add", "add_") and (
            len(inputs) == 2 and not step.kwargs
        ):
            return _sum(*inputs)
        if step.target in (torch.flatten, "flatten") and len(inputs) == 1:
            given = dict(zip(("start_dim", "end_dim"), step.args[1:], strict=False))
            dims: dict[str, Any] = {"start_dim": 0} | given | step.kwargs
            node = _flatten(nn.Flatten(**dims), self.context._replace(shape=inputs[0].shape))
            name = node_name(step.name)
            self._add(name, node, inputs[0].sources)
            return _Value((name,), primitive_of(node).output_shape(node, inputs[0].shape))
        raise TraceError(
            f"operation {step.name!r} ({step.op} {step.target}) has no counterpart; supported are "
            "layers, addition of two tensors, and flatten."
        )

    def _plain(self, value: _Value, user: str) -> _Value:
        if value.readout is not None:
            raise TraceError(f"{user!r} uses the output of TWO, which must come last.")
        return value

    def _fold_batch_norm(self, norm: Any, value: _Value, alone: bool) -> None:
        """Replace the preceding weights W, b by W g, (b - mean) g + beta; g = gamma/sqrt(var+eps).

        In float64, so that the fold adds no rounding of its own.
        """
        source = value.sources[0]
        node = self.nodes[source]
        if len(value.sources) != 1 or not isinstance(node, (nir.Linear, nir.Affine, nir.Conv2d)):
            raise TraceError("must directly follow a Linear or Conv2d layer, to be folded into it.")
        if not alone:
            raise TraceError(
                f"cannot be folded into {source!r}, whose output is also used before it."
            )
        if norm.running_mean is None:
            raise TraceError("has no running statistics (track_running_stats=False).")
        mean, variance = _array(norm.running_mean, np.float64), _array(norm.running_var, np.float64)
        gain = 1 / np.sqrt(variance + norm.eps)
        shift = np.zeros_like(mean)
        if norm.affine:
            gain, shift = gain * _array(norm.weight, np.float64), _array(norm.bias, np.float64)
        weight = np.asarray(node.weight, np.float64)
        weight = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
        bias = (np.asarray(getattr(node, "bias", 0.0), np.float64) - mean) * gain + shift
        if isinstance(node, nir.Conv2d):
            self.nodes[source] = replace_fields(node, weight=weight, bias=bias)
        else:
            self.nodes[source] = nir.Affine(weight, bias)

    def _add(self, name: str, node: nir.NIRNode, sources: tuple[str, ...]) -> None:
        if name in self.nodes:
            raise TraceError(f"two layers are both named {name!r}; rename one.")
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]


def replace_fields(node: nir.Conv2d, **changes: Any) -> nir.Conv2d:
    """A copy of a convolution with other weights."""
    names = ("input_shape", "weight", "stride", "padding", "dilation", "groups", "bias")
    return nir.Conv2d(**{name: getattr(node, name) for name in names} | changes)


def _sum(a: _Value, b: _Value) -> _Value:
    if a.shape != b.shape:
        raise TraceError(f"addition of different shapes {a.shape} and {b.shape}.")
    twice = set(a.sources) & set(b.sources)
    if twice:
        raise TraceError(f"the output of {sorted(twice)[0]!r} is added to itself.")
    return _Value((*a.sources, *b.sources), a.shape)


def _converter_of(layer: nn.Module) -> Converter:
    for kind in type(layer).__mro__:
        if kind in CONVERTERS:
            return CONVERTERS[kind]
    names = sorted(k.__name__ for k in (*CONVERTERS, *BATCH_NORMS, *IDENTITIES, TWO))
    raise TraceError(f"has no counterpart in NIR; supported layers are {', '.join(names)}.")


def _array(tensor: Any, dtype: npt.DTypeLike | None = None) -> Array:
    return np.array(tensor.detach().cpu().numpy(), dtype)


@converts(nn.Linear)
def _linear(layer: nn.Linear, context: Context) -> nir.NIRNode:
    weight = _array(layer.weight)
    return nir.Linear(weight) if layer.bias is None else nir.Affine(weight, _array(layer.bias))


@converts(nn.Conv2d)
def _conv2d(layer: nn.Conv2d, context: Context) -> nir.NIRNode:
    if layer.padding_mode != "zeros":
        raise TraceError(f"padding_mode must be 'zeros', not {layer.padding_mode!r}.")
    weight = _array(layer.weight)
    bias = np.zeros(len(weight), weight.dtype) if layer.bias is None else _array(layer.bias)
    padding = layer.padding if isinstance(layer.padding, str) else np.array(layer.padding)
    return nir.Conv2d(
        input_shape=np.array(context.shape[1:]),
        weight=weight,
        stride=np.array(layer.stride),
        padding=padding,
        dilation=np.array(layer.dilation),
        groups=layer.groups,
        bias=bias,
    )


@converts(nn.AvgPool2d)
def _avg_pool2d(layer: nn.AvgPool2d, context: Context) -> nir.NIRNode:
    if layer.ceil_mode or layer.divisor_override is not None:
        raise TraceError("ceil_mode and divisor_override are not supported.")
    padding = np.broadcast_to(layer.padding, (2,))
    if padding.any() and not layer.count_include_pad:
        raise TraceError("count_include_pad=False with padding is not supported.")
    fields = (layer.kernel_size, layer.stride, padding)
    return nir.AvgPool2d(*(np.array(np.broadcast_to(f, (2,))) for f in fields))


@converts(nn.Flatten)
def _flatten(layer: nn.Flatten, context: Context) -> nir.NIRNode:
    dimensions = len(context.shape)
    start, end = (d + dimensions + 1 if d < 0 else d for d in (layer.start_dim, layer.end_dim))
    if start < 1:
        raise TraceError("start_dim 0 would merge time and batch with the data; use start_dim=1.")
    # Negative dimensions mean the same with and without a batch dimension.
    return nir.Flatten(
        {"input": np.array(context.shape)},
        start_dim=start - 1 - dimensions,
        end_dim=end - 1 - dimensions,
    )


@converts(LIF)
def _lif(layer: LIF, context: Context) -> nir.NIRNode:
    def full(value: float) -> npt.NDArray[np.float64]:
        return np.full(context.shape, value, np.float64)

    threshold, v_reset = full(layer.v_threshold), full(layer.v_reset)
    if math.isinf(layer.tau):
        return nir.IF(r=full(1), v_threshold=threshold, v_reset=v_reset)
    return nir.LIF(
        tau=full(layer.tau * context.dt),
        r=full(1),
        v_leak=full(0),
        v_threshold=threshold,
        v_reset=v_reset,
    )
