"""Runs in the environment of one framework: loads files, runs them, counts spikes that differ.

python interop_worker.py FRAMEWORK.py JOBS.json; one JSON line for each job on stdout.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

CLOSE = 1e-5
"""Relative difference of parameters: thresholds are moved off a grid by 2^-21."""


def answer(framework: Any, job: dict[str, Any]) -> dict[str, Any]:
    """{"mismatches": n}, {"parsed": n} or {"problem": why}."""
    model = framework.load(job["file"], job["dt"])
    if hasattr(framework, "parameters"):
        return parsed(framework.parameters(model), job["meant"])
    late = job["latency"]
    inputs, expected = np.load(job["inputs"]), np.load(job["expected"])
    padded = np.concatenate([inputs, np.zeros((late, *inputs.shape[1:]), inputs.dtype)])
    found = framework.run(model, padded)
    awaited = np.concatenate([np.zeros((late, *expected.shape[1:]), expected.dtype), expected])
    if found.shape != awaited.shape:
        return {"problem": f"gives shape {found.shape}, not {awaited.shape}"}
    return {"mismatches": int((found != awaited).sum())}


def parsed(found: dict[str, np.ndarray], meant: dict[str, list[float]]) -> dict[str, Any]:
    """Whether the parameters read are those meant."""
    if set(found) != set(meant):
        return {"problem": f"has the neurons {sorted(found)}, not {sorted(meant)}"}
    for name, values in meant.items():
        if not np.allclose(found[name], values, rtol=CLOSE, atol=1e-12):
            return {"problem": f"reads {found[name].tolist()} in {name}, not {values}"}
    return {"parsed": len(meant)}


def main() -> None:
    """Answer all jobs, in order."""
    warnings.simplefilter("ignore")
    spec = importlib.util.spec_from_file_location("framework", sys.argv[1])
    framework = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(framework)
    for job in json.loads(Path(sys.argv[2]).read_text()):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                found = answer(framework, job)
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            found = {"problem": f"{type(error).__name__}: {lines[0] if lines else ''}"}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
