"""Nodes of both sides: by name, by origin, or as given; what is said where none of that helps."""

from __future__ import annotations

from pathlib import Path

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msg_deploy import api, record
from msg_deploy.deployment import Deployment
from msg_deploy.errors import UsageError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.dialects import in_dialect
from msg_deploy.exporters.fold import fold_two
from msg_deploy.exporters.inline import ORIGIN_KEY
from msg_deploy.exporters.trace import trace
from msg_deploy.matching import matched, parsed, suggested
from msg_deploy.pairs import nodes_of, paired, renamed
from msg_deploy.sim.verdict import Kind
from tests.helpers import random_network
from tests.test_cli import refused, run

NAMES = {"lif1": "n1", "lif2": "n3", "fc1": "n0", "fc2": "n2", "fc3": "n4", "flatten": "flat"}
"""Ours to those of somebody else."""
MAP = {name: other for name, other in NAMES.items() if name in ("lif1", "lif2", "fc3")}


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    return trace(random_network(hidden=(12, 7)))


def plain(**nodes: str) -> dict[str, str]:
    """Nodes and where they come from; _ stands for nothing recorded."""
    return {name: name if origin == "_" else origin for name, origin in nodes.items()}


def test_names_come_first_then_origins() -> None:
    left = plain(a="_", b="_", c="_")
    assert matched(left, left, {}) == {}
    assert matched(left, plain(a="_", x="b", y="c"), {}) == {"x": "b", "y": "c"}
    # Its name says more than where it was copied from.
    assert matched(left, plain(a="b", x="a"), {}) == {}
    assert matched(plain(a="one", b="two"), plain(x="one", y="two"), {}) == {"x": "a", "y": "b"}


def test_origins_that_are_not_unique_say_nothing() -> None:
    assert matched(plain(a="_"), plain(x="a", y="a"), {}) == {}
    assert matched(plain(a="one", b="one"), plain(x="one"), {}) == {}


def test_what_is_given_counts_most() -> None:
    left, right = plain(a="_", b="_"), plain(x="b", y="_")
    assert matched(left, right, {"a": "x"}) == {"x": "a"}
    assert matched(left, plain(a="_", b="_"), {"a": "b", "b": "a"}) == {"b": "a", "a": "b"}
    assert matched(left, left, {"a": "a"}) == {}


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"z": "x"}, ["'z' is no node of the left side", "Left: a, b. Right: a, x."]),
        ({"b": "z"}, ["'z' is no node of the right side", "Left: a, b. Right: a, x."]),
        ({"a": "x", "b": "x"}, ["'x' of the right side is given to 'a', 'b'"]),
        ({"a": "x"}, ["has a node 'a', too; say what that one is", "Right: a, x."]),
    ],
)
def test_mappings_that_are_refused(mapping: dict[str, str], words: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        matched(plain(a="_", b="_"), plain(a="_", x="_"), mapping)
    for word in words:
        assert word in str(error.value)


def test_suggestions_need_one_order() -> None:
    assert suggested({"a": (3,), "b": (4,)}, {"x": (4,), "y": (3,)}) == {"a": "y", "b": "x"}
    assert suggested({"a": (3,), "b": (3,)}, {"x": (3,), "y": (3,)}) == {"a": "x", "b": "y"}
    assert suggested({"a": (3,), "b": (3,)}, {"x": (3,)}) == {}
    assert suggested({}, {"x": (3,)}) == {}


@given(st.dictionaries(st.text("ab", min_size=1), st.text("xy", min_size=1), max_size=4))
def test_what_is_parsed(pairs: dict[str, str]) -> None:
    assert parsed([f"{mine}={theirs}" for mine, theirs in pairs.items()]) == pairs


@pytest.mark.parametrize("text", ["a", "=b", "a=", ""])
def test_what_is_no_pair(text: str) -> None:
    with pytest.raises(UsageError, match="must be LEFT=RIGHT"):
        parsed([text])
    with pytest.raises(UsageError, match="'a' is given twice"):
        parsed(["a=b", "a=c"])
    assert parsed(["a=b", "a=b", "c=d=e"]) == {"a": "b", "c": "d=e"}


def test_renaming_there_and_back(deployment: Deployment) -> None:
    there = renamed(deployment, NAMES)
    assert set(there.graph.nodes) == {NAMES.get(n, n) for n in deployment.graph.nodes}
    assert there.readout is not None
    assert there.readout.source == "n4"
    back = renamed(there, {other: name for name, other in NAMES.items()})
    assert list(back.graph.nodes) == list(deployment.graph.nodes)
    assert back.graph.edges == deployment.graph.edges
    assert back.readout == deployment.readout


@pytest.mark.parametrize("kind", ["pt", "nir", "onnx", "npz"])
def test_every_kind_of_right_side_is_mapped(
    deployment: Deployment, tmp_path: Path, kind: str
) -> None:
    other = renamed(deployment, NAMES)
    path = tmp_path / f"model.{kind}"
    right: api.Model = path
    mapping = MAP
    if kind == "pt":  # a module is called as it is; so the left side is the renamed one
        right = random_network(hidden=(12, 7))
        mapping = {theirs: mine for mine, theirs in MAP.items()}
    elif kind == "nir":
        nir_file.write(other, path)
    elif kind == "onnx":
        api.export_onnx(other, path)
    else:
        record(other, path, random=4)
    left = other if kind == "pt" else deployment
    count = None if kind == "npz" else 4
    unmapped = api.check(left, right, random=count)
    assert unmapped.kind is Kind.INCOMPARABLE
    verdict = api.check(left, right, random=count, mapping=mapping)
    assert verdict, verdict
    assert [layer.node for layer in verdict.comparisons[0].layers] == list(
        MAP.values() if kind == "pt" else MAP
    )[:2]


def test_parameters_and_diagnosis_use_the_names_of_the_left(deployment: Deployment) -> None:
    nodes = dict(deployment.graph.nodes)
    nodes["fc2"] = nir.Affine(nodes["fc2"].weight, np.zeros_like(nodes["fc2"].bias))
    graph = nir.NIRGraph(nodes, deployment.graph.edges, metadata={}, type_check=False)
    other = renamed(deployment.with_graph(graph), NAMES)
    verdict = api.check(deployment, other, random=8, mapping=NAMES)
    assert [(p.node, p.field) for p in verdict.parameters] == [("fc2", "bias")]
    assert verdict.diagnosis is not None
    assert [fault.node for fault in verdict.diagnosis.faulty] == ["lif2"]
    assert verdict.diagnosis.faulty[0].causes[0].node == "fc2"


def test_fused_layers_are_mapped_by_the_names_they_had() -> None:
    network = trace(random_network("sew_resnet34", shape=(2, 8, 8), steps=2, width=2))
    written = in_dialect(fold_two(network, "host"), "portable")
    spiking = [n for n, x in network.graph.nodes.items() if isinstance(x, nir.LIF)]
    names = {name: f"x{i}" for i, name in enumerate(spiking)}
    sides = [api.open_model(model) for model in (network, renamed(written, names))]
    assert set(names.values()) <= set(nodes_of(sides[1]))
    _, right = paired(*sides, names)
    assert set(spiking) <= set(nodes_of(right))
    assert set(right.layout.thresholds) == set(spiking)


def test_what_we_export_says_where_it_comes_from(deployment: Deployment, tmp_path: Path) -> None:
    """Somebody else renames nodes, but keeps their metadata."""
    path = tmp_path / "model.nir"
    api.export(deployment, path)
    back = nir_file.read(path)
    assert {n: x.metadata[ORIGIN_KEY] for n, x in back.graph.nodes.items()} == {
        name: name for name in back.graph.nodes
    }
    with h5py.File(path, "r+") as content:
        for name, other in NAMES.items():
            content["node/nodes"].move(name, other)
        ends = [[NAMES.get(x.decode(), x.decode()) for x in e] for e in content["node/edges"][()]]
        del content["node/edges"]
        content["node/edges"] = ends
        text = content["node/metadata/msg_deploy"][()].decode()
        del content["node/metadata/msg_deploy"]
        content["node/metadata/msg_deploy"] = text.replace('"fc3"', '"n4"')
    verdict = api.check(deployment, path, random=4)
    assert verdict.kind is Kind.PROVEN
    assert [layer.node for layer in verdict.comparisons[0].layers] == ["lif1", "lif2"]
    # Written again under the new names, and recorded, it still says so.
    again = tmp_path / "again.nir"
    api.export(path, again)
    assert api.check(again, deployment, random=4).kind is Kind.PROVEN
    record(again, tmp_path / "trace.npz", random=4)
    assert api.check(deployment, tmp_path / "trace.npz").kind is Kind.PROVEN


@pytest.mark.slow
def test_programs(deployment: Deployment, tmp_path: Path) -> None:
    nir_file.write(deployment, tmp_path / "a.nir")
    stripped = {n: type(x)(**_fields(x)) for n, x in deployment.graph.nodes.items()}
    graph = nir.NIRGraph(stripped, deployment.graph.edges, metadata={}, type_check=False)
    nir_file.write(renamed(deployment.with_graph(graph), NAMES), tmp_path / "b.nir")
    check = ("equivalence-check", "a.nir", "b.nir", "--with", "fast", "--random", 4)
    told = run(*check, cwd=tmp_path)
    assert told.returncode == 2
    for line in ("perhaps --map lif1=n1", "perhaps --map lif2=n3"):
        assert line in told.stdout
    found = run(*check, "--map", "lif1=n1", "--map", "lif2=n3", "--map", "fc3=n4", cwd=tmp_path)
    assert found.returncode == 0, found
    refused(run(*check, "--map", "lif1=x", cwd=tmp_path), "'x'", "Right:", "n1", "n3")
    refused(run(*check, "--map", "lif1", cwd=tmp_path), "LEFT=RIGHT")


def _fields(node: nir.NIRNode) -> dict[str, object]:
    """What builds it again, without its metadata."""
    if isinstance(node, nir.Input):
        return {"input_type": node.input_type}
    if isinstance(node, nir.Output):
        return {"output_type": node.output_type}
    if isinstance(node, nir.Flatten):
        return {"input_type": node.input_type, "start_dim": node.start_dim, "end_dim": node.end_dim}
    fields = vars(node)
    return {n: v for n, v in fields.items() if n not in ("input_type", "output_type", "metadata")}
