"""The smallest input on which two sides still differ: one sample, few frames, few values.

By delta debugging (Zeller and Hildebrandt 2002): parts of the input are made blank as long as the
difference in the same layer stays. Many candidates run in one batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import InputSpec, Shape
from msg_deploy.sim.simulator import FloatArray

Mask = npt.NDArray[np.bool_]
Failing = Callable[[FloatArray], Mask]
"""Samples (N, *shape) to whether each of them still makes the difference, (N,)."""

BATCH = 64
DEFAULT_RUNS = 4000
DEFAULT_SECONDS = 10.0


@dataclass(frozen=True)
class Reduction:
    """An input on which both sides differ, as small as was found.

    Attributes:
        sample: index of the sample that it comes from.
        node: layer in which the difference stays.
        shape: of the sample as a data set holds it, with its time if it has frames.
        blank: value of everything that is not listed.
        places: indices of the values that are left.
        values: at these places.
        size: number of values in the sample.
        runs: samples that were run to find it.
    """

    sample: int
    node: str
    shape: Shape
    blank: float
    places: tuple[Shape, ...]
    values: tuple[float, ...]
    size: int
    runs: int

    def array(self) -> FloatArray:
        """The sample, float32 (*shape)."""
        sample = np.full(self.shape, self.blank, np.float32)
        for place, value in zip(self.places, self.values, strict=True):
            sample[place] = value
        return sample


@dataclass
class Budget:
    """What a reduction may cost.

    Args:
        runs: samples that may be run.
        seconds: from now.
    """

    runs: int = DEFAULT_RUNS
    seconds: float = DEFAULT_SECONDS

    def __post_init__(self) -> None:
        self.end = time.monotonic() + self.seconds
        self.used = 0

    def spend(self, runs: int) -> None:
        """Count some runs."""
        self.used += runs

    @property
    def over(self) -> bool:
        """Whether nothing more may be run."""
        return self.used >= self.runs or time.monotonic() > self.end


def reduce(
    sample: FloatArray,
    number: int,
    node: str,
    spec: InputSpec,
    failing: Failing,
    budget: Budget | None = None,
) -> Reduction | None:
    """Make a failing sample as blank as possible.

    Args:
        sample: float32 (*shape), or (T, *shape) with the encoding "frames".
        number: its index among all samples.
        node: layer in which the difference stays.
        spec: of the input.
        failing: whether samples make the difference.
        budget: what it may cost.

    Returns:
        The reduced sample, or None if the sample alone does not fail.
    """
    budget = budget or Budget()
    blank = float(np.clip(0.0, spec.low, spec.high))
    budget.spend(1)
    if not failing(sample[None])[0]:
        return None
    if spec.encoding == "frames":
        frames = list(np.arange(sample.size).reshape(len(sample), -1))
        sample = _without(sample, blank, frames, failing, budget)
    values = list(np.flatnonzero(sample != blank).reshape(-1, 1))
    sample = _without(sample, blank, values, failing, budget)
    left = np.argwhere(sample != blank)
    return Reduction(
        sample=number,
        node=node,
        shape=tuple(sample.shape),
        blank=blank,
        places=tuple(tuple(int(i) for i in place) for place in left),
        values=tuple(float(sample[tuple(place)]) for place in left),
        size=sample.size,
        runs=budget.used,
    )


def _without(
    sample: FloatArray,
    blank: float,
    units: list[npt.NDArray[np.int64]],
    failing: Failing,
    budget: Budget,
) -> FloatArray:
    """The sample with as many units (flat indices) blank as possible."""

    def without(removed: set[int]) -> FloatArray:
        changed = sample.copy()
        for unit in removed:
            changed.flat[units[unit]] = blank
        return changed

    def test(candidates: list[set[int]]) -> list[bool]:
        results: list[bool] = []
        for start in range(0, len(candidates), BATCH):
            if budget.over:
                break
            part = candidates[start : start + BATCH]
            budget.spend(len(part))
            results += failing(np.stack([without(c) for c in part])).tolist()
        return results + [False] * (len(candidates) - len(results))

    removed = _removable(len(units), test, budget)
    return without(removed)


def _removable(
    count: int, test: Callable[[list[set[int]]], list[bool]], budget: Budget
) -> set[int]:
    """Numbers below `count` that can go together, by ever smaller groups."""
    removed: set[int] = set()
    size = count
    while size >= 1 and not budget.over:
        left = [i for i in range(count) if i not in removed]
        groups = [set(left[i : i + size]) for i in range(0, len(left), size)]
        able = [
            group
            for group, fails in zip(groups, test([removed | g for g in groups]), strict=True)
            if fails
        ]
        if not able:
            if size == 1:
                break
            size = max(1, min(size, len(left)) // 2)
            continue
        growing = [removed.union(*able[: i + 1]) for i in range(len(able))]
        results = test(growing)
        # One group alone is known to go; of the longer rows the longest that goes as a whole.
        removed = next(
            (g for g, fails in zip(growing[::-1], results[::-1], strict=True) if fails), growing[0]
        )
    return removed
