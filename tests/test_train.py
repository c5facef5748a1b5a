"""Training: what is trained, exact resume, several processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from msg_deploy.data import DataOptions, Dataset, load_dataset
from msg_deploy.errors import FileError, UsageError
from msg_deploy.networks import SpikingNetwork, encode
from msg_deploy.train import Epoch, TrainingOptions, evaluate, firing_rates, train
from msg_deploy.zoo import build

STEPS = 4


@pytest.fixture(scope="module")
def data() -> Dataset:
    """300 digits."""
    return load_dataset("digits", DataOptions(limit=300))


def fresh(name: str = "convnet", **options: Any) -> SpikingNetwork:
    torch.manual_seed(3)
    options = options or ({"channels": (4, 4)} if name == "convnet" else {"hidden": (16,)})
    return build(name, load_dataset("digits").input, 10, STEPS, **options)


def assert_equal(a: SpikingNetwork, b: SpikingNetwork) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


HARD = {
    "weight": TrainingOptions(epochs=4, mask_probability=0.4, validation=0.2),
    "surrogate": TrainingOptions(epochs=4, mask_where="surrogate", clip_norm=1.0, loss="tet"),
    "augmented": TrainingOptions(epochs=4, augment="flip", autocast=True),
}


@pytest.mark.parametrize("options", HARD.values(), ids=HARD)
def test_resumed_training_ends_as_uninterrupted_training(
    options: TrainingOptions, data: Dataset, tmp_path: Path
) -> None:
    if options.augment != "none":
        pytest.importorskip("kornia", reason="Kornia is not installed")
    whole = fresh()
    train(whole, data, options)

    class StopError(Exception):
        pass

    def stop(epoch: Epoch) -> None:
        if epoch.number == 3:
            raise StopError

    state = tmp_path / "state"
    with pytest.raises(StopError):
        train(fresh(), data, options, stop, state)
    torch.manual_seed(99)
    resumed = build("convnet", data.input, 10, STEPS, channels=(4, 4))
    numbers: list[int] = []
    train(resumed, data, options, lambda e: numbers.append(e.number), state, resume=True)
    assert numbers == [3, 4]
    assert_equal(whole, resumed)


def test_resume_refuses_other_options_and_other_files(data: Dataset, tmp_path: Path) -> None:
    state = tmp_path / "state"
    train(fresh("mlp"), data, TrainingOptions(epochs=1), state=state)
    with pytest.raises(UsageError, match="epochs was 1, is 2"):
        train(fresh("mlp"), data, TrainingOptions(epochs=2), state=state, resume=True)
    state.write_bytes(b"no state")
    with pytest.raises(FileError, match="not the state of a training"):
        train(fresh("mlp"), data, TrainingOptions(epochs=2), state=state, resume=True)


def test_early_stop(data: Dataset) -> None:
    epochs: list[Epoch] = []
    # With a tiny learning rate the accuracy hardly moves.
    options = TrainingOptions(epochs=50, learning_rate=1e-9, validation=0.3, patience=2)
    train(fresh("mlp"), data, options, epochs.append)
    assert len(epochs) == 3
    assert all(e.validation is not None and 0 <= e.validation <= 1 for e in epochs)


def test_losses_by_hand(data: Dataset) -> None:
    for loss in ("two", "tet"):
        network = fresh("mlp")
        epochs: list[Epoch] = []
        options = TrainingOptions(epochs=1, batch_size=300, loss=loss, mask_probability=0)
        twin = fresh("mlp")
        train(network, data, options, epochs.append)
        labels = torch.from_numpy(data.train.labels)
        inputs = encode(torch.from_numpy(data.train.samples), twin.input_spec, STEPS)
        currents = twin.currents(inputs).unflatten(0, (STEPS, -1))
        if loss == "two":
            expected = nn.functional.cross_entropy(currents.mean(0), labels)
        else:
            each = [nn.functional.cross_entropy(c, labels) for c in currents]
            expected = torch.stack(each).mean()
        assert epochs[0].loss == pytest.approx(expected.item(), rel=1e-5)


def test_two_is_the_plain_mean_without_updates(data: Dataset) -> None:
    network = fresh("mlp")
    train(network, data, TrainingOptions(epochs=2, update_two=False))
    assert torch.equal(network.readout.weights, torch.full((STEPS,), 1 / STEPS))
    accuracy = evaluate(network, data.test)
    assert accuracy.two == accuracy.mean


def test_clipping_bounds_the_gradient(data: Dataset) -> None:
    network = fresh("mlp")
    norms: list[float] = []
    original = torch.optim.AdamW.step

    def step(self: Any, *rest: Any) -> Any:
        squares = [p.grad.square().sum() for p in network.parameters() if p.grad is not None]
        norms.append(float(torch.stack(squares).sum().sqrt()))
        return original(self, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        train(network, data, TrainingOptions(epochs=1, clip_norm=0.01, mask_probability=0))
    assert max(norms) <= 0.01 + 1e-6


def test_firing_rates_by_hand() -> None:
    network = fresh("mlp").eval()
    inputs = torch.rand(STEPS, 7, 1, 8, 8)
    with firing_rates(network) as rates, torch.no_grad():
        network(inputs)
        spikes = network.body.get_submodule("lif1")(
            network.body.get_submodule("fc1")(inputs.flatten(0, 1).flatten(1))
        )
        assert rates() == {"lif1": pytest.approx(float(spikes.mean()))}
    assert network.body.get_submodule("lif1").observer is None


def test_membranes_stay_in_float32_under_autocast(data: Dataset) -> None:
    network = fresh("mlp")
    seen = set()
    network.body.get_submodule("lif1").register_forward_hook(
        lambda layer, given, result: seen.add((given[0].dtype, result.dtype))
    )
    train(network, data, TrainingOptions(epochs=1, autocast=True))
    assert seen == {(torch.bfloat16, torch.float32)}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"clip_norm": -1.0}, "clip_norm must be above 0"),
        ({"loss": "mse"}, "loss must be one of two, tet"),
        ({"patience": 3}, "patience needs validation samples"),
        ({"validation": 1.0}, "validation must be in"),
        ({"augment": "mixup"}, "augment must be one of"),
    ],
)
def test_refused_options(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TrainingOptions(**values)


@pytest.mark.parametrize("name", ["flip", "auto"])
def test_augmentation_varies_all_timesteps_alike(name: Any) -> None:
    pytest.importorskip("kornia", reason="Kornia is not installed")
    from msg_deploy.augment import augmentation
    from msg_deploy.deployment import InputSpec

    torch.manual_seed(0)
    if name == "auto":
        samples = torch.rand(6, 3, 16, 16)
        varied = augmentation(name, InputSpec((3, 16, 16)))(samples)
    else:
        samples = torch.rand(6, 1, 2, 16, 16).repeat(1, 5, 1, 1, 1)
        varied = augmentation(name, InputSpec((2, 16, 16), "frames"))(samples)
        assert all(torch.equal(varied[:, 0], varied[:, t]) for t in range(5))
    assert varied.shape == samples.shape
    assert not torch.equal(varied, samples)


PROCESS = """
import sys, torch
from msg_deploy import processes
from msg_deploy.train import TrainingOptions, train
from tests.test_train import fresh
from msg_deploy.data import load_dataset
with processes.group():
    network = fresh("mlp")
    data = load_dataset("digits")
    options = TrainingOptions(epochs=2, batch_size=65, learning_rate=1e-3)
    epochs = []
    train(network, data, options, epochs.append)
    if processes.rank() == 0:
        state = network.state_dict()
        torch.save([processes.count(), epochs[-1].loss, epochs[-1].accuracy, state], sys.argv[1])
"""


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROCESS)
    root = Path(__file__).resolve().parents[1]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    results = {}
    for count in (1, 2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks = [
            subprocess.Popen(
                [sys.executable, script, tmp_path / f"{count}.pt"],
                env=environment
                | {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank)}
                | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            )
            for rank in range(count)
        ]
        assert [process.wait(timeout=300) for process in ranks] == [0] * count
        results[count] = torch.load(tmp_path / f"{count}.pt", weights_only=True)  # noqa: TID251
    (_, loss_1, accuracy_1, one), (processes, loss_2, accuracy_2, two) = results[1], results[2]
    assert processes == 2
    # The same sums in another order; a spike may tip over, so that the tail is not bit-identical.
    assert loss_1 == pytest.approx(loss_2, rel=1e-3)
    assert accuracy_1 == pytest.approx(accuracy_2, abs=5e-3)
    assert np.allclose(one["readout.weights"], two["readout.weights"], atol=1e-3)
    for name, value in one.items():
        assert np.allclose(value, two[name], atol=2e-2), name


@pytest.mark.parametrize("validation", [0.001, 0.999])
def test_validation_leaves_samples_on_both_sides(data: Dataset, validation: float) -> None:
    with pytest.raises(UsageError, match="choose a share that leaves some on both sides"):
        train(fresh("mlp"), data, TrainingOptions(epochs=1, validation=validation))


@pytest.mark.parametrize("other", ["tau", "hidden", "data"])
def test_resume_refuses_another_network_and_other_data(
    data: Dataset, tmp_path: Path, other: str
) -> None:
    state, options = tmp_path / "state", TrainingOptions(epochs=1)
    train(fresh("mlp"), data, options, state=state)
    values: dict[str, dict[str, Any]] = {
        "tau": {"hidden": (16,), "tau": 3.0},
        "hidden": {"hidden": (17,)},
        "data": {"hidden": (16,)},
    }
    if other == "data":
        data = load_dataset("digits", DataOptions(limit=200))
    with pytest.raises(
        UsageError, match=f"another training: {'data' if other == 'data' else 'mo'}"
    ):
        train(fresh("mlp", **values[other]), data, options, state=state, resume=True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"dt": 0.0}, "timing: dt"),
        ({"steps": 2_000_000}, "timing: steps"),
        ({"hidden": (-5,)}, "model 'mlp': "),
    ],
)
def test_networks_that_cannot_be(given: dict[str, Any], words: str) -> None:
    spec = load_dataset("digits").input
    arguments: dict[str, Any] = {"steps": STEPS, "hidden": (4,)} | given
    with pytest.raises(UsageError, match=words):
        build("mlp", spec, 10, **arguments)
