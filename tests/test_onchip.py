"""Networks on chips, from the command line and in Python; a vendor's model that agrees or not."""

from __future__ import annotations

import json
import sys
import types
from io import BytesIO
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from msg_deploy import checkpoint, cli
from msg_deploy.data import load_dataset
from msg_deploy.deployment import InputSpec, IntegerForm, Provenance, Readout
from msg_deploy.errors import FileError, UsageError
from msg_deploy.exporters.targets import generic_int8, target
from msg_deploy.files import write_folder
from msg_deploy.onchip import show
from msg_deploy.onchip import vendor as vendors
from msg_deploy.onchip.check import ChipKind, check_on_chip, verdict_as_data
from msg_deploy.onchip.export import DoesNotFitError, export_to_chip
from msg_deploy.onchip.fit import fit, fit_as_data
from msg_deploy.onchip.prepare import Job
from msg_deploy.onchip.simulator import ChipSimulator
from msg_deploy.report.chip import chip_as_html
from msg_deploy.stimulus import encoded, samples_of
from msg_deploy.train import TrainingOptions, train
from msg_deploy.zoo import build
from tests.helpers import chain, lif, random_network

CORE = Job("generic_int8", samples=40)


@pytest.fixture(scope="module")
def integrating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network without leaks, which the generic core computes exactly; it knows its data."""
    data = load_dataset("digits")
    provenance = Provenance(data=data.name, classes=data.classes)
    network = build("mlp", data.input, 10, 4, provenance=provenance, hidden=(32,), tau=float("inf"))
    train(network, data, TrainingOptions(epochs=2))
    path = tmp_path_factory.mktemp("chips") / "if.pt"
    checkpoint.save(network, path)
    return path


def run(*arguments: str | Path) -> int:
    """The program; its exit code."""
    before, sys.argv = sys.argv, ["msg-deploy", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


# --------------------------------------------------------------------------- in Python


def test_a_network_that_fits(integrating: Path) -> None:
    found = fit(integrating, CORE, measure=True)
    assert found
    assert found.quantized_here
    assert [layer.name for layer in found.layers] == ["lif1", "fc2"]
    first = found.layers[0]
    assert (first.neurons, first.fan_in, first.fan_out, first.synapses) == (32, 64, 10, 2048)
    assert first.cores == ("core 0",)
    effect = found.effect
    assert effect is not None
    assert effect.samples == 40
    assert effect.changed == effect.flips_whole == 0
    assert effect.accuracy_chip == effect.accuracy_whole
    assert effect.accuracy is not None
    assert effect.accuracy > 0.5
    assert effect.joules is None


def test_operations_are_counted_by_hand() -> None:
    """One input of 3 synapses, one of 1; each spike of a neuron reaches two outputs."""
    deployment = chain(
        nir.Linear(np.array([[3.0, 0.0], [3.0, 0.0], [3.0, 3.0]])),
        lif((3,), tau=1e-3, v_threshold=1.5),
        nir.Linear(np.ones((2, 3))),
        inputs=[2],
        outputs=[2],
        steps=4,
    )
    deployment = deployment.with_graph(
        deployment.graph,
        input=InputSpec((2,), "frames", 0.0, 1.0, levels=1),
        readout=Readout((1.0, 1.0, 1.0, 1.0), "n2"),
        integers=IntegerForm(8, {}, 1.0),
    )
    frames = np.zeros((1, 4, 2), np.float32)
    frames[0, 0, 0] = 1  # reaches three neurons, all of which spike
    frames[0, 2, 1] = 1  # reaches one, which spikes
    found = fit(deployment, Job("generic_int8", data=frames), measure=True)
    assert found.effect is not None
    assert dict(found.effect.operations) == {
        "spike": 4.0,
        "synaptic operation": 3 + 1 + 4 * 2,
        "neuron update": 5 * 4,
    }
    assert found.effect.accuracy is None
    assert not found.quantized_here


def test_a_leak_is_rounded_and_said(trained_file: Path) -> None:
    verdict = check_on_chip(trained_file, CORE)
    effect = verdict.fit.effect
    assert effect is not None
    # tau = 2 dt: v 2048 / 4096 is cut off, the network in whole numbers is not.
    assert verdict.kind in (ChipKind.EXACT, ChipKind.DIFFERENT)
    assert (verdict.kind is ChipKind.EXACT) == (effect.changed == effect.flips_whole == 0)
    allowed = check_on_chip(trained_file, CORE, allowed=1.0)
    assert allowed.kind in (ChipKind.EXACT, ChipKind.CHANGED)
    assert allowed
    with pytest.raises(UsageError, match="from 0 to 1"):
        check_on_chip(trained_file, CORE, allowed=1.5)


def test_a_network_that_does_not_fit_is_not_written(integrating: Path, tmp_path: Path) -> None:
    network = random_network("mlp", v_reset=0.25)
    with pytest.raises(DoesNotFitError, match=r"v_reset is not 0") as caught:
        export_to_chip(network, CORE, tmp_path / "out")
    assert not caught.value.fit
    assert list(tmp_path.iterdir()) == []
    verdict = check_on_chip(network, CORE)
    assert verdict.kind is ChipKind.DOES_NOT_FIT
    assert not verdict
    assert "DOES NOT FIT" in chip_as_html(verdict)


# --------------------------------------------------------------------------- a vendor's model

SCRIPT = '''
"""A model that agrees with ours, or has one fault."""
import json, sys
from pathlib import Path
import numpy as np

TITLE, INSTALL = "a vendor", ()

def main(folder, given, out):
    known = np.load(folder + "/truth.npz")
    wanted = int(np.load(given)["inputs"].shape[1])
    found = {name: known[name][:, :wanted].copy() for name in known.files}
    mode = Path(folder, "mode").read_text()
    if mode == "spikes":
        found["spikes_lif1"][2, 1, 3] ^= 1
    if mode == "after":
        found["after_fc2"][3, 0, 4] += 1
    if mode == "shape":
        found["spikes_lif1"] = found["spikes_lif1"][1:]
    if mode == "fails":
        raise SystemExit("the licence has run out")
    np.savez(out, **found)

if __name__ == "__main__":
    main(*sys.argv[1:])
'''


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, integrating: Path) -> Any:
    """Sets the mode of a vendor's model of the generic core."""
    script = tmp_path / "fake.py"
    script.write_text(SCRIPT)
    module = types.ModuleType("msg_deploy.onchip.vendors.fake")
    module.TITLE, module.__file__ = "a vendor", str(script)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    python = tmp_path / "chips" / "fake" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(generic_int8.GenericInt8, "vendor", "fake")

    def files(mode: str) -> None:
        def made(self: Any, chip: Any) -> dict[str, bytes]:
            return {"mode": mode.encode(), "truth.npz": truth(chip)}

        def truth(chip: Any) -> bytes:
            stimulus, _ = samples_of(chip.deployment, None, 40, 64, 0, {})
            found = ChipSimulator(chip).run(encoded(chip.deployment, stimulus))
            buffer = BytesIO()
            arrays = {f"spikes_{n}": v for n, v in found.spikes.items()}
            arrays |= {f"after_{n}": v for n, v in found.after.items()}
            np.savez(buffer, **arrays)
            return buffer.getvalue()

        monkeypatch.setattr(generic_int8.GenericInt8, "files", made)

    return files, tmp_path / "chips"


def test_a_vendor_that_agrees(vendor: Any, integrating: Path) -> None:
    files, folder = vendor
    files("agrees")
    verdict = check_on_chip(integrating, CORE, folder)
    assert verdict.kind is ChipKind.EXACT
    assert verdict.vendor is not None
    assert verdict.vendor.samples == 40
    assert verdict.vendor.spikes == 4 * 40 * 32
    assert verdict.vendor.membranes == 4 * 40 * 42
    assert verdict.vendor.first is None
    assert "a vendor: 0 of 5,120 spikes and 0 of 6,720 membranes differ" in chip_as_html(verdict)


@pytest.mark.parametrize(
    ("mode", "what", "place"), [("spikes", "spikes", (2, 1, 3)), ("after", "after", (3, 0, 4))]
)
def test_a_vendor_that_does_not(
    vendor: Any,
    integrating: Path,
    mode: str,
    what: str,
    place: tuple[int, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    files, folder = vendor
    files(mode)
    verdict = check_on_chip(integrating, CORE, folder)
    assert verdict.kind is ChipKind.REFUTED
    assert not verdict
    assert verdict.vendor is not None
    first = verdict.vendor.first
    assert first is not None
    assert (first.what, first.place) == (what, place)
    assert first.ours != first.theirs
    data = json.loads(json.dumps(verdict_as_data(verdict)))
    assert data["kind"] == "REFUTED"
    assert data["vendor"]["spikes_differ"] + data["vendor"]["membranes_differ"] == 1
    assert data["vendor"]["first"]["what"] == what
    assert f"first: {what} of " in chip_as_html(verdict)
    show.print_chip_verdict(verdict)
    told = capsys.readouterr().out
    assert f"first: {what} of " in told
    assert "REFUTED: the vendor's model computes something else" in told


def test_a_vendor_that_fails(vendor: Any, integrating: Path) -> None:
    files, folder = vendor
    files("fails")
    with pytest.raises(vendors.VendorError, match="a vendor failed: the licence has run out"):
        check_on_chip(integrating, CORE, folder)
    files("shape")
    with pytest.raises(vendors.VendorError, match=r"gave shape \(3, 40, 32\) for spikes of 'lif1'"):
        check_on_chip(integrating, CORE, folder)


def test_a_vendor_that_is_not_there(
    vendor: Any, integrating: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(vendors.VENDORS, str(tmp_path / "nowhere"))
    verdict = check_on_chip(integrating, CORE)
    assert verdict.kind is ChipKind.EXACT
    assert verdict.vendor is None
    assert verdict.without_vendor == "a vendor is not installed here; see `make chips`"
    with pytest.raises(UsageError, match=r"holds no fake/bin/python; `make chips` makes it"):
        check_on_chip(integrating, CORE, tmp_path / "nowhere")


# --------------------------------------------------------------------------- folders


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_folder(folder, {"target.json": b"1", "a": b"x"}, "target.json")
    write_folder(folder, {"target.json": b"2"}, "target.json")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"target.json": b"2"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("years of work")
    with pytest.raises(FileError, match=r"is no folder with a target\.json; it is left as it is"):
        write_folder(theirs, {"target.json": b"1"}, "target.json")
    assert (theirs / "thesis.tex").read_text() == "years of work"
    with pytest.raises(FileError, match="cannot be written"):
        write_folder(tmp_path / "no" / "where", {"target.json": b"1"}, "target.json")
    with pytest.raises(FileError, match="cannot be written"):
        write_folder(folder, {"missing/folder": b"", "target.json": b"3"}, "target.json")
    assert (folder / "target.json").read_bytes() == b"2"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "theirs"]


# --------------------------------------------------------------------------- the command line


def test_targets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("targets") == 0
    listed = capsys.readouterr().out
    assert "generic_int8: Generic int8 core" in listed
    assert run("targets", "--json") == 0
    assert {t["name"] for t in json.loads(capsys.readouterr().out)} >= {"generic_int8"}
    assert run("targets", "generic_int8") == 0
    assert "4,096" in capsys.readouterr().out
    assert run("targets", "abacus") == 2
    assert "unknown target 'abacus'" in capsys.readouterr().err


def test_fit(integrating: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "fit.html"
    command = ("fit", integrating, "--target", "generic_int8")
    assert run(*command, "--measure", "--samples", "20", "--html", page) == 0
    told = capsys.readouterr().out
    assert "FITS: Generic int8 core" in told
    assert "of 4,096 neurons" in told
    assert "on the chip, 20 samples" in told
    text = page.read_text()
    assert "FITS" in text
    assert "lif1" in text
    assert "<script" not in text
    assert run(*command, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["fits"]
    assert data["effect"] is None
    assert data == json.loads(json.dumps(fit_as_data(fit(integrating, Job("generic_int8")))))


def test_fit_of_what_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rest.pt"
    checkpoint.save(random_network("mlp", v_reset=0.25), path)
    assert run("fit", path, "--target", "generic_int8") == 1
    told = capsys.readouterr().out
    assert "problem: node 'lif1': v_reset is not 0" in told
    assert told.splitlines()[-1] == "DOES NOT FIT: Generic int8 core"
    assert run("export", path, "--to", "generic_int8") == 1
    assert "DOES NOT FIT" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["rest.pt"]
    assert run("export", path, "--to", "generic_int8", "--json") == 1
    assert json.loads(capsys.readouterr().out)["folder"] is None


def test_export(
    integrating: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("export", integrating, "--to", "generic_int8", "-o", tmp_path / "x") == 2
    assert "nothing is exported for it" in capsys.readouterr().err
    files = {"weights": b"w"}
    monkeypatch.setattr(generic_int8.GenericInt8, "files", lambda self, chip: files)
    assert run("export", integrating, "--to", "generic_int8", "-o", tmp_path / "x") == 0
    assert {p.name for p in (tmp_path / "x").iterdir()} == {"weights", "decode.py", "target.json"}
    assert "wrote" in capsys.readouterr().out
    assert target("generic_int8").name in (tmp_path / "x" / "target.json").read_text()


def test_check(integrating: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("equivalence-check", integrating, "--target", "generic_int8", "--samples", "20")
    assert run(*command, "--html", tmp_path / "check.html") == 0
    told = capsys.readouterr().out
    assert "EXACT: on the chip every spike is that of the network in whole numbers" in told
    assert "EXACT" in (tmp_path / "check.html").read_text()
    assert run(*command, "--json") == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "EXACT"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "name what was exported (B), or a chip: --target."),
        (["--target", "abacus"], "unknown target 'abacus'"),
        (["--target", "generic_int8", "--workers", "2"], "--workers: not together with --target."),
        (["b.nir", "--target", "generic_int8"], "b.nir: with --target there is no B"),
        (["b.nir", "--approximate"], "--approximate: is for a --target only."),
        (["b.nir", "--changed-decisions", "0.1"], "--changed-decisions: is for a --target only."),
    ],
)
def test_bad_usage_of_check(
    integrating: Path, more: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("equivalence-check", integrating, *more) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("to", "more"),
    [
        ("generic_int8", ["--layout", "step"]),
        ("generic_int8", ["--two-fold", "host"]),
        ("nir", ["--approximate"]),
        ("onnx", ["--approximate"]),
    ],
)
def test_options_of_other_formats(
    integrating: Path, to: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", integrating, "--to", to, *more) == 2
    assert f"{more[0]}: not for --to {to}" in capsys.readouterr().err
    assert run("export", integrating, "--to", "abacus") == 2
    assert "--to: unknown format 'abacus'; there are nir, onnx, " in capsys.readouterr().err
