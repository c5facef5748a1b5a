"""Write a network for a chip: its files, a decoder for the host, and a description of it all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msg_deploy.errors import UsageError
from msg_deploy.exporters.chips import manifest
from msg_deploy.exporters.chips.target import OnChip
from msg_deploy.exporters.targets import target as target_by_name
from msg_deploy.files import write_folder
from msg_deploy.onchip.fit import Fit, fit_of
from msg_deploy.onchip.prepare import Job, prepare
from msg_deploy.subjects import Model

DECODER = "decode.py"


@dataclass(frozen=True)
class ChipExport:
    """What was written.

    Attributes:
        path: of the folder.
        files: in it.
        fit: of the network.
    """

    path: Path
    files: tuple[str, ...]
    fit: Fit


class DoesNotFitError(UsageError):
    """The chip cannot hold or compute the network; `fit` says why.

    Attributes:
        fit: every reason.
    """

    def __init__(self, fit: Fit) -> None:
        reasons = "\n".join(f"  {problem}" for problem in fit.chip.problems)
        super().__init__(f"{fit.name} does not fit {fit.title}:\n{reasons}")
        self.fit = fit


def files_of(chip: OnChip) -> dict[str, bytes]:
    """All files of an export by name.

    Args:
        chip: that fits.

    Raises:
        GraphError: the chip's format cannot say it.
    """
    found = dict(target_by_name(chip.target).files(chip))
    if chip.decoder is not None:
        found[DECODER] = chip.decoder.as_python().encode()
    return found | {manifest.FILE: manifest.manifest_json(chip)}


def export_to_chip(
    model: Model,
    job: Job,
    output: str | Path,
    on_progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> ChipExport:
    """Write a folder with what the chip's tools read, `decode.py` and `target.json`.

    Args:
        model: a .pt or .nir file, a SpikingNetwork, a ForeignNetwork or a Deployment.
        job: the target; with `approximate` the cost in accuracy and spikes is measured, too.
        output: the folder; one that an earlier export wrote is replaced.
        on_progress: called with what is done, what there is in all, and of what.

    Raises:
        DoesNotFitError: with every reason.
        FileError: a file cannot be read or written.
        GraphError: a node cannot be quantized, or the chip's format cannot say it.
        UsageError: an argument is not accepted.
    """
    prepared = prepare(model, job, on_progress)
    found = fit_of(prepared, measure=job.approximate, on_progress=on_progress)
    if not found:
        raise DoesNotFitError(found)
    files, path = files_of(prepared.chip), Path(output)
    write_folder(path, files, manifest.FILE)
    return ChipExport(path, tuple(files), found)
