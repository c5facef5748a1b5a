"""Parallel branches as one row of layers: the same network for readers that run rows only.

Branches between the same nodes, each a row of linear layers and spiking neurons, become one row:
their first weights are stacked, the last ones put side by side, those between on the diagonal. A
branch with fewer neurons is lengthened by neurons that spike if and only if their input is 1.
Weights are copied and padded with zeros, or added up where no branch has neurons; a mean of n
places becomes weights 1/n. What cannot be fused without a change of any spike is refused; other
structures are left as they are.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import Deployment, Shape, Timing
from msg_deploy.errors import GraphError
from msg_deploy.exporters.names import free_name
from msg_deploy.graph import Incoming, Plan, plan
from msg_deploy.parts import PARTS_KEY, Parts, parts
from msg_deploy.primitives import Elementwise, pair, primitive_of
from msg_deploy.primitives.convolution import conv_padding

Array = npt.NDArray[Any]
DRIVE = 2
"""How many thresholds a spike that is passed on is worth, at least; anything above 1 will do."""


@dataclass(frozen=True)
class Taps:
    """A linear layer as weights at places: a matrix has no axes, a convolution has two.

    y[o, q] = bias[o] + sum over i, j of weight[o, i, j] x[i, stride q + low + j]; x is 0 outside.

    Attributes:
        weight: (outputs, inputs, *places).
        bias: (outputs,).
        low: the first place, along each axis.
        stride: along each axis.
        size: of the input, along each axis.
        count: of the output, along each axis.
        name: of the node; empty if there is none.
    """

    weight: Array
    bias: Array
    low: Shape = ()
    stride: Shape = ()
    size: Shape = ()
    count: Shape = ()
    name: str = ""

    @property
    def high(self) -> Shape:
        """The last place, along each axis."""
        kernel = self.weight.shape[2:]
        return tuple(low + k - 1 for low, k in zip(self.low, kernel, strict=True))


@dataclass(frozen=True)
class Layer:
    """Spiking neurons.

    Attributes:
        node: their parameters.
        parts: where the original layers are found; empty if the neurons only pass spikes on.
        name: of the node; empty if there is none.
    """

    node: Any
    parts: Mapping[str, tuple[int, int]]
    name: str = ""


@dataclass(frozen=True)
class Row:
    """A branch: linear[0], layers[0], linear[1], ..., linear[-1].

    Attributes:
        linear: one more than layers.
        layers: the neurons between.
    """

    linear: tuple[Taps, ...]
    layers: tuple[Layer, ...]


def fused(deployment: Deployment) -> Deployment:
    """The same network without parallel branches, as far as they can be fused.

    Raises:
        GraphError: naming the node where branches meet, and why they cannot be fused exactly.
    """
    known = plan(deployment.graph)
    while branches := _parallel(deployment, known):
        deployment = _with_one_row(deployment, known, branches)
        known = plan(deployment.graph)
    return deployment


def _parallel(deployment: Deployment, known: Plan) -> list[tuple[str, ...]]:
    """Branches between the same nodes, in the order of the file; empty if there are none."""
    following: dict[str, list[str]] = {name: [] for name in known.order}
    for a, b in deployment.graph.edges:
        following[str(a)].append(str(b))
    found: dict[Any, list[tuple[str, ...]]] = {}
    for end in known.order:
        names = _branch(deployment, known, following, end)
        if names:
            sources = frozenset(edge.source for edge in known.incoming[names[0]])
            found.setdefault((sources, frozenset(following[end])), []).append(names)
    met = next((branches for branches in found.values() if len(branches) > 1), [])
    heads = {names[0]: names for names in met}
    return list({str(b): heads[str(b)] for _, b in deployment.graph.edges if b in heads}.values())


def _branch(
    deployment: Deployment, known: Plan, following: Mapping[str, list[str]], end: str
) -> tuple[str, ...]:
    """The row of layers that ends here, between which nothing else comes in or goes out."""
    names: tuple[str, ...] = ()
    if any(Incoming(end, previous=True) in known.incoming[name] for name in following[end]):
        return names
    here = end
    while _fits(deployment, known, here, names):
        names = (here, *names)
        here = known.incoming[here][0].source
        if len(known.incoming[names[0]]) > 1 or len(following[here]) > 1:
            break
    return names


def _fits(deployment: Deployment, known: Plan, name: str, behind: tuple[str, ...]) -> bool:
    """The node can be the one before those of a branch: no two linear layers in a row."""
    kinds = [type(deployment.graph.nodes[n]) for n in (name, *behind[:1])]
    return (
        (kinds[0] in GAINS or kinds[0] in TAPS)
        and not (len(kinds) == 2 and all(kind in TAPS for kind in kinds))
        and not (deployment.readout and deployment.readout.source == name)
        and not any(edge.previous for edge in known.incoming[name])
        and len(known.shapes[name]) in (1, 3)
    )


def _with_one_row(
    deployment: Deployment, known: Plan, branches: Sequence[tuple[str, ...]]
) -> Deployment:
    graph, first = deployment.graph, branches[0]
    try:
        nodes, made = _one_row(deployment, known, branches)
    except GraphError as error:
        met = next(b for a, b in graph.edges if a == first[-1])
        raise GraphError(
            f"node {met!r}: the parallel branches {', '.join(names[-1] for names in branches)} "
            f"meet, and are not fused: {error}."
        ) from None
    removed = {name for names in branches for name in names}
    start, end = next(iter(nodes)), next(reversed(nodes))
    # In the place of the first branch, so that the edges that close cycles remain the same.
    edges = [
        (end if a == first[-1] else a, start if b == first[0] else b)
        for a, b in graph.edges
        if not {a, b} & removed or a == first[-1] or b == first[0]
    ]
    kept = {name: node for name, node in graph.nodes.items() if name not in removed}
    before = {name: places for name, places in parts(graph).items() if name not in removed}
    metadata = dict(graph.metadata)
    if before | made:
        metadata[PARTS_KEY] = json.dumps(before | made)
    edges += itertools.pairwise(nodes)
    return deployment.with_graph(
        nir.NIRGraph(kept | nodes, edges, metadata=metadata, type_check=False)
    )


def _one_row(
    deployment: Deployment, known: Plan, branches: Sequence[tuple[str, ...]]
) -> tuple[dict[str, nir.NIRNode], Parts]:
    """The nodes of the fused branches in a row, and which layers are in them."""
    graph, found = deployment.graph, parts(deployment.graph)
    rows = [_row(graph, known, names, found) for names in branches]
    longest = max(rows, key=lambda row: len(row.layers))
    binary = _binary(graph, known, branches[0][0])
    rows = [_lengthened(row, longest, binary, deployment.timing) for row in rows]
    taken = {*graph.nodes, *(name for places in found.values() for name in places)}
    nodes: dict[str, nir.NIRNode] = {}
    made: Parts = {}
    last = len(longest.layers)
    for i in range(last + 1):
        taps = [row.linear[i] for row in rows]
        named = next((t.name for t in (longest.linear[i], *taps) if t.name), "")
        wanted = f"{named}.fused" if named else f"{next(reversed(nodes))}.sum"
        name = free_name(wanted, taken | nodes.keys())
        nodes[name] = _side_by_side(taps, first=i == 0, last=i == last)
        if i < last:
            name = free_name(f"{longest.layers[i].name}.fused", taken | nodes.keys())
            nodes[name], made[name] = _together([row.layers[i] for row in rows])
    return nodes, made


def _binary(graph: nir.NIRGraph, known: Plan, name: str) -> bool:
    """What enters a node is one spiking layer's output, as it is."""
    sources = [edge.source for edge in known.incoming[name]]
    if len(sources) == 1 and isinstance(graph.nodes[sources[0]], nir.Flatten):
        return _binary(graph, known, sources[0])
    return len(sources) == 1 and primitive_of(graph.nodes[sources[0]]).spiking


def _row(graph: nir.NIRGraph, known: Plan, names: Sequence[str], found: Parts) -> Row:
    """A branch; where no linear layer is before a neuron or at the end, the identity."""
    linear: list[Taps] = []
    layers: list[Layer] = []
    for name in names:
        node, shape = graph.nodes[name], known.input_shapes[name]
        if type(node) in TAPS:
            linear.append(_taps(name, node, shape, known.shapes[name]))
            continue
        if len(linear) == len(layers):
            linear.append(_identity(shape))
        layers.append(Layer(node, found.get(name, {name: (0, shape[0])}), name))
    if len(linear) == len(layers):
        linear.append(_identity(known.shapes[names[-1]]))
    return Row(tuple(linear), tuple(layers))


def _identity(shape: Shape) -> Taps:
    ones = (1,) * len(shape[1:])
    weight = np.eye(shape[0], dtype=np.float32).reshape(shape[0], shape[0], *ones)
    return Taps(
        weight, np.zeros(shape[0], np.float32), (0,) * len(ones), ones, shape[1:], shape[1:]
    )


def _taps(name: str, node: Any, shape: Shape, gives: Shape) -> Taps:
    try:
        weight, low, stride = TAPS[type(node)](node, shape)
    except GraphError as error:
        raise GraphError(f"{name!r} ({type(node).__name__}) {error}") from None
    bias = np.asarray(getattr(node, "bias", np.zeros(len(weight), weight.dtype)))
    return Taps(weight, bias, low, stride, shape[1:], gives[1:], name)


Made = tuple[Array, Shape, Shape]
"""(weight, low, stride)"""


def _matrix(node: Any, shape: Shape) -> Made:
    return np.asarray(node.weight), (), ()


def _scale(node: nir.Scale, shape: Shape) -> Made:
    """One factor for each channel."""
    factors = np.asarray(node.scale).reshape(shape[0], -1)
    if np.any(factors != factors[:, :1]):
        raise GraphError("scales the places of an image differently, which is no convolution")
    ones = (1,) * len(shape[1:])
    return np.diag(factors[:, 0]).reshape(shape[0], shape[0], *ones), (0,) * len(ones), ones


def _conv2d(node: nir.Conv2d, shape: Shape) -> Made:
    """Groups on the diagonal, and zeros between dilated weights."""
    weight = _diagonal(np.split(np.asarray(node.weight), int(node.groups)))
    height, width = pair(node, "dilation", 1)
    spans = (n * (k - 1) + 1 for n, k in zip((height, width), weight.shape[2:], strict=True))
    spread = np.zeros((*weight.shape[:2], *spans), weight.dtype)
    spread[:, :, ::height, ::width] = weight
    low = tuple(-before for before, _ in conv_padding(node, 2))
    return spread, low, pair(node, "stride", 1)


def _pool2d(node: Any, shape: Shape) -> Made:
    """Ones, or the share of each place."""
    kernel = pair(node, "kernel_size", 1)
    share = 1 / math.prod(kernel) if isinstance(node, nir.AvgPool2d) else 1.0
    weight = np.eye(shape[0])[:, :, None, None] * np.full(kernel, share)
    low = tuple(-n for n in pair(node, "padding", 0))
    return weight, low, pair(node, "stride", 1)


TAPS: dict[type[nir.NIRNode], Callable[[Any, Shape], Made]] = {
    nir.Affine: _matrix,
    nir.Linear: _matrix,
    nir.Scale: _scale,
    nir.Conv2d: _conv2d,
    nir.SumPool2d: _pool2d,
    nir.AvgPool2d: _pool2d,
}


def _lengthened(row: Row, longest: Row, binary: bool, timing: Timing) -> Row:
    """A branch with as many neurons as the longest: as late as possible, spikes are passed on."""
    if len(row.layers) == len(longest.layers):
        return row
    problems = []
    for place in reversed(range(len(row.layers) + 1)):
        try:
            if place == 0 and not binary:
                raise GraphError("what enters is not 0 or 1, which neurons cannot pass on")
            return _passing(row, longest, place, timing)
        except GraphError as error:
            problems.append(str(error))
    raise GraphError("; ".join(dict.fromkeys(problems)))


def _passing(row: Row, longest: Row, place: int, timing: Timing) -> Row:
    """A branch with neurons before its linear layer `place` that pass on what enters that."""
    missing = len(longest.layers) - len(row.layers)
    behind = row.linear[place]
    channels, size = behind.weight.shape[1], behind.size
    linear: list[Taps] = []
    layers: list[Layer] = []
    for i in range(place, place + missing):
        beside, layer = longest.linear[i], longest.layers[i]
        linear.append(_selection(beside, channels, size, _drive(layer, beside, timing)))
        layers.append(Layer(_resting(layer.node, channels), {}))
        size = beside.count
    linear.append(_behind(behind, [taps.stride for taps in linear], size))
    new = Row(
        (*row.linear[:place], *linear, *row.linear[place + 1 :]),
        (*row.layers[:place], *layers, *row.layers[place:]),
    )
    for pairs in zip(new.linear, longest.linear, strict=True):
        _check_alike(pairs)
    return new


def _selection(beside: Taps, channels: int, size: Shape, drive: float) -> Taps:
    """Each channel alone, at the stride and with the output size of another layer."""
    for count, stride, of in zip(beside.count, beside.stride, size, strict=True):
        if count != of if stride == 1 else stride * (count - 1) >= of:
            raise GraphError(
                f"{beside.name!r} makes {beside.count} of {size}, which no spike can pass unmoved"
            )
    one = _identity((channels, *size))
    weight = one.weight.astype(beside.weight.dtype) * drive
    return replace(one, weight=weight, stride=beside.stride, count=beside.count)


def _behind(taps: Taps, selected: Sequence[Shape], size: Shape) -> Taps:
    """A linear layer on what a stride has selected of its input, now of another size.

    Raises:
        GraphError: it takes more than is left.
    """
    strides = []
    for axis, stride in enumerate(taps.stride):
        step = math.prod(steps[axis] for steps in selected)
        alone = taps.low[axis] == taps.high[axis] == 0
        rest = stride // step
        enough = rest * (taps.count[axis] - 1) < size[axis]
        if step > 1 and not (alone and stride % step == 0 and enough):
            raise GraphError(
                f"{taps.name!r} takes more of its input than the stride {step} beside it leaves"
            )
        strides.append(rest)
    return replace(taps, stride=tuple(strides), size=size)


def _drive(layer: Layer, beside: Taps, timing: Timing) -> float:
    """The weight that makes a neuron at rest spike: some multiple of those beside it.

    So weights that stand on a grid remain on it.
    """
    try:
        gain = GAINS[type(layer.node)](layer.node, timing)
        threshold = np.asarray(layer.node.v_threshold, np.float64)
        if np.any(gain <= 0) or np.any(threshold <= 0):
            raise GraphError("has no gain or threshold above 0")
    except GraphError as error:
        kind = type(layer.node).__name__
        raise GraphError(
            f"neurons like {layer.name!r} ({kind}) pass no spikes on: it {error}"
        ) from None
    needed = DRIVE * float(np.max(threshold / gain))
    largest = float(np.abs(beside.weight).max(initial=0.0))
    return math.ceil(needed / largest) * largest if largest > 0 else needed


def _lif(node: nir.LIF, timing: Timing) -> Array:
    """After a step dt/tau r x; then 0 after a reset to zero, or where nothing is remembered."""
    rate = timing.dt / np.asarray(node.tau, np.float64)
    if timing.reset == "subtract" and np.any(rate != 1):
        raise GraphError("keeps what its threshold, subtracted, leaves (reset 'subtract')")
    return rate * np.asarray(node.r, np.float64)


def _if(node: nir.IF, timing: Timing) -> Array:
    """After a step r x; then 0 after a reset to zero."""
    if timing.reset == "subtract":
        raise GraphError("keeps what its threshold, subtracted, leaves (reset 'subtract')")
    return np.asarray(node.r, np.float64)


def _cuba_lif(node: nir.CubaLIF, timing: Timing) -> Array:
    """As LIF of w_in x where tau_syn = dt; otherwise a spike acts on later steps too."""
    if np.any(timing.dt / np.asarray(node.tau_syn, np.float64) != 1):
        raise GraphError("remembers its current (tau_syn is not dt)")
    membrane = nir.LIF(node.tau_mem, node.r, node.v_leak, node.v_threshold, node.v_reset)
    return _lif(membrane, timing) * np.asarray(node.w_in, np.float64)


GAINS: dict[type[nir.NIRNode], Callable[[Any, Timing], Array]] = {
    nir.LIF: _lif,
    nir.IF: _if,
    nir.CubaLIF: _cuba_lif,
}
"""Membrane one step after a neuron at rest has received 1, at threshold 0; refused if not exact."""


def _fields(node: nir.NIRNode) -> tuple[str, ...]:
    primitive = primitive_of(node)
    assert isinstance(primitive, Elementwise)
    return primitive.per_neuron


def _resting(node: Any, channels: int) -> nir.NIRNode:
    """Neurons as those of the first channel of a layer, that rest at 0 and are reset to 0."""
    values = {name: np.asarray(getattr(node, name))[:1] for name in _fields(node)}
    values |= {n: np.zeros_like(values[n]) for n in ("v_leak", "v_reset") if n in values}
    return type(node)(**{name: np.repeat(value, channels, 0) for name, value in values.items()})


def _together(layers: Sequence[Layer]) -> tuple[nir.NIRNode, dict[str, tuple[int, int]]]:
    """One layer of all neurons, and where the original ones are."""
    kinds = sorted({type(layer.node).__name__ for layer in layers})
    if len(kinds) > 1:
        listed = ", ".join(repr(layer.name) for layer in layers if layer.name)
        raise GraphError(f"{listed} are neurons of different types ({', '.join(kinds)})")
    node = layers[0].node
    values = {
        name: np.concatenate([np.asarray(getattr(layer.node, name)) for layer in layers])
        for name in _fields(node)
    }
    places: dict[str, tuple[int, int]] = {}
    offset = 0
    for layer in layers:
        places |= {n: (offset + a, offset + b) for n, (a, b) in layer.parts.items()}
        offset += len(layer.node.v_threshold)
    return type(node)(**values), places


def _check_alike(taps: Sequence[Taps]) -> None:
    for field in ("stride", "size", "count"):
        values = [getattr(t, field) for t in taps]
        if len(set(values)) > 1:
            listed = " and ".join(repr(t.name) for t in taps if t.name)
            what = {"stride": "strides", "size": "input sizes", "count": "output sizes"}[field]
            raise GraphError(f"side by side are different {what} {values} ({listed})")


def _side_by_side(taps: Sequence[Taps], first: bool, last: bool) -> nir.NIRNode:
    """One linear layer for those of all branches.

    The first ones have the same input, the last ones are added up.
    """
    _check_alike(taps)
    low, kernel = _frame(taps)
    weights = [_embedded(t, low, kernel) for t in taps]
    if first and last:
        weight = np.sum(weights, axis=0, dtype=np.float64)
    elif first or last:
        weight = np.concatenate(weights, axis=0 if first else 1)
    else:
        weight = _diagonal(weights)
    biases = [t.bias for t in taps]
    bias = np.sum(biases, axis=0, dtype=np.float64) if last else np.concatenate(biases)
    if not kernel:
        return nir.Affine(weight, bias)
    padding, stride = -np.array(low), np.array(taps[0].stride)
    ones = np.array([1, 1])
    return nir.Conv2d(np.array(taps[0].size), weight, stride, padding, ones, 1, bias)


def _frame(taps: Sequence[Taps]) -> tuple[Shape, Shape]:
    """(low, kernel) that hold all places, padded alike on both sides, for the same output size."""
    lows, kernels = [], []
    for axis, (size, count, stride) in enumerate(
        zip(taps[0].size, taps[0].count, taps[0].stride, strict=True)
    ):
        high = max(t.high[axis] for t in taps)
        # The output has (size + 2 padding - kernel) // stride + 1 places.
        reach = stride * (count - 1)
        padding = max(0, high + 1 + reach - size, *(-t.low[axis] for t in taps))
        kernels.append(max(high + padding + 1, size + 2 * padding - reach - stride + 1))
        lows.append(-padding)
    return tuple(lows), tuple(kernels)


def _embedded(taps: Taps, low: Shape, kernel: Shape) -> Array:
    """The weights among zeros, from the place `low` on."""
    before = [own - start for own, start in zip(taps.low, low, strict=True)]
    after = [k - b - own for k, b, own in zip(kernel, before, taps.weight.shape[2:], strict=True)]
    return np.pad(taps.weight, ((0, 0), (0, 0), *zip(before, after, strict=True)))


def _diagonal(blocks: Sequence[Array]) -> Array:
    """Blocks (outputs, inputs, *places) on the diagonal of the first two axes."""
    sizes = np.array([block.shape[:2] for block in blocks])
    rows, columns = sizes.sum(axis=0)
    result = np.zeros((rows, columns, *blocks[0].shape[2:]), np.result_type(*blocks))
    for (row, column), block in zip(np.cumsum(sizes, axis=0) - sizes, blocks, strict=True):
        result[row : row + block.shape[0], column : column + block.shape[1]] = block
    return result
