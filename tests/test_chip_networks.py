"""The networks that are trained for chips: graphs that are what was trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from msg_deploy.data import load_dataset
from msg_deploy.options import ResetMode
from msg_deploy.sim.reference import Reference

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import chip_networks

sys.path.pop(0)


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_the_graph_is_what_was_trained(loops: bool, reset: ResetMode) -> None:
    data = load_dataset("digit_rows", steps=8)
    torch.manual_seed(1)
    network = chip_networks.Coupled((8, 24, 12, 10), loops, reset, 8)
    with torch.no_grad():
        network.layers[1].weight.uniform_(-0.4, 0.6)
        network.double()
        frames = torch.from_numpy(data.test.samples[:20]).double().transpose(0, 1)
        currents, fired = network(frames)
        scores = network.readout.double()(currents).numpy()
    deployment = network.float().deployment(data)
    found = Reference().run(deployment, frames.numpy())
    for name, spikes in zip(("cuba1", "cuba2"), fired, strict=True):
        assert spikes.any()
        assert np.array_equal(found.spikes[name], spikes.numpy()), name
    assert np.allclose(found.scores, scores, rtol=1e-5)


def test_training_brings_something() -> None:
    data = load_dataset("digit_rows", steps=8)
    torch.manual_seed(0)
    network = chip_networks.Coupled((8, 32, 10), True, "zero", 8)
    chip_networks.fitted(network, data, epochs=3)
    deployment = network.deployment(data)
    scores = Reference().run(deployment, np.swapaxes(data.test.samples, 0, 1), "float32").scores
    assert np.mean(scores.argmax(1) == data.test.labels) > 0.3
    assert not np.allclose(network.readout.weights, 1 / 8)


def test_recipes_follow_the_chip(tmp_path: Path) -> None:
    made: list[Any] = []

    def record(*arguments: Any) -> Path:
        made.append(arguments)
        return tmp_path

    (recipe,) = [r for r in chip_networks.NETWORKS if r.needs_data]
    with pytest.raises(FileNotFoundError, match="its data are not here"):
        recipe.make("loihi2", tmp_path, None)
    for chip in ("loihi2", "speck2f", "xylo_audio3"):
        chip_networks.Recipe("a", "", record).make(chip, tmp_path, "data")
    assert [path.name for _, path, _ in made] == [
        "a-images-zero-if",
        "a-images-subtract-if-unbiased",
        "a-rows-subtract-lif",
    ]
