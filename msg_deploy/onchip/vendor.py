"""Runs exported files in a vendor's own model of its chip, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msg_deploy.errors import MsgDeployError, UsageError
from msg_deploy.onchip.simulator import ChipRun

VENDORS = "MSG_DEPLOY_VENDORS"
"""Environment variable: the folder of the environments."""
DEFAULT = Path("build", "chips")
ARRAYS = ("spikes", "membranes", "after")


class VendorError(MsgDeployError):
    """A vendor's model failed; the text is the last that it said."""


@dataclass(frozen=True)
class Mismatch:
    """The first number that differs.

    Attributes:
        what: "spikes", "membranes" or "after" (membranes after the reset).
        node: the population.
        place: step, sample, and neuron.
        ours: in our simulation.
        theirs: in the vendor's model.
    """

    what: str
    node: str
    place: tuple[int, ...]
    ours: int
    theirs: int


@dataclass(frozen=True)
class VendorComparison:
    """Our simulation of a chip against its vendor's.

    Attributes:
        title: of the vendor's model.
        samples: that both ran.
        spikes: compared.
        spikes_differ: those that differ.
        membranes: compared.
        membranes_differ: those that differ.
        first: of the mismatches; None: there is none.
    """

    title: str
    samples: int
    spikes: int
    spikes_differ: int
    membranes: int
    membranes_differ: int
    first: Mismatch | None

    def __bool__(self) -> bool:
        """Whether all is the same, and something was compared."""
        return self.spikes + self.membranes > 0 and self.first is None


def title(vendor: str) -> str:
    """What a vendor's model is called."""
    found: str = import_module(f"msg_deploy.onchip.vendors.{vendor}").TITLE
    return found


def python_of(vendor: str, folder: str | Path | None = None) -> Path | None:
    """The Python that has a vendor's packages; None: there is none.

    Args:
        vendor: name of a module in `msg_deploy.onchip.vendors`.
        folder: of the environments; None: $MSG_DEPLOY_VENDORS, else build/chips.

    Raises:
        UsageError: a folder is given and has no such environment.
    """
    root = Path(folder or os.environ.get(VENDORS) or DEFAULT)
    found = root.absolute() / vendor / "bin" / "python"
    if found.is_file():
        return found
    if folder is not None:
        raise UsageError(f"{root}: holds no {vendor}/bin/python; `make chips` makes it.")
    return None


def run(
    vendor: str, python: Path, files: Mapping[str, bytes], inputs: npt.NDArray[Any]
) -> dict[str, npt.NDArray[np.int64]]:
    """What the vendor's model makes of exported files, see `msg_deploy.onchip.vendors`.

    Args:
        vendor: name of the module.
        python: of its environment.
        files: of an export by name.
        inputs: whole numbers (T, B, *input shape).

    Raises:
        VendorError: it failed.
    """
    script = import_module(f"msg_deploy.onchip.vendors.{vendor}").__file__
    assert script is not None
    with tempfile.TemporaryDirectory() as temporary:
        folder, given, found = (Path(temporary, n) for n in ("export", "in.npz", "out.npz"))
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        np.savez(given, inputs=inputs.astype(np.int64))
        # A neutral folder: what lies beside the script must not be imported in place of packages.
        command = [str(python), "-P", script, str(folder), str(given), str(found)]
        result = subprocess.run(command, cwd=temporary, capture_output=True, text=True)
        if result.returncode or not found.is_file():
            said = (result.stderr or result.stdout).strip().splitlines() or ["nothing was said"]
            raise VendorError(f"{title(vendor)} failed: {said[-1]}")
        with np.load(found, allow_pickle=False) as content:
            return {name: content[name].astype(np.int64) for name in content.files}


def compared(
    vendor: str, ours: ChipRun, theirs: Mapping[str, npt.NDArray[np.int64]]
) -> VendorComparison:
    """Every number that both have.

    Args:
        vendor: name of the module.
        ours: of some samples.
        theirs: of the same, as `run` gives them.

    Raises:
        VendorError: they have numbers of another shape, or none of a layer of neurons.
    """
    totals: dict[str, tuple[int, int]] = {"spikes": (0, 0), "membranes": (0, 0)}
    first: Mismatch | None = None
    samples = 0
    for what in ARRAYS:
        mine: Mapping[str, npt.NDArray[np.int64]] = getattr(ours, what)
        for name, expected in mine.items():
            samples = expected.shape[1]
            found = theirs.get(f"{what}_{name}")
            if found is None and what != "spikes":
                continue
            if found is None or found.shape != expected.shape:
                shape = "nothing" if found is None else f"shape {found.shape}"
                raise VendorError(
                    f"{title(vendor)} gave {shape} for {what} of {name!r}, not {expected.shape}."
                )
            differ = found != expected
            kind = "spikes" if what == "spikes" else "membranes"
            totals[kind] = totals[kind][0] + differ.size, totals[kind][1] + int(differ.sum())
            if first is None and differ.any():
                place = tuple(int(i) for i in np.argwhere(differ)[0])
                first = Mismatch(what, name, place, int(expected[place]), int(found[place]))
    return VendorComparison(title(vendor), samples, *totals["spikes"], *totals["membranes"], first)


def together(parts: list[VendorComparison]) -> VendorComparison:
    """Of all samples, from several runs."""
    return VendorComparison(
        parts[0].title,
        sum(p.samples for p in parts),
        sum(p.spikes for p in parts),
        sum(p.spikes_differ for p in parts),
        sum(p.membranes for p in parts),
        sum(p.membranes_differ for p in parts),
        next((p.first for p in parts if p.first), None),
    )
