"""The named networks: layer lists of the paper, sizes, and that each can leave torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from msg_deploy import api
from msg_deploy.data import Dataset, Split
from msg_deploy.deployment import InputSpec
from msg_deploy.errors import UsageError
from msg_deploy.exporters.trace import trace
from msg_deploy.networks import Residual, SpikingNetwork
from msg_deploy.neuron import LIF
from msg_deploy.train import TrainingOptions, train
from msg_deploy.zoo import NETWORKS, build

RGB = InputSpec((3, 32, 32))


def layer_list(network: SpikingNetwork) -> list[str]:
    """The notation of the paper: 64C3, AP2, 512FC."""
    names = []
    for module in network.body.modules():
        if isinstance(module, nn.Conv2d):
            names.append(f"{module.out_channels}C{module.kernel_size[0]}")
        elif isinstance(module, nn.AvgPool2d):
            names.append(f"AP{module.kernel_size}")
        elif isinstance(module, nn.Linear):
            names.append(f"{module.out_features}FC")
    return names


def test_cifarnet_is_that_of_the_paper() -> None:
    expected = "128C3-256C3-AP2-512C3-AP2-1024C3-512C3-1024FC-512FC-10FC"
    network = build("cifarnet", RGB, 10, 4)
    assert "-".join(layer_list(network)) == expected
    assert sum(isinstance(m, LIF) for m in network.modules()) == 7


def test_vggsnn_is_that_of_the_paper() -> None:
    expected = "64C3-128C3-AP2-256C3-256C3-AP2-512C3-512C3-AP2-512C3-512C3-AP2-10FC"
    network = build("vggsnn", InputSpec((2, 48, 48), "frames"), 10, 10)
    assert "-".join(layer_list(network)) == expected
    assert network.body.get_submodule("fc1").in_features == 512 * 3 * 3


@pytest.mark.parametrize(
    ("name", "classes", "shape", "parameters"),
    [
        # The published sizes: ResNet-18 for CIFAR-10, and torchvision's ResNet-34 for ImageNet,
        # which has the same layers.
        ("resnet18", 10, (3, 32, 32), 11_173_962),
        ("sew_resnet34", 1000, (3, 224, 224), 21_797_672),
    ],
)
def test_sizes_of_the_residual_networks(
    name: str, classes: int, shape: tuple[int, ...], parameters: int
) -> None:
    with torch.device("meta"):
        network = build(name, InputSpec(shape), classes, 4)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_residual_blocks_add_currents_or_spikes() -> None:
    current = build("resnet18", RGB, 10, 4, width=2).body
    spikes = build("sew_resnet34", RGB, 10, 4, width=2).body
    for body, fires in ((current, False), (spikes, True)):
        blocks = [m for m in body.modules() if isinstance(m, Residual)]
        assert len(blocks) == (16 if fires else 8)
        for block in blocks:
            assert isinstance(list(block.main)[-1], LIF) is fires


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("norm", ["batch", "td"])
def test_every_network_leaves_torch_unchanged(name: str, norm: str) -> None:
    if name == "mlp" and norm == "td":
        pytest.skip("mlp has no normalisation")
    torch.manual_seed(1)
    options = {} if name == "mlp" else {"norm": norm}
    options |= {"width": 4} if name not in ("mlp", "convnet") else {}
    network = build(name, RGB, 10, 3, **options, reset="subtract", tau=1.25, v_threshold=0.25)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        # BatchNorm takes the statistics of this batch, so that deep layers fire.
        network.train()(3 * torch.rand(3, 8, *RGB.shape))
    verdict = api.check(network.eval(), trace(network), random=4)
    assert verdict, verdict.comparisons
    assert sum(layer.fired for layer in verdict.comparisons[0].layers[-2:]) > 0


def test_td_norm_starts_at_the_threshold() -> None:
    network = build("resnet18", RGB, 10, 4, width=2, norm="td", v_threshold=0.8)
    scales = {
        float(m.weight.detach()[0]) for m in network.modules() if isinstance(m, nn.BatchNorm2d)
    }
    assert np.allclose(sorted(scales), [0.8 / np.sqrt(2), 0.8])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "lstm"}, "unknown model 'lstm'"),
        ({"name": "vggsnn", "shape": (3, 8, 8)}, "too small"),
        ({"name": "resnet18", "shape": (64,)}, "takes images"),
        ({"name": "resnet18", "norm": "layer"}, "norm must be batch or td"),
        ({"name": "mlp", "colour": 1}, "colour"),
    ],
)
def test_refusals(arguments: dict[str, object], words: str) -> None:
    name = str(arguments.pop("name"))
    shape = arguments.pop("shape", (3, 32, 32))
    with pytest.raises(UsageError, match=words):
        build(name, InputSpec(shape), 10, 4, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resnet18", "sew_resnet34"])
def test_one_step_of_training_then_identical_in_norse(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.uniform(0, 1, (8, *RGB.shape)).astype(np.float32)
    split = Split(images, random.integers(0, 10, len(images)))
    torch.manual_seed(0)
    network = build(name, RGB, 10, 4, width=16, tau=1.25, v_threshold=0.25)
    before = network.body.get_submodule("conv").weight.detach().clone()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # The statistics of this one batch, so that deep layers fire afterwards.
            module.momentum = 1.0
    data = Dataset("random", tuple("0123456789"), RGB.shape, "direct", lambda part: split)
    train(network, data, TrainingOptions(epochs=1, batch_size=len(images)))
    assert not torch.equal(before, network.body.get_submodule("conv").weight)
    api.export(network, tmp_path / "model.nir")
    verdict = api.check(network, tmp_path / "model.nir", images, ["norse"], random=8)
    assert verdict, verdict.comparisons
    assert all(layer.fired > 0 for layer in verdict.comparisons[0].layers)
