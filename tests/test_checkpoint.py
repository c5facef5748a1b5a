from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from msg_deploy import checkpoint
from msg_deploy.deployment import InputSpec, Provenance
from msg_deploy.errors import FileError
from msg_deploy.networks import SpikingNetwork
from msg_deploy.neuron import LIF
from msg_deploy.readout import TWO
from tests.helpers import random_network, samples


def edit(path: Path, **changes: Any) -> None:
    content = torch.load(path, weights_only=True)  # noqa: TID251
    metadata = json.loads(content["msg_deploy"])
    content["state"] |= changes.pop("state", {})
    content["msg_deploy"] = json.dumps(metadata | changes)
    torch.save(content, path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    checkpoint.save(random_network("convnet"), path)
    return path


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_round_trip(name: str, tmp_path: Path) -> None:
    network = random_network(name, tau=float("inf"), reset="subtract")
    network.provenance = Provenance(data="digits", classes=("a", "b"))
    path = tmp_path / "model.pt"
    checkpoint.save(network, path, training={"epochs": 3})
    loaded = checkpoint.load(path)
    x = torch.from_numpy(samples(4)).expand(5, 4, 1, 8, 8)
    assert torch.equal(loaded(x), network(x))
    assert loaded.timing == network.timing
    assert loaded.provenance.classes == ("a", "b")
    metadata = checkpoint.read_metadata(path)
    assert metadata.training == {"epochs": 3}
    assert metadata.input == network.input_spec
    assert metadata.provenance.versions["torch"].startswith("2.")


def test_two_weights_are_kept(saved: Path) -> None:
    assert torch.equal(
        checkpoint.load(saved).readout.weights, random_network("convnet").readout.weights
    )


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), LIF(2), nn.Linear(4, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_custom_module_needs_its_body(tmp_path: Path) -> None:
    network = SpikingNetwork(Custom(), TWO(2), InputSpec((3,))).eval()
    path = tmp_path / "model.pt"
    checkpoint.save(network, path)
    with pytest.raises(FileError, match=r"custom module 'Custom'.*body="):
        checkpoint.load(path)
    x = torch.rand(2, 5, 3)
    assert torch.equal(checkpoint.load(path, body=Custom())(x), network(x))


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def test_a_pickle_of_code_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"msg_deploy": "{}", "state": Bomb()}, "new.pt")
    with pytest.raises(FileError, match=r"new\.pt: holds a pickle of Python objects"):
        checkpoint.load("new.pt")
    Path("old.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FileError, match=r"old\.pt: is not a whole torch checkpoint"):
        checkpoint.load("old.pt")
    assert not Path("ran").exists()


def test_every_truncation_is_refused(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    part = tmp_path / "part.pt"
    for length in [0, 1, 100, len(whole) // 2, len(whole) - 1]:
        part.write_bytes(whole[:length])
        with pytest.raises(FileError, match=r"part\.pt"):
            checkpoint.load(part)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no such file"):
        checkpoint.load(tmp_path / "none.pt")


def test_somebody_elses_checkpoint(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(FileError, match="not a checkpoint of msg-deploy"):
        checkpoint.load(tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"state": {"body.fc.bias": torch.full((10,), float("nan"))}}, r"body\.fc\.bias: 10 of 10"),
        ({"state": {"body.fc.bias": torch.zeros(11)}}, "does not fit the architecture"),
        ({"state": {"extra": torch.zeros(1)}}, "does not fit the architecture"),
        ({"state": {"readout.beta": 3}}, r"state\.readout\.beta: must be a tensor"),
        ({"architecture": {"type": "Exec", "arguments": {}}}, "unknown layer 'Exec'"),
        ({"architecture": {"type": "Linear", "arguments": {"device": "x"}}}, "no argument 'dev"),
        ({"architecture": {}}, "not a description of layers"),
        ({"timing": {"dt": -1, "steps": 5, "reset": "zero"}}, r"timing\.dt: .*greater than 0"),
        ({"timing": {"dt": 1, "steps": 5, "reset": "soft"}}, r"timing\.reset"),
        ({"timing": {"dt": 1, "steps": 6, "reset": "zero"}}, "does not fit|timing"),
        ({"surprise": 1}, "surprise"),
        ({"format": 2}, "format"),
    ],
)
def test_wrong_content(saved: Path, changes: dict[str, Any], problem: str) -> None:
    edit(saved, **changes)
    with pytest.raises(FileError, match=problem):
        checkpoint.load(saved)


def test_claimed_sizes_are_not_allocated(saved: Path) -> None:
    huge = {"type": "Linear", "arguments": {"in_features": 10**9, "out_features": 10**9}}
    edit(saved, architecture=huge)
    with pytest.raises(FileError, match="does not fit"):
        checkpoint.load(saved)
