"""From the two sides of a check to what a report shows of one sample."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from msg_deploy.deployment import Deployment, Readout
from msg_deploy.drawing import draw
from msg_deploy.exporters.fold import decode
from msg_deploy.graph import plan
from msg_deploy.options import Precision
from msg_deploy.samples import Samples
from msg_deploy.sim.illustration import (
    Illustration,
    Kernel,
    kernel,
    kernel_of_run,
    rasters,
)
from msg_deploy.sim.simulator import FloatArray, Trace
from msg_deploy.sim.verdict import Verdict
from msg_deploy.stimulus import encoded

if TYPE_CHECKING:
    from msg_deploy.scale.work import Work
    from msg_deploy.subjects import Subject

LARGEST_DRAWING = 200
"""Nodes of a graph that is drawn; larger drawings are too large to be read."""


def illustrate(
    left: Subject,
    right: Subject,
    work: Work,
    stimulus: Samples,
    size: int,
    verdict: Verdict,
) -> Illustration:
    """Run one batch again and keep what a report shows of it.

    It is the batch of the first sample that differs, as it was run in the check: in another batch
    engines may sum in another order, and a difference by rounding would not come back.

    Args:
        left: left side.
        right: right side.
        work: both, ready to run.
        stimulus: samples.
        size: samples that were run at once.
        verdict: of the check.
    """
    shown = described(left, right)
    pairs = list(zip(work.others, verdict.comparisons, strict=True))
    able = [(runner, c) for runner, c in pairs if not c.missing]
    if not able:
        return shown
    runner, comparison = next(((r, c) for r, c in able if c.first), able[0])
    sample = comparison.first.sample if comparison.first else 0
    start = sample - sample % size
    inputs = encoded(work.metadata, stimulus[start : start + size])
    a, b = work.mine.run(inputs), runner.run(inputs)
    return replace(
        shown,
        sample=sample,
        simulators=(work.mine.name, runner.name),
        rasters=rasters(a, b, sample - start),
        kernel=_kernel(left, right, b, verdict.precision),
    )


def described(left: Subject, right: Subject) -> Illustration:
    """What is to be seen of two sides that were not run."""
    return Illustration(left.name, right.name, graphs=_graphs(left, right))


def _kernel(left: Subject, right: Subject, run: Trace, precision: Precision) -> Kernel | None:
    """TWO's weights of the left side and what the right side makes of them."""
    wanted, there = left.metadata.readout, right.metadata.readout
    if wanted is None:
        return None
    fold = there.fold if there else "none"
    if there and isinstance(right.content, Deployment):
        realized = _answers(right.content, there, precision)
        return kernel(wanted.weights, realized, fold, "pulses")
    measured = kernel_of_run(run)
    return None if measured is None else kernel(wanted.weights, measured, fold, "currents")


def _answers(deployment: Deployment, readout: Readout, precision: Precision) -> FloatArray:
    """The scores (T, C) that the readout alone makes of one pulse at each step."""
    steps = deployment.timing.steps
    pulses = np.zeros((steps, steps, *plan(deployment.graph).shapes[readout.source]))
    pulses[np.arange(steps), np.arange(steps)] = 1
    return decode(deployment, pulses, precision).reshape(steps, -1)


def _graphs(left: Subject, right: Subject) -> tuple[tuple[str, str], ...]:
    """Drawings of the sides that have a graph."""
    drawn = []
    for name, side in (("left", left), ("right", right)):
        if isinstance(side.content, Deployment) and len(side.content.graph.nodes) < LARGEST_DRAWING:
            drawn.append((name, draw(side.content, f"graph-{name}")))
    return tuple(drawn)
