"""Export to ONNX and the check of what was exported, from the command line and from Python."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest

from msg_deploy import api, cli
from msg_deploy.errors import GraphError, UsageError
from msg_deploy.exporters.onnx.build import OnnxOptions
from msg_deploy.networks import SpikingNetwork
from tests.test_cli import run

FEW = ("--samples", 20, "--random", 8)


class Result(NamedTuple):
    code: int
    out: str
    error: str


Program = Callable[..., Result]


@pytest.fixture
def program(
    trained_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Program:
    """msg-deploy in this process, in a folder with model.pt."""
    shutil.copy(trained_file, tmp_path / "model.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments: Any) -> Result:
        monkeypatch.setattr("sys.argv", ["msg-deploy", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        shown = capsys.readouterr()
        return Result(int(stopped.value.code or 0), shown.out, shown.err)

    return call


@pytest.mark.slow
def test_the_programs(trained_file: Path, tmp_path: Path) -> None:
    shutil.copy(trained_file, tmp_path / "model.pt")
    exported = run("msg-deploy", "export", "model.pt", "--to", "onnx", cwd=tmp_path)
    assert exported.returncode == 0, exported
    checked = run("equivalence-check", "model.pt", "model.onnx", "--threads", 1, *FEW, cwd=tmp_path)
    assert checked.returncode == 0, checked
    last = checked.stdout.strip().splitlines()[-1]
    assert last.startswith(("PROVEN: 0 mismatching", "IDENTICAL: 0 mismatching"))
    assert last.endswith("(float32)")
    assert "torch against onnxruntime" in checked.stdout
    assert "torch against onnx_reference" in checked.stdout


def test_inspect(program: Program) -> None:
    assert "wrote model.onnx: " in program("export", "model.pt", "--to", "onnx").out
    shown = program("inspect", "model.onnx").out
    for words in ("layout: sequence; opsets: ai.onnx 20", "2 msg_deploy.LIF", "TWO: folded by"):
        assert words in shown
    data = json.loads(program("inspect", "model.onnx", "--json").out)
    assert data["operators"]["msg_deploy.LIF"] == 2
    assert data["provenance"]["sha256"]


def test_options(program: Program) -> None:
    export = ("export", "model.pt", "--to", "onnx")
    options = ("--layout", "step", "--inline", "--opset", 18, "-o", "s.onnx", "--json")
    data = json.loads(program(*export, *options).out)
    assert (data["files"], data["layout"]) == (["s.onnx"], "step")
    assert data["opsets"] == {"ai.onnx": 18}
    assert [i["name"] for i in data["inputs"]][:3] == ["input", "step", "scores"]
    membrane = {"name": "lif1.membrane", "type": "float", "shape": ["batch", 48]}
    assert data["inputs"][3] == membrane
    program(*export, "--no-step-outputs", "--layout", "unrolled", "-o", "few.onnx")
    assert [v.name for v in onnx.load("few.onnx").graph.output] == ["scores", "decision"]
    for name in ("s.onnx", "few.onnx"):
        checked = program("equivalence-check", "model.pt", name, *FEW)
        assert checked.code == 0, checked


def test_from_a_graph(program: Program) -> None:
    program("export", "model.pt", "--to", "nir")
    program("export", "model.nir", "--to", "onnx")
    one = ("--with", "onnxruntime")
    checked = program("equivalence-check", "model.nir", "model.onnx", *one, *FEW)
    assert checked.code == 0, checked
    assert "reference against onnxruntime" in checked.out
    turned = program("equivalence-check", "model.onnx", "model.nir", *FEW)
    assert turned.code == 0, turned
    assert "onnxruntime against norse" in turned.out


def test_a_graph_in_onnxruntime(program: Program) -> None:
    program("export", "model.pt", "--to", "nir")
    engine = ("--with", "onnxruntime", "--threads", 1, "--provider", "CPUExecutionProvider")
    checked = program("equivalence-check", "model.pt", "model.nir", *engine, *FEW)
    assert checked.code == 0, checked
    assert "(float64)" in checked.out


def test_divergence_is_found(program: Program) -> None:
    program("export", "model.pt", "--to", "onnx")
    model = onnx.load("model.onnx")
    (tensor,) = (t for t in model.graph.initializer if t.name == "fc2.weight")
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[3] += 0.1
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    Path("model.onnx").write_bytes(model.SerializeToString())
    result = program("equivalence-check", "model.pt", "model.onnx", *FEW)
    assert result.code == 1, result
    assert "torch against onnxruntime: first difference in lif2 at step" in result.out
    backwards = program("equivalence-check", "model.onnx", "model.pt", *FEW)
    assert backwards.code == 1, backwards
    assert "threshold 0.5" in backwards.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "model.pt", "--to", "onnx", "--two-fold", "bank"], ["--two-fold", "onnx"]),
        (["export", "model.pt", "--to", "onnx", "--dialect", "nir"], ["--dialect", "onnx"]),
        (["export", "model.pt", "--to", "nir", "--inline"], ["--inline", "nir"]),
        (["export", "model.pt", "--to", "nir", "--opset", "20"], ["--opset", "nir"]),
        (["export", "model.pt", "--to", "onnx", "--opset", "7"], ["opset must be 18 to 24"]),
        (["export", "model.pt", "--to", "onnx", "--int8"], ["'fc2'", "quantized before"]),
        (["export", "model.onnx", "--to", "nir"], ["model.onnx", "no graph of NIR"]),
        (["inspect", "model.onnx", "--svg", "x.svg"], ["no graph of NIR"]),
        (["equivalence-check", "model.pt", "broken.onnx"], ["broken.onnx", "truncated"]),
        (
            ["equivalence-check", "model.pt", "model.onnx", "--with", "norse"],
            ["does not run in norse", "onnx_reference"],
        ),
        (["equivalence-check", "model.pt", "model.onnx", "--precision", "float64"], ["float32"]),
        (["equivalence-check", "model.pt", "model.onnx", "--provider", "X"], ["'X'", "CPUExec"]),
        (["equivalence-check", "model.pt", "model.pt", "--threads", "1"], ["for onnxruntime"]),
    ],
)
def test_refused_values(
    program: Program, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    program("export", "model.pt", "--to", "onnx")
    Path("broken.onnx").write_bytes(Path("model.onnx").read_bytes()[:500])
    before = sorted(tmp_path.iterdir())
    result = program(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.error.startswith("error: ")
    for word in words:
        assert word in result.error
    assert sorted(tmp_path.iterdir()) == before


def test_in_python(trained: SpikingNetwork, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    assert api.export_onnx(trained, path, OnnxOptions(layout="unrolled")) == (path,)
    samples = np.random.default_rng(0).uniform(0, 1, (8, *trained.input_spec.shape))
    assert api.check(trained, path, data=samples, random=0)
    with pytest.raises(GraphError, match="were quantized before"):
        api.export_onnx(trained, path, OnnxOptions(int8=True))
    with pytest.raises(UsageError, match="no ONNX model"):
        _ = api.open_model(trained).onnx
