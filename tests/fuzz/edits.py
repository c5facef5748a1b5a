"""Edits of whole files that keep their outer form, so that readers are met behind their parsers."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from typing import Any, Protocol

import h5py
import numpy as np
import onnx
import torch

NAMES = ("type", "nodes", "edges", "weight", "input", "LIF", "NIRGraph", "../x", "", "a/b", "é")
NUMBERS = (0, 1, -1, 2, 0.5, -0.0, 1e-300, 1e300, math.nan, math.inf, 2**31, 2**63 - 1, -(2**63))
DTYPES = ("f8", "f4", "i8", "i4", "u1", "?", "f2")


class Source(Protocol):
    """Where choices come from: atheris' bytes, or a random generator."""

    def below(self, count: int) -> int:
        """A whole number from 0 to count - 1."""

    def text(self) -> str:
        """A short text."""


def one_of(source: Source, options: Any) -> Any:
    """An element."""
    return options[source.below(len(options))]


def number(source: Source) -> float:
    """One that tends to be special."""
    return one_of(source, NUMBERS) if source.below(4) else source.below(2**16) / 7 - 1000


def array(source: Source) -> np.ndarray[Any, Any]:
    """Of any type and up to four dimensions, of which some may be 0."""
    shape = [source.below(4) for _ in range(source.below(5))]
    values = [number(source) for _ in range(math.prod(shape))]
    with np.errstate(all="ignore"):
        return np.array(values, "f8").reshape(shape).astype(one_of(source, DTYPES))


def value(source: Source) -> Any:
    """Any JSON value."""
    kind = source.below(8)
    if kind == 0:
        return None
    if kind == 1:
        return bool(source.below(2))
    if kind == 2:
        return source.text()
    if kind == 3:
        return one_of(source, NAMES)
    if kind == 4:
        return [value(source) for _ in range(source.below(4))]
    if kind == 5:
        return {one_of(source, NAMES): value(source) for _ in range(source.below(3))}
    return number(source)


def edit_tree(source: Source, tree: Any, new: Callable[[Source], Any]) -> None:
    """Change one place of nested dictionaries and lists, at any depth."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key = one_of(source, keys)
        inner = tree[key]
        if isinstance(inner, (dict, list)) and inner and source.below(5):
            tree = inner
            continue
        kind = source.below(4)
        if kind == 0:
            del tree[key]
        elif kind == 1 and isinstance(tree, dict):
            tree[source.text() or one_of(source, NAMES)] = tree[one_of(source, keys)]
        elif kind == 2:
            tree[key] = tree[one_of(source, keys)]
        else:
            tree[key] = new(source)
        return


# --------------------------------------------------------------------------- .nir


def edited_nir(source: Source, whole: bytes) -> bytes:
    """Some datasets and groups changed."""
    with h5py.File(io.BytesIO(whole), "r") as file:
        tree = _tree(file)
    for _ in range(1 + source.below(4)):
        edit_tree(source, tree, _dataset)
    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        _fill(file, tree)
    return made.getvalue()


def _tree(group: h5py.Group) -> dict[str, Any]:
    return {
        name: _tree(item) if isinstance(item, h5py.Group) else item[()]
        for name, item in group.items()
    }


def _dataset(source: Source) -> Any:
    if source.below(3):
        return array(source)
    return one_of(source, (source.text(), one_of(source, NAMES), {}, json.dumps(value(source))))


def _fill(group: h5py.Group, tree: dict[str, Any]) -> None:
    for name, item in tree.items():
        # h5py takes neither; both would be other places of the file.
        if not name or "/" in name or "\0" in name or name == ".":
            continue
        if isinstance(item, dict):
            _fill(group.create_group(name), item)
        else:
            group[name] = item.replace("\0", "") if isinstance(item, str) else item


# --------------------------------------------------------------------------- .pt


def edited_pt(source: Source, whole: bytes) -> bytes:
    """The description or the tensors changed."""
    content = torch.load(io.BytesIO(whole), weights_only=True)  # noqa: TID251
    about = json.loads(content["msg_deploy"])
    for _ in range(1 + source.below(4)):
        if source.below(3):
            edit_tree(source, about, value)
        else:
            edit_tree(source, content, _tensor)
    if isinstance(content.get("msg_deploy"), str):
        content["msg_deploy"] = json.dumps(about)
    made = io.BytesIO()
    torch.save(content, made)
    return made.getvalue()


def _tensor(source: Source) -> Any:
    return torch.from_numpy(array(source)) if source.below(4) else value(source)


# --------------------------------------------------------------------------- .onnx


def edited_onnx(source: Source, whole: bytes) -> bytes:
    """Fields of messages changed, at any depth."""
    model = onnx.ModelProto()
    model.ParseFromString(whole)
    for _ in range(1 + source.below(4)):
        if source.below(4):
            _edit_message(source, model)
        else:
            _edit_property(source, model)
    return model.SerializeToString()


def _edit_property(source: Source, model: onnx.ModelProto) -> None:
    if not model.metadata_props:
        return
    held = one_of(source, model.metadata_props)
    try:
        tree = json.loads(held.value)
    except json.JSONDecodeError:
        return
    if isinstance(tree, (dict, list)):
        edit_tree(source, tree, value)
    held.value = json.dumps(tree)


def _edit_message(source: Source, message: Any) -> None:
    while True:
        fields = [field for field, _ in message.ListFields()]
        if not fields:
            return
        field = one_of(source, fields)
        held = getattr(message, field.name)
        if not hasattr(held, "append"):
            if field.message_type is None:
                _set(source, message, field.name)
                return
            message = held
            continue
        place = source.below(len(held))
        if field.message_type is not None and source.below(5):
            message = held[place]
        elif source.below(2):
            del held[place]
            return
        else:
            held.extend([held[place]])
            return


def _set(source: Source, message: Any, name: str) -> None:
    held = getattr(message, name)
    new: Any = number(source)
    if isinstance(held, str):
        new = one_of(source, (source.text(), *NAMES))
    elif isinstance(held, bytes):
        new = bytes(source.below(256) for _ in range(source.below(20)))
    elif isinstance(held, int):
        new = source.below(2**16) - 100
    try:
        setattr(message, name, new)
    except (ValueError, TypeError, OverflowError):
        message.ClearField(name)


EDITS: dict[str, Callable[[Source, bytes], bytes]] = {
    "nir": edited_nir,
    "pt": edited_pt,
    "onnx": edited_onnx,
}
