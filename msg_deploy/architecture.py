"""A module as data: what a checkpoint stores in place of code.

Known layers, nn.Sequential, Residual and Graph are described by their constructor arguments and
rebuilt from them. Any other module is stored by its class name only, and loading it needs the
module.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

from torch import nn

from msg_deploy.errors import UsageError
from msg_deploy.networks import Graph, Residual, Scale
from msg_deploy.neuron import LIF, ChannelLIF

Description = dict[str, Any]

LAYERS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features", "bias"),
    nn.Conv2d: (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "bias",
        "padding_mode",
    ),
    nn.BatchNorm1d: ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    nn.BatchNorm2d: ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    nn.AvgPool2d: (
        "kernel_size",
        "stride",
        "padding",
        "ceil_mode",
        "count_include_pad",
        "divisor_override",
    ),
    nn.Flatten: ("start_dim", "end_dim"),
    nn.Dropout: ("p",),
    nn.Identity: (),
    LIF: (
        "steps",
        "tau",
        "v_threshold",
        "v_reset",
        "reset",
        "surrogate",
        "alpha",
        "detach_reset",
    ),
    ChannelLIF: ("steps", "shape", "tau", "reset", "surrogate", "alpha", "detach_reset"),
    Scale: ("shape",),
}
"""The constructor arguments that describe each layer, which are attributes of the same name."""

_BY_NAME = {layer.__name__: layer for layer in LAYERS}


def describe(module: nn.Module) -> Description:
    """The description of a module; {"custom": class name} if it cannot be rebuilt from data."""
    described = _describe(module)
    return {"custom": type(module).__name__} if described is None else described


def _describe(module: nn.Module) -> Description | None:
    if type(module) in LAYERS:
        values = {name: getattr(module, name) for name in LAYERS[type(module)]}
        if "bias" in values:
            values["bias"] = values["bias"] is not None
        arguments = {k: _to_json(v) for k, v in values.items()}
        return {"type": type(module).__name__, "arguments": arguments}
    if type(module) in (nn.Sequential, Residual):
        children = {name: _describe(child) for name, child in module.named_children()}
        if None not in children.values():
            return {"type": type(module).__name__, "children": children}
    if type(module) is Graph:
        layers = {name: _describe(module.get_submodule(name)) for name in module.names}
        if None not in layers.values():
            # A list: JSON objects have no order.
            described = [[name, layer] for name, layer in layers.items()]
            return {"type": "Graph", "layers": described, "edges": [list(e) for e in module.edges]}
    return None


def rebuild(description: Description) -> nn.Module:
    """The module of a description, freshly initialised.

    Raises:
        UsageError: the description is of a custom module, or is malformed.
    """
    if "custom" in description:
        raise UsageError(
            f"the body is the custom module {description['custom']!r}, of which only the weights "
            "are stored; pass it as msg_deploy.load(path, body=...)."
        )
    try:
        return _rebuild(description)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UsageError(f"architecture: not a description of layers ({error!r}).") from error


def _rebuild(description: Description) -> nn.Module:
    kind = description["type"]
    if kind in _BY_NAME:
        layer = _BY_NAME[kind]
        arguments = description["arguments"]
        unknown = set(arguments) - set(LAYERS[layer])
        if unknown:
            raise UsageError(f"architecture: {kind} has no argument {sorted(unknown)[0]!r}.")
        return layer(**{k: _from_json(v) for k, v in arguments.items()})
    if kind == "Graph":
        layers = {str(name): _rebuild(layer) for name, layer in description["layers"]}
        return Graph(layers, [(str(a), str(b)) for a, b in description["edges"]])
    children = {name: _rebuild(child) for name, child in description.get("children", {}).items()}
    if kind == "Sequential":
        return nn.Sequential(OrderedDict(children))
    if kind == "Residual":
        return Residual(children["main"], children["shortcut"])
    known = ", ".join([*_BY_NAME, "Sequential", "Residual", "Graph"])
    raise UsageError(f"architecture: unknown layer {kind!r}; known are {known}.")


def _to_json(value: Any) -> Any:
    return "inf" if isinstance(value, float) and math.isinf(value) else value


def _from_json(value: Any) -> Any:
    if value == "inf":
        return math.inf
    return tuple(value) if isinstance(value, list) else value
