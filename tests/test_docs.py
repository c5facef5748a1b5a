"""The documentation is true: its commands and its Python run, generated pages are up to date."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = Path(sys.executable).parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
GENERATED = ("cli.md", "api.md", "metadata.md", "metadata-schema.json")
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)]+)\)")


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name not in GENERATED and blocks(p)], ids=lambda p: p.name
)
def test_what_a_page_shows_runs(page: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    for language, code in blocks(page):
        if code.startswith("make "):
            # They run this very suite and the demo; here only that make knows what to do.
            command = ["make", "-n", "-C", str(ROOT), *code.split()[1:]]
        elif language == "sh":
            command = ["bash", "-e", "-c", code]
        else:
            command = [sys.executable, "-c", code]
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert result.returncode == 0, f"{code}\n{result.stdout}\n{result.stderr}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("name", GENERATED)
def test_generated_pages_are_up_to_date(name: str) -> None:
    generate = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    expected = generate[name.removesuffix(".md").removesuffix(".json").replace("-", "_")]()
    assert (ROOT / "docs" / name).read_text() == expected, "run `make docs`"
