"""The examples run as their users run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PROVEN = {
    "own_network": "PROVEN: 0 mismatching",
    "foreign_model": "PROVEN: 0 mismatching",
    "chip": "EXACT: accuracy on the chip",
}


@pytest.mark.parametrize("name", PROVEN)
def test_a_script(name: str, tmp_path: Path) -> None:
    program = [sys.executable, str(EXAMPLES / f"{name}.py"), str(tmp_path)]
    result = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert PROVEN[name] in result.stdout


# What the kernel's libraries warn of is theirs.
@pytest.mark.filterwarnings("ignore")
def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat: Any = pytest.importorskip("nbformat")
    nbclient: Any = pytest.importorskip("nbclient")
    # The kernel is that of this environment, whatever else is installed for this user.
    monkeypatch.setenv("JUPYTER_PATH", os.path.join(sys.prefix, "share", "jupyter"))  # noqa: PTH118
    notebook = nbformat.read(EXAMPLES / "divergence.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "clear the outputs"
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in shown)
    assert "PROVEN" in text
    assert "the bias is missing in fc2" in text
    assert (tmp_path / "report.html").is_file()
