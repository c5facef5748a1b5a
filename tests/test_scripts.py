"""Benchmarks run and say what they should."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(script: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, ROOT / script, *arguments], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_simulate_benchmark() -> None:
    for network in ("mlp", "recurrent"):
        shown = run("benchmarks/simulate.py", "--network", network, "--batch", "1", "--rounds", "1")
        for name in ("fast", "floor", "fast, int8", "onnxruntime", "norse, by step"):
            assert f"| {name} |" in shown
    assert "scores differ by at most" in shown
    assert int(run("benchmarks/simulate.py", "--samples", "10")) > 0


def test_onnx_speed_benchmark() -> None:
    shown = run("benchmarks/onnx_speed.py", "--network", "mlp", "--batch", "2", "--rounds", "1")
    for name in ("onnx, sequence", "onnx, unrolled", "torch core", "norse, by layer"):
        assert f"| {name} |" in shown


def test_training_step_benchmark() -> None:
    shown = run("benchmarks/training_step.py", "--rounds", "1", "--batch", "2", "--steps", "2")
    for name in ("msg-deploy", "norse"):
        assert f"{name} " in shown


def test_ablation_benchmark(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    arguments = ("--model", "mlp", "--steps", "2", "--epochs", "1", "--seeds", "2", "-o", output)
    shown = run("benchmarks/ablation.py", *map(str, arguments))
    for name in ("base", "TWO", "MSG p=0.5", "both p=0.5"):
        assert f"| {name} | 2 |" in shown
    kept = output.read_text()
    assert shown == run("benchmarks/ablation.py", *map(str, arguments))
    assert output.read_text() == kept


def test_foldings_benchmark(trained_file: Path) -> None:
    shown = run("benchmarks/foldings.py", str(trained_file), "--samples", "20")
    for name in ("delay", "bank", "leak", "host"):
        assert f"| {name} |" in shown
    assert "| 0 of 20 |" in shown


def test_a_commit_is_cloned_once_or_not_at_all(tmp_path: Path) -> None:
    """What `make chips` does for Verilog that is on no package index."""
    scripts = runpy.run_path(str(ROOT / "benchmarks" / "environments.py"))
    origin, folder = tmp_path / "origin", tmp_path / "here"

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        command = ["git", "-C", str(origin), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    origin.mkdir()
    git("init", "--quiet")
    (origin / "neuron.v").write_text("first")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    first = git("rev-parse", "HEAD")
    (origin / "neuron.v").write_text("second")
    git("commit", "--quiet", "-am", "second")
    with pytest.raises(scripts["BuildError"]):
        scripts["clone"](folder, str(origin), "0" * 40)
    assert not folder.exists()
    scripts["clone"](folder, str(origin), first)
    assert (folder / "neuron.v").read_text() == "first"
    scripts["clone"](folder, "nowhere", first)
