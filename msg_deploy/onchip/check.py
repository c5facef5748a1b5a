"""Is what a chip computes what was trained: spike for spike, and by the vendor's own model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from msg_deploy.errors import UsageError
from msg_deploy.exporters.chips.target import OnChip
from msg_deploy.onchip import vendor as vendors
from msg_deploy.onchip.export import files_of
from msg_deploy.onchip.fit import Fit, fit_as_data, fit_of
from msg_deploy.onchip.prepare import Job, Prepared, prepare
from msg_deploy.onchip.simulator import ChipSimulator
from msg_deploy.onchip.vendor import VendorComparison
from msg_deploy.stimulus import encoded
from msg_deploy.subjects import Model

TOGETHER = 128
"""Samples that a vendor's model is given at once."""


class ChipKind(Enum):
    """The answer, from the best.

    EXACT: on the chip every spike is that of the network in whole numbers.
    CHANGED: some are not, but no more decisions than allowed.
    DIFFERENT: more are not than allowed.
    REFUTED: the vendor's model computes something else than our simulation of the chip.
    DOES_NOT_FIT: the chip cannot hold or compute the network.
    UNKNOWN: it fits, but its arithmetic is not known, so nothing can be said.
    """

    EXACT = "EXACT"
    CHANGED = "CHANGED"
    DIFFERENT = "DIFFERENT"
    REFUTED = "REFUTED"
    DOES_NOT_FIT = "DOES NOT FIT"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class ChipVerdict:
    """What was found.

    Attributes:
        kind: the answer.
        fit: of the network, with what the chip does to it.
        vendor: our simulation against the vendor's model; None: it did not run.
        without_vendor: why it did not.
    """

    kind: ChipKind
    fit: Fit
    vendor: VendorComparison | None
    without_vendor: str = ""

    def __bool__(self) -> bool:
        """Whether the chip computes what was trained, or changes no more than allowed."""
        return self.kind in (ChipKind.EXACT, ChipKind.CHANGED)


def check_on_chip(
    model: Model,
    job: Job,
    environments: str | Path | None = None,
    allowed: float | None = None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> ChipVerdict:
    """Simulate a network on a chip to the bit, and compare with it and with the vendor's model.

    Args:
        model: a .pt or .nir file, a SpikingNetwork, a ForeignNetwork or a Deployment; what is not
            quantized yet is quantized as the target asks.
        job: the target, and the samples.
        environments: folder of the vendors' environments, see `vendor.python_of`.
        allowed: share of the samples that the chip may decide otherwise than the network in whole
            numbers; None: no spike may differ.
        on_progress: called with what is done, what there is in all, and of what.

    Raises:
        FileError: a file cannot be used.
        GraphError: a node cannot be quantized.
        UsageError: an argument is not accepted.
        VendorError: the vendor's model failed.
    """
    if allowed is not None and not 0 <= allowed <= 1:
        raise UsageError(f"the share of changed decisions must be from 0 to 1, not {allowed}.")
    prepared = prepare(model, job, on_progress)
    python, reason = _python(prepared, environments)
    found = fit_of(prepared, measure=prepared.chip.fits, on_progress=on_progress)
    compared = None
    if python is not None and prepared.chip.fits and prepared.chip.network is not None:
        compared = _with_vendor(prepared, python, on_progress)
    return ChipVerdict(_kind(found, compared, allowed), found, compared, reason)


def _python(prepared: Prepared, environments: str | Path | None) -> tuple[Path | None, str]:
    name = prepared.target.vendor
    if not name:
        return None, f"there is no model of {prepared.target.title} by its vendor that can be run"
    python = vendors.python_of(name, environments)
    reason = "" if python else f"{vendors.title(name)} is not installed here; see `make chips`"
    return python, reason


def _with_vendor(
    prepared: Prepared, python: Path, on_progress: Callable[[int, int, str], None]
) -> VendorComparison:
    chip: OnChip = prepared.chip
    files, simulator = files_of(chip), ChipSimulator(chip)
    name, samples = prepared.target.vendor, prepared.samples
    parts = []
    for start in range(0, len(samples), TOGETHER):
        batch = np.asarray(samples[start : start + TOGETHER], np.float32)
        inputs = encoded(chip.deployment, batch)
        theirs = vendors.run(name, python, files, inputs)
        parts.append(vendors.compared(name, simulator.run(inputs), theirs))
        on_progress(start + len(batch), len(samples), vendors.title(name))
    return vendors.together(parts)


def _kind(found: Fit, compared: VendorComparison | None, allowed: float | None) -> ChipKind:
    if not found.chip.fits:
        return ChipKind.DOES_NOT_FIT
    if found.effect is None:
        return ChipKind.UNKNOWN
    if compared is not None and not compared:
        return ChipKind.REFUTED
    if found.effect.changed == 0 and found.effect.flips_whole == 0:
        return ChipKind.EXACT
    within = allowed is not None and found.effect.flips_whole <= allowed * found.effect.samples
    return ChipKind.CHANGED if within else ChipKind.DIFFERENT


def verdict_as_data(verdict: ChipVerdict) -> dict[str, Any]:
    """As JSON values."""
    vendor = verdict.vendor
    first = vendor.first if vendor is not None else None
    return {
        "kind": verdict.kind.value,
        **fit_as_data(verdict.fit),
        "vendor": {**vars(vendor), "first": first and vars(first)} if vendor is not None else None,
        "without_vendor": verdict.without_vendor,
    }
