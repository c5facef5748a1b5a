"""From events to frames (T, 2, H, W). No event is lost, unless a window is given.

tonic's ToFrame was measured to lose the last event of every recording when it slices by time, and
the remainder of the division by T when it slices by count.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from msg_deploy.data.recordings import Recording, Size
from msg_deploy.errors import UsageError
from msg_deploy.options import SliceBy


def frames(
    recording: Recording,
    steps: int,
    sensor: Size,
    size: Size,
    slice_by: SliceBy = "count",
    window: int | None = None,
) -> npt.NDArray[np.int64]:
    """Count the events of each timestep, polarity and pixel.

    Event i of n falls into step floor(i T / n) ("count"). By "time" it falls into step
    floor((t - first) T / (last - first + 1)), or floor((t - first) / window) with a window.

    Args:
        recording: the events.
        steps: number of timesteps T.
        sensor: height and width in pixels.
        size: height and width of the frames; pixel (y, x) goes to (y H' // H, x W' // W).
        slice_by: "count" or "time".
        window: microseconds of a frame; later events than T windows are left out.

    Returns:
        (T, 2, H', W'), events OFF in the first channel, ON in the second.

    Raises:
        UsageError: an event lies outside the sensor, or there is none.
    """
    x, y = (np.asarray(a, np.int64) for a in (recording.x, recording.y))
    p, t = (np.asarray(a, np.int64) for a in (recording.p, recording.t))
    if not len(t):
        raise UsageError("holds no event.")
    if x.max() >= sensor[1] or y.max() >= sensor[0] or min(x.min(), y.min()) < 0:
        raise UsageError(
            f"has events up to row {y.max()}, column {x.max()}, outside the sensor's "
            f"{sensor[0]}x{sensor[1]} pixels (height x width)."
        )
    if p.min() < 0 or p.max() > 1:
        raise UsageError("has polarities other than 0 and 1.")
    step = _steps(t, steps, slice_by, window)
    inside = step < steps
    row, column = y * size[0] // sensor[0], x * size[1] // sensor[1]
    place = ((step * 2 + p) * size[0] + row) * size[1] + column
    counts = np.bincount(place[inside], minlength=steps * 2 * size[0] * size[1])
    return counts.reshape(steps, 2, *size)


def _steps(
    t: npt.NDArray[np.int64], steps: int, slice_by: SliceBy, window: int | None
) -> npt.NDArray[np.int64]:
    """The timestep of each event."""
    if slice_by == "count":
        return np.arange(len(t)) * steps // len(t)
    since = t - t.min()
    if window is not None:
        return since // window
    return since * steps // (since.max() + 1)
