"""Mistakes in space: windows, pooling, the order of flattening, axes of the input."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import nir
import numpy as np

from msg_deploy.errors import GraphError
from msg_deploy.graph import plan
from msg_deploy.primitives import pair, primitive_of
from msg_deploy.primitives.convolution import conv_padding
from msg_deploy.sim.diagnosis.hypotheses import (
    Change,
    Setting,
    Values,
    Variant,
    changed,
    hypothesis,
)
from msg_deploy.sim.diagnosis.hypotheses.weights import MATRICES
from msg_deploy.sim.simulator import FloatArray

POOLS = (nir.SumPool2d, nir.AvgPool2d)
SMALL = 4
"""Paddings below this are tried; strides and dilations from 1 up to below it."""


@hypothesis(cost=2)
def window(setting: Setting) -> Iterator[Change]:
    """Padding, stride or dilation of a convolution or pooling is another one."""
    for name, node in setting.nodes(nir.Conv2d, *POOLS):
        fields = ("padding", "stride", *(("dilation",) if isinstance(node, nir.Conv2d) else ()))
        own = {field: _pair(node, field) for field in fields}
        sizes = itertools.product(range(SMALL), range(1, SMALL), range(1, SMALL))
        found = {sizes_[: len(fields)]: None for sizes_ in sizes}
        for numbers in found:
            values = {f: (n, n) for f, n in zip(fields, numbers, strict=True)}
            different = [f for f in fields if values[f] != own[f]]
            arrays = {f: np.array(values[f]) for f in different}
            if different and _fits(setting, name, arrays):
                listed = " and ".join(f"{f} is {values[f][0]}" for f in different)
                yield Variant(name, listed, changed(setting.segment, name, **arrays))
        yield from _shifted(setting, name, node)


def _pair(node: Any, field: str) -> tuple[int, int] | None:
    value = getattr(node, field)
    return None if isinstance(value, str) else pair(node, field, 0)


def _fits(setting: Setting, name: str, fields: dict[str, Any]) -> bool:
    """Whether the output keeps its shape."""
    segment = setting.segment
    known = plan(segment.deployment.graph)
    node: Any = changed(segment, name, **fields).deployment.graph.nodes[name]
    if isinstance(node, POOLS):
        # torch pools no windows of which more than half is padding.
        sizes = zip(pair(node, "padding", 0), pair(node, "kernel_size", 1), strict=True)
        if any(2 * padding > kernel for padding, kernel in sizes):
            return False
    try:
        return primitive_of(node).output_shape(node, known.input_shapes[name]) == known.shapes[name]
    except GraphError:
        return False


def _shifted(setting: Setting, name: str, node: Any) -> Iterator[Change]:
    """Windows that start one place earlier or later: padding on one side only."""
    if not isinstance(node, nir.Conv2d) or isinstance(node.padding, str):
        return
    if _pair(node, "dilation") != (1, 1):
        return
    for down, right in ((1, 1), (-1, -1), (1, 0), (0, 1), (-1, 0), (0, -1)):
        widths = [(1 + n, 1 - n) for n in (down, right)]
        weight = np.pad(np.asarray(node.weight), [(0, 0), (0, 0), *widths])
        padding = np.array(conv_padding(node, 2))[:, 0] + 1
        fields = {"weight": weight, "padding": padding, "input_shape": None}
        if _fits(setting, name, fields):
            text = f"windows are moved by {down} down and {right} to the right"
            yield Variant(name, text, changed(setting.segment, name, **fields))


@hypothesis(cost=1)
def pooling(setting: Setting) -> Iterator[Change]:
    """Windows are summed in place of their mean, or the reverse."""
    for name, node in setting.nodes(*POOLS):
        summed = isinstance(node, nir.SumPool2d)
        kind = nir.AvgPool2d if summed else nir.SumPool2d
        other = kind(node.kernel_size, node.stride, node.padding)
        text = "the mean of windows is taken, not the sum"
        if not summed:
            text = "the sum of windows is taken, not the mean"
        yield Variant(name, text, setting.segment.with_nodes({name: other}))


@hypothesis(cost=1)
def flatten_order(setting: Setting) -> Iterator[Change]:
    """Images are flattened in another order of their axes than channel, height, width."""
    known = plan(setting.segment.deployment.graph)
    for name, node in setting.nodes(nir.Flatten):
        shape = known.input_shapes[name]
        whole = known.shapes[name] == (int(np.prod(shape)),)
        behind = [b for a, b in setting.segment.edges if a == name]
        matrices = [n for n, _ in setting.nodes(*MATRICES) if n in behind]
        if not whole or len(shape) != 3 or matrices != behind or not isinstance(node, nir.Flatten):
            continue
        for axes, text in ORDERS.items():
            segment = setting.segment
            places = np.arange(int(np.prod(shape))).reshape(shape).transpose(axes).ravel()
            for matrix in matrices:
                weight = np.asarray(getattr(segment.nodes[matrix], "weight"))  # noqa: B009
                # Column k meets what the other order puts at place k.
                columns = np.empty_like(weight)
                columns[:, places] = weight
                segment = changed(segment, matrix, weight=columns)
            yield Variant(name, f"images are flattened as {text}", segment)


ORDERS = {
    (1, 2, 0): "height, width, channel",
    (2, 1, 0): "width, height, channel",
    (0, 2, 1): "channel, width, height",
    (1, 0, 2): "height, channel, width",
    (2, 0, 1): "width, channel, height",
}


@hypothesis(cost=1)
def input_axes(setting: Setting) -> Iterator[Change]:
    """The network's input has its channels (polarities) or rows reversed, or its axes exchanged."""
    model = setting.model.graph.nodes
    for border, source in setting.segment.borders.items():
        if not isinstance(model.get(source), nir.Input):
            continue
        shape = plan(setting.segment.deployment.graph).shapes[border]
        for text, turn in _turns(shape).items():
            yield Variant(border, text, setting.segment, _received(border, turn))


Turn = Callable[[FloatArray], FloatArray]


def _turns(shape: tuple[int, ...]) -> dict[str, Turn]:
    """Other orders of an input (T, B, *shape) that keep its shape."""
    found: dict[str, Turn] = {}
    if shape[0] > 1:
        found["channels (polarities) of the input are in reverse order"] = lambda x: x[:, :, ::-1]
    if len(shape) == 3:
        if shape[1] == shape[2]:
            found["height and width of the input are exchanged"] = lambda x: x.swapaxes(3, 4)
        found["rows of the input are in reverse order"] = lambda x: x[:, :, :, ::-1]
        found["columns of the input are in reverse order"] = lambda x: x[..., ::-1]
    return found


def _received(border: str, turn: Turn) -> Callable[[Values], Values]:
    return lambda values: {**values, border: np.ascontiguousarray(turn(values[border]))}
