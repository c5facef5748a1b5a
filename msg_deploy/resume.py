"""The state of an unfinished training in a file; like a checkpoint it runs no code when read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from msg_deploy.errors import FileError, UsageError, reason
from msg_deploy.files import write_made

FIELDS = {"network", "optimizer", "schedule", "masking", "shuffling", "random", "progress"}


def write_state(path: Path, options: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a state, whole or not at all.

    Raises:
        FileError: the file cannot be written.
    """
    content = {"options": options, "state": state}
    write_made(path, lambda file: torch.save(content, file))


def read_state(path: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Read a state.

    Args:
        path: a file of `write_state`.
        options: what the training is that is to continue; they must be those of the file.

    Raises:
        FileError: the file is damaged or not of this kind.
        UsageError: it belongs to a training with other options.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
        saved, state = content["options"], content["state"]
        complete = set(state) == FIELDS
    except Exception as error:  # torch's unpickler on a damaged file
        raise FileError(
            path, f"is not the state of a training ({reason(error)}); remove it to start anew."
        ) from error
    if not complete:
        raise FileError(path, "is of another version; remove it to start anew.")
    changed = [name for name in options if saved.get(name) != options[name]]
    if changed:
        listed = ", ".join(f"{n} was {saved.get(n)!r}, is {options[n]!r}" for n in changed)
        raise UsageError(f"{path}: belongs to another training: {listed}; remove it to start anew.")
    return dict(state)
