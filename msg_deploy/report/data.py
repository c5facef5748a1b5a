"""A verdict as JSON, and the schema of it.

Both follow from the dataclasses themselves: a report holds their fields, and the schema is made of
their annotations and of the attributes that their docstrings describe.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal, get_type_hints

from msg_deploy.sim.verdict import Comparison, Kind, Verdict

SCHEMA = 1
"""Version of the report's form. It changes when a field goes or means something else, not when one
is added."""
NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
"""What stands for numbers that JSON does not have, by Python's names for them."""

TOTALS = {
    "schema": "version of this form; it changes when a field goes or means something else",
    "verdict": "the answer: of the whole check, or of this comparison alone",
    "spikes": "threshold decisions compared, over all comparisons",
    "mismatches": "those that differ",
    "certified_share": "share of them that no rounding can change; null without a certificate",
}


def verdict_as_data(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON values: version, kind and totals, then its fields."""
    return {
        "schema": SCHEMA,
        "verdict": verdict.kind.value,
        "spikes": verdict.spikes,
        "mismatches": verdict.mismatches,
        "certified_share": verdict.certified_share,
        **_plain(verdict),
        "comparisons": [{"verdict": c.kind.value, **_plain(c)} for c in verdict.comparisons],
    }


def verdict_as_text(verdict: Verdict, more: Mapping[str, Any] | None = None) -> str:
    """The same as a JSON document, with more fields if they are asked for."""
    data = verdict_as_data(verdict) | _plain(more or {})
    return json.dumps(data, indent=1, allow_nan=False)


def _reported(kind: type) -> list[str]:
    """Names of the fields of a dataclass that reports hold."""
    return [f.name for f in dataclasses.fields(kind) if f.metadata.get("reported", True)]


def _plain(value: Any) -> Any:
    """JSON values of dataclasses, tuples, mappings and numbers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in _reported(type(value))}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return NOT_FINITE[str(value)]
    return value


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `verdict_as_data` gives."""
    from pydantic import TypeAdapter
    from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

    class Generator(GenerateJsonSchema):
        """Numbers that are not finite are strings."""

        def float_schema(self, schema: Any) -> JsonSchemaValue:
            return {"anyOf": [{"type": "number"}, {"enum": list(NOT_FINITE.values())}]}

    comparison = _form(
        "ComparisonReport", Comparison, [("verdict", Kind)], get_type_hints(Comparison)
    )
    hints = get_type_hints(Verdict) | {"comparisons": tuple[comparison, ...]}  # type: ignore[valid-type]
    totals = [
        ("schema", Literal[1]),
        ("verdict", Kind),
        ("spikes", int),
        ("mismatches", int),
        ("certified_share", float | None),
    ]
    report = _form("Report", Verdict, totals, hints)
    found = TypeAdapter(report).json_schema(mode="serialization", schema_generator=Generator)
    found = {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
    found["title"] = "Report of equivalence-check"
    described = _described([report, comparison, *_dataclasses(Verdict)])
    for name, form in (("Report", found), *found["$defs"].items()):
        if "properties" not in form:
            continue
        form["description"], attributes = described[name]
        form["required"] = list(form["properties"])
        for field, form_of_field in form["properties"].items():
            form_of_field.pop("title", None)
            form_of_field.pop("default", None)
            if field in attributes:
                form_of_field["description"] = attributes[field]
    return found


def schema_as_text() -> str:
    """The same as a file."""
    return json.dumps(schema(), indent=1) + "\n"


def _form(
    name: str, kind: type, totals: list[tuple[str, Any]], hints: Mapping[str, Any]
) -> type[Any]:
    """A dataclass of totals and of what is reported of `kind`."""
    fields = [*totals, *((field, hints[field]) for field in _reported(kind))]
    made = dataclasses.make_dataclass(name, fields)
    made.__doc__ = kind.__doc__
    return made


def _dataclasses(kind: Any) -> list[type]:
    """All dataclasses that an annotation holds."""
    found = [kind] if dataclasses.is_dataclass(kind) and isinstance(kind, type) else []
    inside = (
        [get_type_hints(kind)[name] for name in _reported(kind)]
        if found
        else getattr(kind, "__args__", ())
    )
    return [*found, *(inner for part in inside for inner in _dataclasses(part))]


def _described(kinds: list[type]) -> dict[str, tuple[str, dict[str, str]]]:
    """First paragraph and attributes of each docstring."""
    found = {}
    for kind in kinds:
        text = inspect.cleandoc(kind.__doc__ or "")
        summary, _, rest = text.partition("\n\n")
        listed = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", rest, re.MULTILINE)
        attributes = {name: " ".join(words.split()) for name, words in listed}
        found[kind.__name__] = " ".join(summary.split()), TOTALS | attributes
    return found
