"""What a report shows of one sample: spikes of both sides, and the kernels that TWO became.

A check counts; it keeps no spikes. They are run again for one sample if a report wants them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msg_deploy.sim.simulator import Trace

Spikes = npt.NDArray[np.uint8]

SHOWN_NEURONS = 32
"""Of each layer."""
SHOWN_SILENT = 8
"""Of a layer in which no neuron spikes."""
SHOWN_STEPS = 64
"""Of each layer; of longer runs those around the first difference."""
CONDITION = 1e-6
"""Currents whose smallest singular value is a smaller share of the largest tell no kernel."""


@dataclass(frozen=True)
class Raster:
    """Spikes of some neurons of one layer, on one sample.

    Attributes:
        node: the layer.
        size: its number of neurons.
        steps: number of timesteps of the run.
        differing: neurons that differ at some step, of all.
        active: neurons that spike on a side, of all.
        start: the first step shown.
        neurons: indices of the neurons shown, ascending.
        a: spikes on the left side, uint8 (steps shown, neurons shown).
        b: the same on the right.
    """

    node: str
    size: int
    steps: int
    differing: int
    active: int
    start: int
    neurons: tuple[tuple[int, ...], ...]
    a: Spikes
    b: Spikes


@dataclass(frozen=True)
class Kernel:
    """TWO's weights, and what a side makes of them.

    Attributes:
        weights: f as it was trained, one a step; the left side's.
        realized: share of a current of each step in the scores, of the class farthest from f.
        output: index of that class.
        fold: how the right side applies f.
        measured: "pulses" through the graph's readout, or "currents" and scores of a run.
    """

    weights: tuple[float, ...]
    realized: tuple[float, ...]
    output: int
    fold: str
    measured: str

    @property
    def error(self) -> float:
        """Largest absolute difference of a weight."""
        return float(np.abs(np.subtract(self.weights, self.realized)).max())


@dataclass(frozen=True)
class Illustration:
    """What a report shows beside the counts.

    Attributes:
        a: the left side: a file or type.
        b: the right side.
        sample: index of the sample of the rasters; None if nothing could be run.
        simulators: what ran the left and the right side.
        rasters: per spiking layer in the order of execution.
        kernel: TWO's weights as trained and as realized, if there is TWO.
        graphs: drawings of the sides that have a graph: "left" or "right", and SVG.
    """

    a: str
    b: str
    sample: int | None = None
    simulators: tuple[str, str] = ("", "")
    rasters: tuple[Raster, ...] = ()
    kernel: Kernel | None = None
    graphs: tuple[tuple[str, str], ...] = ()


def rasters(a: Trace, b: Trace, sample: int) -> tuple[Raster, ...]:
    """Of every layer that both sides have, in the order of the left side's trace.

    Args:
        a: left side.
        b: right side; a layer may have another shape there.
        sample: index in the traces.
    """
    return tuple(
        raster(node, spikes[:, sample], b.spikes[node][:, sample])
        for node, spikes in a.spikes.items()
        if node in b.spikes and b.spikes[node].size == spikes.size
    )


def raster(node: str, a: Spikes, b: Spikes) -> Raster:
    """Of neurons that differ, those that do so first; then others that spike.

    Where none does either, some silent ones are shown.

    Args:
        node: the layer.
        a: spikes on the left side (T, *shape).
        b: on the right, of the same number.
    """
    shape, steps = a.shape[1:], len(a)
    left, right = a.reshape(steps, -1), b.reshape(steps, -1)
    unequal = left != right
    differs = unequal.any(axis=0)
    first = np.where(differs, unequal.argmax(axis=0), steps)
    active: npt.NDArray[np.bool_] = np.any((left != 0) | (right != 0), axis=0)
    ranked = np.argsort(first, kind="stable")
    ranked = ranked[active[ranked]] if active.any() else ranked[:SHOWN_SILENT]
    chosen = np.sort(ranked[:SHOWN_NEURONS])
    earliest = int(first.min(initial=steps)) % steps
    start = max(0, min(earliest - SHOWN_STEPS // 4, steps - SHOWN_STEPS))
    window = slice(start, start + SHOWN_STEPS)
    places = np.transpose(np.unravel_index(chosen, shape)) if shape else np.zeros((1, 0), int)
    return Raster(
        node=node,
        size=left.shape[1],
        steps=steps,
        differing=int(differs.sum()),
        active=int(active.sum()),
        start=start,
        neurons=tuple(tuple(map(int, place)) for place in places),
        a=left[window, chosen],
        b=right[window, chosen],
    )


def kernel_of_run(trace: Trace) -> npt.NDArray[np.float64] | None:
    """The kernel (T, 1) that makes a run's scores of its currents, the same for all classes.

    None if the currents are not recorded, or do not tell the weights of all steps apart.
    """
    currents, scores = trace.currents, trace.scores
    if currents.ndim != 3 or not currents.size or currents.shape[1:] != scores.shape:
        return None
    system = currents.reshape(len(currents), -1).T.astype(np.float64)
    values = np.linalg.svd(system, compute_uv=False)
    if len(values) < len(currents) or values[-1] <= CONDITION * values[0]:
        return None
    found = np.linalg.lstsq(system, scores.ravel(), rcond=None)[0]
    return found.astype(np.float64)[:, None]


def kernel(
    weights: tuple[float, ...], realized: npt.NDArray[Any], fold: str, measured: str
) -> Kernel:
    """The kernel of the class that is farthest from f.

    Args:
        weights: f.
        realized: kernels of all classes (T, C).
        fold: how f is applied.
        measured: how `realized` was found.
    """
    distance = np.abs(realized - np.array(weights)[:, None]).max(axis=0)
    output = int(distance.argmax())
    shown = tuple(float(value) for value in realized[:, output])
    return Kernel(weights, shown, output, fold, measured)
