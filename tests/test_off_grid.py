"""Thresholds that membranes could hit exactly."""

from __future__ import annotations

import nir
import numpy as np
import pytest

from msg_deploy.deployment import Deployment
from msg_deploy.exporters.dialects.off_grid import UP, off_grid
from msg_deploy.graph import plan
from tests.helpers import chain, lif

TWO, NONE = np.array([2, 2]), np.array([0, 0])
SCALE = 0.7 / 127
"""A step of int8 weights, no power of two."""


def moved(deployment: Deployment, name: str, threshold: float) -> bool:
    found = off_grid(np.array([threshold]), deployment.graph, plan(deployment.graph), name)
    assert found[0] in (threshold, threshold * UP)
    return bool(found[0] > threshold)


def matrix(step: float) -> nir.Affine:
    return nir.Affine(step * np.array([[127.0, -3.0], [5.0, 64.0]]), step * np.array([2.0, 0.0]))


@pytest.mark.parametrize("step", [1 / 8, SCALE])
@pytest.mark.parametrize(
    ("steps", "expected"), [(40, True), (40.5, True), (40 + 1 / 32, False), (40.3, False)]
)
def test_on_the_grid_of_a_matrix(step: float, steps: float, expected: bool) -> None:
    deployment = chain(matrix(step), lif((2,)), inputs=[2], outputs=[2])
    assert moved(deployment, "n1", steps * step) is expected


def test_weights_rounded_to_float32() -> None:
    node = matrix(SCALE)
    rounded = nir.Affine(node.weight.astype(np.float32), node.bias.astype(np.float32))
    deployment = chain(rounded, lif((2,)), inputs=[2], outputs=[2])
    assert moved(deployment, "n1", 40 * SCALE)
    assert not moved(deployment, "n1", 40.3 * SCALE)


def test_weights_on_no_grid() -> None:
    weight = np.random.default_rng(0).normal(size=(2, 2))
    deployment = chain(nir.Affine(weight, np.zeros(2)), lif((2,)), inputs=[2], outputs=[2])
    assert not moved(deployment, "n1", 1.0)


def test_spikes_that_arrive_as_they_are() -> None:
    deployment = chain(lif((2,)), lif((2,)), inputs=[2], outputs=[2])
    assert moved(deployment, "n1", 3.0)
    assert not moved(deployment, "n1", 0.3)


def test_behind_an_average() -> None:
    """A quarter of a step is on the grid of the mean of four."""
    deployment = chain(
        nir.Conv2d(None, SCALE * np.array([[[[127.0]]]]), 1, 0, 1, 1, np.zeros(1)),
        nir.AvgPool2d(TWO, TWO, NONE),
        nir.Flatten({"input": np.array([1, 2, 2])}, 0, -1),
        lif((4,)),
        inputs=[1, 4, 4],
        outputs=[4],
    )
    assert moved(deployment, "n3", 127 * SCALE * 5.25)
    assert not moved(deployment, "n3", 127 * SCALE * 5.3)


def test_two_branches_share_a_grid() -> None:
    deployment = chain(
        nir.Linear(np.array([[3.0]])),
        nir.Linear(np.array([[2.0]])),
        lif(),
        inputs=[1],
        outputs=[1],
        edges=[("n0", "n2")],
    )
    assert moved(deployment, "n2", 5.0)
    assert not moved(deployment, "n2", 5.01)


def test_a_membrane_that_arrives() -> None:
    ones = np.ones(1)
    deployment = chain(nir.LI(ones, ones, 0 * ones), lif(), inputs=[1], outputs=[1])
    assert not moved(deployment, "n1", 1.0)
