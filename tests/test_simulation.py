"""`simulate`: what comes out is what the trained module decides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from msg_deploy import api
from msg_deploy.data import load_dataset
from msg_deploy.errors import FileError, UsageError
from msg_deploy.networks import SpikingNetwork
from msg_deploy.simulation import simulate
from msg_deploy.train import evaluate
from tests.helpers import chain, lif, random_network, samples
from tests.test_cli import run


def test_accuracy_is_that_of_the_module(trained: SpikingNetwork, trained_file: Path) -> None:
    simulation = simulate(trained_file)
    test = load_dataset("digits").test
    assert simulation.accuracy == pytest.approx(evaluate(trained, test).two)
    assert simulation.labels is not None
    assert len(simulation.scores) == len(test)


def test_parts_and_budget_change_nothing(trained_file: Path) -> None:
    whole = simulate(trained_file, samples=300)
    small = simulate(trained_file, samples=300, memory=10_000, threads=1, activity=False)
    assert small.activity is None
    np.testing.assert_allclose(small.scores, whole.scores, rtol=1e-4, atol=1e-5)
    assert whole.activity is not None
    assert whole.activity.samples == 300


def test_given_samples_and_random_ones() -> None:
    network = random_network()
    given = simulate(network, samples(5), samples=3)
    assert given.scores.shape == (3, 10)
    assert given.labels is None
    assert given.accuracy is None
    assert len(simulate(network, random=7).scores) == 7


def test_samples_of_a_file(tmp_path: Path) -> None:
    network, path = random_network(), tmp_path / "samples.npz"
    np.savez(path, samples=samples(5))
    found = simulate(network, str(path), samples=3)
    np.testing.assert_array_equal(found.scores, simulate(network, samples(5), samples=3).scores)
    with pytest.raises(FileError, match="there is no such file"):
        simulate(network, str(tmp_path / "none.npz"))


def test_frames() -> None:
    deployment = chain(lif((2,)), inputs=[2], outputs=[2], steps=4)
    assert simulate(deployment, random=2).scores.shape == (2, 2)
    with pytest.raises(UsageError, match="no sample"):
        simulate(deployment, random=0)


def test_progress(trained_file: Path) -> None:
    seen: list[tuple[int, int]] = []
    simulate(trained_file, on_batch=lambda done, total: seen.append((done, total)))
    assert seen == [(256, 360), (360, 360)]


def test_the_command(trained_file: Path, tmp_path: Path) -> None:
    shown = run("msg-deploy", "simulate", str(trained_file), "--samples", "40")
    assert shown.returncode == 0, shown.stderr
    assert "spikes of a sample, mean of 40, T = 6" in shown.stdout
    assert "on 40 samples" in shown.stdout
    api.export(trained_file, tmp_path / "model.nir", "host")
    found = run("msg-deploy", "simulate", str(tmp_path / "model.nir"), "--samples", "40", "--json")
    data = json.loads(found.stdout)
    assert data["samples"] == 40
    assert data["accuracy"] is not None
    assert [layer["operation"] for layer in data["synapses"]] == ["MAC", "AC", "AC"]
    assert all(0 < layer["rate"] < 1 for layer in data["spikes"])


@pytest.mark.parametrize("memory", ["2GB", "GiB", "-1GiB", "0KiB", "x"])
def test_a_budget_that_is_none(memory: str, trained_file: Path) -> None:
    shown = run("msg-deploy", "simulate", str(trained_file), "--memory", memory)
    assert shown.returncode == 2
    assert "such as 2GiB" in shown.stderr
