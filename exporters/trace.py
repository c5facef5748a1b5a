"""From a torch module to a NIR graph, layer by layer, by symbolic tracing (torch.fx).

A module of ours maps merged time and batch, (T*B, ...), so every layer but LIF and TWO acts on one
step; a module of another framework makes one step, or all of them in multi-step layers.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

import nir
import numpy as np
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
    Timing,
    node_name,
)
from msg_deploy.errors import GraphError, MsgDeployError, TraceError, reason
from msg_deploy.exporters.adapters import CONTAINERS, ForeignNetwork, adapter_of, adapters
from msg_deploy.exporters.layers import (
    BATCH_NORMS,
    CONVERTERS,
    IDENTITIES,
    Context,
    Part,
    array_of,
    converter_of,
    flatten,
)
from msg_deploy.graph import plan
from msg_deploy.networks import SpikingNetwork, timing_of
from msg_deploy.neuron import LIF
from msg_deploy.options import ResetMode
from msg_deploy.primitives import primitive_of
from msg_deploy.readout import TWO


def trace(
    module: nn.Module | ForeignNetwork,
    input_spec: InputSpec | None = None,
    dt: float | None = None,
    provenance: Provenance | None = None,
    steps: int | None = None,
) -> Deployment:
    """The NIR graph of a module in evaluation mode, with TWO left to the host.

    Args:
        module: a SpikingNetwork or a ForeignNetwork, which bring everything else along, or any
            nn.Module made of supported layers that maps (T*B, *input shape) to (T*B, C), or to
            (B, C) by a TWO layer at its end. Neurons of Norse, snnTorch and spikingjelly do not
            know how many steps there are, so `steps` is needed with them.
        input_spec: what a sample looks like.
        dt: length of a timestep in seconds, 1e-3 unless given.
        provenance: data set and class names.
        steps: number of timesteps T, for a module of another framework.

    Returns:
        A checked deployment. Weights keep their dtype; those with a BatchNorm folded in, and all
        neuron parameters, are float64 so that nothing is rounded.

    Raises:
        TraceError: naming the layer that has no counterpart.
    """
    if isinstance(module, nn.Module) and input_spec and steps is not None and adapters(module):
        module = ForeignNetwork(module, input_spec, steps, dt)
    body: nn.Module
    readout: TWO | None
    if isinstance(module, SpikingNetwork):
        body, readout = module.body, module.readout
        input_spec, timing = module.input_spec, module.timing
        provenance = provenance or module.provenance
    elif isinstance(module, ForeignNetwork):
        body, readout = module.module, module.readout
        input_spec, timing = module.input_spec, _foreign_timing(module)
    elif input_spec is None:
        raise TraceError("a plain module needs an input_spec: the shape of one sample.")
    else:
        if adapters(module):
            raise TraceError(
                "has neurons of another framework, which do not say how many steps there are; "
                "give steps=, or wrap it: ForeignNetwork(module, input_spec, steps)."
            )
        body, readout, timing = module, None, timing_of(module, 1e-3 if dt is None else dt)
    for name, given, own in (("steps", steps, timing.steps), ("dt", dt, timing.dt)):
        if given is not None and given != own:
            raise TraceError(f"{name}={given} is given, but the module has {own}; leave it out.")
    dtypes = [p.dtype for p in body.parameters() if p.is_floating_point()]
    dtype = np.float64 if torch.float64 in dtypes else np.float32
    builder = _Builder(Context(input_spec.shape, timing.dt, dtype))
    value = builder.follow(body)
    readout = readout or value.readout
    described = builder.finish(value, readout)
    provenance = provenance or Provenance(source=type(body).__name__)
    deployment = Deployment(
        builder.graph(),
        timing,
        input_spec,
        described,
        replace(provenance, versions=library_versions(), dialect="nir", latency=0),
        module.integers if isinstance(module, SpikingNetwork) else None,
    )
    try:
        plan(deployment.graph)
    except GraphError as error:
        raise TraceError(str(error)) from error
    return deployment


def _foreign_timing(network: ForeignNetwork) -> Timing:
    """Steps as given; reset, and where neurons know it dt, as all neurons agree."""
    found = adapters(network.module)
    if not found or any(isinstance(m, (LIF, TWO)) for m in network.module.modules()):
        raise TraceError(
            "a ForeignNetwork needs neurons of Norse, snnTorch or spikingjelly, and none of ours; "
            "hand TWO to it as readout=."
        )
    resets: dict[ResetMode, str] = {}
    lengths: dict[float, str] = {}
    for path, (adapter, layer) in found.items():
        try:
            reset, dt = adapter.reset(layer), adapter.dt(layer)
        except TraceError as error:
            raise TraceError(f"layer {path!r} ({type(layer).__name__}): {error}") from None
        if reset is not None:
            resets[reset] = path
        if dt is not None:
            lengths[dt] = path
    if len(resets) > 1:
        raise TraceError(
            f"layers {resets['zero']!r} and {resets['subtract']!r} reset differently; one graph "
            "has one kind of reset."
        )
    if network.dt is not None:
        lengths.setdefault(network.dt, "dt as given")
    if len(lengths) > 1:
        listed = ", ".join(f"{dt} ({path})" for dt, path in lengths.items())
        raise TraceError(f"timesteps differ: {listed}; one graph has one dt.")
    return Timing(
        dt=next(iter(lengths), 1e-3), steps=network.steps, reset=next(iter(resets), "zero")
    )


@dataclass(frozen=True)
class _Value:
    """What flows along an edge of the fx graph.

    Attributes:
        sources: NIR nodes whose outputs are summed to this value.
        shape: of one timestep of one sample.
        readout: TWO, if the value came out of it.
        with_state: it is the pair of a neuron's output and state.
        state: it is the state of a neuron, of which nothing but handing it on is known.
    """

    sources: tuple[str, ...]
    shape: Shape
    readout: TWO | None = None
    with_state: bool = False
    state: bool = False


_STATE = _Value((), (), state=True)


class _LayerTracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = (*CONVERTERS, *BATCH_NORMS, *IDENTITIES, LIF, TWO)
        return isinstance(m, known) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Containers of other frameworks are followed child by child."""
        kind = _container(m)
        if kind:
            x = _in_a_row(m, args[0])
            return (x, None) if CONTAINERS[kind] else x
        return super().call_module(m, forward, args, kwargs)


def _container(module: nn.Module) -> type[nn.Module] | None:
    """The kind of container, unless a subclass has its own way of calling its children."""
    kinds = (kind for kind in CONTAINERS if isinstance(module, kind))
    return next((kind for kind in kinds if type(module).forward is kind.forward), None)


def _in_a_row(container: nn.Module, x: Any) -> Any:
    for child in container.children():
        adapter = adapter_of(child)
        x = child(x)
        if isinstance(x, tuple) or (adapter and adapter.returns_state(child)):
            x = x[0]
    return x


def _traced(body: nn.Module) -> fx.Graph:
    if adapter_of(body):
        raise TraceError("is a neuron itself; put it into nn.Sequential.")
    if _container(body):
        body = _InARow(OrderedDict(body.named_children()))
    return _LayerTracer().trace(body)


class _InARow(nn.Sequential):
    def forward(self, x: Any) -> Any:
        return _in_a_row(self, x)


@dataclass
class _Builder:
    context: Context
    nodes: dict[str, nir.NIRNode] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)

    def follow(self, body: nn.Module) -> _Value:
        """Walk the traced body and collect nodes and edges."""
        try:
            graph = _traced(body)
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
                return self._returned(step.args[0], values)
            if step.op == "placeholder":
                # What comes after the input are states.
                values[step] = _STATE if values else _Value((INPUT,), self.context.shape)
            elif step.op == "call_module":
                path = str(step.target)
                if path in used:
                    raise TraceError(
                        f"layer {path!r} is used twice; give each use its own layer, and leave the "
                        "loop over time to the caller: forward makes one step."
                    )
                used.add(path)
                values[step] = self._layer(path, body.get_submodule(path), step, values)
            else:
                values[step] = self._operation(step, values)
        raise TraceError("forward returns nothing.")

    def _returned(self, result: Any, values: dict[fx.Node, _Value]) -> _Value:
        """What forward returns: a tensor, or a tensor and states."""
        while isinstance(result, (tuple, list)) and result:
            result = result[0]
        if not isinstance(result, fx.Node):
            raise TraceError("forward must return one tensor, or a tensor and states.")
        if values[result].state:
            raise TraceError("forward must return the output first, then the states.")
        return replace(values[result], with_state=False)

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
        argument = step.args[0] if step.args else None
        if not isinstance(argument, fx.Node):
            raise TraceError(
                f"layer {path!r}: its first argument must be one tensor, given without a keyword."
            )
        others = [*step.args[1:], *step.kwargs.values()]
        if any(isinstance(a, fx.Node) and not values[a].state for a in others):
            raise TraceError(f"layer {path!r} takes one tensor and its state.")
        value = self._plain(values[argument], path)
        if isinstance(layer, tuple(IDENTITIES)):
            return value
        if isinstance(layer, TWO):
            return replace(value, readout=layer)
        try:
            if isinstance(layer, BATCH_NORMS):
                self._fold_batch_norm(layer, value, alone=len(argument.users) == 1)
                return value
            converted = converter_of(layer)(layer, self.context._replace(shape=value.shape))
            part = converted if isinstance(converted, Part) else Part({"": converted}, (), "")
            node = part.nodes[part.start]
            shape = primitive_of(node).output_shape(node, value.shape)
        except (GraphError, TraceError) as error:
            raise TraceError(f"layer {path!r} ({type(layer).__name__}): {error}") from None
        name = node_name(path)
        for suffix, node in part.nodes.items():
            self._add(name + suffix, node, value.sources if suffix == part.start else ())
        self.edges += [(name + a, name + b) for a, b in part.edges]
        adapter = adapter_of(layer)
        return _Value((name,), shape, with_state=bool(adapter and adapter.returns_state(layer)))

    def _operation(self, step: fx.Node, values: dict[fx.Node, _Value]) -> _Value:
        operands = [a for a in step.args if isinstance(a, fx.Node)]
        if operands and all(values[a].state for a in operands):
            return _STATE
        if step.target is operator.getitem and operands and values[operands[0]].with_state:
            pair = values[operands[0]]
            return replace(pair, with_state=False) if step.args[1] == 0 else _STATE
        inputs = [self._plain(values[a], str(step.name)) for a in operands]
        if step.target in (operator.add, operator.iadd, torch.add, "add", "add_") and (
            len(inputs) == 2 and not step.kwargs
        ):
            try:
                return _sum(*inputs)
            except TraceError as error:
                raise TraceError(f"operation {step.name!r}: {error}") from None
        if step.target in (torch.flatten, "flatten") and len(inputs) == 1:
            given = dict(zip(("start_dim", "end_dim"), step.args[1:], strict=False))
            dims: dict[str, Any] = {"start_dim": 0} | given | step.kwargs
            name = node_name(step.name)
            try:
                node = flatten(nn.Flatten(**dims), self.context._replace(shape=inputs[0].shape))
                shape = primitive_of(node).output_shape(node, inputs[0].shape)
            except (GraphError, TraceError) as error:
                raise TraceError(f"operation {step.name!r}: {error}") from None
            self._add(name, node, inputs[0].sources)
            return _Value((name,), shape)
        raise TraceError(
            f"operation {step.name!r} ({step.op} {step.target}) has no counterpart; supported are "
            "layers, addition of two tensors, and flatten."
        )

    def _plain(self, value: _Value, user: str) -> _Value:
        if value.readout is not None:
            raise TraceError(f"{user!r} uses the output of TWO, which must come last.")
        if value.with_state:
            raise TraceError(f"{user!r} uses a neuron's output together with its state; unpack it.")
        if value.state:
            raise TraceError(
                f"{user!r} uses the state of a neuron as a value; only outputs have a counterpart."
            )
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
        mean, variance = (
            array_of(norm.running_mean, np.float64),
            array_of(norm.running_var, np.float64),
        )
        if len(mean) != len(node.weight):
            raise TraceError(
                f"normalizes {len(mean)} channels, but {source!r} gives {len(node.weight)}."
            )
        gain = 1 / np.sqrt(variance + norm.eps)
        shift = np.zeros_like(mean)
        if norm.affine:
            gain, shift = gain * array_of(norm.weight, np.float64), array_of(norm.bias, np.float64)
        weight = np.asarray(node.weight, np.float64)
        weight = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
        bias = (np.asarray(getattr(node, "bias", 0.0), np.float64) - mean) * gain + shift
        if isinstance(node, nir.Conv2d):
            self.nodes[source] = replace(node, weight=weight, bias=bias)
        else:
            self.nodes[source] = nir.Affine(weight, bias)

    def _add(self, name: str, node: nir.NIRNode, sources: tuple[str, ...]) -> None:
        if name in self.nodes:
            raise TraceError(f"two layers are both named {name!r}; rename one.")
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]


def _sum(a: _Value, b: _Value) -> _Value:
    if a.shape != b.shape:
        raise TraceError(f"addition of different shapes {a.shape} and {b.shape}.")
    twice = set(a.sources) & set(b.sources)
    if twice:
        raise TraceError(f"the output of {sorted(twice)[0]!r} is added to itself.")
    return _Value((*a.sources, *b.sources), a.shape)
