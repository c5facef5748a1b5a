"""ONNX files: what stands in them, and that broken or hostile ones are refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msg_deploy.deployment import METADATA_KEY, Deployment, Provenance
from msg_deploy.errors import FileError, MsgDeployError
from msg_deploy.exporters.onnx.build import OnnxOptions, build
from msg_deploy.exporters.onnx.contract import CONTRACT_KEY
from msg_deploy.exporters.onnx.file import inlined, read, write
from msg_deploy.exporters.trace import trace
from msg_deploy.sim.onnx_reference import OnnxReference
from msg_deploy.sim.onnxruntime import OnnxRuntime
from msg_deploy.sim.reference import Reference
from tests.helpers import random_network, samples

LAYOUTS = ("sequence", "unrolled", "step")
INPUTS = np.broadcast_to(samples(2), (5, 2, 1, 8, 8))


@pytest.fixture
def deployment() -> Deployment:
    traced = trace(random_network(hidden=(6, 5)))
    provenance = Provenance(sha256="0" * 64, classes=("cat", "dog"))
    return dataclasses.replace(traced, provenance=provenance)


@pytest.fixture
def file(deployment: Deployment, tmp_path: Path) -> Path:
    write(build(deployment), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("written", LAYOUTS)
@pytest.mark.parametrize("inline", [False, True])
def test_round_trip(deployment: Deployment, tmp_path: Path, written: Any, inline: bool) -> None:
    made = build(deployment, OnnxOptions(layout=written))
    path = tmp_path / "model.onnx"
    assert write(inlined(made) if inline else made, path) == (path,)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    found = read(path)
    assert found.metadata == deployment.metadata
    assert found.contract.layout == written
    expected = Reference().run(deployment, INPUTS, "float32")
    for engine in (OnnxRuntime(), OnnxReference()):
        trace_ = engine.run_model(found, INPUTS)
        np.testing.assert_allclose(trace_.scores, expected.scores, rtol=1e-5)
        assert all(np.array_equal(trace_.spikes[n], expected.spikes[n]) for n in expected.spikes)


def test_same_bytes_every_time(deployment: Deployment, file: Path, tmp_path: Path) -> None:
    write(build(deployment), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == file.read_bytes()


def test_properties_for_people(file: Path, deployment: Deployment) -> None:
    properties = {p.key: p.value for p in onnx.load(file).metadata_props}
    assert properties["dt"] == "0.001"
    assert properties["steps"] == "5"
    assert properties["reset"] == "zero"
    assert deployment.readout
    assert properties["two"].split() == [repr(f) for f in deployment.readout.weights]
    assert properties["classes"] == "cat dog"
    assert properties["source_sha256"] == "0" * 64


def test_large_weights_stand_in_a_second_file(deployment: Deployment, tmp_path: Path) -> None:
    path, data = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    assert write(build(deployment), path, largest=1000) == (path, data)
    assert sorted(tmp_path.iterdir()) == [path, data]
    assert data.stat().st_size == 64 * 6 * 4
    onnx.checker.check_model(str(path), full_check=True)
    expected = Reference().run(deployment, INPUTS, "float32")
    for engine in (OnnxRuntime(), OnnxReference()):
        found = engine.run_model(read(path), INPUTS)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


def redirect(path: Path, location: str) -> None:
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("place", ["../model.onnx.data", "{folder}/model.onnx.data", "", "."])
def test_weights_are_not_taken_from_elsewhere(
    deployment: Deployment, tmp_path: Path, place: str
) -> None:
    (tmp_path / "inner").mkdir()
    path = tmp_path / "inner" / "model.onnx"
    _, data = write(build(deployment), path, largest=1000)
    (tmp_path / data.name).write_bytes(data.read_bytes())
    redirect(path, place.format(folder=tmp_path))
    with pytest.raises(FileError, match=r"model\.onnx: weights"):
        read(path)


def test_weights_are_not_taken_through_a_link(deployment: Deployment, tmp_path: Path) -> None:
    path, data = write(build(deployment), tmp_path / "model.onnx", largest=1000)
    data.rename(tmp_path / "secret")
    data.symlink_to(tmp_path / "secret")
    with pytest.raises(FileError, match=r"there is no file 'model\.onnx\.data' beside it"):
        read(path)


def test_missing_and_short_weights(deployment: Deployment, tmp_path: Path) -> None:
    path, data = write(build(deployment), tmp_path / "model.onnx", largest=1000)
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(FileError, match=r"from byte \d+ on, but"):
        read(path)
    data.unlink()
    with pytest.raises(FileError, match="there is no file"):
        read(path)


def test_a_failed_write_keeps_what_was_there(deployment: Deployment, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        write(build(deployment), tmp_path / "none" / "model.onnx")
    (tmp_path / "model.onnx.data").mkdir()
    (tmp_path / "model.onnx").write_text("precious")
    with pytest.raises(FileError, match="is a directory"):
        write(build(deployment), tmp_path / "model.onnx", largest=1000)
    assert (tmp_path / "model.onnx").read_text() == "precious"


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no such file"):
        read(tmp_path / "none.onnx")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_truncated(file: Path, share: float) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FileError, match=r"model\.onnx: "):
        read(file)


Change = Callable[[onnx.ModelProto], None]


def set_property(key: str, **changes: Any) -> Change:
    def change(model: onnx.ModelProto) -> None:
        (entry,) = (p for p in model.metadata_props if p.key == key)
        entry.value = json.dumps(json.loads(entry.value) | changes)

    return change


def drop_properties(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


def weights_of(model: onnx.ModelProto) -> onnx.TensorProto:
    (tensor,) = (t for t in model.graph.initializer if t.name == "fc1.weight")
    return tensor


def poison(model: onnx.ModelProto) -> None:
    values = onnx.numpy_helper.to_array(weights_of(model)).copy()
    values[2, 3] = np.nan
    weights_of(model).CopyFrom(onnx.numpy_helper.from_array(values, "fc1.weight"))


def foreign_operator(model: onnx.ModelProto) -> None:
    model.graph.node[-1].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))


def other_function(model: onnx.ModelProto) -> None:
    (node,) = (n for n in model.functions[0].node if n.op_type == "Greater")
    node.op_type = "Less"


def without_function(model: onnx.ModelProto) -> None:
    del model.functions[:]


def bomb(model: onnx.ModelProto) -> None:
    node = onnx.helper.make_node("ConstantOfShape", ["huge"], ["bomb"])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2**40]), "huge"))
    model.graph.node.append(node)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_properties, "only .onnx files that msg-deploy wrote are read"),
        (set_property(METADATA_KEY, timing={"dt": -1.0}), "timing.dt"),
        (set_property(METADATA_KEY, input={"shape": [3]}), "has the inputs"),
        (set_property(CONTRACT_KEY, layout="magic"), "layout"),
        (set_property(CONTRACT_KEY, layout="step"), "has the inputs"),
        (set_property(CONTRACT_KEY, order=["a"]), "are not all in the model"),
        (
            set_property(CONTRACT_KEY, spiking=[{"node": "lif1", "shape": [6], "tensors": ["x"]}]),
            "'lif1' and its tensors",
        ),
        (set_property(CONTRACT_KEY, format=2), "format"),
        (poison, "fc1.weight.*every number must be finite"),
        (foreign_operator, r"operator com\.example\.Identity is not known"),
        (other_function, r"function msg_deploy\.LIF is not as msg-deploy defines it"),
        (without_function, r"operator msg_deploy\.LIF is not known"),
        (bomb, "'bomb' has 1099511627776 numbers"),
    ],
)
def test_refused(file: Path, change: Change, words: str) -> None:
    model = onnx.load(file)
    change(model)
    file.write_bytes(model.SerializeToString())
    with pytest.raises(FileError, match=words):
        read(file)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_corruption_gives_only_our_errors(file: Path, data: st.DataObject) -> None:
    whole = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        if data.draw(st.booleans()):
            whole[place] = data.draw(st.integers(0, 255))
        else:
            del whole[place : place + data.draw(st.integers(1, 8))]
    broken = file.with_name("broken.onnx")
    broken.write_bytes(whole)
    try:
        model = read(broken)
        for engine in (OnnxRuntime(threads=1), OnnxReference()):
            engine.run_model(model, INPUTS)
    except MsgDeployError as error:
        assert str(error)
