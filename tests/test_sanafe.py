"""Estimates by SANA-FE: descriptions, refusals, averages by hand, and SANA-FE itself."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from msg_deploy.errors import GraphError, UsageError
from msg_deploy.exporters.targets import target
from msg_deploy.onchip import vendor as vendors
from msg_deploy.onchip.estimate import Estimate, description, estimate, estimated
from msg_deploy.onchip.fit import fit, fit_as_data
from msg_deploy.onchip.prepare import Job
from msg_deploy.onchip.show import estimate_lines
from msg_deploy.onchip.simulator import ChipSimulator
from msg_deploy.onchip.vendor import VendorError
from msg_deploy.onchip.vendors import sanafe
from msg_deploy.report.chip import chip_as_html
from tests.chips import Draw, environments, neurons, row
from tests.test_target_loihi2 import convnet, counts, delayed, mlp, read_out, recurrent

LOIHI = target("loihi2")
NETWORKS = {
    "if": mlp,
    "if-bias": lambda: mlp(bias=True),
    "lif-bias": lambda: mlp("LIF", bias=True),
    "convnet": convnet,
    "recurrent-lif": lambda: recurrent(kind="LIF"),
    "recurrent-cubalif": recurrent,
    "counts": counts,
    "read-out": read_out,
}


def one(weight: float = 5.0, threshold: float = 3.5, steps: int = 2) -> Any:
    """One input, one neuron."""
    layer = neurons("IF", 1, threshold=threshold)
    return row(nir.Linear(np.array([[weight]])), layer, inputs=[1], outputs=[1], steps=steps)


def read(files: Mapping[str, bytes]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a description says."""
    with np.load(io.BytesIO(files["network.npz"])) as content:
        return json.loads(files["network.json"]), dict(content)


# --------------------------------------------------------------------------- description


def test_description_by_hand() -> None:
    """dt/tau = 1/4: a leak of 3/4 is left, and a threshold of 10.5 / (1/4) = 42 = vThMant."""
    draw = Draw()
    network = row(
        nir.Affine(np.array([[3.0, 0.0], [-7.0, 5.0], [0.0, 0.0]]), np.array([1.0, 0.0, -2.0])),
        neurons("LIF", 3, threshold=10.5, tau=4e-3),
        draw.linear(2, 3),
        inputs=[2],
        outputs=[2],
        steps=4,
    )
    about, numbers = read(description(LOIHI.fit(network)))
    hidden, output = about["populations"]
    assert hidden == {
        "name": "n1",
        "shape": [3],
        "neurons": 3,
        "spiking": True,
        "depth": 1,
        "synapse": "dense",
        "threshold": 42.0,
        "leak_decay": 0.75,
        "input_decay": 0.0,
    }
    assert (output["spiking"], output["depth"], output["leak_decay"]) == (False, 2, 1.0)
    assert output["threshold"] > 2**17
    assert about["projections"][0] == {"source": "input", "target": "n1"}
    assert about["cores"] == [[["n1", 0, 3], [output["name"], 0, 2]]]
    assert numbers["bias_n1"].tolist() == [1, 0, -2]
    synapses = zip(numbers["source_0"], numbers["target_0"], numbers["weight_0"], strict=True)
    assert sorted(synapses) == [(0, 0, 3), (0, 1, -7), (1, 1, 5)]


def test_layers_fill_cores_in_order() -> None:
    network = row(
        nir.Linear(np.eye(1500, 4)),
        neurons("IF", 1500, threshold=0.5),
        nir.Linear(np.eye(2, 1500)),
        inputs=[4],
        outputs=[2],
        steps=2,
    )
    about, _ = read(description(LOIHI.fit(network)))
    assert about["cores"] == [[["n1", 0, 1024]], [["n1", 1024, 1500], ["output", 0, 2]]]


def replayed(files: Mapping[str, bytes], inputs: Any) -> dict[str, Any]:
    """The law of `msg_deploy.onchip.estimate` in doubles, every synapse one step late."""
    about, numbers = read(files)
    steps, samples = inputs.shape[:2]
    flat = inputs.reshape(steps, samples, -1).astype(float)
    known = {item["name"]: item for item in about["populations"]}
    matrices = []
    for k, way in enumerate(about["projections"]):
        sources = known[way["source"]]["neurons"] if way["source"] in known else flat.shape[2]
        matrix = np.zeros((known[way["target"]]["neurons"], sources))
        np.add.at(matrix, (numbers[f"target_{k}"], numbers[f"source_{k}"]), numbers[f"weight_{k}"])
        matrices.append(matrix)
    state = {n: np.zeros((2, samples, item["neurons"])) for n, item in known.items()}
    before: dict[str, Any] = {n: np.zeros((samples, item["neurons"])) for n, item in known.items()}
    before[about["input"]] = flat[0] * 0
    record = {name: np.zeros((steps, *values.shape)) for name, values in before.items()}
    for step in range(steps + max(item["depth"] for item in known.values())):
        now = {about["input"]: flat[step] if step < steps else flat[0] * 0}
        for name, item in known.items():
            u, v = state[name]
            u = u * item["input_decay"]
            for way, matrix in zip(about["projections"], matrices, strict=True):
                if way["target"] == name:
                    u = u + before[way["source"]] @ matrix.T
            v = np.trunc(64 * item["leak_decay"] * v) / 64 + u
            within = 0 <= step - item["depth"] < steps
            v = v + within * numbers[f"bias_{name}"]
            now[name] = v > item["threshold"]
            state[name] = np.stack([u, np.where(now[name], 0, v)])
            if within:
                record[name][step - item["depth"]] = now[name]
        before = now
    return {n: record[n].reshape(steps, samples, *item["shape"]) for n, item in known.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_law_spikes_as_the_chip_does(name: str) -> None:
    """To the spike, with decays of powers of two, which cost no digits of the current."""
    deployment = NETWORKS[name]()
    chip, inputs = LOIHI.fit(deployment), Draw(5).inputs(deployment, 4)
    found = replayed(description(chip), inputs)
    for layer, spikes in ChipSimulator(chip).run(inputs).spikes.items():
        assert spikes.any()
        assert np.array_equal(found[layer], spikes)


# --------------------------------------------------------------------------- refusals


def test_refusals() -> None:
    with pytest.raises(UsageError, match="fit loihi2; this is on generic_int8"):
        description(target("generic_int8").fit(one()))
    too_large = LOIHI.fit(one(weight=500.0))
    assert too_large.problems
    with pytest.raises(UsageError, match="networks that fit"):
        description(too_large)
    with pytest.raises(GraphError, match=r"'n3': takes 4 steps from 'n1' to 'n4'; SANA-FE's del"):
        description(LOIHI.fit(delayed()))
    wide = row(
        nir.Conv2d(None, np.ones((128, 1, 1, 1)), 1, 0, 1, 1, np.zeros(128)),
        neurons("IF", 128, 32, 32, threshold=0.5),
        inputs=[1, 32, 32],
        outputs=[128, 32, 32],
        steps=1,
    )
    with pytest.raises(GraphError, match="131,072 neurons; SANA-FE's Loihi holds 130,048"):
        description(LOIHI.fit(wide))


def test_without_sanafe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(vendors.VENDORS, str(tmp_path))
    inputs = np.ones((2, 1, 1), int)
    with pytest.raises(UsageError, match=r"SANA-FE 2\.2\.9 is not installed here"):
        estimate(LOIHI.fit(one()), inputs)
    with pytest.raises(UsageError, match="holds no sanafe/bin/python"):
        estimate(LOIHI.fit(one()), inputs, tmp_path)
    python = tmp_path / "sanafe" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    with pytest.raises(UsageError, match="needs samples"):
        estimate(LOIHI.fit(one()), inputs[:, :0], tmp_path)


# --------------------------------------------------------------------------- lines of inputs


def test_lines_by_hand() -> None:
    """Input 0 has values 2 and 3, input 1 none, input 2 the value -1."""
    frames = np.array([[2, 0, 0], [3, 0, -1], [2, 0, -1]])
    entering = sanafe.lines(frames)
    assert entering.tolist() == [[0, 2], [0, 3], [2, -1]]
    source, target_, weight = (
        np.array([2, 0, 1, 0]),
        np.array([5, 6, 7, 8]),
        np.array([10, 4, 9, 1]),
    )
    synapses = zip(*sanafe.of_lines(entering, source, target_, weight), strict=True)
    assert sorted(synapses) == [(0, 6, 8), (0, 8, 2), (1, 6, 12), (1, 8, 3), (2, 5, -10)]
    assert sanafe.lines(frames * 0).shape == (0, 2)
    assert [len(x) for x in sanafe.of_lines(entering[:0], source, target_, weight)] == [0, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_lines_bring_what_inputs_bring(seed: int) -> None:
    random = np.random.default_rng(seed)
    frames = random.integers(-3, 4, (6, 9)) * (random.random((6, 9)) < 0.6)
    matrix = random.integers(-9, 10, (4, 9)) * (random.random((4, 9)) < 0.7)
    stop, start = np.nonzero(matrix)
    entering = sanafe.lines(frames)
    line, neuron, weight = sanafe.of_lines(entering, start, stop, matrix[stop, start])
    brought = np.zeros((6, 4))
    for number, other, value in zip(line, neuron, weight, strict=True):
        place, level = entering[number]
        brought[:, other] += value * (frames[:, place] == level)
    assert np.array_equal(brought, frames @ matrix.T)


def test_too_many_lines() -> None:
    frames = np.ones((1, 1025), int)
    with pytest.raises(RuntimeError, match="1,025 inputs with a value of their own; 1 cores hold"):
        sanafe.input_group(None, "input", [None], sanafe.lines(frames), frames)


# --------------------------------------------------------------------------- averages


def given(chip: Any, inputs: Any) -> tuple[Any, dict[str, Any]]:
    """Our run, and what SANA-FE might give for it."""
    ours = ChipSimulator(chip).run(inputs)
    return ours, {
        "spikes_n1": ours.spikes["n1"].copy(),
        "energy": np.array([[1, 0, 4, 5], [3, 0, 4, 7]]) * 10**6,
        "time": np.array([3, 5]) * 10**9,
        "operations": np.array([[8, 6, 4, 2], [6, 6, 2, 0]]),
    }


def test_averages_by_hand() -> None:
    """10^6 of 1e-18 J are a picojoule."""
    chip, inputs = LOIHI.fit(one()), np.array([[[1], [0]], [[0], [0]]])
    ours, theirs = given(chip, inputs)
    found = estimated(chip, ours, theirs)
    assert found.joules == pytest.approx(
        {"synapse": 2e-12, "dendrite": 0, "soma": 4e-12, "network": 6e-12}
    )
    assert (found.total, found.seconds) == (pytest.approx(12e-12), pytest.approx(4e-9))
    assert found.operations == {
        "synaptic operation": 7,
        "packet": 6,
        "neuron update": 3,
        "spike": 1,
    }
    assert (found.samples, found.steps, found.decisions, found.differ) == (2, 3, 4, 0)
    assert found
    data = json.loads(json.dumps(found.as_data()))
    assert data["layers"] == [{"name": "n1", "decisions": 4, "ours": 1, "theirs": 1, "differ": 0}]
    assert data["source"].startswith("an estimate by SANA-FE 2.2.9, not a measurement")


def test_other_spikes_are_seen() -> None:
    """As many spikes, elsewhere."""
    chip, inputs = LOIHI.fit(one()), np.array([[[1], [0]], [[0], [0]]])
    ours, theirs = given(chip, inputs)
    theirs["spikes_n1"] = theirs["spikes_n1"][::-1]
    found = estimated(chip, ours, theirs)
    (layer,) = found.layers
    assert (layer.ours, layer.theirs, layer.differ) == (1, 1, 2)
    assert not found
    with pytest.raises(VendorError, match=r"SANA-FE 2.2.9 gave shape \(1, 2, 1\) for spikes of"):
        estimated(chip, ours, theirs | {"spikes_n1": theirs["spikes_n1"][:1]})


# --------------------------------------------------------------------------- SANA-FE


def run(deployment: Any, inputs: Any) -> Estimate:
    """By SANA-FE, if it is there."""
    return estimate(LOIHI.fit(deployment), inputs, environments("sanafe"))


@pytest.mark.parametrize("name", ["lif-bias", "convnet", "recurrent-cubalif", "counts"])
def test_sanafe_spikes_as_the_chip_does(name: str) -> None:
    deployment = NETWORKS[name]()
    inputs = Draw(5).inputs(deployment, 4)
    found = run(deployment, inputs)
    assert found.differ == 0
    assert all(layer.ours == layer.theirs > 0 for layer in found.layers)
    per_operation = 24.0e-12 if name == "convnet" else 35.5e-12
    operations = found.operations["synaptic operation"]
    if name != "convnet":
        assert found.joules["synapse"] == pytest.approx(operations * per_operation)
    else:
        assert operations * 24.0e-12 < found.joules["synapse"] < operations * 35.5e-12


def test_costs_by_hand() -> None:
    """Of loihi.yaml: one spike in, which reaches a synapse and makes a neuron spike; three steps.

    35.5 pJ a synaptic operation; 51.2 pJ for each look at a neuron, 21.6 an update, 69.3 a spike;
    111 pJ for the input's message, to the same tile. The second sample is silent: 0.6 us and 6 ns a
    step. In the first, an update (3.7 ns) and a spike (30 ns) add to the neuron's step.
    """
    found = run(one(), np.array([[[0]], [[0]]]))
    assert found.joules == pytest.approx(
        {"synapse": 0, "dendrite": 0, "soma": 3 * 51.2e-12, "network": 0}
    )
    assert found.seconds == pytest.approx(3 * (0.6e-6 + 6e-9))
    both = run(one(), np.array([[[1], [0]], [[0], [0]]]))
    soma = 3 * 51.2e-12 + 21.6e-12 + 69.3e-12
    assert both.joules["synapse"] * 2 == pytest.approx(35.5e-12)
    assert both.joules["soma"] * 2 == pytest.approx(soma + 3 * 51.2e-12)
    assert both.joules["network"] * 2 == pytest.approx(111e-12)
    assert found.seconds < both.seconds


def test_samples_do_not_depend_on_those_before() -> None:
    deployment = mlp("LIF", bias=True)
    inputs = Draw(3).inputs(deployment, 2)
    first, second = (run(deployment, inputs[:, k : k + 1]) for k in range(2))
    mixed = run(deployment, inputs[:, [1, 0, 0]])
    for field in ("joules", "operations"):
        one_, two, three = (getattr(e, field) for e in (first, second, mixed))
        assert one_ != two
        for name, value in three.items():
            assert 3 * value == pytest.approx(2 * one_[name] + two[name])
    assert 3 * mixed.seconds == pytest.approx(2 * first.seconds + second.seconds)


# --------------------------------------------------------------------------- where it is shown


def test_shown_with_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """SANA-FE replaced by our own simulation and costs of 1 aJ."""
    deployment, job = mlp(), Job("loihi2", random=2)
    chip = fit(deployment, job).chip

    def run_there(vendor: str, python: Path, files: Any, given: Any) -> dict[str, Any]:
        assert (vendor, str(python), given.shape[1]) == ("sanafe", "there", 2)
        ones = {"energy": np.ones((2, 4)), "time": np.ones(2), "operations": np.ones((2, 4))}
        found = ChipSimulator(chip).run(given).spikes
        return {f"spikes_{name}": spikes for name, spikes in found.items()} | ones

    monkeypatch.setattr(vendors, "python_of", lambda vendor, folder: Path("there"))
    monkeypatch.setattr(vendors, "run", run_there)
    found = fit(deployment, job, estimate=True)
    assert found.estimate is not None
    assert found.estimate.total == pytest.approx(4e-18)
    assert fit_as_data(found)["estimate"]["samples"] == 2
    first, second = estimate_lines(found.estimate)
    assert first.startswith("estimate by SANA-FE: 4e-12 uJ (synapse 1e-12, ")
    assert "not a measurement" in second
    assert first in chip_as_html(found)
    assert fit(deployment, job).estimate is None
