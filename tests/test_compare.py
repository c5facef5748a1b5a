"""Verdicts: nothing is flagged that is equal, and every change of an exported file is named."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from msg_deploy import api, subjects
from msg_deploy.deployment import METADATA_KEY, Deployment, InputSpec, Timing
from msg_deploy.errors import UsageError
from msg_deploy.exporters.trace import trace
from msg_deploy.sim.verdict import (
    Kind,
)
from tests.helpers import chain, lif, random_network, samples


@pytest.fixture(params=["delay", "host"])
def exported(trained_file: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "model.nir"
    api.export(trained_file, path, request.param)
    return path


def edit(path: str, change: Callable[[np.ndarray], None]) -> Callable[[h5py.File], None]:
    def apply(content: h5py.File) -> None:
        value = content[path][()]
        change(value)
        content[path][...] = value

    return apply


def add(place: Any, amount: float) -> Callable[[np.ndarray], None]:
    def change(value: np.ndarray) -> None:
        value[place] += amount

    return change


def metadata(field: str, change: Callable[[Any], Any]) -> Callable[[h5py.File], None]:
    def apply(content: h5py.File) -> None:
        group, text = content["node/metadata"], content["node/metadata"][METADATA_KEY][()]
        data = json.loads(text)
        section, name = field.split(".")
        data[section][name] = change(data[section][name])
        del group[METADATA_KEY]
        group[METADATA_KEY] = json.dumps(data)

    return apply


def nudge_first(weights: list[float]) -> list[float]:
    return [weights[0] + 0.01, *weights[1:]]


def test_unchanged_is_proven(trained_file: Path, exported: Path) -> None:
    verdict = api.check(trained_file, exported)
    assert verdict, verdict
    assert verdict.kind is Kind.PROVEN
    assert verdict.parameters == ()
    assert [c.b for c in verdict.comparisons] == ["reference", "norse"]
    assert [c.samples for c in verdict.comparisons] == [424, 424]
    assert verdict.spikes == 2 * 424 * 6 * (48 + 32)
    assert verdict.mismatches == 0


CHANGES = {
    "weight": (edit("node/nodes/fc2/weight", add((3, 5), 0.5)), "fc2"),
    "one ulp of a weight": (
        edit("node/nodes/fc1/weight", lambda w: w.__setitem__((0, 0), np.nextafter(w[0, 0], 9))),
        "fc1",
    ),
    "weight of the output layer": (edit("node/nodes/fc3/weight", add((1, 1), 0.1)), "fc3"),
    "bias": (edit("node/nodes/fc1/bias", add(4, 0.3)), "fc1"),
    "threshold": (edit("node/nodes/lif1/v_threshold", add(7, 0.2)), "lif1"),
    "tau": (edit("node/nodes/lif2/tau", add(7, 1e-3)), "lif2"),
    "v_reset": (edit("node/nodes/lif1/v_reset", add(0, -0.1)), "lif1"),
    "reset mode": (metadata("timing.reset", lambda _: "subtract"), "timing"),
    "dt": (metadata("timing.dt", lambda dt: dt / 2), "timing"),
    "TWO weight": (metadata("readout.weights", nudge_first), "readout"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_and_named(trained_file: Path, exported: Path, name: str) -> None:
    change, node = CHANGES[name]
    with h5py.File(exported, "r+") as content:
        change(content)
    verdict = api.check(trained_file, exported)
    assert not verdict
    assert verdict.kind is Kind.DIVERGENT
    assert node in {p.node for p in verdict.parameters}


@pytest.mark.parametrize(
    ("name", "layer", "quantity"),
    [
        ("weight", "lif2", "spike"),
        ("weight of the output layer", "fc3", "current"),
        ("bias", "lif1", "spike"),
        ("threshold", "lif1", "spike"),
        ("reset mode", "lif1", "spike"),
        ("dt", "lif1", "spike"),
    ],
)
def test_the_first_difference_names_the_layer(
    trained_file: Path, exported: Path, name: str, layer: str, quantity: str
) -> None:
    with h5py.File(exported, "r+") as content:
        CHANGES[name][0](content)
    for comparison in api.check(trained_file, exported).comparisons:
        assert comparison.first is not None
        assert (comparison.first.node, comparison.first.quantity) == (layer, quantity)
        if quantity == "spike":
            assert comparison.first.a != comparison.first.b
            assert comparison.first.margin is not None


def test_a_changed_branch_of_the_folding_names_the_readout(
    trained_file: Path, tmp_path: Path
) -> None:
    api.export(trained_file, tmp_path / "model.nir", "delay")
    with h5py.File(tmp_path / "model.nir", "r+") as content:
        content["node/nodes/readout.scale_2/scale"][...] *= 1.5
    verdict = api.check(trained_file, tmp_path / "model.nir")
    assert verdict.kind is Kind.DIVERGENT
    assert {c.first.node for c in verdict.comparisons if c.first} == {"readout"}


def test_a_removed_edge_is_found(trained_file: Path, tmp_path: Path) -> None:
    deployment = trace(random_network("convnet"))
    graph = deployment.graph
    fewer = [e for e in graph.edges if tuple(e) != ("pool2", "flatten")]
    assert len(fewer) == len(graph.edges) - 1
    changed = deployment.with_graph(type(graph)(graph.nodes, fewer, {}, type_check=False))
    verdict = api.check(deployment, changed)
    assert verdict.kind is Kind.DIVERGENT
    assert [(p.node, p.field) for p in verdict.parameters] == [("flatten", "edges")]


def test_networks_without_a_threshold_can_differ() -> None:
    def of(weight: float) -> Deployment:
        state = nir.LI(*np.full((3, 2), [[2e-3], [1.0], [0.0]]))
        layer = nir.Linear(np.full((2, 3), weight))
        return chain(layer, state, inputs=(3,), outputs=(2,), dt=1e-3, steps=4)

    assert api.check(of(1.0), of(1.0), random=8).kind is Kind.IDENTICAL
    assert api.check(of(1.0), of(1.5), random=8).kind is Kind.DIVERGENT


def test_two_graphs_and_two_checkpoints(trained_file: Path, exported: Path) -> None:
    assert api.check(exported, exported, samples=20)
    assert api.check(exported, trained_file, samples=20)
    assert [c.b for c in api.check(trained_file, trained_file).comparisons] == ["torch"]


def test_data_can_be_given(trained_file: Path, exported: Path) -> None:
    verdict = api.check(trained_file, exported, data=samples(7), random=0)
    assert verdict.comparisons[0].samples == 7
    with pytest.raises(UsageError, match="wrong input shape"):
        api.check(trained_file, exported, data=samples(7, shape=(28, 28)))
    with pytest.raises(UsageError, match="NaN"):
        api.check(trained_file, exported, data=samples(2) * np.nan)
    with pytest.raises(UsageError, match="no sample"):
        api.check(trained_file, exported, samples=0, random=0)
    with pytest.raises(UsageError, match="unknown data set 'mnits'"):
        api.check(trained_file, exported, data="mnits")


def test_other_inputs_or_steps_cannot_be_compared(trained_file: Path) -> None:
    other = trace(random_network(steps=7))
    verdict = api.check(trained_file, other)
    assert verdict.kind is Kind.DIVERGENT  # the number of steps is a parameter
    assert verdict.problems == ("timesteps are 6 against 7",)


def test_other_layers_cannot_be_compared() -> None:
    one = trace(random_network(hidden=(8,)))
    verdict = api.check(one, trace(random_network(hidden=(8, 8))), random=4)
    reasons = verdict.comparisons[0].missing
    assert "spiking layer 'lif2' is only on the side of reference" in reasons
    assert verdict.comparisons[0].kind is Kind.INCOMPARABLE


def test_batches_do_not_change_the_result(
    trained_file: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(exported, "r+") as content:
        CHANGES["threshold"][0](content)
    whole = api.check(trained_file, exported)
    monkeypatch.setattr(subjects, "LARGEST_BATCH", 37)
    parts = api.check(trained_file, exported)
    for a, b in zip(whole.comparisons, parts.comparisons, strict=True):
        # Sums of another batch size round differently in float64, in the last digit.
        assert a.mismatches == b.mismatches > 0
        assert a.first is not None
        assert b.first is not None
        place = ("node", "step", "sample", "neuron")
        assert [getattr(a.first, f) for f in place] == [getattr(b.first, f) for f in place]


def test_verdicts_are_data(trained_file: Path, exported: Path) -> None:
    verdict = api.check(trained_file, exported, samples=3)
    assert json.loads(json.dumps(dataclasses.asdict(verdict)))["precision"] == "float64"


@pytest.mark.parametrize("prefix", ["", "readout."])
def test_names_like_those_of_a_folding_hide_nothing(prefix: str) -> None:
    """The nodes of a nested graph "readout" are called so."""
    fc, neurons = f"{prefix}fc", f"{prefix}lif"

    def make(threshold: float) -> Deployment:
        three = np.array([3])
        nodes = {
            "input": nir.Input({"input": three}),
            fc: nir.Linear(np.eye(3)),
            neurons: lif((3,), tau=1e-3, v_threshold=threshold),
            "output": nir.Output({"output": three}),
        }
        edges = [("input", fc), (fc, neurons), (neurons, "output")]
        graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
        return Deployment(graph, Timing(1e-3, 4), InputSpec((3,), "frames"))

    data = np.full((2, 4, 3), 0.25, np.float32)
    verdict = api.check(make(0.5), make(0.625), data, ["reference"], random=0)
    assert verdict.kind is Kind.DIVERGENT
    assert [p.node for p in verdict.parameters] == [neurons]
