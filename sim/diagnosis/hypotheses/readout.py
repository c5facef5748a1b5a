"""Mistakes in the readout: the TWO weights f."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from msg_deploy.deployment import OUTPUT, Readout
from msg_deploy.sim.diagnosis.hypotheses import Change, Setting, Variant, hypothesis
from msg_deploy.sim.diagnosis.segments import Segment

Weights = npt.NDArray[np.floating[Any]]


@hypothesis(cost=1)
def two_weights(setting: Setting) -> Iterator[Change]:
    """TWO's weights are reversed, uniform, missing, or shifted by a step."""
    f = _weights(setting.segment)
    if f is None:
        return
    steps = len(f)
    last = np.eye(steps)[-1]
    others = {
        "are in reverse order": f[::-1],
        "are uniform, 1/T": np.full(steps, 1 / steps),
        "are missing: currents are added up": np.ones(steps),
        "are uniform, their mean": np.full(steps, f.mean()),
        "come one step late": np.concatenate([[0.0], f[:-1]]),
        "come one step early": np.concatenate([f[1:], [0.0]]),
        "are turned by a step": np.roll(f, 1),
        "are turned back by a step": np.roll(f, -1),
        "are missing: only the last step counts": last,
        "count at the last step only": last * f,
        "are divided by T": f / steps,
        "are multiplied by T": f * steps,
        "are normalised to a sum of 1": f / f.sum() if f.sum() else f,
    }
    for text, weights in others.items():
        if not np.array_equal(weights, f):
            yield Variant(OUTPUT, f"the TWO weights {text}", _with(setting.segment, weights))


@hypothesis(cost=4)
def two_values(setting: Setting) -> Iterator[Change]:
    """TWO's weights have other values, which follow from currents and scores."""
    f = _weights(setting.segment)
    evidence = setting.evidence
    received = list(evidence.received.values())
    if f is None or len(received) != 1 or received[0].shape[1:] != evidence.given.shape:
        return
    currents = received[0].astype(np.float64).reshape(len(f), -1)
    found = np.linalg.lstsq(currents.T, evidence.given.astype(np.float64).ravel(), rcond=None)[0]
    listed = " ".join(f"{x:.4g}" for x in found)
    yield Variant(OUTPUT, f"the TWO weights are {listed}", _with(setting.segment, found))


def _weights(segment: Segment) -> Weights | None:
    readout = segment.deployment.readout
    if segment.quantity != "score":
        return None
    if readout is None:
        return np.ones(segment.deployment.timing.steps)
    return np.array(readout.weights)


def _with(segment: Segment, weights: Weights) -> Segment:
    deployment = segment.deployment
    own = deployment.readout or Readout(tuple(weights), OUTPUT)
    readout = replace(own, weights=tuple(float(f) for f in weights))
    return replace(segment, deployment=replace(deployment, readout=readout))
