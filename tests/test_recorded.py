"""Recordings: written, read, made by hand, refused, and compared with models and each other."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from msg_deploy import api, record, subjects
from msg_deploy.data.npz import samples_npz
from msg_deploy.deployment import Deployment
from msg_deploy.errors import FileError, UsageError
from msg_deploy.exporters.nir import ForeignTiming
from msg_deploy.exporters.trace import trace
from msg_deploy.report.html import verdict_as_html
from msg_deploy.report.junit import verdict_as_junit
from msg_deploy.saved import About, SavedTrace, read, writing
from msg_deploy.sim.compare import layout
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.simulator import Trace
from msg_deploy.sim.verdict import Kind
from msg_deploy.stimulus import encoded
from tests.helpers import random_network, samples
from tests.test_cli import refused, run

Arrays = dict[str, Any]
LAYERS = ("lif1", "lif2")


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    return trace(random_network(hidden=(12, 7)))


def traced(deployment: Deployment, count: int = 6) -> tuple[np.ndarray, Trace]:
    chosen = samples(count)
    return chosen, Reference().run(deployment, encoded(deployment, chosen))


def by_hand(deployment: Deployment, count: int = 6) -> Arrays:
    """What somebody writes who knows nothing but the page of documentation: samples first."""
    chosen, found = traced(deployment, count)
    arrays: Arrays = {"samples": chosen, "scores": found.scores}
    arrays |= {f"spikes_{n}": s.swapaxes(0, 1).astype(bool) for n, s in found.spikes.items()}
    return arrays


def saved(path: Path, arrays: Arrays, **changes: Any) -> Path:
    kept = {name: value for name, value in (arrays | changes).items() if value is not None}
    np.savez(path, **kept)
    return path


def test_what_is_recorded_is_what_ran(deployment: Deployment, tmp_path: Path) -> None:
    found = record(deployment, tmp_path / "trace.npz", random=5, random_float=3)
    assert (found.samples, found.layers, found.simulator) == (8, LAYERS, "reference")
    back = read(found.path)
    assert back.metadata == deployment.metadata
    assert (back.about.precision, back.about.complete) == ("float64", True)
    expected = Reference().run(deployment, encoded(deployment, back.samples))
    again = back.rows(range(8))
    for field in ("spikes", "membranes"):
        for name, values in getattr(expected, field).items():
            np.testing.assert_array_equal(getattr(again, field)[name], values)
    np.testing.assert_array_equal(again.currents, expected.currents)
    np.testing.assert_array_equal(again.scores, expected.scores)
    known, own = layout(deployment), back.layout
    assert (own.order, own.sources) == (known.order, known.sources)
    for name in LAYERS:
        np.testing.assert_array_equal(own.thresholds[name], known.thresholds[name])


def test_any_samples_are_found_again(deployment: Deployment, tmp_path: Path) -> None:
    record(deployment, tmp_path / "trace.npz", random=5)
    back = read(tmp_path / "trace.npz")
    inputs = encoded(deployment, back.samples[[3, 1]])
    np.testing.assert_array_equal(back(inputs).scores, back.rows([3, 1]).scores)
    with pytest.raises(UsageError, match="holds no recording of such a sample"):
        back(inputs + 1)


def test_batches_give_the_same_bytes(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one.npz", tmp_path / "other.npz"
    record(deployment, one, random=9)
    record(deployment, other, random=9)
    assert one.read_bytes() == other.read_bytes()
    monkeypatch.setattr(subjects, "LARGEST_BATCH", 4)
    record(deployment, other, random=9)
    x, y = read(one).rows(range(9)), read(other).rows(range(9))
    assert all(np.array_equal(x.spikes[name], y.spikes[name]) for name in LAYERS)


def test_spikes_take_a_bit(deployment: Deployment, tmp_path: Path) -> None:
    record(deployment, tmp_path / "small.npz", random=64, membranes=False)
    record(deployment, tmp_path / "large.npz", random=64)
    with zipfile.ZipFile(tmp_path / "small.npz") as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        assert not any(name.startswith("membranes_") for name in sizes)
    assert sizes["packed_lif1.npy"] - 128 == 64 * -(-5 * 12 // 8)
    verdict = api.check(tmp_path / "small.npz", tmp_path / "large.npz")
    assert verdict.kind is Kind.IDENTICAL
    assert {layer.membrane_difference for layer in verdict.comparisons[0].layers} == {None}


@pytest.mark.parametrize("left", [True, False])
def test_against_a_model(deployment: Deployment, tmp_path: Path, left: bool) -> None:
    path = tmp_path / "trace.npz"
    record(deployment, path, "norse", random=6)
    sides = (path, deployment) if left else (deployment, path)
    verdict = api.check(*sides, simulators=["fast"] if left else None)
    assert verdict.kind is Kind.PROVEN
    assert verdict.precision == "float64"
    assert [(c.a, c.b) for c in verdict.comparisons] == [
        ("norse (trace.npz)", "fast") if left else ("reference", "norse (trace.npz)")
    ]
    assert api.check(*sides, samples=2).comparisons[0].samples == 2


def test_two_recordings_need_no_graph(deployment: Deployment, tmp_path: Path) -> None:
    one, other = tmp_path / "one.npz", tmp_path / "other.npz"
    arrays = by_hand(deployment)
    saved(one, arrays)
    saved(other, arrays)
    verdict = api.check(one, other)
    assert verdict.kind is Kind.IDENTICAL
    assert verdict.uncertified is None
    flipped = arrays["spikes_lif2"].copy()
    flipped[4, 2, 5] ^= True
    verdict = api.check(one, saved(other, arrays, spikes_lif2=flipped))
    assert verdict.kind is Kind.DIVERGENT
    first = verdict.comparisons[0].first
    assert first is not None
    assert (first.node, first.step, first.sample, first.neuron) == ("lif2", 2, 4, (5,))
    assert verdict.diagnosis is not None
    assert [fault.node for fault in verdict.diagnosis.faulty] == ["lif2"]


def test_a_recording_of_a_chip_is_diagnosed(deployment: Deployment, tmp_path: Path) -> None:
    node = deployment.graph.nodes["lif2"]
    nodes = {**deployment.graph.nodes, "lif2": replace(node, v_threshold=node.v_threshold * 2)}
    graph = nir.NIRGraph(nodes, deployment.graph.edges, metadata={}, type_check=False)
    path = saved(tmp_path / "chip.npz", by_hand(deployment.with_graph(graph)))
    verdict = api.check(deployment, path)
    assert verdict.kind is Kind.DIVERGENT
    assert verdict.diagnosis is not None
    assert [fault.node for fault in verdict.diagnosis.faulty] == ["lif2"]
    assert "threshold" in {c.name for c in verdict.diagnosis.faulty[0].causes}
    assert verdict.diagnosis.reduced is None


@pytest.mark.parametrize(
    ("dropped", "compared", "kind"),
    [
        (("scores",), LAYERS, Kind.PROVEN),
        (("spikes_lif1",), ("lif2",), Kind.IDENTICAL),
        (("spikes_lif1", "scores"), ("lif2",), Kind.IDENTICAL),
        (("spikes_lif1", "spikes_lif2"), (), Kind.IDENTICAL),
    ],
)
def test_what_is_not_recorded_is_not_compared(
    deployment: Deployment,
    tmp_path: Path,
    dropped: tuple[str, ...],
    compared: tuple[str, ...],
    kind: Kind,
) -> None:
    path = saved(tmp_path / "hand.npz", by_hand(deployment), **dict.fromkeys(dropped))
    for sides in ((deployment, path), (path, deployment)):
        verdict = api.check(*sides, simulators=["reference"] if sides[0] is path else None)
        (comparison,) = verdict.comparisons
        assert verdict.kind is kind
        assert tuple(layer.node for layer in comparison.layers) == compared
        unrecorded = [n for n in LAYERS if n not in compared]
        assert comparison.unrecorded == (*unrecorded, *["readout"] * ("scores" in dropped))
        assert ('name="decisions"' in verdict_as_junit(verdict)) == comparison.scored
        assert (">decisions</th>" in verdict_as_html(verdict)) == comparison.scored
    assert verdict.precision == "float32"


def test_scores_come_from_currents(deployment: Deployment, tmp_path: Path) -> None:
    chosen, found = traced(deployment)
    path = saved(
        tmp_path / "hand.npz", {"samples": chosen, "currents": found.currents.swapaxes(0, 1)}
    )
    verdict = api.check(deployment, path)
    assert verdict.kind is Kind.IDENTICAL
    assert 0 <= verdict.comparisons[0].score_difference < 1e-6
    wrong = found.currents.swapaxes(0, 1) + np.eye(10)[3]
    first = api.check(deployment, saved(path, {"samples": chosen, "currents": wrong})).comparisons
    assert first[0].first is not None
    assert first[0].first.node == "fc3"


def test_thresholds_and_membranes_by_hand(deployment: Deployment, tmp_path: Path) -> None:
    _, found = traced(deployment)
    more: Arrays = {f"membranes_{n}": v.swapaxes(0, 1) for n, v in found.membranes.items()}
    more |= {"thresholds_lif1": np.array(0.5), "thresholds_lif2": np.full(7, 0.5)}
    path = saved(tmp_path / "hand.npz", by_hand(deployment), **more)
    verdict = api.check(path, path)
    layers = verdict.comparisons[0].layers
    assert [layer.membrane_difference for layer in layers] == [0, 0]
    assert all(layer.margins and sum(layer.margins) == layer.spikes for layer in layers)


@pytest.mark.parametrize("left", [True, False])
def test_membranes_in_units_of_a_chip(deployment: Deployment, tmp_path: Path, left: bool) -> None:
    _, found = traced(deployment)
    more: Arrays = {f"membranes_{n}": v.swapaxes(0, 1) * 128 for n, v in found.membranes.items()}
    more |= {"thresholds_lif1": np.array(64), "thresholds_lif2": np.full(7, 64)}
    arrays = by_hand(deployment) | more
    path = tmp_path / "chip.npz"
    sides = (path, deployment) if left else (deployment, path)
    saved(path, arrays)
    verdict = api.check(*sides)
    assert verdict.kind is Kind.PROVEN
    wrong = arrays["membranes_lif2"].copy()
    wrong[2, 1, 3] += 1
    saved(path, arrays, membranes_lif2=wrong)
    verdict = api.check(*sides)
    assert verdict.kind is Kind.DIVERGENT
    first = verdict.comparisons[0].first
    assert first is not None
    assert (first.node, first.quantity) == ("lif2", "membrane")
    # Told in the left side's units.
    assert first.b - first.a == pytest.approx(-1 if left else 1 / 128, rel=1e-3)


def test_currents_of_another_width(deployment: Deployment, tmp_path: Path) -> None:
    arrays = by_hand(deployment)
    path = saved(tmp_path / "hand.npz", arrays, currents=np.zeros((6, 5, 3)))
    verdict = api.check(deployment, path)
    assert verdict.kind is Kind.INCOMPARABLE
    assert "currents have shape (5, 6, 10) against (5, 6, 3)" in verdict.comparisons[0].missing


def test_frames(tmp_path: Path) -> None:
    network = trace(random_network(hidden=(12, 7)))
    frames = replace(network, input=replace(network.input, encoding="frames"))
    path = tmp_path / "trace.npz"
    record(frames, path, random=4)
    assert read(path).samples.shape == (4, 5, 1, 8, 8)
    assert api.check(path, frames)


@pytest.mark.parametrize("given", [{"data": samples(2)}, {"random": 3}, {"adversarial": 1}])
def test_other_samples_contradict(
    deployment: Deployment, tmp_path: Path, given: dict[str, Any]
) -> None:
    path = saved(tmp_path / "hand.npz", by_hand(deployment))
    with pytest.raises(UsageError, match=f"leave out --{next(iter(given))}"):
        api.check(deployment, path, **given)
    assert api.check(deployment, path, random=0)
    with pytest.raises(UsageError, match="there is no sample"):
        api.check(deployment, path, samples=0)


def test_two_recordings_of_other_samples(deployment: Deployment, tmp_path: Path) -> None:
    arrays = by_hand(deployment)
    one, other = saved(tmp_path / "one.npz", arrays), tmp_path / "other.npz"
    changed = arrays["samples"].copy()
    changed[3] = 0
    with pytest.raises(UsageError, match="different samples, the first one is number 3"):
        api.check(one, saved(other, arrays, samples=changed))
    fewer = {name: value[:2] for name, value in arrays.items()}
    with pytest.raises(UsageError, match="on the same samples only"):
        api.check(one, saved(other, fewer))


def test_precision_of_a_recording(deployment: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    record(deployment, path, random=3, precision="float32")
    assert api.check(path, deployment).precision == "float32"
    with pytest.raises(UsageError, match="was recorded in float32"):
        api.check(path, deployment, precision="float64")


def test_steps_that_differ(deployment: Deployment, tmp_path: Path) -> None:
    arrays = by_hand(deployment)
    shorter = {n: a[:, :4] if n.startswith("spikes") else a for n, a in arrays.items()}
    verdict = api.check(deployment, saved(tmp_path / "hand.npz", shorter))
    assert verdict.problems == ("timesteps are 5 against 4",)


def test_a_layer_of_another_name_is_not_passed_over(deployment: Deployment, tmp_path: Path) -> None:
    arrays = by_hand(deployment)
    arrays["spikes_neuron"] = arrays.pop("spikes_lif2")
    path = saved(tmp_path / "hand.npz", arrays)
    verdict = api.check(deployment, path)
    assert verdict.kind is Kind.INCOMPARABLE
    assert "perhaps --map lif2=neuron" in verdict.comparisons[0].missing
    assert api.check(deployment, path, mapping={"lif2": "neuron"}).kind is Kind.PROVEN


def header(**fields: Any) -> bytes:
    """An array whose header claims more than there is."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)} | fields
    )
    return content.getvalue()


WRONG: dict[str, tuple[Callable[[Arrays], Arrays], str]] = {
    "no samples": (lambda a: a | {"samples": None}, "is no trace"),
    "nothing recorded": (lambda a: {"samples": a["samples"]}, "is no trace"),
    "unknown array": (lambda a: a | {"spike_lif1": a["scores"]}, "'spike_lif1' is not part"),
    "no layer": (lambda a: a | {"spikes_": a["spikes_lif1"]}, "'spikes_' is not part"),
    "unprintable": (lambda a: a | {"spikes_\n": a["spikes_lif1"]}, "is not part"),
    "objects": (
        lambda a: a | {"scores": np.array([[{}] for _ in a["samples"]])},
        "'scores' must be numbers",
    ),
    "NaN in samples": (lambda a: a | {"samples": a["samples"] * np.nan}, r"samples\[0, 0, 0, 0\]"),
    "too large for float32": (
        lambda a: a | {"samples": a["samples"].astype(float) + 1e300},
        "finite float32",
    ),
    "NaN in scores": (lambda a: a | {"scores": a["scores"] * np.nan}, r"scores\[0, 0\] is nan"),
    "counts": (
        lambda a: a | {"spikes_lif1": a["spikes_lif1"] * 2},
        "spikes_lif1.* is 2; it must be 0 or 1",
    ),
    "fewer rows": (lambda a: a | {"scores": a["scores"][:2]}, "first axis must be that of the 6"),
    "fewer steps": (lambda a: a | {"spikes_lif1": a["spikes_lif1"][:, :2]}, "must be"),
    "no steps": (lambda a: a | {"spikes_lif1": a["spikes_lif1"][:, 0]}, "must be"),
    "membranes of nothing": (
        lambda a: a | {"membranes_x": a["scores"]},
        "none 'spikes_x'",
    ),
    "membranes of another shape": (
        lambda a: a | {"membranes_lif1": a["spikes_lif2"].astype(float)},
        "membranes_lif1 must be",
    ),
    "infinite membranes": (
        lambda a: a | {"membranes_lif1": a["spikes_lif1"] * np.inf},
        "membranes_lif1",
    ),
    "thresholds": (lambda a: a | {"thresholds_lif1": np.ones(3)}, "thresholds_lif1 must be"),
    "packed without steps": (
        lambda a: a | {"packed_x": np.zeros((6, 3), np.uint8)},
        "need the number of steps",
    ),
    "metadata": (lambda a: a | {"trace": np.array('{"format": 2}')}, "'trace': format"),
    "not JSON": (lambda a: a | {"trace": np.array("{")}, "'trace'"),
    "numbers as metadata": (lambda a: a | {"trace": np.zeros(3)}, "'trace' must be a text"),
    "not deterministic": (
        lambda a: a | {"samples": np.repeat(a["samples"][:1], 6, axis=0)},
        "samples 0 and 1 are equal, but",
    ),
}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(deployment: Deployment, tmp_path: Path, name: str) -> None:
    change, problem = WRONG[name]
    path = saved(tmp_path / "hand.npz", change(by_hand(deployment)))
    with pytest.raises(FileError, match=problem) as error:
        read(path)
    assert str(error.value).startswith(str(path))


def test_nothing_is_allocated_that_is_not_there(deployment: Deployment, tmp_path: Path) -> None:
    path = saved(tmp_path / "hand.npz", by_hand(deployment))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("currents.npy", header())
    with pytest.raises(FileError, match="'currents' declares 8796093022208 bytes but has 0"):
        read(path)
    saved(path, by_hand(deployment))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("currents.npy", header(shape=(-1, -8)))
    with pytest.raises(FileError, match="currents"):
        read(path)


def test_zip_bombs_are_not_unpacked(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msg_deploy.saved.MAX_UNPACKED", 10**6)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, **by_hand(deployment), currents=np.zeros((6, 5, 10**5)))
    assert path.stat().st_size < 10**6
    with pytest.raises(FileError, match="unpacks to"):
        read(path)


@pytest.mark.parametrize("cut", [10, 100, 1000])
def test_truncated_files(deployment: Deployment, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "trace.npz"
    record(deployment, path, random=3)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(FileError, match=r"is not a whole \.npz file"):
        read(path)


def test_flipped_bytes_are_no_traceback(deployment: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    record(deployment, path, random=3)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(200):
        content = bytearray(whole)
        for place in random.integers(0, len(content), 3):
            content[place] = random.integers(256)
        path.write_bytes(content)
        try:
            read(path).rows([0, 2])
        except FileError:
            continue


def damaged(path: Path) -> None:
    """A compressed array of other bytes: no block begins so."""
    np.savez_compressed(path, samples=np.zeros((2, 3)), scores=np.zeros((2, 3)))
    content = path.read_bytes()
    start = content.index(b"samples.npy") + len("samples.npy") + content[28]
    path.write_bytes(content[:start] + b"\xff" * 8 + content[start + 8 :])


def unclosed(path: Path) -> None:
    """A header with a parenthesis that is not closed, in a file that is whole."""
    content = io.BytesIO()
    np.save(content, np.zeros((2, 3)))
    array = content.getvalue().replace(b"(2, 3), }", b"((2, 3),  ")
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("samples", "scores"):
            archive.writestr(f"{name}.npy", array)


@pytest.mark.parametrize("write", [damaged, unclosed])
def test_damaged_arrays_are_no_traceback(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "a.npz"
    write(path)
    for reading in (read, samples_npz):
        with pytest.raises(FileError, match=r"a\.npz: .*(not a whole|cannot be read)"):
            reading(path)


def test_arrays_without_their_ending(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    content = io.BytesIO()
    np.save(content, np.zeros((2, 3)))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("samples", content.getvalue())
    with pytest.raises(FileError, match="'samples' cannot be read"):
        samples_npz(path)


def test_two_arrays_of_a_name(deployment: Deployment, tmp_path: Path) -> None:
    path = saved(tmp_path / "hand.npz", by_hand(deployment))
    content = io.BytesIO()
    np.save(content, np.zeros((6, 10)))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("scores.npy", content.getvalue())
    with pytest.raises(FileError, match="two arrays 'scores'"):
        read(path)


def test_a_failed_recording_leaves_what_was_there(deployment: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    path.write_text("precious")
    chosen, found = traced(deployment)
    with pytest.raises(RuntimeError), writing(path, About(), layout(deployment)) as add:
        add(chosen, found)
        raise RuntimeError
    assert path.read_text() == "precious"
    assert [p.name for p in tmp_path.iterdir()] == ["trace.npz"]
    with pytest.raises(UsageError, match=r"is written as \.npz"):
        record(deployment, tmp_path / "trace.txt")
    with pytest.raises(FileError, match="cannot be written"):
        record(deployment, tmp_path / "nowhere" / "trace.npz")
    with pytest.raises(UsageError, match="no sample"):
        record(deployment, path, samples=0, random=0)


def test_a_recording_is_not_recorded(deployment: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    record(deployment, path, random=2)
    with pytest.raises(UsageError, match="is a recording already"):
        record(path, tmp_path / "other.npz")
    with pytest.raises(UsageError, match="which no simulator runs"):
        api.check(deployment, path, simulators=["fast"])
    with pytest.raises(UsageError, match="which no simulator runs"):
        api.check(path, deployment, left_simulator="fast")


@pytest.mark.parametrize(
    ("platform", "kind", "cause"),
    [
        ("exact", Kind.PROVEN, None),
        ("nengo", Kind.PROVEN, None),
        ("norse", Kind.PROVEN, None),
        ("snntorch", Kind.PROVEN, None),
        ("spinnaker2", Kind.PROVEN, None),
        ("lava_cpu_float", Kind.DIVERGENT, "step-delay"),
        ("lava_loihi_fixed", Kind.DIVERGENT, "step-delay"),
        ("spyx", Kind.DIVERGENT, "step-delay"),
    ],
)
def test_what_others_recorded(
    paper_lif: Path, tmp_path: Path, platform: str, kind: Kind, cause: str | None
) -> None:
    """The NIR paper's neuron on other platforms and chips, some of which spike a step later."""
    table = np.loadtxt(paper_lif / f"lif_{platform}.csv", delimiter=",")
    given, _, spikes = (column.reshape(1, 1000, 1) for column in table.T)
    path = saved(tmp_path / "theirs.npz", {"samples": given, "spikes_1": spikes})
    timing = ForeignTiming(1e-4, 1000, "zero")
    verdict = api.check(paper_lif / "lif_norse.nir", path, foreign=timing)
    assert verdict.kind is kind, verdict
    if cause:
        assert verdict.diagnosis is not None
        assert cause in {found.name for found in verdict.diagnosis.faulty[0].causes}


@pytest.mark.slow
def test_other_processes_read_recordings_too(deployment: Deployment, tmp_path: Path) -> None:
    """The right side is renamed there as well."""
    arrays = by_hand(deployment)
    arrays["spikes_neuron"] = arrays.pop("spikes_lif2")
    path = saved(tmp_path / "hand.npz", arrays)
    api.export(deployment, tmp_path / "model.nir")
    model = tmp_path / "model.nir"
    verdict = api.check(model, path, mapping={"lif2": "neuron"}, workers=1)
    assert verdict.kind is Kind.PROVEN
    assert verdict.comparisons[0].samples == 6


def test_pages_of_recordings(deployment: Deployment, tmp_path: Path) -> None:
    arrays = by_hand(deployment)
    del arrays["spikes_lif1"], arrays["scores"]
    arrays["spikes_lif2"][3, 1, 2] ^= True
    path = saved(tmp_path / "hand.npz", arrays)
    for sides in ((deployment, path), (path, path)):
        verdict = api.check(*sides, illustrate=True)
        page = verdict_as_html(verdict)
        assert "lif2" in page
        assert verdict_as_junit(verdict)
    lines = str(api.check(deployment, path)).splitlines()
    (told,) = (line for line in lines if "not recorded on both sides, so not compared: " in line)
    assert set(told.split(": ")[-1].split(", ")) == {"lif1", "readout"}


def test_uncompressed_arrays_are_read_in_place(deployment: Deployment, tmp_path: Path) -> None:
    record(deployment, tmp_path / "trace.npz", random=2)
    found: SavedTrace = read(tmp_path / "trace.npz")
    assert isinstance(found.arrays["membranes_lif1"], np.memmap)


@pytest.mark.slow
def test_programs(deployment: Deployment, tmp_path: Path) -> None:
    api.export(deployment, tmp_path / "model.nir")
    command = ("msg-deploy", "record", "model.nir", "-o", "trace.npz", "--random", 4)
    recorded = run(*command, "--with", "fast", cwd=tmp_path)
    assert recorded.stdout == ("wrote trace.npz: 4 samples, 2 spiking layers, fast in float64\n"), (
        recorded
    )
    data = json.loads(run(*command, "--json", "--no-membranes", cwd=tmp_path).stdout)
    assert (data["path"], data["samples"], data["simulator"]) == ("trace.npz", 4, "reference")
    checked = run("equivalence-check", "trace.npz", "model.nir", "--with", "fast", cwd=tmp_path)
    assert checked.returncode == 0, checked
    assert "reference (trace.npz) against fast, 4 samples" in checked.stdout
    shown = run("msg-deploy", "inspect", "trace.npz", cwd=tmp_path)
    assert "recording of reference, precision float64" in shown.stdout
    assert json.loads(run("msg-deploy", "inspect", "trace.npz", "--json", cwd=tmp_path).stdout)[
        "samples"
    ] == [4, 1, 8, 8]
    check = ("equivalence-check", "trace.npz", "model.nir")
    refused(run(*check, "--random", 3, cwd=tmp_path), "trace.npz", "--random")
    (tmp_path / "trace.npz").write_bytes(b"PK")
    refused(run(*check, cwd=tmp_path), "trace.npz", "not a whole .npz file")
    refused(run(*command[:-2], "--with", "magic", cwd=tmp_path), "'magic'", "reference")
