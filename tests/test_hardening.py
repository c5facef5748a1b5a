"""Hostile files within limits of memory; full disks, signals, links, names and places to write."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
import torch

from msg_deploy import checkpoint
from msg_deploy.errors import FileError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.onnx import file as onnx_file
from msg_deploy.exporters.onnx.build import build
from msg_deploy.exporters.trace import trace
from msg_deploy.files import write_bytes, write_text
from tests.fuzz.readers import CORPUS, READERS
from tests.helpers import random_network

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits and signals of POSIX")
ROOT = Path(__file__).resolve().parents[1]
NETWORK = random_network(hidden=(60, 30))
WRITERS: dict[str, Callable[[Path], Any]] = {
    "pt": lambda path: checkpoint.save(NETWORK, path),
    "nir": lambda path: nir_file.write(trace(NETWORK), path),
    "onnx": lambda path: onnx_file.write(build(trace(NETWORK)), path),
    "txt": lambda path: write_text(path, "x" * 100_000),
}


def said(script: str, *arguments: str) -> list[str]:
    """Lines that a script prints, run by a Python of its own, which must succeed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-W", "ignore", "-c", script, *arguments]
    result = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


# --------------------------------------------------------------------------- memory

LIMITED = """
import resource, sys
from pathlib import Path
from msg_deploy.errors import FileError
from tests.fuzz.readers import READERS
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 1024 * 2**20, resource.RLIM_INFINITY))
for place in map(Path, sys.argv[1:]):
    try:
        READERS[place.suffix[1:]](place)
    except FileError as error:
        print("refused", error)
    else:
        print("accepted", place)
"""


def hdf5_bomb(path: Path) -> None:
    """4 GiB of zeros that gzip has packed into a few MB."""
    with h5py.File(path, "w") as file:
        zeros = file.create_dataset(
            "node/weight", (2**29,), "f8", chunks=(2**24,), compression="gzip", compression_opts=9
        )
        zeros[: 2**24] = 0
        mask, chunk = zeros.id.read_direct_chunk((0,))
        for start in range(2**24, 2**29, 2**24):
            zeros.id.write_direct_chunk((start,), chunk, mask)


def hdf5_claim(path: Path) -> None:
    """A dataset of 2^60 numbers, none of which are there."""
    with h5py.File(path, "w") as file:
        file.create_dataset("node/weight", (2**60,), "f8", chunks=(2**20,))


def hdf5_input(path: Path) -> None:
    """An Input that declares 2^40 numbers."""
    path.write_bytes((CORPUS / "nir" / "nested.nir").read_bytes())
    with h5py.File(path, "r+") as file:
        del file["node/nodes/input/shape"]
        file["node/nodes/input/shape"] = np.array([2**20, 2**20])


def hdf5_text(path: Path) -> None:
    """A name of a node that claims to be 4 GiB long, as a fuzzer has found."""
    path.write_bytes((CORPUS / "nir" / "mlp.nir").read_bytes())
    with h5py.File(path) as file:
        offset = file["node/edges"].id.get_offset()
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\xff\xff\xff\xff")


def pt_view(path: Path) -> None:
    """A number that claims to be ten thousand million."""
    _checkpoint(path, torch.zeros(1).expand(10**10))


def pt_sparse(path: Path) -> None:
    """One number of 10^18."""
    place = torch.zeros(2, 1, dtype=torch.long)
    size = (10**9, 10**9)
    _checkpoint(path, torch.sparse_coo_tensor(place, torch.ones(1), size, check_invariants=True))


def pt_meta(path: Path) -> None:
    """A million million numbers, without any."""
    _checkpoint(path, torch.empty(10**12, device="meta"))


def pt_packed(path: Path) -> None:
    """4 GiB of zeros in a zip of a few MB, as torch never writes it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            with archive.open(f"archive/data/{number}", "w", force_zip64=True) as entry:
                for _ in range(256):
                    entry.write(bytes(2**20))


def onnx_claim(path: Path) -> None:
    """Weights of 2^40 numbers, none of which are there."""
    model = onnx.load(CORPUS / "onnx" / "mlp.onnx")
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend([2**20, 2**20])
    tensor.raw_data = b""
    path.write_bytes(model.SerializeToString())


def onnx_constant(path: Path) -> None:
    """A node that makes 2^40 numbers out of one shape."""
    model = onnx.load(CORPUS / "onnx" / "mlp.onnx")
    shape = onnx.numpy_helper.from_array(np.array([2**20, 2**20]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["shape"], ["many"]))
    path.write_bytes(model.SerializeToString())


def _checkpoint(path: Path, tensor: torch.Tensor) -> None:
    content = torch.load(CORPUS / "pt" / "mlp.pt", weights_only=True)  # noqa: TID251
    content["state"]["body.1.weight"] = tensor
    torch.save(content, path)


BOMBS = {
    "packed.nir": hdf5_bomb,
    "claim.nir": hdf5_claim,
    "input.nir": hdf5_input,
    "text.nir": hdf5_text,
    "view.pt": pt_view,
    "sparse.pt": pt_sparse,
    "meta.pt": pt_meta,
    "packed.pt": pt_packed,
    "claim.onnx": onnx_claim,
    "constant.onnx": onnx_constant,
}


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs /proc")
def test_bombs_are_refused_within_one_gibibyte(tmp_path: Path) -> None:
    places = []
    for name, make in BOMBS.items():
        make(tmp_path / name)
        assert (tmp_path / name).stat().st_size < 8 * 2**20
        places.append(str(tmp_path / name))
    whole = [str(next((CORPUS / kind).iterdir())) for kind in READERS]
    lines = said(LIMITED, *places, *whole)
    words = [line.split()[0] for line in lines]
    assert words == ["refused"] * len(places) + ["accepted"] * len(whole), lines


# --------------------------------------------------------------------------- a full disk


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may become larger than 4 KiB, which is what a full disk looks like to a writer."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.usefixtures("small_files")
def test_a_full_disk_keeps_what_was_there(kind: str, tmp_path: Path) -> None:
    target = tmp_path / f"model.{kind}"
    target.write_text("old")
    with pytest.raises(FileError, match=r"model.*cannot be written"):
        WRITERS[kind](target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


# --------------------------------------------------------------------------- signals

WRITING = """
import sys
from pathlib import Path
from msg_deploy import cli, files
import typer
app = typer.Typer()

@app.command()
def write(path: Path) -> None:
    files.write_text(path, "0" * 10_000_000)
    print("started", flush=True)
    with files.replacing(path) as temporary:
        temporary.write_text("half")
        print("half", flush=True)
        __import__("time").sleep(60)

cli._run(app)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_old_file_and_nothing_else(number: int, tmp_path: Path) -> None:
    target = tmp_path / "file"
    with subprocess.Popen(
        [sys.executable, "-c", WRITING, str(target)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts jobs in the background with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout
        assert process.stderr
        assert [process.stdout.readline() for _ in range(2)] == ["started\n", "half\n"]
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(number)
        assert process.wait(30) in (128 + number, 1)
        assert "Traceback" not in process.stderr.read()
    assert target.stat().st_size == 10_000_000
    assert list(tmp_path.iterdir()) == [target]


# --------------------------------------------------------------------------- several at once


def _write_often(path: Path, letter: str) -> None:
    for _ in range(200):
        write_bytes(path, letter.encode() * 300_000)


def test_writers_at_once_never_mix(tmp_path: Path) -> None:
    """Whoever reads finds the whole file of one of them."""
    target = tmp_path / "file"
    write_bytes(target, b"a" * 300_000)
    start = multiprocessing.get_context("spawn")
    writers = [start.Process(target=_write_often, args=(target, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    seen = set()
    deadline = time.monotonic() + 60
    while any(writer.is_alive() for writer in writers) and time.monotonic() < deadline:
        content = target.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
        seen.add(content[:1])
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert seen <= {b"a", b"b"}
    assert list(tmp_path.iterdir()) == [target]


# --------------------------------------------------------------------------- links, names, places


@pytest.mark.parametrize("kind", WRITERS)
def test_a_link_is_replaced_and_not_followed(kind: str, tmp_path: Path) -> None:
    victim, target = tmp_path / "victim", tmp_path / f"model.{kind}"
    victim.write_text("precious")
    target.symlink_to(victim)
    WRITERS[kind](target)
    assert victim.read_text() == "precious"
    assert not target.is_symlink()


@pytest.mark.parametrize("kind", READERS)
def test_names_of_any_script(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "größe 模型 'x'"
    folder.mkdir()
    path = folder / f"сеть ✓.{kind}"
    WRITERS[kind](path)
    assert READERS[kind](path)
    assert list(folder.iterdir()) == [path]


def test_the_program_with_names_of_any_script(tmp_path: Path) -> None:
    folder = tmp_path / "größe 模型"
    folder.mkdir()
    WRITERS["pt"](folder / "сеть.pt")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "msg_deploy", *arguments]
        return subprocess.run(program, cwd=folder, capture_output=True, text=True)

    for kind in ("nir", "onnx"):
        done = run("export", "сеть.pt", "--to", kind, "-o", f"ausfuhr-é.{kind}")
        assert done.returncode == 0, done.stderr
        checked = run("equivalence-check", "сеть.pt", f"ausfuhr-é.{kind}", "--random", "2")
        assert checked.returncode == 0, checked.stdout + checked.stderr
    assert {p.name for p in folder.iterdir()} == {"сеть.pt", "ausfuhr-é.nir", "ausfuhr-é.onnx"}


READ_ONLY = """
import os, sys
from pathlib import Path
os.chdir(sys.argv[1])
from tests.test_hardening import WRITERS
from msg_deploy.errors import FileError
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for kind, write in WRITERS.items():
    try:
        write(Path("model").with_suffix("." + kind))
    except FileError as error:
        print(kind, error)
"""


def test_read_only_folders() -> None:
    """As a user who may not write; root may write anywhere."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o555)
        lines = said(READ_ONLY, temporary)
        folder.chmod(0o755)
        assert [line.split()[0] for line in lines] == list(WRITERS)
        assert all("cannot be written (Permission denied)" in line for line in lines)
        assert list(folder.iterdir()) == []
