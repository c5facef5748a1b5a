"""The streaming example: Python, Node.js and a browser decide after each window as torch does."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from msg_deploy import InputSpec, SpikingNetwork, api, build
from msg_deploy.data.framing import frames
from msg_deploy.data.recordings import Recording, read_recording
from msg_deploy.exporters.onnx.build import OnnxOptions
from tests.conftest import SHARED
from tests.recordings import bin_bytes

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "streaming"
STEPS, WINDOW, SIZE = 6, 20_000, (34, 34)
CHROMIUM = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--virtual-time-budget=30000",
]
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def network() -> SpikingNetwork:
    """Untrained, but all its layers fire on counts of events."""
    torch.manual_seed(0)
    made = build("convnet", InputSpec((2, *SIZE), "frames", 0, 8), 10, STEPS).train()
    nn.init.uniform_(made.readout.weights, 0.05, 0.4)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 0.5)
    with torch.no_grad():
        for _ in range(20):
            made(torch.rand(4, STEPS, 2, *SIZE))
    return made.eval()


@pytest.fixture(scope="module")
def folder(network: SpikingNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example beside a model and a recording."""
    place = tmp_path_factory.mktemp("streaming")
    shutil.copytree(EXAMPLE, place, dirs_exist_ok=True)
    api.export_onnx(network, place / "step.onnx", OnnxOptions(layout="step"))
    random = np.random.default_rng(0)
    count = 3000
    t = np.sort(random.integers(0, STEPS * WINDOW - 5000, count))
    x, y = (random.integers(0, 34, count) for _ in range(2))
    found = Recording(t, x, y, random.integers(0, 2, count))
    (place / "recording.bin").write_bytes(bin_bytes(found))
    return place


def assert_as_torch(rows: Rows, network: SpikingNetwork, recording: Path) -> None:
    """Scores so far and decision after each step, from the trained module itself."""
    counted = frames(read_recording(recording), STEPS, SIZE, SIZE, "time", WINDOW)
    assert [row["events"] for row in rows] == counted.sum(axis=(1, 2, 3)).tolist()[: len(rows)]
    with torch.no_grad():
        currents = network.currents(torch.from_numpy(counted[:, None]).float())
    so_far = (network.readout.weights.detach()[:, None] * currents).cumsum(0).numpy()[: len(rows)]
    assert len({tuple(np.round(s, 3)) for s in so_far}) == len(rows)
    np.testing.assert_allclose([row["scores"] for row in rows], so_far, rtol=1e-4, atol=1e-4)
    assert [row["decision"] for row in rows] == so_far.argmax(axis=1).tolist()


def python(folder: Path, recording: Path) -> Rows:
    command = [sys.executable, "stream.py", "step.onnx", recording, "--window", str(WINDOW)]
    shown = subprocess.run(
        [*command, "--json"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    return [json.loads(line) for line in shown.splitlines()]


def test_python(folder: Path, network: SpikingNetwork) -> None:
    recording = folder / "recording.bin"
    rows = python(folder, recording)
    assert len(rows) == STEPS
    assert_as_torch(rows, network, recording)


def test_a_real_recording(folder: Path, network: SpikingNetwork) -> None:
    recordings = sorted((SHARED / "nmnist_small" / "raw").glob("*.bs2"))
    if not recordings:
        pytest.skip("the N-MNIST recordings are not here")
    assert_as_torch(python(folder, recordings[0]), network, recordings[0])


def test_text_for_people(folder: Path) -> None:
    command = [sys.executable, "stream.py", "step.onnx", "recording.bin"]
    shown = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"step 0: \d+ events, class \d", shown.splitlines()[0])


@pytest.fixture(scope="module")
def installed(folder: Path) -> Path:
    """The same with onnxruntime-web."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("Node.js and npm are not installed")
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if result.returncode:
        pytest.skip(f"npm cannot install onnxruntime-web: {result.stderr[-200:]}")
    return folder


def test_node(installed: Path, network: SpikingNetwork) -> None:
    command = ["node", "stream.mjs", "step.onnx", "recording.bin", str(STEPS), str(WINDOW)]
    shown = subprocess.run(
        command, cwd=installed, capture_output=True, text=True, check=True
    ).stdout
    rows = [json.loads(line) for line in shown.splitlines()]
    assert len(rows) == STEPS
    assert_as_torch(rows, network, installed / "recording.bin")


@pytest.fixture
def address(installed: Path) -> Iterator[str]:
    """Serves the example on this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(installed))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_browser(address: str, network: SpikingNetwork, installed: Path, tmp_path: Path) -> None:
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not browser:
        pytest.skip("Chromium is not installed")
    query = f"model=step.onnx&recording=recording.bin&steps={STEPS}&length={WINDOW}"
    command = [browser, *CHROMIUM, f"--user-data-dir={tmp_path}", "--dump-dom"]
    page = subprocess.run(
        [*command, f"{address}/index.html?{query}"], capture_output=True, text=True, timeout=120
    ).stdout
    found = re.search(r'<pre id="json"[^>]*>(.+?)</pre>', page)
    assert found, page[-2000:]
    rows = json.loads(found[1])
    assert len(rows) == STEPS
    assert_as_torch(rows, network, installed / "recording.bin")
