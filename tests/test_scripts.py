"""Examples and benchmarks run and say what they should."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(script: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, ROOT / script, *arguments], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_own_network(tmp_path: Path) -> None:
    shown = run("examples/own_network.py", str(tmp_path))
    assert shown.splitlines()[-1].startswith("IDENTICAL: 0 mismatching of ")
    assert (tmp_path / "own.nir").exists()


def test_simulators_benchmark() -> None:
    shown = run("benchmarks/simulators.py", "--rounds", "1", "--batch", "2")
    for name in ("torch", "norse", "reference"):
        assert f"float32 {name}" in shown
