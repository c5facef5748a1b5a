"""Config files, logs, interruption and resumption of `msg-deploy train`."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from msg_deploy import checkpoint
from msg_deploy.config import Config, read_config, resolve
from msg_deploy.errors import FileError, UsageError
from msg_deploy.logs import csv_log, tensorboard_log
from msg_deploy.train import Epoch

PROGRAM = Path(sys.executable).parent / "msg-deploy"

TOML = """
[model]
name = "mlp"
steps = 3
options = { hidden = [12] }
[neuron]
tau = inf
[training]
epochs = 2
mask_probability = 0.4
"""
YAML = """
model: {name: mlp, steps: 3, options: {hidden: [12]}}
neuron: {tau: .inf}
training: {epochs: 2, mask_probability: 0.4}
"""


def train(cwd: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, "train", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_defaults_and_layers() -> None:
    assert resolve() == Config()
    config = resolve({"training": {"epochs": 3, "seed": 5}}, {"training": {"epochs": 4}})
    assert (config.training.epochs, config.training.seed) == (4, 5)


@pytest.mark.parametrize(("name", "text"), [("run.toml", TOML), ("run.yaml", YAML)])
def test_both_formats_say_the_same(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    config = resolve(read_config(path))
    assert config.model.options == {"hidden": [12]}
    assert config.neuron.tau == float("inf")
    assert config.training.mask_probability == 0.4


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.toml", "[model", "not well-formed"),
        ("a.yaml", "a: [", "not well-formed"),
        ("a.yaml", "!!python/object/apply:os.mkdir [ran]", "not well-formed"),
        ("a.yaml", "7", "must hold sections"),
        ("a.json", "{}", "unknown kind"),
        ("a.yaml", "{1: {}, b: {}}", r"a\.yaml: unknown section 1"),
        ("a.yaml", "model: {1: 2}", r"a\.yaml: model\.1 is not known"),
        ("a.toml", "model = 3", r"a\.toml: section 'model' must hold values"),
    ],
)
def test_refused_files(name: str, text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(FileError, match=words):
        read_config(path)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"models": {}}, "unknown section 'models'"),
        ({"model": {"nme": "mlp"}}, "model.nme is not known"),
        ({"model": {"steps": "many"}}, "steps"),
        ({"model": 3}, "must hold values"),
        ({"training": {"epochs": 0}}, "epochs must be at least 1"),
        ({"neuron": {"reset": "soft"}}, "reset"),
    ],
)
def test_refused_values(sections: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve(sections)


def test_the_checkpoint_keeps_the_resolved_config(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(TOML)
    result = train(tmp_path, "--config", "run.toml", "--epochs", 1, "--log", "log.csv")
    assert result.returncode == 0, result
    training = checkpoint.read_metadata(tmp_path / "model.pt").training
    assert training["training"]["epochs"] == 1
    assert training["training"]["mask_probability"] == 0.4
    assert training["model"]["options"] == {"hidden": [12]}
    (row,) = csv.DictReader((tmp_path / "log.csv").read_text().splitlines())
    assert set(row) == {"epoch", "loss", "accuracy", "seconds", "firing_rate/lif1"}
    assert 0 < float(row["firing_rate/lif1"]) < 1
    assert not (tmp_path / "model.pt.resume").exists()


def test_interrupted_and_resumed(tmp_path: Path) -> None:
    arguments = ["--epochs", "300", "--batch-size", "1437", "--steps", "2"]
    process = subprocess.Popen(
        [PROGRAM, "train", *arguments],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # A shell starts background jobs, such as this suite may be, with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    state = tmp_path / "model.pt.resume"
    while not state.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted: model.pt is that of the last whole epoch; --resume goes on" in errors
    assert "Traceback" not in errors
    checkpoint.load(tmp_path / "model.pt")
    refused = train(tmp_path, *arguments[:1], 2, *arguments[2:], "--resume")
    assert refused.returncode == 2
    assert "another training" in refused.stderr
    resumed = train(tmp_path, *arguments, "--resume", "--log", "rest.csv")
    assert resumed.returncode == 0, resumed
    rows = list(csv.DictReader((tmp_path / "rest.csv").read_text().splitlines()))
    assert float(rows[-1]["epoch"]) == 300
    assert len(rows) < 300
    assert not state.exists()


def test_torchrun(tmp_path: Path) -> None:
    torchrun = Path(sys.executable).parent / "torchrun"
    command = [torchrun, "--nproc-per-node", "2", "--no-python", PROGRAM, "train", "--epochs", "1"]
    result = subprocess.run(
        [*command, "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result
    assert result.stdout.count("accuracy_two") == 1
    checkpoint.load(tmp_path / "model.pt")


def test_csv_log_goes_on_or_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    for append, numbers in ((False, (1, 2)), (True, (3,)), (False, (1,))):
        log = csv_log(path, append)
        for number in numbers:
            log(Epoch(number, 0.5, 0.25, firing_rates={"lif": 0.1}))
    assert path.read_text().splitlines() == [
        "epoch,loss,accuracy,seconds,firing_rate/lif",
        "1.0,0.5,0.25,0.0,0.1",
    ]


def test_tensorboard_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tensorboard_log(tmp_path) as log:
        log(Epoch(1, 0.5, 0.25, validation=0.125))
        log(Epoch(2, 0.25, 0.5, validation=0.25))
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [e.value for e in events.Scalars("validation")] == [0.125, 0.25]
    assert [e.step for e in events.Scalars("loss")] == [1, 2]


def test_tensorboard_log_in_a_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FileError, match=r"file: cannot be written"),
        tensorboard_log(tmp_path / "file"),
    ):
        pass
