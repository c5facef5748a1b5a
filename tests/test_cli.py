"""The installed programs, as a person uses them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.recordings import event_folder

PROGRAMS = Path(sys.executable).parent


def run(*arguments: Any, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    program, *rest = map(str, arguments)
    return subprocess.run(
        [PROGRAMS / program, *rest],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
        env=os.environ | {"COLUMNS": "120"},
    )


def refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 2 and one paragraph, no traceback."""
    assert result.returncode == 2, result
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@pytest.fixture
def files(trained_file: Path, tmp_path: Path) -> Path:
    """A folder with model.pt and model.nir."""
    shutil.copy(trained_file, tmp_path / "model.pt")
    assert run("msg-deploy", "export", "model.pt", "--to", "nir", cwd=tmp_path).returncode == 0
    return tmp_path


@pytest.mark.slow
def test_demo(tmp_path: Path) -> None:
    result = run("msg-deploy", "demo", cwd=tmp_path)
    assert result.returncode == 0, result
    last = result.stdout.strip().splitlines()[-1]
    assert last.startswith("PROVEN: 0 mismatching of ")
    assert last in (Path(__file__).parents[1] / "README.md").read_text()
    accuracy = float(result.stdout.split("test accuracy ")[1].split("%")[0])
    assert accuracy >= 95
    assert "with the plain mean (360 held-out digits)" in result.stdout
    folder = tmp_path / "msg-deploy-demo"
    assert {p.name for p in folder.iterdir()} == {
        "model.pt",
        "model.nir",
        "report.json",
        "report.html",
    }
    report = json.loads((folder / "report.json").read_text())
    assert report["verdict"] == "PROVEN"
    assert [c["samples"] for c in report["comparisons"]] == [424, 424]


def test_train_export_check_inspect(tmp_path: Path) -> None:
    trained = run(
        "msg-deploy", "train", "--epochs", 1, "--steps", 3, "--reset", "subtract", cwd=tmp_path
    )
    assert trained.returncode == 0, trained
    assert "test accuracy" in trained.stdout
    exported = run(
        "msg-deploy", "export", "model.pt", "--to", "nir", "--two-fold", "host", cwd=tmp_path
    )
    assert "wrote model.nir" in exported.stdout
    checked = run("equivalence-check", "model.pt", "model.nir", cwd=tmp_path)
    assert checked.returncode == 0, checked
    assert checked.stdout.strip().splitlines()[-1].startswith("PROVEN: 0 mismatching")
    shown = run("msg-deploy", "inspect", "model.nir", cwd=tmp_path)
    assert "reset subtract" in shown.stdout
    assert "TWO: folded by host after fc3" in shown.stdout


def test_json(files: Path) -> None:
    trained = run("msg-deploy", "train", "--epochs", 1, "--json", "-o", "other.pt", cwd=files)
    assert set(json.loads(trained.stdout)) == {"checkpoint", "accuracy_two", "accuracy_mean"}
    exported = run("msg-deploy", "export", "model.pt", "--to", "nir", "--json", cwd=files)
    assert json.loads(exported.stdout)["readout"]["fold"] == "delay"
    checked = run("msg-deploy", "equivalence-check", "model.pt", "model.nir", "--json", cwd=files)
    assert json.loads(checked.stdout)["verdict"] == "PROVEN"
    shown = json.loads(run("msg-deploy", "inspect", "model.pt", "--json", cwd=files).stdout)
    assert [n["name"] for n in shown["nodes"]][:3] == ["input", "flatten", "fc1"]


def test_divergence_exits_with_1(files: Path) -> None:
    with h5py.File(files / "model.nir", "r+") as content:
        threshold = content["node/nodes/lif2/v_threshold"]
        threshold[3] = threshold[3] + 0.1
    result = run("msg-deploy", "equivalence-check", "model.pt", "model.nir", cwd=files)
    assert result.returncode == 1, result
    assert "parameter differs: lif2.v_threshold: 1 of 32 entries" in result.stdout
    assert "torch against norse: first difference in lif2 at step" in result.stdout
    assert "margin" in result.stdout
    assert result.stdout.strip().splitlines()[-1].startswith("DIVERGENT: ")
    again = run("equivalence-check", "model.pt", "model.nir", "--json", cwd=files)
    assert again.returncode == 1
    first = json.loads(again.stdout)["comparisons"][0]["first"]
    assert (first["node"], first["neuron"]) == ("lif2", [3])


def test_incomparable_exits_with_2(files: Path) -> None:
    with h5py.File(files / "model.nir", "r+") as content:
        nodes = content["node/nodes"]
        nodes.move("lif2", "neuron")
        del nodes["neuron/metadata"]  # that it was called otherwise
        edges = content["node/edges"]
        edges[...] = [[b"neuron" if end == b"lif2" else end for end in e] for e in edges[()]]
    result = run("equivalence-check", "model.pt", "model.nir", cwd=files)
    assert result.returncode == 2, result
    assert "spiking layer 'lif2' is only on the side of torch" in result.stdout
    assert result.stdout.strip().splitlines()[-1].startswith("INCOMPARABLE: ")


def test_different_models_exit_with_1(files: Path) -> None:
    run("msg-deploy", "train", "--epochs", 1, "--steps", 7, "-o", "longer.pt", cwd=files)
    result = run("equivalence-check", "model.pt", "longer.pt", cwd=files)
    assert result.returncode == 1, result
    assert "parameter differs: timing.steps: 6 against 7" in result.stdout


def test_bad_files(files: Path) -> None:
    whole = (files / "model.nir").read_bytes()
    (files / "short.nir").write_bytes(whole[: len(whole) // 2])
    refused(run("msg-deploy", "inspect", "short.nir", cwd=files), "short.nir", "truncated")
    refused(run("equivalence-check", "model.pt", "short.nir", cwd=files), "short.nir")

    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, ("ran",)

    (files / "code.pt").write_bytes(pickle.dumps(Bomb()))
    refused(run("msg-deploy", "export", "code.pt", "--to", "nir", cwd=files), "code.pt")
    assert not (files / "ran").exists()
    assert not (files / "code.nir").exists()

    shutil.copy(files / "model.nir", files / "nan.nir")
    with h5py.File(files / "nan.nir", "r+") as content:
        content["node/nodes/fc1/weight"][2, 3] = np.nan
    refused(run("msg-deploy", "inspect", "nan.nir", cwd=files), "nan.nir", "fc1", "weight[2, 3]")

    shutil.copy(files / "model.nir", files / "loop.nir")
    with h5py.File(files / "loop.nir", "r+") as content:
        edges = content["node/edges"][()]
        del content["node/edges"]
        content["node/edges"] = np.concatenate([edges, [[b"fc1", b"flatten"]]])
    refused(run("msg-deploy", "inspect", "loop.nir", cwd=files), "loop.nir", "no node with state")

    shutil.copy(files / "model.nir", files / "shape.nir")
    with h5py.File(files / "shape.nir", "r+") as content:
        del content["node/nodes/input/shape"]
        content["node/nodes/input/shape"] = np.array([1, 9, 9])
    refused(run("equivalence-check", "model.pt", "shape.nir", cwd=files), "shape.nir", "(81,)")

    refused(run("msg-deploy", "inspect", "none.nir", cwd=files), "none.nir", "no such file")
    refused(run("msg-deploy", "inspect", "model.doc", cwd=files), "model.doc", ".pt, .nir")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--reset", "soft"], ["--reset", "soft", "zero"]),
        (["train", "--epochs", "0"], ["--epochs"]),
        (["export", "model.pt", "--to", "magic"], ["--to", "magic", "nir"]),
        (["export", "model.pt", "--to", "nir", "--two-fold", "x"], ["--two-fold", "delay"]),
        (["equivalence-check", "model.pt"], ["b"]),
        (["nothing"], ["nothing"]),
    ],
)
def test_bad_options(files: Path, arguments: list[str], words: list[str]) -> None:
    result = run("msg-deploy", *arguments, cwd=files)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr.lower()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--model", "lstm"], ["'lstm'", "convnet, mlp"]),
        (["train", "--data", "mnits"], ["'mnits'", "digits"]),
        (["train", "--mask-prob", "1"], ["mask probability"]),
        (["train", "--tau", "0.5"], ["tau must be at least 1"]),
        (["train", "-o", "nowhere/model.pt"], ["nowhere/model.pt", "cannot be written"]),
        (["train", "-o", "."], ["is a directory"]),
        (["export", "model.pt", "--to", "nir", "-o", "nowhere/m.nir"], ["cannot be written"]),
        (["equivalence-check", "model.pt", "model.nir", "--with", "x"], ["'x'", "norse, onnx_ref"]),
        (["equivalence-check", "model.pt", "model.nir", "--data", "x"], ["'x'", "digits"]),
        (["inspect", "model.nir", "--dt", "0"], ["dt", "greater than 0"]),
        (["demo", "-o", "model.pt"], ["model.pt", "cannot be made"]),
    ],
)
def test_refused_values(files: Path, arguments: list[str], words: list[str]) -> None:
    before = sorted(files.iterdir())
    refused(run("msg-deploy", *arguments, cwd=files), *words)
    assert sorted(files.iterdir()) == before


def test_a_failed_export_keeps_what_was_there(files: Path) -> None:
    (files / "target.nir").write_text("precious")
    refused(run("msg-deploy", "export", "none.pt", "--to", "nir", "-o", "target.nir", cwd=files))
    assert (files / "target.nir").read_text() == "precious"


def test_help_is_quick_and_shows_examples() -> None:
    shown = run("msg-deploy", "equivalence-check", "--help")
    assert "Example: msg-deploy equivalence-check model.pt model.nir" in shown.stdout
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, msg_deploy.cli; print([m for m in ('torch', 'norse', 'sklearn', "
            "'nir', 'pydantic', 'numpy') if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.strip() == "[]"


def test_version() -> None:
    assert run("msg-deploy", "--version").stdout.strip().count(".") == 2


@pytest.mark.slow
def test_recordings_from_folder_to_verdict(tmp_path: Path) -> None:
    event_folder(tmp_path / "recordings", parts=True)
    (tmp_path / "recordings" / "Train" / "class1" / "3.bin").write_bytes(b"abc")
    (tmp_path / "recordings" / "Test" / "class2" / "1.bin").write_bytes(b"abc")
    options = ("--steps", 3, "--model", "convnet", "--epochs", 1, "--slice-by", "time")
    data = ("--data", "nmnist", "--data-dir", "recordings", "--size", "8x8")
    fatal = run("msg-deploy", "train", *options, *data, cwd=tmp_path)
    assert fatal.returncode == 2
    assert "class1/3.bin: has 3 bytes" in fatal.stderr
    assert not (tmp_path / "model.pt").exists()
    skipped = run("msg-deploy", "train", *options, *data, "--broken", "skip", cwd=tmp_path)
    assert skipped.returncode == 0, skipped
    assert "WARNING: 1 of 15 train files were left out" in skipped.stderr
    run("msg-deploy", "export", "model.pt", "--to", "nir", cwd=tmp_path)
    check = ("equivalence-check", "model.pt", "model.nir", "--random", 2)
    lost = run(*check, cwd=tmp_path)
    assert lost.returncode == 2
    assert "--data-dir" in lost.stderr
    place = ("--data-dir", "recordings", "--broken", "skip")
    found = run(*check, *place, "--json", cwd=tmp_path)
    assert found.returncode == 0, found
    # 14 whole recordings, framed as in training, and 2 random samples
    assert [c["samples"] for c in json.loads(found.stdout)["comparisons"]] == [16, 16]
    without = run(*check, "--samples", 0, "--json", cwd=tmp_path)
    assert [c["samples"] for c in json.loads(without.stdout)["comparisons"]] == [2, 2]


def test_sizes_are_height_by_width(tmp_path: Path) -> None:
    result = run("msg-deploy", "train", "--size", "8", cwd=tmp_path)
    assert result.returncode == 2
    assert "--size must be HEIGHTxWIDTH" in result.stderr
