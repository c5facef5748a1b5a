"""Random samples: on a grid on which integers compute without rounding, or any numbers at all."""

from __future__ import annotations

from dataclasses import replace

import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msg_deploy import api
from msg_deploy.deployment import Deployment
from msg_deploy.errors import UsageError
from msg_deploy.exporters.trace import trace
from msg_deploy.options import Encoding
from msg_deploy.sim.verdict import Kind
from msg_deploy.stimulus import grid_step, noise
from tests.helpers import chain, lif, random_network


def within(low: float, high: float, encoding: Encoding = "direct") -> Deployment:
    deployment = trace(random_network(hidden=(4,)))
    return replace(
        deployment, input=replace(deployment.input, low=low, high=high, encoding=encoding)
    )


@pytest.mark.parametrize(
    ("low", "high", "step"),
    [(0, 1, 2**-8), (-1, 1, 2**-7), (0, 255, 0.5), (-0.4242, 2.8215, 2**-7)],
)
def test_a_grid_of_at_least_256_steps(low: float, high: float, step: float) -> None:
    assert grid_step(low, high) == step
    found = noise(within(low, high), 40, 0)[:]
    assert found.dtype == np.float32
    assert np.all(found / step == np.rint(found / step))
    assert low <= found.min() <= low + 2 * step
    assert high - 2 * step <= found.max() <= high
    assert len(np.unique(found)) > 200


@given(
    st.floats(-1e6, 1e6, width=32), st.floats(0, 1e6, width=32), st.booleans(), st.integers(0, 99)
)
def test_samples_are_within_the_range(low: float, width: float, fine: bool, seed: int) -> None:
    model = chain(lif(), inputs=(3,), outputs=(3,), steps=1)
    spec = replace(model.input, low=low, high=low + width)
    found = noise(replace(model, input=spec), 5, seed, fine)[:]
    assert np.all((found >= np.float32(low)) & (found <= np.float32(low + width)))


def test_any_float32_numbers() -> None:
    found = noise(within(0, 1), 4, 0, fine=True)[:]
    assert np.all(found * 2**8 != np.rint(found * 2**8))
    assert noise(within(0, 1), 4, 0).identity() != noise(within(0, 1), 4, 0, fine=True).identity()


def test_frames_and_ranges_without_a_grid() -> None:
    assert noise(within(0, 1, "frames"), 3, 0)[:].shape == (3, 5, 1, 8, 8)
    assert np.all(noise(within(2, 2), 3, 0)[:] == 2)
    narrow = noise(within(1e6, 1e6 + 1e-3), 3, 0)[:]
    assert np.all(np.abs(narrow - 1e6) < 1)


def integers() -> Deployment:
    """Weights of 8 bits, thresholds off their grid, time constants of 2 and 4 steps."""
    random = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return random.integers(-127, 128, shape) * 2.0**-7

    return chain(
        nir.Affine(weights(32, 16), weights(32)), lif((32,), v_threshold=0.5 + 2**-16),
        nir.Affine(weights(8, 32), weights(8)), lif((8,), tau=4e-3, v_threshold=0.25 + 2**-16),
        inputs=(16,), outputs=(8,), dt=1e-3, steps=6,
    )  # fmt: skip


def test_integers_are_proven_in_float32_without_further_ado() -> None:
    verdict = api.check(integers(), integers(), precision="float32")
    assert verdict.kind is Kind.PROVEN
    bounds = [layer.bound for layer in verdict.comparisons[0].layers]
    assert all(bound is not None and bound < 1e-6 for bound in bounds)
    assert verdict.comparisons[0].samples == 64


def test_float32_samples_are_added() -> None:
    verdict = api.check(integers(), integers(), random=3, random_float=5, precision="float32")
    assert verdict.comparisons[0].samples == 8
    with pytest.raises(UsageError, match="random_float must not be negative"):
        api.check(integers(), integers(), random_float=-1)
