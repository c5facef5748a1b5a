"""Files of older versions and other exporters, and nested graphs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from msg_deploy.deployment import Deployment, InputSpec, Timing
from msg_deploy.errors import FileError, GraphError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.inline import inline
from msg_deploy.exporters.legacy import completed
from msg_deploy.graph import plan
from msg_deploy.sim.norse import Norse
from msg_deploy.sim.reference import Reference
from tests.conftest import SHARED
from tests.helpers import chain, lif

FLAT = InputSpec((3,), "frames")


def written(tmp_path: Path, deployment: Deployment) -> Path:
    """A file as others write it: nothing of ours in it."""
    path = tmp_path / "model.nir"
    nir.write(path, nir.NIRGraph(deployment.graph.nodes, deployment.graph.edges, type_check=False))
    return path


def two_layers() -> Deployment:
    random = np.random.default_rng(0)
    return chain(
        nir.Affine(random.normal(size=(4, 3)), random.normal(size=4)),
        lif((4,)),
        nir.Linear(random.normal(size=(2, 4))),
        lif((2,)),
        inputs=[3],
        outputs=[2],
        steps=9,
        dt=1e-3,
    )


def same(a: Deployment, b: Deployment) -> None:
    inputs = np.random.default_rng(1).normal(size=(a.timing.steps, 5, *a.input.shape))
    x, y = (Reference().run(d, inputs) for d in (a, b))
    assert np.array_equal(x.outputs, y.outputs)
    assert x.outputs.any()


def test_no_v_reset(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deployment = two_layers()
    path = written(tmp_path, deployment)
    with h5py.File(path, "r+") as file:
        for name in ("n1", "n3"):
            del file[f"node/nodes/{name}/v_reset"]
    found = nir_file.read(path, nir_file.ForeignTiming(1e-3, 9, "zero"))
    assert "node 'n1' has no v_reset, as before nir 1.0.6; assumed 0" in caplog.text
    same(deployment, found)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_one_number_for_all_neurons(
    shape: tuple[int, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deployment = two_layers()
    path = written(tmp_path, deployment)
    with h5py.File(path, "r+") as file:
        for field in ("tau", "v_threshold"):
            value = file[f"node/nodes/n1/{field}"][0]
            del file[f"node/nodes/n1/{field}"]
            file[f"node/nodes/n1/{field}"] = np.full(shape, value)
    found = nir_file.read(path, nir_file.ForeignTiming(1e-3, 9, "zero"))
    assert "node 'n1' has one tau, v_threshold for all its neurons" in caplog.text
    assert found.graph.nodes["n1"].tau.shape == (4,)
    same(deployment, found)


@pytest.mark.parametrize("extra", [(1,), (16, 1), (100, 16)])
def test_batch_in_the_types(
    extra: tuple[int, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deployment = two_layers()
    path = written(tmp_path, deployment)
    with h5py.File(path, "r+") as file:
        for name, size in (("input", 3), ("output", 2)):
            del file[f"node/nodes/{name}/shape"]
            file[f"node/nodes/{name}/shape"] = np.array([*extra, size])
    found = nir_file.read(path, nir_file.ForeignTiming(1e-3, 9, "zero"))
    dropped = f"the first {len(extra)} taken for batch or time"
    assert f"node 'input' declares {(*extra, 3)}; {dropped}" in caplog.text
    assert f"node 'output' declares {(*extra, 2)}; {dropped}" in caplog.text
    same(deployment, found)


def test_images_keep_their_dimensions() -> None:
    kernel = np.ones((2, 1, 3, 3))
    node = nir.Conv2d(None, kernel, 1, 0, 1, 1, np.zeros(2))
    deployment = chain(node, lif((2, 3, 3)), inputs=[1, 5, 5], outputs=[2, 3, 3])
    graph, assumed = completed(deployment.graph)
    assert assumed == ()
    assert plan(graph) == plan(deployment.graph)


def test_what_does_not_fit_is_left_for_the_check() -> None:
    deployment = chain(lif((2,)), inputs=[3], outputs=[3])
    graph, assumed = completed(deployment.graph)
    assert assumed == ()
    with pytest.raises(GraphError, match="n0"):
        plan(graph)


def test_rockpools_file() -> None:
    path = SHARED / "nir_paper" / "01_lif" / "lif_rockpool.nir"
    if not path.is_file():
        pytest.skip(f"the reference data {path} are not here")
    found = nir_file.read(path, nir_file.ForeignTiming(1e-4, 1000, "subtract"))
    assert found.input.shape == (1,)
    assert found.graph.nodes["1_LIFNeuronTorch"].r == pytest.approx([24.0197], rel=1e-5)


# Nested graphs


def nested(inner: Any, edges: Any, outer: Any, outer_edges: Any) -> nir.NIRGraph:
    graph = nir.NIRGraph(inner, edges, type_check=False)
    return nir.NIRGraph(outer | {"block": graph}, outer_edges, type_check=False)


def terminals(size: int) -> dict[str, nir.NIRNode]:
    shape = np.array([size])
    return {"input": nir.Input({"input": shape}), "output": nir.Output({"output": shape})}


def recurrent() -> tuple[nir.NIRGraph, nir.NIRGraph]:
    """The same recurrent layer nested and flat."""
    random = np.random.default_rng(0)
    first, back = nir.Linear(random.normal(size=(4, 4))), nir.Linear(random.normal(size=(4, 4)))
    neuron = lif((4,), tau=3e-3)
    around = [("input", "first"), ("first", "block"), ("block", "output")]
    inside = [("input", "lif"), ("lif", "back"), ("back", "lif"), ("lif", "output")]
    deep = nested(
        terminals(4) | {"lif": neuron, "back": back},
        inside,
        terminals(4) | {"first": first},
        around,
    )
    flat = nir.NIRGraph(
        terminals(4) | {"first": first, "block.lif": neuron, "block.back": back},
        [
            ("input", "first"),
            ("first", "block.lif"),
            ("block.lif", "output"),
            ("block.lif", "block.back"),
            ("block.back", "block.lif"),
        ],
        type_check=False,
    )
    return deep, flat


def test_nested_is_flat(tmp_path: Path) -> None:
    deep, flat = recurrent()
    nir.write(tmp_path / "deep.nir", deep)
    found = nir_file.read(tmp_path / "deep.nir", nir_file.ForeignTiming(1e-3, 20, "zero"))
    expected = Deployment(flat, Timing(steps=20), InputSpec((4,), "frames"))
    assert set(found.graph.nodes) == set(flat.nodes)
    assert {tuple(e) for e in found.graph.edges} == set(flat.edges)
    same(expected, found)
    inputs = np.random.default_rng(1).normal(size=(20, 5, 4))
    mine, theirs = (s.run(found, inputs) for s in (Reference(), Norse()))
    assert np.array_equal(mine.spikes["block.lif"], theirs.spikes["block.lif"])


def test_graphs_in_graphs() -> None:
    deep, _ = recurrent()
    outer = nir.NIRGraph(
        terminals(4) | {"all": deep}, [("input", "all"), ("all", "output")], type_check=False
    )
    assert set(inline(outer).nodes) == {
        "input",
        "output",
        "all.first",
        "all.block.lif",
        "all.block.back",
    }


def test_a_nested_graph_next_to_another() -> None:
    inner = terminals(4) | {"lif": lif((4,))}
    straight = [("input", "lif"), ("lif", "output")]
    one = nir.NIRGraph(inner, straight, type_check=False)
    two = nir.NIRGraph(inner, straight, type_check=False)
    edges = [("input", "a"), ("a", "b"), ("b", "output"), ("a", "output")]
    graph = inline(nir.NIRGraph(terminals(4) | {"a": one, "b": two}, edges, type_check=False))
    assert set(graph.edges) == {
        ("input", "a.lif"),
        ("a.lif", "b.lif"),
        ("b.lif", "output"),
        ("a.lif", "output"),
    }


def test_graphs_that_cannot_be_inlined(tmp_path: Path) -> None:
    edges = [("input", "block"), ("block", "output")]
    no_end = {"input": terminals(4)["input"], "lif": lif((4,))}
    with pytest.raises(GraphError, match=r"'block' \(NIRGraph\): has 0 Output nodes"):
        inline(nested(no_end, [("input", "lif")], terminals(4), edges))
    with pytest.raises(GraphError, match="straight to its Output"):
        inline(nested(terminals(4), [("input", "output")], terminals(4), edges))
    inner = terminals(4) | {"lif": lif((4,))}
    taken = terminals(4) | {"block.lif": lif((4,))}
    with pytest.raises(GraphError, match=r"'block\.lif': this name is taken twice"):
        inline(nested(inner, [("input", "lif"), ("lif", "output")], taken, edges))
    broken = nested(inner, [("input", "lif")], terminals(4), edges)
    nir.write(tmp_path / "broken.nir", broken)
    with h5py.File(tmp_path / "broken.nir", "r+") as file:
        del file["node/nodes/block/edges"]
    with pytest.raises(FileError, match="node/nodes/block/edges is missing"):
        nir_file.read(tmp_path / "broken.nir")


def test_nothing_is_assumed_of_our_own_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nir_file.write(two_layers(), tmp_path / "model.nir")
    with caplog.at_level(logging.WARNING):
        nir_file.read(tmp_path / "model.nir")
    assert caplog.text == ""
