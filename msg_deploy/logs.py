"""Logs of a training, one row or point per epoch."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msg_deploy.errors import FileError, UsageError, reason
from msg_deploy.train import Epoch

Log = Callable[[Epoch], None]


def values(epoch: Epoch) -> dict[str, float]:
    """An epoch as numbers by name; firing rates as firing_rate/LAYER."""
    row = {"epoch": float(epoch.number), "loss": epoch.loss, "accuracy": epoch.accuracy}
    if epoch.validation is not None:
        row["validation"] = epoch.validation
    row["seconds"] = epoch.seconds
    return row | {f"firing_rate/{name}": rate for name, rate in epoch.firing_rates.items()}


def csv_log(path: Path, append: bool = False) -> Log:
    """Write a row per epoch to a CSV file, at once, so that it can be followed.

    Args:
        path: the file.
        append: go on with an existing file, as a resumed training does.

    Raises:
        FileError: the file cannot be written.
    """

    def log(epoch: Epoch) -> None:
        row = values(epoch)
        anew = not path.exists() or (epoch.number == 1 and not append)
        try:
            with path.open("w" if anew else "a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(row))
                if anew:
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            raise FileError(path, f"cannot be written ({reason(error)}).") from error

    return log


@contextmanager
def tensorboard_log(folder: Path) -> Iterator[Log]:
    """Write the same numbers for TensorBoard.

    Raises:
        FileError: the folder cannot be written.
        UsageError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "TensorBoard logs need tensorboard; install it with "
            "pip install 'msg-deploy[tensorboard]'."
        ) from error
    try:
        writer = SummaryWriter(str(folder))
    except OSError as error:
        raise FileError(
            folder,
            f"cannot be written ({error.strerror or reason(error)}); name a folder, which need not "
            "exist.",
        ) from error

    def log(epoch: Epoch) -> None:
        for name, value in values(epoch).items():
            if name != "epoch":
                writer.add_scalar(name, value, epoch.number)

    try:
        yield log
    finally:
        writer.close()
