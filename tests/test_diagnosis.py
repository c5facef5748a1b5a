"""Diagnosis: segments mean what the graph means, faults are told from what is downstream."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings

from msg_deploy import api
from msg_deploy.deployment import Deployment, InputSpec
from msg_deploy.errors import FileError, UsageError
from msg_deploy.exporters.trace import trace
from msg_deploy.report.data import verdict_as_data
from msg_deploy.sim.compare import layout
from msg_deploy.sim.diagnosis.diagnose import Party, diagnose
from msg_deploy.sim.diagnosis.evidence import agreement, give, inputs_of, recorded
from msg_deploy.sim.diagnosis.findings import ROUNDING
from msg_deploy.sim.diagnosis.hypotheses import hypotheses
from msg_deploy.sim.diagnosis.reduce import Budget, reduce
from msg_deploy.sim.diagnosis.segments import segments
from msg_deploy.sim.diagnosis.told import sentences
from msg_deploy.sim.reference import Reference
from tests.helpers import random_network, samples
from tests.mutations.networks import deployments as networks
from tests.strategies import deployments
from tests.test_cli import refused, run

PAGE = Path(__file__).parents[1] / "docs" / "diagnosis.md"


def table() -> str:
    rows = [f"| `{h.name}` | {h.sentence} |" for h in hypotheses()]
    return "\n".join(["| cause | B behaves as if |", "|---|---|", *rows])


def test_the_documentation_lists_all_hypotheses() -> None:
    shown = PAGE.read_text().split("<!-- hypotheses -->\n")[1].split("<!-- end -->")[0]
    assert shown.strip() == table()


@settings(max_examples=60, deadline=None)
@given(deployments())
def test_a_segment_fed_with_its_own_past_gives_its_own_spikes(deployment: Deployment) -> None:
    random = np.random.default_rng(0)
    inputs = random.uniform(-1, 1, (deployment.timing.steps, 3, *deployment.input.shape))
    own = Reference().run(deployment, inputs)
    entering = inputs_of(deployment, inputs)
    for segment in segments(deployment):
        evidence = recorded(segment, own, entering)
        found = agreement(segment, give(segment, evidence.received), evidence, "float64")
        assert found.whole or found.mismatches == 0, segment.node


def party(deployment: Deployment, graph: bool = True) -> Party:
    def simulate(inputs: np.ndarray) -> Any:
        return Reference().run(deployment, inputs)

    return Party(simulate, deployment if graph else None, layout(deployment))


@pytest.fixture(scope="module")
def convnet() -> Deployment:
    return networks()["convnet"]


def changed(deployment: Deployment, **nodes: dict[str, Any]) -> Deployment:
    graph = deployment.graph
    new = {name: replace(graph.nodes[name], **fields) for name, fields in nodes.items()}
    return deployment.with_graph(
        type(graph)({**graph.nodes, **new}, graph.edges, {}, type_check=False)
    )


INPUTS = np.broadcast_to(samples(6, shape=(2, 8, 8)), (6, 6, 2, 8, 8))


def test_two_faults_and_what_is_between(convnet: Deployment) -> None:
    nodes = convnet.graph.nodes
    bad = changed(
        convnet, conv1={"bias": nodes["conv1"].bias * 0}, lif3={"tau": nodes["lif3"].tau * 2}
    )
    found = diagnose(party(convnet), party(bad), INPUTS, "float64")
    assert [(f.node, f.causes[0].name) for f in found.faulty] == [
        ("lif1", "bias"),
        ("lif3", "time-constant"),
    ]
    assert "lif2" in found.downstream
    assert found.faulty[0].causes[0].node == "conv1"
    assert found.faulty[0].causes[0].parameters == 0
    assert found.complete


def test_the_side_whose_graph_is_not_what_it_does(convnet: Deployment) -> None:
    """A runs something else than its graph; B does what its own says."""
    bad = changed(convnet, lif2={"tau": convnet.graph.nodes["lif2"].tau * 2})
    liar = replace(party(bad), graph=convnet)
    found = diagnose(liar, party(convnet), INPUTS, "float64")
    assert found.subject == "a"
    assert [(f.node, f.causes[0].name) for f in found.faulty] == [("lif2", "time-constant")]
    assert any(line.startswith("  the left side behaves") for line in sentences(found))


def test_without_a_graph_the_first_layer_is_named(convnet: Deployment) -> None:
    bad = changed(convnet, lif2={"tau": convnet.graph.nodes["lif2"].tau * 2})
    found = diagnose(party(convnet, False), party(bad, False), INPUTS, "float64")
    assert not found.forced
    assert [f.node for f in found.faulty] == ["lif2"]
    assert "without a graph" in next(sentences(found))


def test_what_nothing_explains_has_a_closest_change(convnet: Deployment) -> None:
    random = np.random.default_rng(0)
    weight = random.permutation(convnet.graph.nodes["conv2"].weight.ravel()).reshape(4, 4, 3, 3)
    bad = changed(convnet, conv2={"weight": weight})
    (fault,) = diagnose(party(convnet), party(bad, False), INPUTS, "float64").faulty
    assert fault.causes == ()
    assert fault.closest is not None
    (fault,) = diagnose(party(convnet), party(bad), INPUTS, "float64").faulty
    assert [cause.name for cause in fault.causes] == ["weight-values"]


def test_no_time_tests_nothing(convnet: Deployment) -> None:
    bad = changed(convnet, lif2={"tau": convnet.graph.nodes["lif2"].tau * 2})
    found = diagnose(party(convnet), party(bad), INPUTS, "float64", seconds=0.0)
    assert not found.complete
    assert found.faulty[0].causes == ()


def test_only_rounding(convnet: Deployment) -> None:
    """A threshold moved by less than rounding, with membranes hidden."""
    own = party(convnet).run(INPUTS)
    membrane = own.membranes["lif3"]
    place = tuple(np.argwhere(membrane > 0.5)[0])
    threshold = convnet.graph.nodes["lif3"].v_threshold.copy()
    threshold[place[2:]] = membrane[place]
    a = changed(convnet, lif3={"v_threshold": threshold * (1 + 1e-13)})
    b = changed(convnet, lif3={"v_threshold": threshold * (1 - 1e-13)})
    hidden = Party(lambda x: replace(Reference().run(b, x), membranes={}), None, layout(b))
    (fault,) = diagnose(party(a), hidden, INPUTS, "float64").faulty
    assert fault.mismatches == 0
    assert fault.ties >= 1
    assert [cause.name for cause in fault.causes] == [ROUNDING]


def test_reduction_keeps_what_matters() -> None:
    sample = np.full((5, 4), 0.5, np.float32)

    def failing(candidates: np.ndarray) -> np.ndarray:
        return (candidates[:, 1, 2] > 0) & (candidates[:, 3, 3] > 0)

    reduced = reduce(sample, 7, "lif1", InputSpec((4,), "frames"), failing)
    assert reduced is not None
    assert reduced.places == ((1, 2), (3, 3))
    assert reduced.values == (0.5, 0.5)
    assert reduced.sample == 7
    assert np.count_nonzero(reduced.array()) == 2
    assert reduce(sample * 0, 0, "lif1", InputSpec((5, 4)), failing) is None
    stopped = reduce(sample, 0, "lif1", InputSpec((5, 4)), failing, Budget(runs=1))
    assert stopped is not None
    assert len(stopped.places) == 20


@pytest.fixture
def broken(trained_file: Path, tmp_path: Path) -> Path:
    """A folder with model.pt and a model.nir without a bias."""
    shutil.copy(trained_file, tmp_path / "model.pt")
    api.export(trained_file, tmp_path / "model.nir")
    with h5py.File(tmp_path / "model.nir", "r+") as content:
        content["node/nodes/fc2/bias"][...] = 0
    return tmp_path


@pytest.mark.slow
def test_the_command_line_tells_and_replays(broken: Path) -> None:
    result = run(
        "equivalence-check", "model.pt", "model.nir", "--save-failure", "f.npz",
        "--with", "norse", "--with", "reference", "--map", "lif2=lif2", cwd=broken,
    )  # fmt: skip
    assert result.returncode == 1, result
    assert "faulty: lif2" in result.stdout
    assert "the bias is missing in fc2 (bias; the parameters say so, too)" in result.stdout
    assert "smallest input that differs in lif2" in result.stdout
    with np.load(broken / "f.npz") as arrays:
        assert arrays["samples"].shape == (1, 1, 8, 8)
        about = json.loads(str(arrays["failure"]))
    assert about["node"] == "lif2"
    assert about["faulty"][0]["causes"][0]["name"] == "bias"
    again = result.stdout.split("run it again: ")[1].splitlines()[0]
    assert again.endswith("--with norse --with reference --map lif2=lif2")
    replayed = run(*shlex.split(again), "--json", cwd=broken)
    assert replayed.returncode == 1, replayed
    data = json.loads(replayed.stdout)
    assert [c["samples"] for c in data["comparisons"]] == [1, 1]
    assert data["comparisons"][0]["first"]["node"] == "lif2"
    assert data["diagnosis"]["faulty"][0]["node"] == "lif2"
    quiet = run("equivalence-check", "model.pt", "model.nir", "--no-diagnosis", cwd=broken)
    assert quiet.returncode == 1
    assert "faulty" not in quiet.stdout


def test_failures_are_npz(broken: Path) -> None:
    arguments = ("equivalence-check", "model.pt", "model.nir", "--save-failure")
    refused(run(*arguments, "f.txt", cwd=broken), "f.txt", ".npz")
    refused(run(*arguments, "no/f.npz", cwd=broken), "no/f.npz")
    np.savez(broken / "other.npz", labels=np.zeros(3, int))
    with pytest.raises(FileError, match="'samples' is needed"):
        api.check(broken / "model.pt", broken / "model.nir", str(broken / "other.npz"))


def test_a_verdict_without_a_difference_has_nothing_to_save(
    trained_file: Path, tmp_path: Path
) -> None:
    from msg_deploy.sim.diagnosis.failure import write_failure

    api.export(trained_file, tmp_path / "model.nir")
    verdict = api.check(trained_file, tmp_path / "model.nir", samples=3)
    assert verdict.diagnosis is None
    with pytest.raises(UsageError, match="no failing input"):
        write_failure(tmp_path / "f.npz", verdict)


def test_frames_are_reduced(tmp_path: Path) -> None:
    network = random_network("mlp", hidden=(12,), steps=4, v_threshold=0.2)
    framed = replace(trace(network), input=InputSpec((1, 8, 8), "frames"))
    bad = changed(framed, fc1={"weight": framed.graph.nodes["fc1"].weight * 0.5})
    data = samples(3, shape=(4, 1, 8, 8))
    verdict = api.check(framed, bad, data, ["reference"], random=0)
    assert verdict.diagnosis is not None
    reduced = verdict.diagnosis.reduced
    assert reduced is not None
    assert reduced.shape == (4, 1, 8, 8)
    assert len(reduced.places) < 20
    assert not api.check(framed, bad, reduced.array()[None], ["reference"], random=0)
    assert json.loads(json.dumps(verdict_as_data(verdict)))["diagnosis"]["reduced"]
