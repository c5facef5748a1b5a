"""Writes docs/cli.md, docs/api.md, docs/metadata.md and the schemas from the code.

Run by `make docs`; tests compare them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import griffe
from griffe2md import ConfigDict, render_object_docs
from pydantic import TypeAdapter

import msg_deploy
from msg_deploy.checkpoint import CheckpointMetadata
from msg_deploy.deployment import Metadata
from msg_deploy.report.data import schema_as_text

METADATA = """# What files say

A .nir file of ours holds one JSON text in `metadata["msg_deploy"]` of its graph, an .onnx file the
same in its property `msg_deploy`: [Metadata](#metadata), of which
[metadata-schema.json](metadata-schema.json) is the JSON schema. A checkpoint (.pt) holds
[CheckpointMetadata](#checkpointmetadata) beside its tensors. Fields that are not listed are
refused. `format` changes when a field goes or means something else; older ones stay readable."""
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


def metadata() -> str:
    """What .nir, .onnx and .pt files say beside their graph, field by field."""
    parts = [METADATA]
    for kind in (Metadata, CheckpointMetadata):
        found = TypeAdapter(kind).json_schema()
        tables = {kind.__name__: found, **found.pop("$defs", {})}
        # What both hold is told once.
        new = {n: t for n, t in tables.items() if "properties" in t and f"## {n}" not in parts}
        for name, table in new.items():
            parts += [f"## {name}", *_fields(table)]
    return NOTE + _plain("\n\n".join(parts))


def _fields(table: dict[str, Any]) -> list[str]:
    """A class's docstring and a line for each of its fields."""
    text, *_ = table["description"].split("\n\nAttributes:")
    said = dict(re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", table["description"], re.MULTILINE))
    lines = ["| field | type | default | |", "|---|---|---|---|"]
    for name, field in table["properties"].items():
        default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
        meaning = re.sub(r"\s+", " ", said.get(name, "")).replace("|", "\\|")
        lines.append(f"| `{name}` | {_type(field)} | {default} | {meaning} |")
    return [text, "\n".join(lines)]


def _type(field: dict[str, Any]) -> str:
    """A JSON schema in words."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(map(_type, field["anyOf"]))
    if "enum" in field or "const" in field:
        return ", ".join(f"`{json.dumps(v)}`" for v in field.get("enum", [field.get("const")]))
    kind = field.get("type", "any value")
    if kind == "array":
        inner = _type(field["items"]) if field.get("items") else "any values"
        return f"array of {inner}"
    if kind == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"object of {_type(field['additionalProperties'])}"
    signs = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    limits = [f"{words} {field[key]}" for key, words in signs.items() if key in field]
    return ", ".join([kind, *limits])


def metadata_schema() -> str:
    """JSON Schema of a graph's metadata."""
    found = TypeAdapter(Metadata).json_schema()
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
    return json.dumps(found, indent=1) + "\n"


def _plain(text: str) -> str:
    lines = [line.rstrip() for line in text.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def main() -> None:
    """Write all of them."""
    pages = {
        "cli.md": cli(),
        "api.md": api(),
        "metadata.md": metadata(),
        "metadata-schema.json": metadata_schema(),
        "report-schema.json": schema_as_text(),
    }
    for name, text in pages.items():
        (HERE / name).write_text(text, encoding="utf-8")
        print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
