from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msg_deploy.deployment import METADATA_KEY, Deployment, Timing
from msg_deploy.errors import FileError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.fold import fold_two
from msg_deploy.exporters.heap import Heap
from msg_deploy.exporters.trace import trace
from msg_deploy.sim.parameters import compare_parameters
from msg_deploy.sim.reference import Reference
from tests.helpers import chain, lif, random_network


@pytest.fixture
def deployment() -> Deployment:
    return fold_two(trace(random_network("convnet", channels=(2, 3))), "delay")


@pytest.fixture
def file(deployment: Deployment, tmp_path: Path) -> Path:
    path = tmp_path / "model.nir"
    nir_file.write(deployment, path)
    return path


def edit_metadata(path: Path, **changes: Any) -> None:
    with h5py.File(path, "r+") as content:
        text = content["node/metadata"][METADATA_KEY][()]
        del content["node/metadata"][METADATA_KEY]
        content["node/metadata"][METADATA_KEY] = json.dumps(json.loads(text) | changes)


def test_round_trip(deployment: Deployment, file: Path) -> None:
    read = nir_file.read(file)
    assert read.metadata == deployment.metadata
    assert read.graph.edges == deployment.graph.edges
    assert not compare_parameters(deployment, read)
    for name, node in deployment.graph.nodes.items():
        assert type(read.graph.nodes[name]) is type(node)
        for field, value in vars(node).items():
            found = getattr(read.graph.nodes[name], field)
            if isinstance(value, np.ndarray):
                assert (found.dtype, found.tolist()) == (value.dtype, value.tolist())


def test_others_can_read_it(file: Path) -> None:
    graph = nir.read(file)  # noqa: TID251
    assert set(graph.nodes) >= {"input", "conv1", "output"}


def test_same_bytes_every_time(deployment: Deployment, file: Path, tmp_path: Path) -> None:
    nir_file.write(deployment, tmp_path / "again.nir")
    assert (tmp_path / "again.nir").read_bytes() == file.read_bytes()


def test_writing_leaves_nothing_else(file: Path) -> None:
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_foreign_file_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    graph = chain(lif((2,)), inputs=[2], outputs=[2]).graph
    nir.write(tmp_path / "foreign.nir", graph)
    with caplog.at_level(logging.WARNING):
        read = nir_file.read(tmp_path / "foreign.nir")
    assert read.timing == Timing(dt=1e-4, steps=100, reset="zero")
    assert "--dt 0.0001, --steps 100, --reset zero" in caplog.text
    caplog.clear()
    foreign = nir_file.ForeignTiming(dt=1e-3, steps=5, reset="subtract")
    assert nir_file.read(tmp_path / "foreign.nir", foreign).timing == Timing(1e-3, 5, "subtract")
    assert not caplog.text


def test_timing_can_be_overridden(file: Path) -> None:
    assert nir_file.read(file, nir_file.ForeignTiming(dt=0.5)).timing.dt == 0.5
    with pytest.raises(FileError, match=r"readout\.weights has 5 entries"):
        nir_file.read(file, nir_file.ForeignTiming(steps=6))
    with pytest.raises(FileError, match="dt"):
        nir_file.read(file, nir_file.ForeignTiming(dt=-1.0))


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no such file"):
        nir_file.read(tmp_path / "none.nir")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_truncated(file: Path, share: float) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FileError, match=r"model\.nir: is not a whole \.nir file"):
        nir_file.read(file)


def test_not_hdf5(tmp_path: Path) -> None:
    (tmp_path / "text.nir").write_text("not a graph")
    with pytest.raises(FileError, match="is not a whole"):
        nir_file.read(tmp_path / "text.nir")


def test_hdf5_but_not_nir(tmp_path: Path) -> None:
    h5py.File(tmp_path / "other.nir", "w").close()
    with pytest.raises(FileError, match="no group 'node'"):
        nir_file.read(tmp_path / "other.nir")


def replace(content: h5py.File, path: str, value: Any) -> None:
    del content[path]
    content[path] = value


def drop(content: h5py.File, path: str) -> None:
    del content[path]


def link(content: h5py.File, path: str, target: Any) -> None:
    del content[path]
    content[path] = target


@pytest.mark.parametrize(
    ("change", "arguments", "problem"),
    [
        (replace, ("node/type", "LIF"), "node/type is 'LIF'"),
        (replace, ("node/nodes/fc/type", "Magic"), r"node 'fc' \(Magic\)"),
        (replace, ("node/nodes/fc/type", 3), "node 'fc': has no type"),
        (
            replace,
            ("node/nodes/fc/weight", np.full((10, 12), np.nan)),
            r"node 'fc'.*weight\[0, 0\]",
        ),
        (replace, ("node/nodes/fc/weight", np.ones((10, 13))), r"node 'fc'.*takes 13 inputs"),
        (replace, ("node/nodes/fc/weight", np.ones(10)), r"node 'fc' \(Affine\)"),
        (replace, ("node/nodes/fc/weight", "heavy"), r"node 'fc' \(Affine\)"),
        (replace, ("node/nodes/lif1/tau", np.zeros((2, 8, 8))), r"'lif1'.*tau must be above 0"),
        (replace, ("node/nodes/lif1/tau", np.ones(3)), r"'lif1'.*do not fit"),
        (replace, ("node/nodes/conv1/stride", np.array([0, 1])), r"node 'conv1' \(Conv2d\)"),
        (replace, ("node/nodes/conv1/groups", 0), r"'conv1'.*groups must be"),
        (replace, ("node/nodes/input/shape", np.array([0])), r"'input'.*at least 1"),
        (replace, ("node/edges", np.array([[b"input", b"gone"]])), "there is no node 'gone'"),
        (replace, ("node/edges", np.zeros(3)), "must be pairs"),
        (replace, ("node/edges", 7), "must be pairs"),
        (replace, ("node/nodes", 7), "must be a group of nodes"),
        (drop, ("node/nodes",), "node/nodes is missing"),
        (drop, ("node/edges",), "node/edges is missing"),
        (drop, ("node/nodes/fc/bias",), r"node 'fc' \(Affine\): its fields are missing"),
        (drop, ("node/nodes/fc/type",), "node 'fc': has no type"),
        (link, ("node/nodes/fc/bias", h5py.SoftLink("/node/edges")), "fc/bias: is a link"),
        (link, ("node/nodes/fc/bias", h5py.ExternalLink("/etc/x", "/y")), "fc/bias: is a link"),
    ],
)
def test_wrong_content(file: Path, change: Any, arguments: Any, problem: str) -> None:
    with h5py.File(file, "r+") as content:
        change(content, *arguments)
    with pytest.raises(FileError, match=rf"model\.nir: .*{problem}"):
        nir_file.read(file)


def test_edges_of_a_nested_graph_are_named_by_their_place(file: Path) -> None:
    with h5py.File(file, "r+") as content:
        inner = content.create_group("node/nodes/inner")
        inner["type"], inner["edges"] = "NIRGraph", np.zeros(3)
        inner.create_group("nodes")
    with pytest.raises(FileError, match="node/nodes/inner/edges must be pairs"):
        nir_file.read(file)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"timing": {"dt": 0, "steps": 5, "reset": "zero"}}, r"timing\.dt"),
        ({"timing": {"dt": 1e-3, "steps": 4, "reset": "zero"}}, "has 5 entries"),
        ({"timing": {"dt": 1e-3, "steps": 5, "reset": "half"}}, r"timing\.reset"),
        ({"input": {"shape": [3]}}, r"input\.shape is \(3,\)"),
        ({"readout": {"weights": [0.2] * 5, "source": "x"}}, "'x', which is not a node"),
        ({"readout": {"weights": ["a"] * 5, "source": "fc"}}, r"readout\.weights"),
        ({"format": 9}, "format"),
        ({"more": 9}, "more"),
    ],
)
def test_wrong_metadata(file: Path, changes: Any, problem: str) -> None:
    edit_metadata(file, **changes)
    with pytest.raises(FileError, match=problem):
        nir_file.read(file)


def test_metadata_that_is_not_json(file: Path) -> None:
    with h5py.File(file, "r+") as content:
        del content["node/metadata"][METADATA_KEY]
        content["node/metadata"][METADATA_KEY] = "{"
    with pytest.raises(FileError, match="metadata 'msg_deploy'"):
        nir_file.read(file)


def test_cycle_without_state(tmp_path: Path) -> None:
    one = nir.Linear(np.ones((1, 1)))
    graph = chain(one, one, inputs=[1], outputs=[1], edges=[("n1", "n0")]).graph
    nir.write(tmp_path / "loop.nir", graph)
    with pytest.raises(FileError, match=r"loop\.nir: the cycle through n0, n1 has no node with"):
        nir_file.read(tmp_path / "loop.nir")


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nir"
    with h5py.File(path, "w") as content:
        content["node/type"] = "NIRGraph"
        content.create_dataset("node/huge", (2**20, 2**20), "f8", chunks=True, compression="gzip")
    assert path.stat().st_size < 10_000
    with pytest.raises(
        FileError, match=r"node/huge: the file declares more data than are read: at most 256 MiB"
    ):
        nir_file.read(path)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "deep.nir", "w") as content:
        content.create_group("node/" + "/".join("x" * 40))
    with pytest.raises(FileError, match="nested deeper"):
        nir_file.read(tmp_path / "deep.nir")


def test_data_in_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(80))
    with h5py.File(tmp_path / "model.nir", "w") as content:
        content.create_dataset(
            "node/x", (10,), "f8", external=[(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)]
        )
    with pytest.raises(FileError, match="in another file"):
        nir_file.read(tmp_path / "model.nir")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=20))
def test_random_corruption_is_our_error_or_none(file: Path, changes: Any) -> None:
    damaged = file.with_name("damaged.nir")
    shutil.copy(file, damaged)
    content = bytearray(damaged.read_bytes())
    for place, value in changes:
        content[min(int(place * len(content)), len(content) - 1)] = value
    damaged.write_bytes(content)
    try:
        read = nir_file.read(damaged)
    except FileError:
        return
    with np.errstate(all="ignore"):
        Reference().run(read, np.zeros((read.timing.steps, 1, *read.input.shape)))


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_texts_are_those_that_hdf5_reads(tmp_path: Path, libver: str) -> None:
    """Empty and long ones, more than a collection of the heap holds, behind a user's block."""
    random = np.random.default_rng(0)
    texts = ["é" * int(n) for n in random.integers(0, 300, 1000)] + ["", "x" * 100_000]
    path = tmp_path / "texts.h5"
    with h5py.File(path, "w", libver=libver, userblock_size=512) as content:
        content["one"] = "größe"
        content["many"] = np.array(texts, object).reshape(2, -1)
        content.create_dataset("none", (3,), h5py.string_dtype())
    with h5py.File(path) as content:
        heap = Heap(content)
        assert heap.texts(content["one"], "one") == "größe".encode()
        for name in ("many", "none"):
            found, expected = heap.texts(content[name], name), content[name][()]
            assert found.shape == expected.shape
            assert np.array_equal(found, expected)
