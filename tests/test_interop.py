"""The importers of other frameworks, where they are installed, give the same spikes."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest

from msg_deploy.exporters.dialects import dialects
from tests.test_scripts import ROOT, run

INSTALLED = ("norse", "snntorch", "spikingjelly")
FRAMEWORKS = sorted((ROOT / "benchmarks" / "frameworks").glob("*.py"))


def rows(page: str, title: str) -> list[list[str]]:
    """The cells of a table of the page, without its head."""
    section = page.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line.strip("| ") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split(" | ")] for line in lines[1:]]


@pytest.fixture(scope="module")
def page() -> str:
    for name in INSTALLED:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    chosen = [argument for name in INSTALLED for argument in ("--framework", name)]
    return run("benchmarks/interop.py", "--here", "--seeds", "1", *chosen)


def test_portable_files_give_the_same_spikes(page: str) -> None:
    found = rows(page, "Dialect `portable`")
    assert len(found) == 18
    for network, weights, reset, compared, fired, *cells in found:
        assert reset == "zero"
        assert int(compared) == 1920
        assert int(fired) > 100, "hardly a spike"
        assert cells == ["0", "0", "0"], (network, weights)


def test_plain_files_do_not(page: str) -> None:
    found = rows(page, "Plain `nir`")
    assert len(found) == 12
    assert any(cells[-2] not in ("0", "") and "refused" not in cells[-2] for cells in found)
    assert "nir.IF.r must equal 1 / dt" in page


@pytest.mark.parametrize("path", FRAMEWORKS, ids=lambda path: path.stem)
def test_a_framework_says_what_it_needs(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(f"interop_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.DIALECT in dialects()
    assert module.TITLE
    assert module.NOTE.endswith(".")
    assert callable(module.load)
    for arguments in module.INSTALL:
        packages = [a for a in arguments if not a.startswith("--")]
        assert all("==" in package for package in packages)
        assert packages == ["torch==2.13.0"] or not any(p.startswith("torch==") for p in packages)


def test_every_framework_has_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    suite = runpy.run_path(str(ROOT / "benchmarks" / "interop.py"))
    own = [name for table in suite["TABLES"] if table.dialect is None for name in table.frameworks]
    assert sorted(own) == [path.stem for path in FRAMEWORKS]


def test_an_environment_that_cannot_be_built_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    made = runpy.run_path(str(ROOT / "benchmarks" / "environments.py"))
    with pytest.raises(made["BuildError"], match=r"pip install .*: "):
        made["environment"](tmp_path / "e", [("--no-index", "no-such-package==0.0.1")])
