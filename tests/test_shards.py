"""Checks in shards: streamed, shared among processes, interrupted; the result stays the same."""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msg_deploy import api, checkpoint, cli, subjects
from msg_deploy.checking import Settings
from msg_deploy.data import DataOptions, load_dataset
from msg_deploy.data.npz import samples_npz
from msg_deploy.data.recordings import Recording
from msg_deploy.errors import FileError, UsageError
from msg_deploy.exporters.adapters import ForeignNetwork
from msg_deploy.exporters.trace import trace
from msg_deploy.networks import SpikingNetwork
from msg_deploy.samples import identity
from msg_deploy.scale import executors, state
from msg_deploy.scale.executors import WorkerDiedError, processes
from msg_deploy.scale.executors.cluster import cluster as on_cluster
from msg_deploy.scale.job import Carried, Job
from msg_deploy.scale.work import Load, Shard, shards
from msg_deploy.sim.verdict import Comparison, Kind, Verdict, merge, merge_all
from msg_deploy.stimulus import noise
from tests.helpers import random_network, samples
from tests.recordings import bin_bytes
from tests.test_adapters import NORSE, SPEC, STEPS, between
from tests.test_compare import CHANGES
from tests.test_compare_by_hand import comparisons

PROGRAM = Path(sys.executable).with_name("equivalence-check")
Check = Callable[..., Verdict]


@pytest.fixture
def files(trained_file: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint, and a graph that differs from it in one threshold."""
    path = tmp_path / "model.nir"
    api.export(trained_file, path)
    with h5py.File(path, "r+") as content:
        CHANGES["threshold"][0](content)
    return trained_file, path


@pytest.fixture
def check(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Check:
    """Check them in many shards."""
    monkeypatch.setattr(subjects, "LARGEST_BATCH", 32)
    return lambda **options: api.check(*files, precision="float32", **options)


class Stop:
    """Interrupts a check after some shards, and counts those that are run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.run = 10**9, 0
        usual = executors.run_shard

        def run_shard(*arguments: Any) -> Any:
            if self.run >= self.left:
                raise KeyboardInterrupt
            self.run += 1
            return usual(*arguments)

        monkeypatch.setattr(executors, "run_shard", run_shard)

    def after(self, count: int) -> None:
        self.left, self.run = count, 0


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Stop:
    return Stop(monkeypatch)


def same(a: Verdict, b: Verdict) -> None:
    assert a == b
    assert a.diagnosis is not None
    assert a.kind is Kind.DIVERGENT
    assert dataclasses.asdict(a) == dataclasses.asdict(b)


@given(st.lists(comparisons(), min_size=1, max_size=6), st.data())
def test_any_partition_in_any_order_is_the_same(found: list[Comparison], data: Any) -> None:
    # A sample is in one shard only.
    found = [
        dataclasses.replace(c, first=c.first and dataclasses.replace(c.first, sample=i))
        for i, c in enumerate(found)
    ]
    expected = merge_all(found)
    left = data.draw(st.permutations(found))
    while len(left) > 1:
        i = data.draw(st.integers(0, len(left) - 2))
        left[i : i + 2] = [merge(left[i], left[i + 1])]
    assert left == [expected]


def test_not_a_number_stays_in_any_order() -> None:
    one, other = Comparison("a", "b", 1, score_difference=np.nan), Comparison("a", "b", 1)
    assert np.isnan(merge(one, other).score_difference)
    assert np.isnan(merge(other, one).score_difference)


@given(st.integers(1, 1000), st.integers(1, 200))
def test_shards_hold_every_sample_once(total: int, size: int) -> None:
    found = list(shards(total, size))
    assert [i for s in found for i in range(s.first, s.first + s.count)] == list(range(total))
    assert [s.number for s in found] == list(range(len(found)))
    assert {s.count for s in found[:-1]} <= {size}


def test_by_processes_one_of_which_is_killed(
    check: Check, stop: Stop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go on where this process stopped."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kept = tmp_path / "state"
    expected = check()
    stop.after(3)
    with pytest.raises(KeyboardInterrupt):
        check(state=kept)
    seen: list[tuple[int, int]] = []

    def watch(done: int, total: int) -> None:
        if not seen:
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        seen.append((done, total))

    same(expected, check(workers=2, state=kept, on_batch=watch))
    assert len(seen) == 14 - 3
    assert seen[-1] == (424, 424)
    assert not kept.exists()
    assert multiprocessing.active_children() == []
    assert not list(tmp_path.glob("msg-deploy-*"))


def test_models_that_are_no_files(trained: SpikingNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "LARGEST_BATCH", 32)
    deployment = api.open_model(trained).deployment
    data = samples(70)
    alone = api.check(trained, deployment, data=data, random=0)
    assert alone == api.check(trained, deployment, data=data, random=0, workers=1)


def test_models_of_this_process_only(trained: SpikingNetwork, tmp_path: Path) -> None:
    class Here(SpikingNetwork):
        pass

    own = Here(trained.body, trained.readout, trained.input_spec)
    for options in ({"workers": 1}, {"state": tmp_path / "state"}):
        with pytest.raises(UsageError, match=r"Here: cannot be sent .* leave out workers"):
            api.check(own, trained, data=samples(3), random=0, **options)
    foreign = ForeignNetwork(between(NORSE["LIFBox"]), SPEC, STEPS)
    with pytest.raises(UsageError, match="is run in this process only; save or export it"):
        api.check(foreign, foreign, random=3, workers=1)


def test_a_shard_that_kills_its_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Poison:
        def __reduce__(self) -> Any:
            return os._exit, (1,)

    import pickle

    settings = Settings(None, "float32", None, api.RuntimeOptions(), certify=False)
    side = Carried("poison", "", pickled=pickle.dumps(Poison()))
    job = Job("", side, side, settings, {})
    load = Load(Shard(7, 70, 10), samples(10))
    task = executors.Task(None, lambda content: job)  # type: ignore[arg-type]
    monkeypatch.setattr(processes, "MOST_TRIES", 2)
    with pytest.raises(WorkerDiedError, match=r"shard 7 \(samples 70 to 79\)"):
        list(processes.processes(task, [load], 1))
    assert multiprocessing.active_children() == []


@pytest.fixture
def distributed() -> Any:
    return pytest.importorskip("distributed", reason="dask.distributed is not installed")


def test_on_a_cluster_a_worker_of_which_is_killed(
    check: Check, distributed: Any, tmp_path: Path
) -> None:
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        processes=True,
        dashboard_address=":0",
        local_directory=str(tmp_path),
    ) as cluster:
        address = cluster.scheduler_address
        killed: list[int] = []

        def watch(done: int, total: int) -> None:
            if not killed:
                killed.append(next(iter(cluster.workers.values())).pid)
                os.kill(killed[0], signal.SIGKILL)

        expected = check()
        same(expected, check(scheduler=address, on_batch=watch))
        assert killed
        # The files are not needed there; shards that are known by name are not mixed up.
        same(check(seed=1), check(scheduler=address, seed=1))
    assert not list(tmp_path.rglob("msg-deploy-*"))


def test_clusters_that_are_not_there(
    check: Check, distributed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[on_cluster.__module__], "SECONDS", 1)
    with pytest.raises(UsageError, match=r"no scheduler of dask\.distributed answers there"):
        check(scheduler="tcp://127.0.0.1:9")
    with pytest.raises(UsageError, match=r"no scheduler of dask\.distributed answers there"):
        check(scheduler="nonsense")
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        pytest.raises(UsageError, match="has no workers"),
    ):
        check(scheduler=cluster.scheduler_address)


def test_a_cluster_needs_distributed(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install 'msg-deploy\[cluster\]'"):
        check(scheduler="tcp://127.0.0.1:9")


def test_options_that_do_not_go_together(check: Check) -> None:
    with pytest.raises(UsageError, match="workers and scheduler: give one of them"):
        check(workers=2, scheduler="tcp://127.0.0.1:9")
    with pytest.raises(UsageError, match="workers must be at least 1, not 0"):
        check(workers=0)


def test_resume(check: Check, stop: Stop, tmp_path: Path) -> None:
    kept = tmp_path / "state"
    expected = check()
    assert stop.run == 14
    for shards_before in (3, 4):
        stop.after(shards_before)
        with pytest.raises(KeyboardInterrupt):
            check(state=kept)
    assert len(kept.read_text().splitlines()) == 1 + 3 + 4
    # Cut off in the middle of a line, as by a loss of power.
    kept.write_bytes(kept.read_bytes()[:-20])
    stop.after(10**9)
    seen: list[tuple[int, int]] = []
    same(expected, check(state=kept, on_batch=lambda *done: seen.append(done)))
    assert stop.run == 14 - 6
    assert seen[0] == (7 * 32, 424)
    assert seen[-1] == (424, 424)
    assert not kept.exists()


def test_a_state_belongs_to_one_check(
    check: Check, stop: Stop, files: tuple[Path, Path], tmp_path: Path
) -> None:
    kept = tmp_path / "state"
    stop.after(1)
    with pytest.raises(KeyboardInterrupt):
        check(state=kept)
    before = kept.read_bytes()
    for options, named in (
        ({"seed": 1}, "samples was "),
        ({"random": 3}, "samples was "),
        ({"certify": False}, "certify was true, is false"),
        ({"simulators": ["reference"]}, r'simulators was null, is \["reference"\]'),
        ({"data": samples(3)}, "samples was "),
    ):
        with pytest.raises(UsageError, match=rf"belongs to another check: {named}"):
            check(state=kept, **options)
    with h5py.File(files[1], "r+") as content:
        CHANGES["bias"][0](content)
    with pytest.raises(UsageError, match=r"belongs to another check: b was model.nir \(sha256 "):
        check(state=kept)
    assert kept.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("something else\n", "is not the state of a check"),
        ("something else", "is not the state of a check"),
        ('{"kind": "msg-deploy check, version 0", "check": {}}\n', "is of another version"),
        ("[]\n", "is not the state of a check"),
    ],
)
def test_other_files_are_left_alone(
    check: Check, tmp_path: Path, content: str, problem: str
) -> None:
    kept = tmp_path / "state"
    kept.write_text(content)
    with pytest.raises(FileError, match=problem):
        check(state=kept)
    assert kept.read_text() == content


def test_a_damaged_state(check: Check, stop: Stop, tmp_path: Path) -> None:
    kept = tmp_path / "state"
    stop.after(2)
    with pytest.raises(KeyboardInterrupt):
        check(state=kept)
    head, one, _ = kept.read_text().splitlines()
    line = json.loads(one)
    for changed in (
        {**line, "shard": -1},
        {**line, "shard": 14},
        {**line, "found": line["found"][:1]},
        {**line, "found": [{**line["found"][0], "samples": 5}, line["found"][1]]},
        {**line, "found": [{**line["found"][0], "samples": "many"}, line["found"][1]]},
        {**line, "more": 1},
    ):
        kept.write_text(f"{head}\n{json.dumps(changed)}\n")
        with pytest.raises(FileError, match="is damaged"):
            check(state=kept)
    with pytest.raises(FileError, match="cannot be written"):
        check(state=tmp_path / "missing" / "state")


@pytest.mark.parametrize("failing", ["header", "shard", "end"])
def test_a_state_on_a_full_disk(
    tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource", reason="limits files as Unix does")
    task = SimpleNamespace(job=lambda _: SimpleNamespace(described=lambda: {"a": "x" * 100}))
    plan = SimpleNamespace(samples=samples(2), size=2, shards=[])
    most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(FileError, match="state: cannot be written"):
        try:
            if failing == "header":
                resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
            with state.kept(tmp_path / "state", task, plan) as finished:  # type: ignore[arg-type]
                if failing == "shard":
                    size = (tmp_path / "state").stat().st_size
                    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, hard))
                finished.add(0, (Comparison("a", "b", 2),))
                if failing == "end":
                    monkeypatch.setattr(Path, "unlink", full)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))


def test_numbers_are_kept_exactly(tmp_path: Path) -> None:
    found = (Comparison("a", "b", 1, score_difference=0.1 + 0.2, flips=3),)
    line = state.Line(0, found)
    assert state.LINE.validate_json(json.dumps(dataclasses.asdict(line))).found == found
    endless = (Comparison("a", "b", 1, score_difference=np.inf),)
    text = json.dumps(dataclasses.asdict(state.Line(0, endless)))
    assert state.LINE.validate_json(text).found == endless


def test_interrupted_on_the_command_line(
    files: tuple[Path, Path],
    stop: Stop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(subjects, "LARGEST_BATCH", 32)
    kept = tmp_path / "state"

    def code(*options: Any) -> int:
        words = ["equivalence-check", *files, "--no-diagnosis", *options]
        monkeypatch.setattr("sys.argv", list(map(str, words)))
        with pytest.raises(SystemExit) as stopped:
            cli.equivalence_check_main()
        return int(stopped.value.code or 0)

    stop.after(2)
    assert code() == 130
    assert "interrupted: nothing is kept; with --state FILE" in capsys.readouterr().err
    stop.after(2)
    assert code("--state", kept) == 130
    assert f"interrupted: what is done is kept in {kept}" in capsys.readouterr().err
    stop.after(10**9)
    assert code("--state", kept) == 1
    assert stop.run == 12
    assert capsys.readouterr().out.splitlines()[-1].startswith("DIVERGENT")


def test_ctrl_c_ends_all_processes(files: tuple[Path, Path], tmp_path: Path) -> None:
    kept = tmp_path / "state"
    command = [PROGRAM, *files, "--workers", "1", "--state", kept, "--random", "200000"]
    with subprocess.Popen(
        list(map(str, command)),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell starts background jobs, such as this suite may be, with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as program:
        deadline = time.monotonic() + 60
        while not (kept.exists() and kept.read_text().count("\n") > 2):
            assert program.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # As a terminal does: to the whole group.
        os.killpg(program.pid, signal.SIGINT)
        _, told = program.communicate(timeout=30)
    assert program.returncode == 130
    assert told.splitlines()[-1].startswith("interrupted: what is done is kept in ")
    assert "Traceback" not in told
    assert gone(program.pid)


def gone(group: int, seconds: float = 20) -> bool:
    """Whether no process of a group is left, or soon will be."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


LIMITED = """
import resource, sys
import numpy as np
from pathlib import Path
from msg_deploy import api, subjects

data_file, spare = sys.argv[1], int(sys.argv[2])
subjects.LARGEST_BATCH = 16
# Libraries do not count.
assert api.check("model.pt", "model.nir", data=data_file, samples=40, random=0)
status = Path("/proc/self/status").read_text()
used = int(status.split("VmData:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + spare, used + spare))
try:
    np.ones(Path(data_file).stat().st_size, np.uint8)
except MemoryError:
    pass
else:
    sys.exit("the limit does not limit")
verdict = api.check("model.pt", "model.nir", data=data_file, random=0)
assert verdict and verdict.comparisons[0].samples == 1000, verdict
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_data_larger_than_memory(tmp_path: Path) -> None:
    """62 MiB of samples under a limit of 40 MiB more than the program has before it begins."""
    network = random_network(shape=(1, 128, 128), hidden=(4,), steps=2)
    checkpoint.save(network, tmp_path / "model.pt")
    api.export(network, tmp_path / "model.nir")
    np.savez(tmp_path / "data.npz", samples=samples(1000, shape=(1, 128, 128)))
    command = [sys.executable, "-c", LIMITED, "data.npz", str(40 * 2**20)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr


def test_parts_of_noise_are_those_of_the_whole() -> None:
    whole = noise(trace(random_network()), 200, 3)
    everything = whole[:]
    assert everything.shape == (200, 1, 8, 8)
    assert np.array_equal(whole[60:140], everything[60:140])
    assert np.array_equal(whole[[199, 0, 64]], everything[[199, 0, 64]])
    assert not np.array_equal(everything[:64], everything[64:128])
    assert not np.array_equal(everything, noise(trace(random_network()), 200, 4)[:])


def test_arrays_are_read_in_parts(tmp_path: Path) -> None:
    values = samples(50)
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "a.npz", samples=values, labels=np.arange(50))
        read = samples_npz(tmp_path / "a.npz")
        assert len(read) == 50
        assert np.array_equal(read[10:20], values[10:20])
        assert np.array_equal(read[[3, 1]], values[[3, 1]])
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 64)
    np.savez(tmp_path / "b.npz", samples=np.asfortranarray(pixels))
    assert np.array_equal(samples_npz(tmp_path / "b.npz")[:], pixels.astype(np.float32) / 255)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_damaged_array_is_refused(tmp_path: Path, write: Callable[..., None]) -> None:
    path = tmp_path / "a.npz"
    write(path, samples=samples(50))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match="array 'samples' cannot be read"):
        samples_npz(path)


def events(count: int, random: np.random.Generator) -> Recording:
    x, y = random.integers(0, 8, (2, count))
    return Recording(np.sort(random.integers(0, 1000, count)), x, y, random.integers(0, 2, count))


def test_a_data_set_is_streamed_as_it_is_read(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, 256, (60, 1, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", samples=values, labels=np.arange(60) % 3)
    for sample in range(12):
        folder = tmp_path / "recordings" / f"class{sample % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{sample}.bin").write_bytes(bin_bytes(events(40 + sample, random)))
    for name, place in (("npz", "a.npz"), ("events", "recordings")):
        options = DataOptions(directory=str(tmp_path / place), sensor=(8, 8), limit=5)
        data = load_dataset(name, options, 4)
        streamed, whole = data.samples("test"), data.test.samples
        assert len(streamed) == len(whole) > 1
        assert np.array_equal(streamed[:], whole)
        assert np.array_equal(streamed[[1, 0]], whole[[1, 0]])
        assert identity(streamed) == identity(load_dataset(name, options, 4).samples("test"))


@pytest.mark.parametrize("kind", ["events", "npz"])
def test_samples_made_otherwise_are_others(tmp_path: Path, kind: str) -> None:
    random = np.random.default_rng(0)
    found = [events(20, random) for _ in range(12)]
    for sample, one in enumerate(found):
        folder = tmp_path / "events" / f"class{sample % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{sample}.bin").write_bytes(bin_bytes(one))
    arrays = {name: np.concatenate([getattr(one, name) for one in found]) for name in "xypt"}
    arrays |= {"offsets": np.arange(13) * 20, "labels": np.arange(12) % 2}
    np.savez(tmp_path / "npz", **arrays)  # type: ignore[arg-type]
    place = tmp_path / ("events" if kind == "events" else "npz.npz")

    def named(steps: int = 4, **options: Any) -> str:
        chosen = DataOptions(str(place), sensor=(8, 8), **options)
        return identity(load_dataset(kind, chosen, steps).samples("test"))

    assert named() == named(broken="skip")
    others = {
        named(5),
        named(slice_by="time"),
        named(slice_by="time", window=9),
        named(size=(4, 4)),
    }
    assert len({named(), *others}) == 5


def test_broken_recordings_are_left_out_of_the_stream(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for sample in range(12):
        folder = tmp_path / f"class{sample % 2}"
        folder.mkdir(exist_ok=True)
        (folder / f"{sample}.bin").write_bytes(bin_bytes(events(9, random)))
    options = DataOptions(directory=str(tmp_path), sensor=(8, 8), test_fraction=0.5)
    files = load_dataset("events", options, 3).samples("test")
    broken = tmp_path / "class0" / "0.bin"
    broken = broken if broken in files.files else files.files[0]  # type: ignore[attr-defined]
    broken.write_bytes(b"123")
    with pytest.raises(FileError, match=r"truncated.*--broken skip"):
        load_dataset("events", options, 3).samples("test")[:]
    left = load_dataset("events", dataclasses.replace(options, broken="skip"), 3).samples("test")
    assert len(left) == len(files) - 1
    assert left[:].shape == (5, 3, 2, 8, 8)
