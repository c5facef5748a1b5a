"""Writes docs/cli.md, docs/api.md and docs/report-schema.json from the code. Run by `make docs`;
tests compare them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import griffe
from griffe2md import ConfigDict, render_object_docs

import msg_deploy
from msg_deploy.report.data import schema_as_text

HERE = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py; do not edit. -->\n\n"
CONFIG: ConfigDict = {
    "docstring_style": "google",
    "filters": ["!^_"],
    "heading_level": 2,
    "members_order": "source",
    "show_if_no_docstring": False,
    "summary": False,
}


def cli() -> str:
    """The command line reference, from typer."""
    command = [sys.executable, "-m", "typer", "msg_deploy.cli", "utils", "docs"]
    shown = subprocess.run(
        [*command, "--name", "msg-deploy"], capture_output=True, text=True, check=True
    )
    return NOTE + _plain(shown.stdout)


def api() -> str:
    """The Python reference: every module that a public name comes from."""
    modules = sorted(set(msg_deploy.PUBLIC.values()))
    names = ", ".join(f"`{name}`" for name in msg_deploy.__all__)
    head = f"# Python\n\nImported from `msg_deploy` itself: {names}.\n\n"
    text = "\n".join([head, *map(_module, modules)])
    # Cross references would point to anchors that no Markdown viewer makes.
    return NOTE + _plain(re.sub(r"\[([^\]]+)\]\(#[^)]*\)", r"\1", text))


def _module(name: str) -> str:
    """One module's page. Folders exporters/ and sim/ are imported as parts of msg_deploy."""
    mapped = name.partition(".")[0] in ("exporters", "sim")
    module = griffe.load(
        name if mapped else f"msg_deploy.{name}",
        search_paths=[HERE.parent],
        docstring_parser="google",
    )
    text = render_object_docs(module, CONFIG)
    return text.replace(f"`{name}", f"`msg_deploy.{name}") if mapped else text


def _plain(text: str) -> str:
    lines = [line.rstrip() for line in text.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def main() -> None:
    """Write all of them."""
    pages = (("cli.md", cli()), ("api.md", api()), ("report-schema.json", schema_as_text()))
    for name, text in pages:
        (HERE / name).write_text(text, encoding="utf-8")
        print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
