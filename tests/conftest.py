"""Fixtures shared by the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from msg_deploy import checkpoint
from msg_deploy.data import load_dataset
from msg_deploy.deployment import Provenance
from msg_deploy.networks import SpikingNetwork
from msg_deploy.train import TrainingOptions, train
from msg_deploy.zoo import build

SLOW = (
    "test_docs",
    "test_mutations",
    "test_hardening",
    "test_config",
    "test_examples",
    "test_shards",
    "test_interop",
    "test_scripts",
    "test_chip_networks",
)
"""Modules whose tests run commands, train, or count everything: `make quick` leaves them out, and
single tests that are marked as slow."""
APART = "test_docs"
"""Its tests share nothing, so that several processes may have some each."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow modules first, so that none is left for the end; a module stays together."""
    for item in items:
        module = item.path.stem
        if module in SLOW:
            item.add_marker("slow")
        item.add_marker(pytest.mark.xdist_group(item.nodeid if module == APART else module))
    items.sort(key=lambda item: SLOW.index(item.path.stem) if item.path.stem in SLOW else len(SLOW))


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def paper_lif() -> Path:
    """The NIR paper's single LIF neuron: a graph and what other simulators made of it."""
    folder = SHARED / "nir_paper" / "01_lif"
    if not folder.is_dir():
        pytest.skip(f"the reference data {folder} are not here")
    return folder


@pytest.fixture(scope="session")
def trained() -> SpikingNetwork:
    """A small MLP, trained for a moment on the digits."""
    data = load_dataset("digits")
    torch.manual_seed(0)
    provenance = Provenance(data=data.name, classes=data.classes)
    network = build("mlp", data.input, 10, 6, provenance=provenance, hidden=(48, 32))
    train(network, data, TrainingOptions(epochs=4))
    return network


@pytest.fixture(scope="session")
def trained_file(trained: SpikingNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint; tests must not change it."""
    path = tmp_path_factory.mktemp("trained") / "model.pt"
    checkpoint.save(trained, path)
    return path
