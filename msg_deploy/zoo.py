"""Bodies of spiking networks by name: those of the paper, and two small ones.

To add one, decorate a function (input_shape, classes, steps, **options) -> body with `network`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, get_args

from torch import nn

from msg_deploy.deployment import InputSpec, Provenance, Shape
from msg_deploy.errors import UsageError, reason
from msg_deploy.networks import Residual, SpikingNetwork
from msg_deploy.neuron import LIF
from msg_deploy.options import Norm
from msg_deploy.readout import TWO

Builder = Callable[..., nn.Module]
NETWORKS: dict[str, Builder] = {}
"""Functions (input_shape, classes, steps, **options) -> body, by name."""

Stage = int | str
"""The channels of a 3x3 convolution with its normalisation and neurons, or "AP2"."""

POOL = "AP2"
LARGE_IMAGE = 96
"""From this height on, residual networks start with the stem for ImageNet."""


def network(builder: Builder) -> Builder:
    """Decorator: make a body available by its function's name."""
    NETWORKS[builder.__name__] = builder
    return builder


def build(
    name: str,
    input_spec: InputSpec,
    classes: int,
    steps: int,
    dt: float = 1e-3,
    beta: float = 0.9,
    provenance: Provenance | None = None,
    **options: Any,
) -> SpikingNetwork:
    """A network by name with a fresh TWO readout.

    Args:
        name: as in `NETWORKS`.
        input_spec: what a sample looks like.
        classes: number of classes C.
        steps: number of timesteps T.
        dt: length of a timestep in seconds.
        beta: of TWO.
        provenance: data set and class names.
        options: of the builder; every builder hands those it does not name to `LIF`.

    Raises:
        UsageError: no such network, an option is not accepted, or the input is too small.
    """
    if name not in NETWORKS:
        raise UsageError(f"unknown model {name!r}; there are {', '.join(sorted(NETWORKS))}.")
    try:
        body = NETWORKS[name](input_spec.shape, classes, steps, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"model {name!r}: {reason(error)}.") from error
    return SpikingNetwork(body, TWO(steps, beta), input_spec, dt, provenance)


@network
def mlp(
    input_shape: Shape,
    classes: int,
    steps: int,
    hidden: Sequence[int] = (256, 128),
    **neuron: Any,
) -> nn.Module:
    """Linear-LIF layers of the given widths, then the Linear output layer."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(input_shape) > 1:
        layers["flatten"] = nn.Flatten()
    width = math.prod(input_shape)
    for i, size in enumerate(hidden, start=1):
        layers[f"fc{i}"] = nn.Linear(width, size)
        layers[f"lif{i}"] = LIF(steps, **neuron)
        width = size
    layers[f"fc{len(hidden) + 1}"] = nn.Linear(width, classes)
    return nn.Sequential(layers)


@network
def convnet(
    input_shape: Shape,
    classes: int,
    steps: int,
    channels: Sequence[int] = (16, 32),
    norm: Norm = "batch",
    **neuron: Any,
) -> nn.Module:
    """Conv3x3-LIF-AvgPool2 stages, a residual Conv stage, then Linear. A small network of ours."""
    depth, height, width = _image("convnet", input_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, size in enumerate(channels, start=1):
        layers[f"conv{i}"] = nn.Conv2d(depth, size, 3, padding=1, bias=False)
        layers[f"bn{i}"] = batch_norm(size, norm, neuron)
        layers[f"lif{i}"] = LIF(steps, **neuron)
        layers[f"pool{i}"] = nn.AvgPool2d(2)
        depth, height, width = size, _halved("convnet", height), _halved("convnet", width)
    main: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv2d(depth, depth, 3, padding=1, bias=False))
    ]
    main += [("bn", batch_norm(depth, norm, neuron)), ("lif", LIF(steps, **neuron))]
    layers["block"] = Residual(nn.Sequential(OrderedDict(main)))
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(depth * height * width, classes)
    return nn.Sequential(layers)


@network
def cifarnet(
    input_shape: Shape,
    classes: int,
    steps: int,
    width: int = 128,
    norm: Norm = "batch",
    **neuron: Any,
) -> nn.Module:
    """128C3-256C3-AP2-512C3-AP2-1024C3-512C3-1024FC-512FC and the output layer (Li et al. 2024).

    `width` scales all layers; 128 is the paper's network.
    """
    stages: list[Stage] = [width, 2 * width, POOL, 4 * width, POOL, 8 * width, 4 * width]
    hidden = [8 * width, 4 * width]
    return _plain("cifarnet", input_shape, classes, steps, stages, hidden, norm, neuron)


@network
def vggsnn(
    input_shape: Shape,
    classes: int,
    steps: int,
    width: int = 64,
    norm: Norm = "batch",
    **neuron: Any,
) -> nn.Module:
    """64C3-128C3-AP2-256C3x2-AP2-512C3x2-AP2-512C3x2-AP2-FC (Li et al. 2024).

    `width` scales all layers; 64 is the paper's network.
    """
    deep: list[Stage] = [8 * width, 8 * width, POOL]
    stages: list[Stage] = [width, 2 * width, POOL, 4 * width, 4 * width, POOL, *deep, *deep]
    return _plain("vggsnn", input_shape, classes, steps, stages, [], norm, neuron)


@network
def resnet18(
    input_shape: Shape,
    classes: int,
    steps: int,
    width: int = 64,
    norm: Norm = "batch",
    **neuron: Any,
) -> nn.Module:
    """ResNet-18 (He et al. 2016) of LIF neurons: currents are added, then the neuron fires.

    `width` scales all layers; 64 is the paper's network.
    """

    def block(depth: int, size: int, stride: int) -> nn.Module:
        main = nn.Sequential(
            *_unit(depth, size, stride, norm, neuron),
            LIF(steps, **neuron),
            *_unit(size, size, 1, norm, neuron, branch=True),
        )
        shortcut = None
        if stride != 1 or depth != size:
            shortcut = nn.Sequential(*_unit(depth, size, stride, norm, neuron, 1, branch=True))
        return nn.Sequential(Residual(main, shortcut), LIF(steps, **neuron))

    blocks = (2, 2, 2, 2)
    return _residual("resnet18", input_shape, classes, steps, width, blocks, block, norm, neuron)


@network
def sew_resnet34(
    input_shape: Shape,
    classes: int,
    steps: int,
    width: int = 64,
    norm: Norm = "batch",
    **neuron: Any,
) -> nn.Module:
    """SEW-ResNet-34 with ADD (Fang et al. 2021): the spikes of both branches are added.

    Values behind a block are whole numbers, not only 0 and 1. `width` scales all layers; 64 is the
    paper's network.
    """

    def block(depth: int, size: int, stride: int) -> nn.Module:
        main = nn.Sequential(
            *_unit(depth, size, stride, norm, neuron),
            LIF(steps, **neuron),
            *_unit(size, size, 1, norm, neuron),
            LIF(steps, **neuron),
        )
        shortcut = None
        if stride != 1 or depth != size:
            shortcut = nn.Sequential(
                *_unit(depth, size, stride, norm, neuron, 1), LIF(steps, **neuron)
            )
        return Residual(main, shortcut)

    blocks = (3, 4, 6, 3)
    return _residual(
        "sew_resnet34", input_shape, classes, steps, width, blocks, block, norm, neuron
    )


def batch_norm(
    channels: int, norm: Norm, neuron: dict[str, Any], branch: bool = False
) -> nn.Module:
    """Normalisation over (T*B, height, width).

    Args:
        channels: number of channels.
        norm: "batch" starts at unit variance; "td" at (alpha V_th)^2, alpha = 1, or 1/sqrt(2) where
            two branches are added (tdBN, Zheng et al. 2021: the factor is part of the weight here).
        neuron: options of the LIF behind, for its threshold.
        branch: the result is added to another branch.

    Raises:
        UsageError: another norm.
    """
    if norm not in get_args(Norm):
        raise UsageError(f"norm must be {' or '.join(get_args(Norm))}, not {norm!r}.")
    layer = nn.BatchNorm2d(channels)
    if norm == "td":
        threshold = neuron.get("v_threshold", 0.5)
        nn.init.constant_(layer.weight, threshold / math.sqrt(2) if branch else threshold)
    return layer


def _plain(
    name: str,
    input_shape: Shape,
    classes: int,
    steps: int,
    stages: Sequence[Stage],
    hidden: Sequence[int],
    norm: Norm,
    neuron: dict[str, Any],
) -> nn.Module:
    """Convolutions and poolings in a row, then fully connected layers."""
    depth, height, width = _image(name, input_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    number = pools = 0
    for stage in stages:
        if isinstance(stage, str):
            pools += 1
            layers[f"pool{pools}"] = nn.AvgPool2d(2)
            height, width = _halved(name, height), _halved(name, width)
        else:
            number += 1
            layers[f"conv{number}"] = nn.Conv2d(depth, stage, 3, padding=1, bias=False)
            layers[f"bn{number}"] = batch_norm(stage, norm, neuron)
            layers[f"lif{number}"] = LIF(steps, **neuron)
            depth = stage
    layers["flatten"] = nn.Flatten()
    size = depth * height * width
    for i, units in enumerate(hidden, start=1):
        layers[f"fc{i}"] = nn.Linear(size, units)
        layers[f"lif{number + i}"] = LIF(steps, **neuron)
        size = units
    layers[f"fc{len(hidden) + 1}"] = nn.Linear(size, classes)
    return nn.Sequential(layers)


def _residual(
    name: str,
    input_shape: Shape,
    classes: int,
    steps: int,
    width: int,
    blocks: Sequence[int],
    block: Callable[[int, int, int], nn.Module],
    norm: Norm,
    neuron: dict[str, Any],
) -> nn.Module:
    """Stem, four stages of residual blocks, global average, Linear.

    Large images get the stem of ImageNet (7x7 stride 2, pooling 3x3 stride 2), with average in
    place of maximum pooling, which NIR has not; others a 3x3 convolution.
    """
    depth, height, breadth = _image(name, input_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    large = height >= LARGE_IMAGE
    layers["conv"] = (
        nn.Conv2d(depth, width, 7, 2, 3, bias=False)
        if large
        else nn.Conv2d(depth, width, 3, padding=1, bias=False)
    )
    layers["bn"] = batch_norm(width, norm, neuron)
    layers["lif"] = LIF(steps, **neuron)
    if large:
        layers["pool"] = nn.AvgPool2d(3, 2, 1)
        height, breadth = ((_rounded_half(_rounded_half(n))) for n in (height, breadth))
    depth = width
    for i, count in enumerate(blocks):
        size, stride = width * 2**i, 1 if i == 0 else 2
        stage = []
        for j in range(count):
            stage.append(block(depth, size, stride if j == 0 else 1))
            depth = size
        layers[f"stage{i + 1}"] = nn.Sequential(*stage)
        if stride == 2:
            height, breadth = _rounded_half(height), _rounded_half(breadth)
    layers["average"] = nn.AvgPool2d((height, breadth))
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(depth, classes)
    return nn.Sequential(layers)


def _unit(
    depth: int,
    size: int,
    stride: int,
    norm: Norm,
    neuron: dict[str, Any],
    kernel: int = 3,
    branch: bool = False,
) -> tuple[nn.Module, nn.Module]:
    """A convolution that keeps the image's size (but for its stride), and its normalisation."""
    convolution = nn.Conv2d(depth, size, kernel, stride, kernel // 2, bias=False)
    return convolution, batch_norm(size, norm, neuron, branch)


def _image(name: str, input_shape: Shape) -> Shape:
    if len(input_shape) != 3:
        raise UsageError(f"{name} takes images (channels, height, width), not {input_shape}.")
    return input_shape


def _halved(name: str, size: int) -> int:
    if size < 2:
        raise UsageError(f"{name}: the image is too small for its poolings.")
    return size // 2


def _rounded_half(size: int) -> int:
    """Size after a convolution or pooling with stride 2 and padding (kernel - 1) / 2."""
    return (size + 1) // 2
