"""A reduced failing input as a .npz file that a check can run again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from msg_deploy.errors import UsageError
from msg_deploy.files import check_writable, replacing
from msg_deploy.sim.verdict import Verdict


def write_failure(path: str | Path, verdict: Verdict) -> None:
    """Write the smallest failing input of a verdict: `samples` (1, *shape) and `failure`, JSON.

    Raises:
        UsageError: the verdict has none, or the name does not end in .npz.
        FileError: the file cannot be written.
    """
    path = Path(path)
    check_name(path)
    reduced = verdict.diagnosis and verdict.diagnosis.reduced
    if not reduced:
        raise UsageError("there is no failing input to save.")
    about = {
        "node": reduced.node,
        "sample": reduced.sample,
        "precision": verdict.precision,
        "faulty": [dataclasses.asdict(f) for f in verdict.diagnosis.faulty]
        if verdict.diagnosis
        else [],
    }
    # savez appends .npz to a name, but not to a file.
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, samples=reduced.array()[None], failure=np.array(json.dumps(about)))


def check_name(path: Path) -> None:
    """Check that a failing input can be written and read again there.

    Raises:
        UsageError: the name does not end in .npz.
        FileError: the file cannot be written.
    """
    if path.suffix != ".npz":
        raise UsageError(f"{path}: a failing input is written as .npz.")
    check_writable(path)
