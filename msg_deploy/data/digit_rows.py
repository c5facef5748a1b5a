"""scikit-learn's digits, read row by row: a sequence for networks with few inputs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from msg_deploy.data import DataOptions, Dataset, dataset
from msg_deploy.data.digits import CLASSES, divided
from msg_deploy.data.parts import in_memory
from msg_deploy.errors import UsageError

ROWS = 8
MOST = 15
"""Of a channel in one step: what a Xylo input takes."""


@dataset
def digit_rows(options: DataOptions, steps: int) -> Dataset:
    """The digits as T frames of 8 channels: row t of the image at step t, then nothing.

    Values are whole numbers 0..15 (grey levels 15 and 16 are one). The same samples are held out as
    of `digits`.

    Raises:
        UsageError: fewer than 8 steps.
    """
    if steps < ROWS:
        raise UsageError(f"digit_rows: a digit has {ROWS} rows, which {steps} steps cannot show.")
    parts = {part: (_rows(images, steps), labels) for part, (images, labels) in divided().items()}
    return in_memory(
        "digit_rows",
        CLASSES,
        parts,
        options,
        "frames",
        range=(0.0, float(MOST)),
    )


def _rows(images: npt.NDArray[np.float64], steps: int) -> npt.NDArray[np.float32]:
    """(N, 8, 8) of 0..16 to (N, T, 8)."""
    shown = np.zeros((len(images), steps, ROWS), np.float32)
    shown[:, :ROWS] = np.minimum(images, MOST)
    return shown
