"""Mistakes in weights and biases: left out, doubled, turned, rounded, exchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nir
import numpy as np
import torch

from msg_deploy.exporters.names import free_name
from msg_deploy.sim.diagnosis.hypotheses import (
    Change,
    Family,
    Setting,
    Variant,
    changed,
    hypothesis,
    ratio,
)
from msg_deploy.sim.diagnosis.hypotheses.neuron import FACTORS
from msg_deploy.sim.diagnosis.segments import DELAY
from msg_deploy.sim.simulator import FloatArray

MATRICES = (nir.Linear, nir.Affine)
CONVOLUTIONS = (nir.Conv1d, nir.Conv2d)
WEIGHTED = (*MATRICES, *CONVOLUTIONS)
BITS = (8, 4, 16, 6, 5, 3, 2, 7, 10, 12)


@hypothesis(cost=2)
def bias(setting: Setting) -> Iterator[Change]:
    """A bias is missing, added twice, or added with another factor."""
    for name, node in _biased(setting):
        own = np.asarray(node.bias, np.float64)
        for text, value in (("missing", own * 0), ("added twice", own * 2), ("negated", -own)):
            yield Variant(name, f"the bias is {text}", changed(setting.segment, name, bias=value))
        theirs = setting.theirs(name, "bias")
        if theirs is not None:
            segment = changed(setting.segment, name, bias=theirs)
            yield Variant(name, f"the bias is {ratio(own, theirs)}", segment)


@hypothesis(cost=2)
def bias_time(setting: Setting) -> Iterator[Change]:
    """A bias is missing at the first step, added there only, or too early in a cycle."""
    segment = setting.segment
    for name, node in _biased(setting):
        out = [b for a, b in segment.edges if a == name]
        shape = np.shape(segment.deployment.graph.nodes[name].bias)
        for edge in segment.edges:
            if edge[0] == name and edge[1].startswith(DELAY):
                yield _undelayed_bias(setting, name, edge[1])
        if len(shape) != 1 or isinstance(node, CONVOLUTIONS) or not out:
            continue
        yield from _late_bias(setting, name, node, out)


def _undelayed_bias(setting: Setting, name: str, delay: str) -> Variant:
    """The bias of a recurrent layer already at the first step: Delay first, then the layer."""
    segment = setting.segment
    (behind,) = [b for a, b in segment.edges if a == delay]
    edges = [e for e in segment.edges if delay not in e and e[1] != name]
    before = [a for a, b in segment.edges if b == name]
    nodes = dict(segment.deployment.graph.nodes)
    own: Any = nodes[delay]
    size = np.shape(nodes[name].weight)[1:]
    nodes[delay] = nir.Delay(np.full(size, np.asarray(own.delay).flat[0]))
    edges += [*((a, delay) for a in before), (delay, name), (name, behind)]
    return Variant(
        name, "the bias acts at the first step already", segment.with_graph(nodes, edges)
    )


def _late_bias(setting: Setting, name: str, node: Any, out: list[str]) -> Iterator[Change]:
    segment, dt = setting.segment, setting.segment.deployment.timing.dt
    weight, own = np.asarray(node.weight), np.asarray(node.bias, np.float64)
    given = segment.deployment.graph.nodes
    constant, late, minus = (free_name(n, given) for n in ("bias", "late bias", "no bias"))
    nodes = {**given, constant: nir.Affine(weight * 0.0, own)}
    nodes[late] = nir.Delay(np.full(own.shape, dt))
    feeding = [(a, constant) for a, b in segment.edges if b == name]
    without = {**nodes, name: nir.Affine(weight, own * 0.0)}
    edges = [*segment.edges, *feeding, (constant, late), *((late, b) for b in out)]
    late_only = segment.with_graph(without, edges)
    yield Variant(name, "the bias is missing at the first step", late_only)
    nodes[minus] = nir.Scale(np.full(own.shape, -1.0))
    edges = [*segment.edges, *feeding, (constant, late), (late, minus), *((minus, b) for b in out)]
    yield Variant(
        name, "the bias is added at the first step only", segment.with_graph(nodes, edges)
    )


@hypothesis(cost=1)
def transposition(setting: Setting) -> Iterator[Change]:
    """A weight is transposed, or a kernel flipped (convolution in place of correlation)."""
    for name, node in setting.nodes(*WEIGHTED):
        weight = np.asarray(node.weight)
        turned: dict[str, FloatArray] = {}
        if weight.shape[0] == weight.shape[1]:
            turned["the weight is transposed, (in, out) for (out, in)"] = weight.swapaxes(0, 1)
        if weight.ndim == 4:
            if weight.shape[2] == weight.shape[3]:
                turned["height and width of the kernel are exchanged"] = weight.swapaxes(2, 3)
            turned["the kernel is flipped in both directions"] = weight[:, :, ::-1, ::-1]
            turned["the kernel is flipped upside down"] = weight[:, :, ::-1]
            turned["the kernel is flipped left to right"] = weight[..., ::-1]
        elif weight.ndim == 3:
            turned["the kernel is flipped"] = weight[..., ::-1]
        yield from _weights(setting, name, turned)


@hypothesis(cost=2)
def channel_order(setting: Setting) -> Iterator[Change]:
    """Input or output channels of a layer are in reverse order."""
    for name, node in setting.nodes(*WEIGHTED):
        weight = np.asarray(node.weight)
        fields: dict[str, Any] = {"weight": weight[::-1]}
        if hasattr(node, "bias"):
            fields["bias"] = np.asarray(node.bias)[::-1]
        outputs = changed(setting.segment, name, **fields)
        yield Variant(name, "output channels are in reverse order", outputs)
        inputs = changed(setting.segment, name, weight=weight[:, ::-1])
        yield Variant(name, "input channels are in reverse order", inputs)
        if hasattr(node, "bias"):
            segment = changed(setting.segment, name, bias=fields["bias"])
            yield Variant(name, "the bias is in reverse order", segment)


@hypothesis(cost=3)
def quantization(setting: Setting) -> Iterator[Change]:
    """Weights are rounded to a number of bits, or to another type of float."""
    for name, node in setting.nodes(*WEIGHTED):
        weight = np.asarray(node.weight, np.float64)
        rounded = {
            "float16": weight.astype(np.float16).astype(np.float64),
            "bfloat16": torch.from_numpy(weight).bfloat16().double().numpy(),
        }
        for bits in BITS:
            rounded[f"{bits} bits"] = _rounded(weight, bits, np.abs(weight).max(initial=0.0))
            largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
            each = largest.reshape(-1, *[1] * (weight.ndim - 1))
            rounded[f"{bits} bits, each output with its own scale"] = _rounded(weight, bits, each)
        texts = {f"weights are rounded to {text}": value for text, value in rounded.items()}
        yield from _weights(setting, name, texts)
        if hasattr(node, "bias") and np.any(node.bias):
            biases = np.asarray(node.bias, np.float64)
            for text, value in rounded.items():
                short = _rounded_bias(text, biases)
                if short is not None:
                    segment = changed(setting.segment, name, weight=value, bias=short)
                    yield Variant(name, f"weights and bias are rounded to {text}", segment)


def _rounded(values: FloatArray, bits: int, largest: Any) -> FloatArray:
    """To whole multiples of largest / (2^(bits - 1) - 1)."""
    scale = np.where(np.asarray(largest) > 0, largest, 1.0) / (2 ** (bits - 1) - 1)
    return np.asarray(np.rint(values / scale) * scale)


def _rounded_bias(text: str, values: FloatArray) -> FloatArray | None:
    if text == "float16":
        return values.astype(np.float16).astype(np.float64)
    if text == "bfloat16":
        return torch.from_numpy(values).bfloat16().double().numpy()
    if text.endswith("bits"):
        return _rounded(values, int(text.split()[0]), np.abs(values).max(initial=0.0))
    return None


@hypothesis(cost=3)
def exchanged_weights(setting: Setting) -> Iterator[Change]:
    """A layer has the weights of another layer of the same shape."""
    for name, node in setting.nodes(*WEIGHTED):
        for other, theirs in setting.model.graph.nodes.items():
            fits = type(theirs) is type(node) and np.shape(theirs.weight) == np.shape(node.weight)
            if fits and other != name:
                fields = {f: getattr(theirs, f) for f in ("weight", "bias") if hasattr(node, f)}
                segment = changed(setting.segment, name, **fields)
                yield Variant(name, f"it has the weights of {other!r}", segment)
                if len(fields) > 1:
                    segment = changed(setting.segment, name, weight=theirs.weight)
                    yield Variant(
                        name, f"it has the weights of {other!r} and its own bias", segment
                    )


@hypothesis(cost=3)
def weight_scale(setting: Setting) -> Iterator[Change]:
    """All weights of a layer, with or without its bias, have another factor."""
    for name, node in setting.nodes(*WEIGHTED):
        fields = ("weight", "bias") if hasattr(node, "bias") and np.any(node.bias) else ("weight",)
        for chosen in {fields: None, ("weight",): None}:
            yield Family(_scaling(setting, name, chosen), (-1.0, *FACTORS))


def _scaling(setting: Setting, name: str, fields: tuple[str, ...]) -> Any:
    node: Any = setting.segment.nodes[name]

    def at(factor: float) -> Variant:
        values = {f: np.asarray(getattr(node, f), np.float64) * factor for f in fields}
        text = f"{' and '.join(fields)} are {factor:.6g} times what they should be"
        return Variant(name, text, changed(setting.segment, name, **values))

    return at


@hypothesis(cost=4)
def weight_values(setting: Setting) -> Iterator[Change]:
    """Weights have other values, which the file states."""
    for name, node in setting.nodes(*WEIGHTED):
        found = {f: setting.theirs(name, f) for f in ("weight", "bias") if hasattr(node, f)}
        known = {f: value for f, value in found.items() if value is not None}
        if known:
            count = sum(int(np.sum(getattr(node, f) != value)) for f, value in known.items())
            text = f"{count} numbers in {' and '.join(known)} are others"
            yield Variant(name, text, changed(setting.segment, name, **known))


def _weights(setting: Setting, name: str, texts: dict[str, FloatArray]) -> Iterator[Change]:
    own = np.asarray(getattr(setting.segment.nodes[name], "weight"))  # noqa: B009
    for text, value in texts.items():
        if not np.array_equal(value, own):
            segment = changed(setting.segment, name, weight=np.ascontiguousarray(value))
            yield Variant(name, text, segment)


def _biased(setting: Setting) -> Iterator[tuple[str, Any]]:
    for name, node in setting.nodes(nir.Affine, *CONVOLUTIONS):
        if np.any(node.bias):
            yield name, node
