"""The search finds decisions at the edge where random inputs find none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
import torch

from msg_deploy import api
from msg_deploy.deployment import Deployment, InputSpec
from msg_deploy.errors import UsageError
from msg_deploy.exporters.trace import trace
from msg_deploy.networks import encode
from msg_deploy.options import Precision
from msg_deploy.sim.adversarial import search
from msg_deploy.sim.certificate import certify
from msg_deploy.sim.verdict import Kind
from tests.helpers import chain, lif, random_network, samples


def uncertified(deployment: Deployment, stimulus: np.ndarray, precision: Precision) -> np.ndarray:
    """How many decisions of each sample rounding can change."""
    inputs = encode(torch.from_numpy(stimulus), deployment.input, deployment.timing.steps).numpy()
    found = certify(deployment, inputs, precision).certified.values()
    return sum(np.moveaxis(~c, 1, 0).reshape(len(stimulus), -1).sum(axis=1) for c in found)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_random_inputs_find_none_and_the_search_does(name: str, precision: Precision) -> None:
    """In float64 margins cannot be as small as the bound, since inputs are float32."""
    deployment = trace(random_network(name))
    assert uncertified(deployment, samples(8, seed=2), precision).sum() == 0
    found = search(deployment, 8, precision)
    assert found.shape == (8, 1, 8, 8)
    assert found.dtype == np.float32
    assert 0 <= found.min() <= found.max() <= 1
    if precision == "float32":
        assert uncertified(deployment, found, precision).min() >= 1
    assert np.array_equal(found, search(deployment, 8, precision))


def test_frames_and_other_ranges() -> None:
    random = np.random.default_rng(0)
    deployment = chain(
        nir.Affine(random.normal(0.1, 0.6, (16, 8)), random.normal(size=16)), lif((16,)),
        inputs=(8,), outputs=(16,), dt=1e-3, steps=4,
    )  # fmt: skip
    deployment = replace(deployment, input=InputSpec((8,), "frames", -0.7, 0.1))
    found = search(deployment, 5)
    assert found.shape == (5, 4, 8)
    assert -0.7 <= found.min() <= found.max() <= 0.1
    assert uncertified(deployment, found, "float32").min() >= 1


def test_nothing_to_find() -> None:
    """A decision that no input changes, and arithmetic without errors."""
    deployment = chain(nir.Linear(np.eye(2)), lif((2,), v_threshold=9), inputs=(2,), outputs=(2,))
    assert search(deployment, 3).shape == (3, 8, 2)
    assert search(deployment, 0).shape == (0, 8, 2)


def test_a_check_runs_them(trained_file: Path) -> None:
    kwargs = {"samples": 0, "random": 4, "precision": "float32"}
    plain = api.check(trained_file, trained_file, **kwargs)
    assert plain.kind is Kind.PROVEN
    attacked = api.check(trained_file, trained_file, adversarial=6, **kwargs)
    assert attacked.comparisons[0].samples == 10
    assert attacked.kind is Kind.IDENTICAL
    assert attacked.uncertified is not None
    assert attacked.uncertified >= 6
    with pytest.raises(UsageError, match="adversarial must not be negative"):
        api.check(trained_file, trained_file, adversarial=-1, **kwargs)
